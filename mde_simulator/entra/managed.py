"""Managed identities: where App Service and a virtual machine hand out tokens, over plain HTTP as they do.

After Microsoft's pages "How to use managed identities for App Service" (REST endpoint reference) and
"How to use managed identities on an Azure VM to acquire an access token". The texts of App Service's
errors are as others saw them; what it says to a wrong header is not documented. Knows no sockets.
"""

from __future__ import annotations

import hmac
import json
import uuid
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING

from mde_simulator.entra.entra import Refused
from mde_simulator.entra.identity import DEFAULT
from mde_simulator.http.messages import Request, Response

if TYPE_CHECKING:
    from mde_simulator.entra.identity import Identity
    from mde_simulator.http.journal import Entry

APP_SERVICE, VM = "/msi/token", "/metadata/identity/oauth2/token"
VERSIONS = {APP_SERVICE: "2019-08-01", VM: "2018-02-01"}
IDS = ("client_id", "object_id", "mi_res_id", "msi_res_id", "principal_id")
"""Names of a user-assigned identity in the query; only client ids are known here."""
SYSTEM = "0f6d7c9a-4a53-4d0e-9a39-6d1f2b7e8c55"
HOSTS = ("app_service", "vm")


class NoIdentityError(Exception):
    """The host has no such identity."""


@dataclass
class ManagedIdentity:
    """The endpoints of one host.

    Args:
        identity: Who gives out the tokens.
        system_assigned: Whether the host has an identity of its own.
        client_id: Of the user-assigned identity it also has.
        header: What App Service wants in X-IDENTITY-HEADER.
        url: Where it is.
    """

    identity: Identity
    system_assigned: bool = True
    client_id: str = "9d2b1f8e-63c4-4f1b-8a77-2e5c0d94b3a6"
    header: str = field(default_factory=lambda: uuid.uuid4().hex, repr=False)
    url: str = ""

    def environment(self, kind: str) -> dict[str, str]:
        """The variables by which a client finds it: of "app_service" or "vm".

        Raises:
            ValueError: There is no such kind.
        """
        if kind not in HOSTS:
            msg = f"There is no {kind!r}; there are {', '.join(HOSTS)}."
            raise ValueError(msg)
        if kind == "vm":
            return {"AZURE_POD_IDENTITY_AUTHORITY_HOST": self.url}
        return {"IDENTITY_ENDPOINT": f"{self.url}{APP_SERVICE}", "IDENTITY_HEADER": self.header}

    def answer(self, request: Request, entry: Entry) -> Response:
        """What an endpoint says; how it words it is up to `worded`."""
        refused = _misplaced(request) or self._refused(request) or _malformed(request)
        if refused is not None:
            return refused
        entry.credential = "managed_identity"
        query = dict(request.query)
        try:
            audience = self.identity.audience(query["resource"].rstrip("/") + DEFAULT)
            app = self._app(query)
        except Refused as error:
            return self._no_resource(request, error)
        except NoIdentityError:
            if request.path == VM:
                return _refusal(400, "invalid_request", "Identity not found")
            return _refusal(400, "", "No Managed Identity found for specified ClientId/ResourceId/PrincipalId.")
        return self._given(request.path, audience, app)

    def worded(self, request: Request, response: Response) -> Response:
        """An error in the form of the endpoint that was asked."""
        if request.path == APP_SERVICE and response.status != HTTPStatus.OK:
            return _as_app_service(response)
        return response

    def _refused(self, request: Request) -> Response | None:
        """Whoever has not the right headers may have been made to ask by somebody else."""
        headers = request.headers
        if request.path == APP_SERVICE:
            if not hmac.compare_digest(headers.get("x-identity-header", "").encode(), self.header.encode()):
                return _refusal(401, "", "The header X-IDENTITY-HEADER is missing or wrong.")
        elif headers.get("metadata", "").lower() != "true":
            return _refusal(400, "invalid_request", "Required metadata header not specified")
        elif "x-forwarded-for" in headers:
            return _refusal(400, "invalid_request", "A request with the header X-Forwarded-For is refused")
        return None

    def _app(self, query: dict[str, str]) -> str:
        asked = [query[name] for name in IDS if name in query]
        if not asked and self.system_assigned:
            return SYSTEM
        if not asked or asked[0].lower() != self.client_id or "client_id" not in query:
            raise NoIdentityError
        return self.client_id

    def _no_resource(self, request: Request, error: Refused) -> Response:
        if request.path == APP_SERVICE:
            return _refusal(500, "", "An unexpected error occurred while fetching the AAD token.")
        identity = self.identity
        response = identity.refusal(error.code, identity.tenant_id, resource=error.about)
        response.status = HTTPStatus.BAD_REQUEST
        return response

    def _given(self, path: str, audience: str, app: str) -> Response:
        identity = self.identity
        token, now, life = identity.issue(audience, app), int(identity.clock()), int(identity.token_life)
        said = {
            "access_token": token,
            "expires_on": str(now + life),
            "resource": audience,
            "token_type": "Bearer",
            "client_id": app,
        }
        if path == VM:
            said |= {"expires_in": str(life), "ext_expires_in": str(life), "not_before": str(now), "refresh_token": ""}
        return Response.of(said)


def _misplaced(request: Request) -> Response | None:
    if request.path not in VERSIONS:
        return _refusal(404, "not_found", "There is nothing here.")
    return None if request.method == "GET" else _refusal(405, "method_not_allowed", "GET it.")


def _malformed(request: Request) -> Response | None:
    query = dict(request.query)
    if query.get("api-version") != VERSIONS[request.path]:
        return _refusal(400, "invalid_request", f"api-version is {VERSIONS[request.path]} here")
    if not query.get("resource"):
        return _refusal(400, "invalid_request", "Required audience parameter not specified")
    return None


def _refusal(status: int, error: str, text: str) -> Response:
    return Response.of({"error": error, "error_description": text}, status)


def _as_app_service(response: Response) -> Response:
    """Its own form of an error."""
    try:
        text = json.loads(response.body)["error_description"]
    except (ValueError, KeyError, TypeError):
        return response
    said = {"statusCode": int(response.status), "message": text, "correlationId": str(uuid.uuid4())}
    response.body = json.dumps(said, ensure_ascii=False).encode()
    return response
