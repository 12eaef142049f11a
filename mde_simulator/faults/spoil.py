"""What goes wrong, as responses: the API's errors, and what each kind of fault makes of a response.

`faults.py` says when; this module says what, and `hostile.py` what means harm. It knows neither the
fleet nor sockets.
"""

from __future__ import annotations

import json
import math
import time
from datetime import timedelta
from email.utils import formatdate
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from mde_simulator.defender.quota import DOCUMENTED
from mde_simulator.faults import hostile
from mde_simulator.http.messages import ODATA, Request, Response

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mde_simulator.faults.faults import Fault

ELSEWHERE = "/elsewhere"
"""Where the fault `redirect` leads; a request for it is a violation."""
PAGE = "<!DOCTYPE html>\r\n<html><head><title>{0}</title></head><body><h1>{0}</h1></body></html>\r\n"
GARBAGE = '{"@odata.context": "https://api.securitycenter.microsoft.com/api/$metad\u0000 <<<'


def unauthorized() -> Response:
    """The token is not, or no longer, good."""
    msg = "invalid or expired authorization header"
    response = Response.error(HTTPStatus.UNAUTHORIZED, "Unauthorized", msg)
    response.headers["WWW-Authenticate"] = "Bearer"
    return response


def forbidden(required: Iterable[str], roles: Iterable[str]) -> Response:
    """None of the required application permissions is in the token."""
    msg = (
        f"Missing application roles. API required roles: {', '.join(required)}, application roles: {', '.join(roles)}."
    )
    return Response.error(HTTPStatus.FORBIDDEN, "Forbidden", msg)


def not_found(what: str, id_: str) -> Response:
    """The API's 404 for a resource."""
    return Response.error(HTTPStatus.NOT_FOUND, "ResourceNotFound", f"{what} {id_} was not found")


def too_many(retry_after: str | None, limits: tuple[tuple[int, float], ...] = DOCUMENTED) -> Response:
    """429, with or without Retry-After."""
    allowed = " and ".join(f"{calls} per {timedelta(seconds=seconds)!s:0>8}" for calls, seconds in limits)
    msg = f"API calls quota exceeded! Maximum allowed {allowed}."
    response = Response.error(HTTPStatus.TOO_MANY_REQUESTS, "TooManyRequests", msg)
    if retry_after is not None:
        response.headers["Retry-After"] = retry_after
    return response


def announced(fault: Fault) -> float:
    """How long the Retry-After of a fault really lasts; a date has whole seconds only."""
    if fault.retry_after == "date":
        return max(0.0, math.floor(time.time() + fault.seconds) - time.time())
    return float(math.ceil(fault.seconds))


def _page(status: int) -> Response:
    text = PAGE.format(f"{status} {HTTPStatus(status).phrase}")
    return Response(status, text.encode(), {"Content-Type": "text/html"})


def _throttled(fault: Fault) -> Response:
    if fault.retry_after == "absent":
        return too_many(None)
    if fault.retry_after == "date":
        return too_many(formatdate(math.floor(time.time() + fault.seconds), usegmt=True))
    return too_many(str(math.ceil(fault.seconds)))


def instead(fault: Fault, request: Request, url: str) -> Response | None:
    """What comes in place of the answer; None if the fault changes the answer itself."""
    response = _refusal(fault, request.machine_id) or _nonsense(fault, url) or hostile.instead(fault, request)
    if response is not None:
        response.status = fault.status or response.status
    return response


def _refusal(fault: Fault, machine_id: str | None) -> Response | None:
    match fault.kind:
        case "flapping" | "not_found":
            return not_found("Machine", machine_id or "")
        case "500":
            msg = fault.text or "An internal error occurred."
            return Response.error(500, "InternalServerError", msg)
        case "throttled":
            return _throttled(fault)
        case "forbidden":
            return forbidden(("Software.Read.All",), ("Machine.Read.All",))
        case "unlicensed":
            return Response.error(403, "Forbidden", fault.text or "No Tvm license for the tenant")
    return unauthorized() if fault.kind == "revoked" else None


def _nonsense(fault: Fault, url: str) -> Response | None:
    match fault.kind:
        case "502" | "503" | "504":
            return _page(int(fault.kind))
        case "html" | "sign_in_html":
            body = fault.text or PAGE.format("Sign in")
            return Response(200, body.encode(), {"Content-Type": "text/html"})
        case "garbage":
            return Response(200, (fault.text or GARBAGE).encode(), {"Content-Type": ODATA})
        case "redirect":
            other = f"https://localhost:{urlsplit(url).port}{ELSEWHERE}"
            return Response(302, b"", {"Location": fault.text or other})
    return None


def spoil(response: Response, fault: Fault, url: str) -> Response:
    """Change an answer as the fault says."""
    match fault.kind:
        case "reset" | "cut" | "export_cut":
            response.ending = fault.kind.removeprefix("export_")
        case "slow":
            response.delay += fault.seconds
        case "not_a_list" | "not_an_object" | "no_id" if response.status == HTTPStatus.OK:
            payload = _misshape(json.loads(response.body), fault.kind)
            response.body = json.dumps(payload, ensure_ascii=False).encode()
        case _:
            hostile.spoil(response, fault, url)
    return response


def _misshape(payload: dict[str, object], kind: str) -> object:
    value = payload.get("value")
    if not isinstance(value, list):
        payload.pop("id", None)
        return payload if kind == "no_id" else [payload]
    if kind == "not_a_list":
        payload["value"] = {"unexpected": "an object"}
    elif kind == "not_an_object":
        value.insert(0, "a text")
    else:
        first = dict(value[0]) if value else {"name": "has no id"}
        first.pop("id", None)
        value[:1] = [first]
    return payload
