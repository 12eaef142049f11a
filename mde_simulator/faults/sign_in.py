"""The sign-in service: refused, down, busy, or behind a portal. These never strike API or storage."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mde_simulator.faults.answers import PAGE, page
from mde_simulator.faults.fault import LOGIN, kind
from mde_simulator.http.messages import Response

if TYPE_CHECKING:
    from mde_simulator.faults.fault import Strike


@kind("sign_in", LOGIN, "Entra ID's error `code`", sign_in=True)
def _sign_in(strike: Strike) -> Response:
    return strike.error()


@kind("sign_in_down", "*", "503 from the whole sign-in service; path=*/token: for tokens alone", sign_in=True)
def _down(strike: Strike) -> Response:
    return _busy(strike, 503, 90033)


@kind("sign_in_throttled", LOGIN, "429 from the sign-in service; Retry-After is `seconds`", sign_in=True)
def _throttled(strike: Strike) -> Response:
    return _busy(strike, 429, 90055)


@kind("sign_in_status", LOGIN, "503, or HTTP `status`, without a body that says why", sign_in=True)
def _status(strike: Strike) -> Response:
    return Response(strike.fault.status or 503, b"")


@kind("sign_in_html", LOGIN, "200 with an HTML page, as a portal in between shows it", sign_in=True)
def _html(strike: Strike) -> Response:
    return page(strike.fault.text or PAGE.format("Sign in"))


def _busy(strike: Strike, status: int, code: int) -> Response:
    response = strike.error(strike.fault.text, code)
    response.status = status
    return strike.retry_later(response)
