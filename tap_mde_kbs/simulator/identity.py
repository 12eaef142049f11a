"""The login authority: who may have a token, what is in it, how long it lives.

Plays Microsoft Entra ID for one tenant and one application with a client secret; other credentials
would be further branches of `_credential`. Knows nothing of machines and quotas.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
import uuid
from dataclasses import dataclass, field
from datetime import datetime, timezone
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import unquote_plus

from tap_mde_kbs.simulator.entra import ERRORS
from tap_mde_kbs.simulator.messages import Answer, Request

if TYPE_CHECKING:
    from collections.abc import Callable

AUDIENCE = "https://api.securitycenter.microsoft.com"
OLD_AUDIENCE = "https://securitycenter.onmicrosoft.com/windowsatpservice"
#: Services that every tenant has: their tokens are real, and not for this API.
OTHER_AUDIENCES = ("https://graph.microsoft.com", "https://management.azure.com")
ROLES = ("Machine.Read.All", "Software.Read.All", "Vulnerability.Read.All")
DEFAULT = "/.default"


class Refused(Exception):  # noqa: N818 - it is the name of what happened, not of a defect
    """No token: `code` is the AADSTS number, `about` the resource, scope or grant in question."""

    def __init__(self, code: int, about: str = "") -> None:
        super().__init__(code, about)
        self.code = code
        self.about = about


@dataclass(frozen=True)
class Token:
    """What the API needs to know of a token it is shown."""

    audience: str
    roles: tuple[str, ...]
    expires: float


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@dataclass
class Identity:
    """One tenant, one application. `url` is where both authority and API are reached."""

    token_life: float = 3599
    roles: tuple[str, ...] = ROLES
    clock: Callable[[], float] = time.time
    tenant_id: str = "5b0d9a3c-7f0e-4a52-9d0e-3f6f2f1c8a11"
    client_id: str = "c1a7e2f4-25d1-4b8e-8f5a-90c3d2b1e6f7"
    client_secret: str = "sim8Q~not-a-real-secret_only-for-the-simulator"  # noqa: S105 - the simulator's own
    url: str = ""
    _tokens: dict[str, Token] = field(default_factory=dict, repr=False)
    _void: set[str] = field(default_factory=set, repr=False)

    def answer(self, request: Request) -> Answer:
        """What the authority says."""
        tenant, *rest = request.segments
        path = "/".join(rest).lower()
        try:
            if path in (
                "v2.0/.well-known/openid-configuration",
                ".well-known/openid-configuration",
            ):
                return self._discovery(tenant)
            if path in ("oauth2/v2.0/token", "oauth2/token"):
                if request.method != "POST":
                    return Answer.error(HTTPStatus.METHOD_NOT_ALLOWED, "MethodNotAllowed", "POST it.")
                return self._token(tenant, request)
        except Refused as refused:
            return self.refusal(refused.code, tenant, request.form.get("client_id", ""), refused.about)
        return Answer.error(HTTPStatus.NOT_FOUND, "NotFound", "There is nothing here.")

    def refusal(self, code: int, tenant: str = "", app: str = "", resource: str = "") -> Answer:
        """Entra ID's error body for an AADSTS number."""
        error, text = ERRORS.get(code, ("invalid_request", "Something that nobody wrote down."))
        text = text.format(app=app, tenant=tenant, resource=resource)
        now = datetime.fromtimestamp(self.clock(), timezone.utc).strftime("%Y-%m-%d %H:%M:%SZ")
        trace, correlation = str(uuid.uuid4()), str(uuid.uuid4())
        status = HTTPStatus.UNAUTHORIZED if error == "invalid_client" else HTTPStatus.BAD_REQUEST
        return Answer.of(
            {
                "error": error,
                "error_description": f"AADSTS{code}: {text} Trace ID: {trace} "
                f"Correlation ID: {correlation} Timestamp: {now}",
                "error_codes": [code],
                "timestamp": now,
                "trace_id": trace,
                "correlation_id": correlation,
                "error_uri": f"https://login.microsoftonline.com/error?code={code}",
            },
            status,
        )

    def seen(self, authorization: str) -> Token | None:
        """The token of an Authorization header, if this authority ever gave it out."""
        scheme, _, token = authorization.partition(" ")
        return self._tokens.get(token.strip()) if scheme.lower() == "bearer" else None

    def is_valid(self, authorization: str) -> bool:
        """Whether that token is still good."""
        token = self.seen(authorization)
        text = authorization.partition(" ")[2].strip()
        return token is not None and token.expires > self.clock() and text not in self._void

    def revoke(self) -> None:
        """Every token given out so far is void."""
        self._void.update(self._tokens)

    def _discovery(self, tenant: str) -> Answer:
        if tenant.lower() != self.tenant_id:
            raise Refused(90002)
        base = f"{self.url}/{tenant}"
        return Answer.of(
            {
                "token_endpoint": f"{base}/oauth2/v2.0/token",
                "token_endpoint_auth_methods_supported": [
                    "client_secret_post",
                    "client_secret_basic",
                ],
                "issuer": f"{base}/v2.0",
                "authorization_endpoint": f"{base}/oauth2/v2.0/authorize",
                "response_types_supported": ["code"],
                "scopes_supported": ["openid"],
                "tenant_region_scope": "EU",
            }
        )

    def _token(self, tenant: str, request: Request) -> Answer:
        if tenant.lower() != self.tenant_id:
            raise Refused(90002)
        form = request.form
        if form.get("grant_type") != "client_credentials":
            raise Refused(70003, form.get("grant_type", ""))
        self._credential(request)
        old = "v2.0" not in request.segments
        audience = self._audience(form.get("resource", "") + DEFAULT if old else form.get("scope", ""))
        token = self._issue(audience)
        life = int(self.token_life)
        answer: dict[str, object] = {
            "token_type": "Bearer",
            "expires_in": life,
            "ext_expires_in": life,
        }
        if old:
            answer = {name: str(value) for name, value in answer.items()}
            answer["resource"] = audience
        return Answer.of(answer | {"access_token": token})

    def _credential(self, request: Request) -> None:
        """Check who asks; certificates and federated tokens will be branches here."""
        client, secret = request.form.get("client_id"), request.form.get("client_secret")
        scheme, _, encoded = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "basic":
            try:
                text = base64.b64decode(encoded).decode("utf-8", "replace")
            except ValueError as error:
                raise Refused(7000218) from error
            client, secret = (unquote_plus(part) for part in text.partition(":")[::2])
        if (client or "").lower() != self.client_id:
            raise Refused(700016)
        if secret is None:
            raise Refused(700027 if "client_assertion" in request.form else 7000218)
        if not hmac.compare_digest(secret.encode(), self.client_secret.encode()):
            raise Refused(7000215)

    def _audience(self, scope: str) -> str:
        if not scope:
            raise Refused(900144)
        if not scope.endswith(DEFAULT):
            raise Refused(1002012, scope)
        resource = scope[: -len(DEFAULT)].rstrip("/")
        if resource not in (*self.audiences, *OTHER_AUDIENCES):
            raise Refused(500011, resource)
        return resource

    @property
    def audiences(self) -> tuple[str, ...]:
        """What a token may be made out to for this API to take it."""
        return AUDIENCE, OLD_AUDIENCE, self.url

    def _issue(self, audience: str) -> str:
        now = int(self.clock())
        claims = {
            "aud": audience,
            "iss": f"https://sts.windows.net/{self.tenant_id}/",
            "appid": self.client_id,
            "app_displayname": "tap-mde-kbs (simulated)",
            "tid": self.tenant_id,
            "roles": list(self.roles),
            "tenant_region_scope": "EU",
            "iat": now,
            "nbf": now,
            "exp": now + int(self.token_life),
            "uti": _base64(uuid.uuid4().bytes),
        }
        if not self.roles:
            del claims["roles"]
        parts = ({"typ": "JWT", "alg": "HS256"}, claims)
        signed = ".".join(_base64(json.dumps(part).encode()) for part in parts)
        key = self.client_secret.encode()
        token = f"{signed}.{_base64(hmac.digest(key, signed.encode(), hashlib.sha256))}"
        self._tokens[token] = Token(audience, tuple(self.roles), self.clock() + self.token_life)
        return token
