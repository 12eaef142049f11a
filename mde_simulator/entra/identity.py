"""The login authority: who may have a token, what is in it, how long it lives.

Plays Microsoft Entra ID for one tenant and one application with a client secret, certificates and
federated identities; what these prove is up to `credentials.py`. Knows nothing of machines and quotas.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import time
import uuid
from dataclasses import dataclass, field
from datetime import datetime, timezone
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import unquote_plus

from mde_simulator.entra.credentials import Assertions
from mde_simulator.entra.entra import ERRORS, Refused
from mde_simulator.entra.federation import EXCHANGE, SUBJECT, Issuer
from mde_simulator.entra.tokens import Part, encoded, unsigned
from mde_simulator.http.messages import Request, Response

if TYPE_CHECKING:
    from collections.abc import Callable

    from mde_simulator.http.journal import Entry

AUDIENCE = "https://api.securitycenter.microsoft.com"
OLD_AUDIENCE = "https://securitycenter.onmicrosoft.com/windowsatpservice"
OTHER_AUDIENCES = ("https://graph.microsoft.com", "https://management.azure.com")
"""Services that every tenant has: their tokens are real, and not for this API."""
ROLES = ("Machine.Read.All", "Software.Read.All", "Vulnerability.Read.All")
DEFAULT = "/.default"
BEARER_FORMS = {
    "jwt": "a JSON Web Token with the claim `roles`",
    "no_roles": "the same without that claim, though it grants the roles",
    "odd_roles": "the same with a claim `roles` that is no list",
    "text_roles": "the same with one role, which is a text",
    "no_json": "three parts that hold no JSON",
    "opaque": "a text without any parts",
}
"""What a token looks like to a client, which has to take it as it comes."""


@dataclass(frozen=True)
class Token:
    """What the API needs to know of a token it is shown."""

    audience: str
    roles: tuple[str, ...]
    expires: float


@dataclass
class Identity:
    """One tenant, one application. `url` is where both authority and API are reached.

    What a token grants is in `roles`; `bearer_form`, one of `BEARER_FORMS`, is what can be seen of it.
    """

    token_life: float = 3599
    roles: tuple[str, ...] = ROLES
    clock: Callable[[], float] = time.time
    tenant_id: str = "5b0d9a3c-7f0e-4a52-9d0e-3f6f2f1c8a11"
    client_id: str = "c1a7e2f4-25d1-4b8e-8f5a-90c3d2b1e6f7"
    client_secret: str = "sim8Q~not-a-real-secret_only-for-the-simulator"  # noqa: S105 - the simulator's own
    url: str = ""
    bearer_form: str = "jwt"
    assertions: Assertions = field(default_factory=Assertions)
    _tokens: dict[str, Token] = field(default_factory=dict, repr=False)
    _void: set[str] = field(default_factory=set, repr=False)

    def __post_init__(self) -> None:
        if self.bearer_form not in BEARER_FORMS:
            msg = f"There is no bearer form {self.bearer_form!r}; there are {', '.join(BEARER_FORMS)}."
            raise ValueError(msg)

    @property
    def given(self) -> int:
        """How many tokens were given out; how many were asked for says the journal."""
        return len(self._tokens)

    def register_certificate(self, pem: bytes) -> str:
        """Let the application sign in with a certificate, as when one is uploaded in the portal.

        Args:
            pem: The certificate, the first one if there are several; a private key in it is not looked at.

        Returns:
            Its SHA-1 thumbprint, in hex.

        Raises:
            ValueError: There is no certificate in it, or its key is not RSA.
        """
        return self.assertions.register(pem)

    def federate(self, issuer: Issuer, subject: str = SUBJECT, audience: str = EXCHANGE) -> None:
        """Let the application sign in with that issuer's tokens about this subject."""
        self.assertions.federate(issuer, subject, audience)

    def answer(self, request: Request, entry: Entry) -> Response:
        """What the authority says; how the caller proved who it is goes into the journal's entry."""
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
                    return Response.error(HTTPStatus.METHOD_NOT_ALLOWED, "MethodNotAllowed", "POST it.")
                return self._token(tenant, request, entry)
        except Refused as refused:
            app = request.form.get("client_id", "")
            return self.refusal(refused.code, tenant, app, refused.about, detail=refused.detail)
        return Response.error(HTTPStatus.NOT_FOUND, "NotFound", "There is nothing here.")

    def refusal(  # noqa: PLR0913 - what Entra ID's texts speak of, each by its name
        self, code: int, tenant: str = "", app: str = "", resource: str = "", *, detail: str = "", text: str = ""
    ) -> Response:
        """Entra ID's error body for an AADSTS number, with `detail` after its text, or `text` instead."""
        error, usual = ERRORS.get(code, ("invalid_request", "Something that nobody wrote down."))
        usual = usual.format(app=app, tenant=tenant, resource=resource)
        text = text or " ".join(part for part in (usual, detail) if part)
        now = datetime.fromtimestamp(self.clock(), timezone.utc).strftime("%Y-%m-%d %H:%M:%SZ")
        trace, correlation = str(uuid.uuid4()), str(uuid.uuid4())
        status = HTTPStatus.UNAUTHORIZED if error == "invalid_client" else HTTPStatus.BAD_REQUEST
        return Response.of(
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

    def _discovery(self, tenant: str) -> Response:
        if tenant.lower() != self.tenant_id:
            raise Refused(90002)
        base = f"{self.url}/{tenant}"
        return Response.of(
            {
                "token_endpoint": f"{base}/oauth2/v2.0/token",
                "token_endpoint_auth_methods_supported": [
                    "client_secret_post",
                    "client_secret_basic",
                    "private_key_jwt",
                ],
                "issuer": f"{base}/v2.0",
                "authorization_endpoint": f"{base}/oauth2/v2.0/authorize",
                "response_types_supported": ["code"],
                "scopes_supported": ["openid"],
                "tenant_region_scope": "EU",
            }
        )

    def _token(self, tenant: str, request: Request, entry: Entry) -> Response:
        if tenant.lower() != self.tenant_id:
            raise Refused(90002)
        form = request.form
        if form.get("grant_type") != "client_credentials":
            raise Refused(70003, form.get("grant_type", ""))
        old = "v2.0" not in request.segments
        self._credential(request, entry, f"{self.url}/{tenant}/oauth2/{'' if old else 'v2.0/'}token")
        audience = self.audience(form.get("resource", "") + DEFAULT if old else form.get("scope", ""))
        token = self.issue(audience)
        life = int(self.token_life)
        response: dict[str, object] = {
            "token_type": "Bearer",
            "expires_in": life,
            "ext_expires_in": life,
        }
        if old:
            response = {name: str(value) for name, value in response.items()}
            response["resource"] = audience
        return Response.of(response | {"access_token": token})

    def _credential(self, request: Request, entry: Entry, endpoint: str) -> None:
        """Check who asks."""
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
        if "client_assertion" in request.form:
            self.assertions.check(request.form, endpoint, self.clock(), entry)
            return
        if secret is None:
            raise Refused(7000218)
        entry.credential = "client_secret"
        if not hmac.compare_digest(secret.encode(), self.client_secret.encode()):
            raise Refused(7000215)

    def audience(self, scope: str) -> str:
        """Whom a token for this scope is for.

        Raises:
            Refused: There is no such service in the tenant.
        """
        if not scope:
            raise Refused(900144, "scope")
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

    def issue(self, audience: str, app: str = "") -> str:
        """A new token, for this application unless for another one."""
        now = int(self.clock())
        claims = {
            "aud": audience,
            "iss": f"https://sts.windows.net/{self.tenant_id}/",
            "appid": app or self.client_id,
            "app_displayname": "tap-mde-kbs (simulated)",
            "tid": self.tenant_id,
            "roles": list(self.roles),
            "tenant_region_scope": "EU",
            "iat": now,
            "nbf": now,
            "exp": now + int(self.token_life),
            "uti": encoded(uuid.uuid4().bytes),
        }
        if not self.roles:
            del claims["roles"]
        token = self._written(claims)
        self._tokens[token] = Token(audience, tuple(self.roles), self.clock() + self.token_life)
        return token

    def _written(self, claims: Part) -> str:
        """The token in its form, always another one."""
        if self.bearer_form == "opaque":
            return encoded(os.urandom(120))
        if self.bearer_form == "no_json":
            return ".".join(encoded(os.urandom(40)) for _ in range(3))
        if self.bearer_form == "no_roles":
            claims.pop("roles", None)
        elif self.bearer_form == "odd_roles":
            claims["roles"] = 7
        elif self.bearer_form == "text_roles":
            claims["roles"] = self.roles[0]
        text = unsigned({"typ": "JWT", "alg": "HS256"}, claims)
        key = self.client_secret.encode()
        return f"{text}.{encoded(hmac.digest(key, text.encode(), hashlib.sha256))}"
