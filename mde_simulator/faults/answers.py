"""Ordinary trouble: errors of the API and of gateways, broken connections, and odd answers."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from mde_simulator.defender import errors
from mde_simulator.faults.fault import API, KBS, LIST, kind, of_payload
from mde_simulator.http.messages import ODATA, Response

if TYPE_CHECKING:
    from mde_simulator.faults.fault import Strike

ELSEWHERE = "/elsewhere"
"""Where the fault `redirect` leads; a request for it is a violation."""
PAGE = "<!DOCTYPE html>\r\n<html><head><title>{0}</title></head><body><h1>{0}</h1></body></html>\r\n"
GARBAGE = '{"@odata.context": "https://api.securitycenter.microsoft.com/api/$metad\u0000 <<<'


def page(text: str, status: int = HTTPStatus.OK) -> Response:
    """A page of HTML."""
    return Response(status, text.encode(), {"Content-Type": "text/html"})


@kind("not_found", KBS, "404 for a machine that exists")
@kind("flapping", KBS, "404 for a machine that exists, twice for each; then an answer", times=2, each=True)
def _not_found(strike: Strike) -> Response:
    return errors.not_found("Machine", strike.request.machine_id or "")


@kind("500", API, "InternalServerError")
def _server_error(strike: Strike) -> Response:
    return errors.of_status(500, strike.fault.text or "An internal error occurred.")


@kind("504", API, "a gateway's HTML page")
@kind("503", API, "a gateway's HTML page")
@kind("502", API, "a gateway's HTML page")
def _gateway(strike: Strike) -> Response:
    status = HTTPStatus(int(strike.fault.kind))
    return page(PAGE.format(f"{status.value} {status.phrase}"), status)


@kind("cut", API, "the connection ends in the middle of the body")
@kind("reset", API, "the connection is reset instead of an answer")
def _broken(strike: Strike) -> Response:
    response = strike.answer()
    response.ending = strike.fault.kind
    return response


@kind("html", API, "200 with an HTML page")
def _html(strike: Strike) -> Response:
    return page(strike.fault.text or PAGE.format("Sign in"))


@kind("garbage", API, "200 with invalid JSON, or with `text`")
def _garbage(strike: Strike) -> Response:
    return Response(HTTPStatus.OK, (strike.fault.text or GARBAGE).encode(), {"Content-Type": ODATA})


@kind("slow", API, "the answer comes `seconds` late")
def _slow(strike: Strike) -> Response:
    response = strike.answer()
    response.delay += strike.fault.seconds
    return response


@kind("throttled", API, "429 although the client kept to its share; Retry-After is `seconds`")
def _throttled(strike: Strike) -> Response:
    return strike.retry_later(errors.too_many(None))


@kind("revoked", API, "401, and every token given out so far is void; once", times=1)
def _revoked(strike: Strike) -> Response:
    strike.tenant.identity.revoke()
    return errors.unauthorized()


@kind("forbidden", API, "403: a role is missing")
def _forbidden(_strike: Strike) -> Response:
    return errors.forbidden(("Software.Read.All",), ("Machine.Read.All",))


@kind("unlicensed", API, "403 with `No Tvm license`")
def _unlicensed(strike: Strike) -> Response:
    return Response.error(403, "Forbidden", strike.fault.text or "No Tvm license for the tenant")


@kind("redirect", API, "302 to `text`, another host")
def _redirect(strike: Strike) -> Response:
    other = f"https://localhost:{urlsplit(strike.tenant.url).port}{ELSEWHERE}"
    return Response(HTTPStatus.FOUND, b"", {"Location": strike.fault.text or other})


@kind("not_a_list", API, "`value` is no list")
@of_payload
def _not_a_list(payload: Any, _strike: Strike) -> object:
    return payload | {"value": {"unexpected": "an object"}} if _has_list(payload) else [payload]


@kind("not_an_object", API, "a record is no object")
@of_payload
def _not_an_object(payload: Any, _strike: Strike) -> object:
    return payload | {"value": ["a text", *payload["value"]]} if _has_list(payload) else [payload]


@kind("no_id", API, "a record has no id")
@of_payload
def _no_id(payload: Any, _strike: Strike) -> object:
    if not _has_list(payload):
        return {name: value for name, value in payload.items() if name != "id"}
    first, *others = payload["value"] or [{"name": "has no id"}]
    return payload | {"value": [{name: value for name, value in first.items() if name != "id"}, *others]}


@kind("text_group_id", f"{LIST}*", "`rbacGroupId` is a text, as the documentation has it; the metadata says a number")
@of_payload
def _text_group_id(payload: Any, _strike: Strike) -> object:
    for record in payload["value"] if _has_list(payload) else [payload]:
        if isinstance(record, dict) and record.get("rbacGroupId") is not None:
            record["rbacGroupId"] = str(record["rbacGroupId"])
    return payload


def _has_list(payload: Any) -> bool:
    return isinstance(payload.get("value"), list)
