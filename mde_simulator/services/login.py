"""The services that give out tokens: the login authority, and the endpoints of managed identities."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from mde_simulator.services.service import FaultyService

if TYPE_CHECKING:
    from mde_simulator.entra.managed import ManagedIdentity
    from mde_simulator.faults.faults import Faults
    from mde_simulator.http.journal import Entry
    from mde_simulator.http.messages import Request, Response
    from mde_simulator.tenant import Tenant


class LoginService(FaultyService):
    """The login authority."""

    def __init__(self, tenant: Tenant, faults: Faults) -> None:
        super().__init__(tenant, faults)
        self._closed_until: dict[str, float] = {}

    @property
    def url(self) -> str:
        """The tenant's: API and authority have one address."""
        return self.tenant.url

    def error(self, request: Request, text: str, status: int, code: int) -> Response:  # noqa: ARG002 - the code decides
        """Entra ID's error body for an AADSTS number."""
        form = request.form
        return self.tenant.identity.refusal(
            code, request.segments[0], form.get("client_id", ""), form.get("scope", ""), text=text
        )

    def close(self, request: Request, seconds: float) -> None:
        """For that time a request for the same path is a violation; it is answered all the same."""
        self._closed_until[request.path] = time.monotonic() + seconds

    def _admit(self, request: Request, entry: Entry) -> Response:
        if request.headers.get("authorization", "").lower().startswith("bearer"):
            self.journal.violation(entry, "a token to the wrong place")
        if time.monotonic() < self._closed_until.get(request.path, 0.0):
            self.journal.violation(entry, "before the sign-in's Retry-After had ended")
        return self._meet(request, entry, lambda: self._token(request, entry))

    def _token(self, request: Request, entry: Entry) -> Response:
        return self.tenant.identity.answer(request, entry)


class ManagedIdentityService(LoginService):
    """The endpoints of a host's managed identities."""

    def __init__(self, tenant: Tenant, faults: Faults, managed: ManagedIdentity) -> None:
        super().__init__(tenant, faults)
        self._managed = managed

    @property
    def url(self) -> str:
        """The host's own."""
        return self._managed.url

    def _admit(self, request: Request, entry: Entry) -> Response:
        return self._managed.worded(request, super()._admit(request, entry))

    def _token(self, request: Request, entry: Entry) -> Response:
        return self._managed.answer(request, entry)
