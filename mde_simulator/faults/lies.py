"""Answers that are well-formed, and odd or not true: what a client must neither stop at nor believe."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from mde_simulator.defender import errors
from mde_simulator.defender.odata import skipped
from mde_simulator.faults.fault import API, KBS, LIST, kind, of_payload

if TYPE_CHECKING:
    from mde_simulator.faults.fault import Effect, Strike
    from mde_simulator.http.messages import Response

GROUP = "Servers"
FAR_DATE = "Fri, 31 Dec 9999 23:59:59 GMT"


@kind("empty", KBS, "200 with an empty list, whatever is missing")
@of_payload
def _empty(payload: Any, _strike: Strike) -> object:
    return payload | {"value": []}


@kind("fewer", KBS, "200 with the first `size` KBs alone, by default one", size=1)
@of_payload
def _fewer(payload: Any, strike: Strike) -> object:
    return payload | {"value": payload["value"][: strike.size]}


@kind("null_value", KBS, "200 in which `value` is null")
@of_payload
def _null_value(payload: Any, _strike: Strike) -> object:
    return payload | {"value": None}


@kind("no_value", KBS, "200 with the envelope and nothing in it")
@of_payload
def _no_value(payload: Any, _strike: Strike) -> object:
    return {name: value for name, value in payload.items() if name != "value"}


@kind("bare_list", KBS, "200 with the list alone, without its envelope")
@of_payload
def _bare_list(payload: Any, _strike: Strike) -> object:
    return payload["value"]


@kind("null_id", KBS, "a KB whose id is null, among the others")
@of_payload
def _null_id(payload: Any, _strike: Strike) -> object:
    nobody = {"id": None, "name": "Security Updates", "productsNames": ["windows_11"], "cveAddressed": 1}
    return payload | {"value": [*payload["value"], nobody]}


@kind("error_in_200", KBS, "200 with the API's error instead of a list")
def _error_in_200(strike: Strike) -> Response:
    response = errors.of_status(500, strike.fault.text or "An internal error occurred.")
    response.status = HTTPStatus.OK
    return response


@kind("kb_twice", KBS, "each KB comes twice, the second time with other products and more CVEs")
@of_payload
def _kb_twice(payload: Any, _strike: Strike) -> object:
    return payload | {"value": [each for kb in payload["value"] for each in (kb, _other(kb))]}


def _other(kb: dict[str, Any]) -> dict[str, Any]:
    more = {"productsNames": ["edge_chromium-based"], "cveAddressed": kb["cveAddressed"] + 5}
    return kb | more | {"machineMissedOn": kb["machineMissedOn"] + 1}


@kind("bare_404", API, "404 without the API's own error, or with `text` as a page")
def _bare_404(strike: Strike) -> Response:
    return errors.bare_not_found(strike.fault.text)


@kind("wrong_date", API, f"the header Date is `date`, by default {FAR_DATE.replace(',', '')}")
def _wrong_date(strike: Strike) -> Response:
    response = strike.answer()
    response.headers["Date"] = FAR_DATE
    return response


@kind("group_gone", f"{LIST}*", f"the machines of the device group `text` are hidden, by default {GROUP}")
def _group_gone(strike: Strike) -> Response:
    fleet, group = strike.tenant.fleet, strike.fault.text or GROUP
    hidden = {id_ for id_ in fleet.listed() if fleet.machine(id_)["rbacGroupName"] == group}
    if strike.request.machine_id in hidden:
        return errors.not_found("Machine", strike.request.machine_id or "")
    return _without(hidden)(strike)


def _without(hidden: set[str]) -> Effect:
    """Machines, and records of an export's page, but for the hidden ones."""

    @of_payload
    def effect(payload: Any, _strike: Strike) -> object:
        if not isinstance(payload.get("value"), list):
            return payload
        return payload | {
            "value": [each for each in payload["value"] if each.get("deviceId", each.get("id")) not in hidden]
        }

    return effect


@kind("short_list", LIST, "the list ends after `size` entries, by default ten", size=10)
@of_payload
def _short_list(payload: Any, strike: Strike) -> object:
    left = max(0, strike.size - skipped(strike.request.query))
    if len(payload["value"]) < left:
        return payload
    rest = {name: value for name, value in payload.items() if name != "@odata.nextLink"}
    return rest | {"value": payload["value"][:left]}


@kind("no_id_entry", LIST, "`size` more entries without an id begin the page, by default one; once", times=1, size=1)
@of_payload
def _no_id_entry(payload: Any, strike: Strike) -> object:
    nobody = {"computerDnsName": "has no id", "onboardingStatus": "Onboarded", "isExcluded": False}
    return payload | {"value": [*[nobody] * strike.size, *payload["value"]]}


@kind("two_statuses", LIST, "each onboarded machine, or the one with the id `text`, comes first as CanBeOnboarded, too")
@of_payload
def _two_statuses(payload: Any, strike: Strike) -> object:
    entries = []
    for machine in payload["value"]:
        wanted = machine["id"] == strike.fault.text if strike.fault.text else machine["onboardingStatus"] == "Onboarded"
        entries += [machine | {"onboardingStatus": "CanBeOnboarded"}, machine] if wanted else [machine]
    return payload | {"value": entries}
