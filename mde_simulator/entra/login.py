"""The sign-in's door: the rules for whoever asks for a token, and the faults that he meets.

Behind it are the authority (`identity.py`) and, on another port, the managed identity endpoints
(`managed.py`). It knows no sockets.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from mde_simulator.faults import hostile, spoil

if TYPE_CHECKING:
    from collections.abc import Callable

    from mde_simulator.entra.identity import Identity
    from mde_simulator.faults.faults import Fault, Faults
    from mde_simulator.http.journal import Entry, Journal
    from mde_simulator.http.messages import Request, Response

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
BUSY = {"sign_in_down": (503, 90033), "sign_in_throttled": (429, 90055)}
"""The status and the AADSTS number of each kind."""
VIOLATIONS = {
    spoil.ELSEWHERE: "a redirect that was followed",
    hostile.ELSEWHERE_LINK: "a link to another host that was followed",
}


@dataclass
class Login:
    """One door; tokens are given out behind it."""

    identity: Identity
    faults: Faults
    journal: Journal
    _closed: dict[str, float] = field(default_factory=dict, repr=False)

    def check_host(self, request: Request, entry: Entry, url: str) -> None:
        """Whoever asks has to mean this host."""
        port = urlsplit(url).port
        if request.headers.get("host") not in [f"{host}:{port}" for host in LOOPBACK]:
            self.journal.violation(entry, "an unknown host in the header Host")

    def check_path(self, request: Request, entry: Entry) -> None:
        """Some paths are known only to those who follow what they should not."""
        if request.path in VIOLATIONS:
            self.journal.violation(entry, VIOLATIONS[request.path])

    def answer(self, request: Request, entry: Entry, ask: Callable[[Request, Entry], Response]) -> Response:
        """What is said: by `ask`, unless a fault strikes."""
        if request.headers.get("authorization", "").lower().startswith("bearer"):
            self.journal.violation(entry, "a token to the wrong place")
        self.check_path(request, entry)
        if time.monotonic() < self._closed.get(request.path, 0.0):
            self.journal.violation(entry, "before the sign-in's Retry-After had ended")
        fault = self.faults.strike(request.method, "/" + "/".join(request.segments))
        if fault is None:
            return ask(request, entry)
        entry.fault = fault.kind
        instead = self._instead(fault, request)
        if instead is not None:
            return instead
        return spoil.spoil(ask(request, entry), fault, self.identity.url)

    def _instead(self, fault: Fault, request: Request) -> Response | None:
        if fault.kind in BUSY:
            return self._busy(fault, request)
        text = hostile.message(fault, request)
        if fault.kind == "sign_in" or text is not None:
            response = self._refusal(fault.code, request, text or "")
            response.status = fault.status or response.status
            return response
        return spoil.instead(fault, request, self.identity.url)

    def _refusal(self, code: int, request: Request, text: str = "") -> Response:
        form = request.form
        return self.identity.refusal(
            code, request.segments[0], form.get("client_id", ""), form.get("scope", ""), text=text
        )

    def _busy(self, fault: Fault, request: Request) -> Response:
        status, code = BUSY[fault.kind]
        response = self._refusal(code, request, fault.text)
        response.status = fault.status or status
        if fault.retry_after != "absent":
            self._closed[request.path] = time.monotonic() + spoil.announced(fault)
            moment = formatdate(math.floor(time.time() + fault.seconds), usegmt=True)
            response.headers["Retry-After"] = moment if fault.retry_after == "date" else str(math.ceil(fault.seconds))
        return response
