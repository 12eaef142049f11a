"""What a hostile or broken server answers: without end, far too large, or aimed at terminal and logs.

`faults.py` says when, this module what; bytes that never end are `server.py`'s. It knows neither
the fleet nor sockets.
"""

from __future__ import annotations

import gzip
import json
import zlib
from functools import lru_cache
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from mde_simulator.http.messages import ODATA, Request, Response

if TYPE_CHECKING:
    from mde_simulator.faults.faults import Fault

ELSEWHERE_LINK = "/elsewhere/link"
"""Where the fault `foreign_link` leads; a request for it is a violation."""
CONTROLS = "\x1b]0;owned\x07\x1b[2J\x1b[31m\a\b\rforged\n\u202egnol\x9b1m\x7f"
"""Sets the window's title, clears the screen, turns text red and back, rings, writes over the line, turns the
direction of writing, and a C1 control.
"""
NAMES = ("computerDnsName", "rbacGroupName", "name", "machineTags", "productsNames")
"""Names in the API's records: of machines and groups, of KBs, and lists of names."""
START = b'{"@odata.context": "https://api.securitycenter.microsoft.com/api/$metadata#Machines", "value": ['
PIECE = 16 * 1_048_576
MEGABYTE = 1_048_576
SIZES = {"bomb": 2 * 1024 * MEGABYTE, "long_error": 5 * MEGABYTE, "nested": 100_000, "long_header": MEGABYTE,
         "many_headers": MEGABYTE}  # fmt: skip
"""How large by default, in what `Fault.size` says."""
CODES = {400: "BadRequest", 401: "Unauthorized", 403: "Forbidden", 404: "NotFound", 500: "InternalServerError"}
"""The API's code for a status (`common-errors.md`)."""


def size(fault: Fault) -> int:
    """How large a fault is."""
    return fault.size or SIZES.get(fault.kind, 0)


def message(fault: Fault, request: Request) -> str | None:
    """The text of an error that is hostile by its text; None for other faults."""
    match fault.kind:
        case "long_error":
            text = fault.text or "Something went wrong, and this is the whole story. "
            return (text * (size(fault) // len(text) + 1))[: size(fault)]
        case "control_error":
            return f"Something{fault.text or CONTROLS} went wrong."
        case "echo":
            sent = [f"{name}: {value}" for name, value in request.headers.items()]
            sent.append(request.body.decode("utf-8", "replace"))
            return f"{fault.text or 'This request is refused:'} {'; '.join(sent)}"
    return None


def instead(fault: Fault, request: Request) -> Response | None:
    """What comes in place of the answer; None if the fault is of another sort, or changes the response."""
    text = message(fault, request)
    if text is not None:
        status = fault.status or HTTPStatus.BAD_REQUEST
        return Response.error(status, CODES.get(status, "InternalServerError"), text)
    response = Response(fault.status or HTTPStatus.OK, b"", {"Content-Type": ODATA})
    match fault.kind:
        case "endless":
            response.body, response.ending = START, "endless"
            response.headers["Content-Encoding"] = "identity"
        case "endless_nothing":
            response.body, response.ending = zlib.compress(START), "endless"
            response.headers["Content-Encoding"] = "deflate"
        case "bomb":
            response.headers["Content-Encoding"] = "gzip"
            response.body = bomb(size(fault))
        case "nested":
            depth = size(fault)
            response.body = b'{"value": ' + b"[" * depth + b"]" * depth + b"}"
        case _:
            return None
    return response


@lru_cache(maxsize=4)
def bomb(inflated: int) -> bytes:
    """A gzip of so many spaces in a list that never closes: its members are one and the same."""
    member = gzip.compress(b" " * PIECE, 9, mtime=0)
    return gzip.compress(START, mtime=0) + member * (inflated // PIECE + 1)


def spoil(response: Response, fault: Fault, url: str) -> None:
    """Change an answer as the fault says."""
    match fault.kind:
        case "drip":
            response.ending, response.pace = "drip", fault.seconds
        case "long_header":
            response.headers["X-Filler"] = "x" * size(fault)
        case "many_headers":
            response.headers |= {f"X-Filler-{number}": "x" * 1000 for number in range(size(fault) // 1000 + 1)}
        case "control_names" | "foreign_link" | "foreign_skiptoken_link" if response.status == HTTPStatus.OK:
            payload = json.loads(response.body)
            if fault.kind == "control_names":
                _scrawl(payload, fault.text or CONTROLS)
            else:
                other = f"https://localhost:{urlsplit(url).port}{ELSEWHERE_LINK}"
                payload["@odata.nextLink"] = fault.text or other
            response.body = json.dumps(payload, ensure_ascii=False).encode()
        case _:
            pass


def _scrawl(payload: Any, controls: str) -> None:
    """Put control characters into every name of a response."""
    records = payload.get("value") if isinstance(payload, dict) else None
    for record in records if isinstance(records, list) else [payload]:
        for name in NAMES:
            value = record.get(name)
            if isinstance(value, str):
                record[name] = value + controls
            elif isinstance(value, list):
                record[name] = [f"{item}{controls}" for item in value]
