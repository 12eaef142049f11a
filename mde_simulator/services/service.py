"""What all services have in common: the host is checked, a fault may strike, all is written down.

Knows no sockets; `http/server.py` gives requests and takes responses.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from email.utils import formatdate
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from mde_simulator.faults.answers import ELSEWHERE
from mde_simulator.faults.fault import Strike
from mde_simulator.faults.hostile import ELSEWHERE_LINK

if TYPE_CHECKING:
    from collections.abc import Callable

    from mde_simulator.faults.faults import Faults
    from mde_simulator.http.journal import Entry, Journal
    from mde_simulator.http.messages import Request, Response
    from mde_simulator.tenant import Tenant

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
FOLLOWED = {
    ELSEWHERE: "a redirect that was followed",
    ELSEWHERE_LINK: "a link to another host that was followed",
}
"""Paths that are known only to those who follow what they should not."""


class FaultyService(ABC):
    """A service of a tenant that faults may strike."""

    def __init__(self, tenant: Tenant, faults: Faults) -> None:
        self.tenant = tenant
        self._faults = faults

    @property
    def journal(self) -> Journal:
        """The tenant's: one for all services."""
        return self.tenant.journal

    @property
    @abstractmethod
    def url(self) -> str:
        """Where it is."""

    def answer(self, request: Request, entry: Entry) -> Response:
        """What is said to a request."""
        port = urlsplit(self.url).port
        if request.headers.get("host") not in [f"{host}:{port}" for host in LOOPBACK]:
            self.journal.violation(entry, "an unknown host in the header Host")
        response = self._admit(request, entry)
        if request.path in FOLLOWED:
            self.journal.violation(entry, FOLLOWED[request.path])
        response.headers.setdefault("Date", formatdate(self.tenant.clock(), usegmt=True))
        entry.status = None if response.ending == "reset" else response.status
        return response

    @abstractmethod
    def _admit(self, request: Request, entry: Entry) -> Response:
        """What is said by this service's own rules."""

    def _meet(
        self, request: Request, entry: Entry, answer: Callable[[], Response], *, walking: bool = False
    ) -> Response:
        """What is said by `answer`, unless a fault strikes.

        Args:
            request: What was asked.
            entry: Its entry in the journal.
            answer: Called at most once.
            walking: Whether a further page of a list is asked for.
        """
        path = "/" + "/".join(request.segments)
        fault = self._faults.strike(request.method, path, entry.machine_id, walking=walking)
        if fault is None:
            return answer()
        entry.fault = fault.kind
        return Strike(fault, request, self, answer).respond()

    @abstractmethod
    def error(self, request: Request, text: str, status: int, code: int) -> Response:
        """An error as this service words it; see `Struck`."""

    @abstractmethod
    def close(self, request: Request, seconds: float) -> None:
        """Watch that no such request comes before the seconds are over; see `Struck`."""
