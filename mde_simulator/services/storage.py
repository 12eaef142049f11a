"""The storage host as a service: another host than the API, where a token has no business."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from mde_simulator.defender import errors
from mde_simulator.exports import storage
from mde_simulator.services.service import FaultyService

if TYPE_CHECKING:
    from mde_simulator.faults.faults import Faults
    from mde_simulator.http.journal import Entry
    from mde_simulator.http.messages import Request, Response
    from mde_simulator.tenant import Tenant

HEADERS = {"Server": "Windows-Azure-Blob/1.0 Microsoft-HTTPAPI/2.0", "x-ms-version": storage.VERSION}


class StorageService(FaultyService):
    """The storage host."""

    def __init__(self, tenant: Tenant, faults: Faults) -> None:
        super().__init__(tenant, faults)
        self._closed_until = -float("inf")

    @property
    def url(self) -> str:
        """The host's own."""
        return self.tenant.storage.url

    def error(self, request: Request, text: str, status: int, code: int) -> Response:  # noqa: ARG002 - as others need it
        """A message is as hostile here as at the API."""
        return errors.of_status(status, text)

    def close(self, request: Request, seconds: float) -> None:  # noqa: ARG002 - one for all files
        """For that time a request for any file is a violation; it is answered all the same."""
        self._closed_until = time.monotonic() + seconds

    def _admit(self, request: Request, entry: Entry) -> Response:
        if time.monotonic() < self._closed_until:
            self.journal.violation(entry, "before Retry-After had ended")
        if "authorization" in request.headers:
            self.journal.violation(entry, "a token to the wrong place")
            response = storage.error(401, "InvalidAuthenticationInfo", "Authentication information is not expected.")
        else:
            response = self._meet(request, entry, lambda: self.tenant.storage.answer(request))
        response.headers |= HEADERS
        return response
