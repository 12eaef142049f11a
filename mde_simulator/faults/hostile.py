"""A hostile or broken server: answers without end, far too large, or aimed at terminal and logs.

Bytes that never end are `server.py`'s.
"""

from __future__ import annotations

import gzip
import zlib
from functools import lru_cache
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from mde_simulator.faults.fault import API, EXPORT_JSON, LIST, kind, of_payload
from mde_simulator.http.messages import ODATA, Response

if TYPE_CHECKING:
    from mde_simulator.faults.fault import Strike

ELSEWHERE_LINK = "/elsewhere/link"
"""Where the foreign links lead; a request for it is a violation."""
CONTROLS = "\x1b]0;owned\x07\x1b[2J\x1b[31m\a\b\rforged\n\u202egnol\x9b1m\x7f"
"""Sets the window's title, clears the screen, turns text red and back, rings, writes over the line, turns the
direction of writing, and a C1 control.
"""
NAMES = ("computerDnsName", "rbacGroupName", "name", "machineTags", "productsNames")
"""Names in the API's records: of machines and groups, of KBs, and lists of names."""
START = b'{"@odata.context": "https://api.securitycenter.microsoft.com/api/$metadata#Machines", "value": ['
PIECE = 16 * 1_048_576
MEGABYTE = 1_048_576


def _started(body: bytes, encoding: str, ending: str = "whole") -> Response:
    """A body that is encoded already."""
    headers = {"Content-Type": ODATA, "Content-Encoding": encoding}
    return Response(HTTPStatus.OK, body, headers, ending=ending)


@kind("endless", API, "a body that never ends")
def _endless(_strike: Strike) -> Response:
    return _started(START, "identity", "endless")


@kind("endless_nothing", API, "the same, after the end of what is deflated: it inflates to nothing")
def _endless_nothing(_strike: Strike) -> Response:
    return _started(zlib.compress(START), "deflate", "endless")


@kind("bomb", API, "a small body that inflates to `size` bytes, 2 GiB by default", size=2 * 1024 * MEGABYTE)
def _bomb(strike: Strike) -> Response:
    return _started(bomb(strike.size), "gzip")


@lru_cache(maxsize=4)
def bomb(inflated: int) -> bytes:
    """A gzip of a list that never closes, with that many spaces: one member, repeated."""
    member = gzip.compress(b" " * PIECE, 9, mtime=0)
    return gzip.compress(START, mtime=0) + member * (inflated // PIECE + 1)


@kind("nested", API, "JSON that is nested `size` deep, 100,000 by default", size=100_000)
def _nested(strike: Strike) -> Response:
    body = b'{"value": ' + b"[" * strike.size + b"]" * strike.size + b"}"
    return Response(HTTPStatus.OK, body, {"Content-Type": ODATA})


@kind("drip", API, "a byte of the body every `seconds`")
def _drip(strike: Strike) -> Response:
    response = strike.answer()
    response.ending, response.pace = "drip", strike.fault.seconds
    return response


@kind("long_header", API, "a header of `size` bytes, 1 MiB by default", size=MEGABYTE)
def _long_header(strike: Strike) -> Response:
    response = strike.answer()
    response.headers["X-Filler"] = "x" * strike.size
    return response


@kind("many_headers", API, "headers of 1,000 bytes, together `size`, 1 MiB by default", size=MEGABYTE)
def _many_headers(strike: Strike) -> Response:
    response = strike.answer()
    response.headers |= {f"X-Filler-{number}": "x" * 1000 for number in range(strike.size // 1000 + 1)}
    return response


@kind("long_error", API, "400, or `status`, with a message of `size` bytes, 5 MiB by default", size=5 * MEGABYTE)
def _long_error(strike: Strike) -> Response:
    text = strike.fault.text or "Something went wrong, and this is the whole story. "
    return strike.error((text * (strike.size // len(text) + 1))[: strike.size])


@kind("control_error", API, "400, or `status`, with control characters in its message")
def _control_error(strike: Strike) -> Response:
    return strike.error(f"Something{strike.fault.text or CONTROLS} went wrong.")


@kind("echo", API, "400, or `status`, whose message repeats the request, secrets and all")
def _echo(strike: Strike) -> Response:
    sent = [f"{name}: {value}" for name, value in strike.request.headers.items()]
    sent.append(strike.request.body.decode("utf-8", "replace"))
    return strike.error(f"{strike.fault.text or 'This request is refused:'} {'; '.join(sent)}")


@kind("control_names", API, "control characters in the names of machines and KBs")
@of_payload
def _control_names(payload: Any, strike: Strike) -> object:
    controls = strike.fault.text or CONTROLS
    records = payload.get("value") if isinstance(payload, dict) else None
    for record in records if isinstance(records, list) else [payload]:
        for name in NAMES:
            value = record.get(name)
            if isinstance(value, str):
                record[name] = value + controls
            elif isinstance(value, list):
                record[name] = [f"{item}{controls}" for item in value]
    return payload


@kind("foreign_skiptoken_link", EXPORT_JSON, "a next link to `text`, another host")
@kind("foreign_link", LIST, "a next link to `text`, another host")
@of_payload
def _foreign_link(payload: Any, strike: Strike) -> object:
    other = f"https://localhost:{urlsplit(strike.tenant.url).port}{ELSEWHERE_LINK}"
    return payload | {"@odata.nextLink": strike.fault.text or other}
