"""What the API answers, route by route, over the socket."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from mde_simulator import Fleet

if TYPE_CHECKING:
    from collections.abc import Callable

    import requests

    from .door import Door

    Opened = Callable[..., Door]

GUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def error(answer: requests.Response) -> dict[str, Any]:
    """The error of an answer, its form checked."""
    body = answer.json()
    assert set(body) == {"error"}
    found: dict[str, Any] = body["error"]
    assert set(found) == {"code", "message", "target"}
    assert GUID.fullmatch(found["target"])
    return found


# Machines


def test_machines_come_in_the_envelope_and_with_the_headers_as_recorded(door: Door) -> None:
    answer = door.get("/api/machines")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == ("application/json; odata.metadata=minimal; odata.streaming=true")
    assert answer.headers["OData-Version"] == "4.0"
    assert answer.headers["Transfer-Encoding"] == "chunked"
    body = answer.json()
    assert list(body) == ["@odata.context", "value"]
    assert body["@odata.context"].endswith("/api/$metadata#Machines")
    fleet = door.simulator.fleet
    assert body["value"] == [fleet.machine(id_) for id_ in fleet.listing()]


def test_a_walk_by_top_and_skip_sees_every_machine_and_no_next_link(opened: Opened) -> None:
    door = opened(Fleet(230, seed=1), page_size=70).sign_in()
    seen: list[str] = []
    while True:
        body = door.get("/api/machines", top=100, skip=len(seen)).json()
        assert "@odata.nextLink" not in body
        if not body["value"]:
            break
        assert len(body["value"]) <= 70
        seen += [machine["id"] for machine in body["value"]]
    assert seen == door.simulator.fleet.listing()
    assert len(seen) > len(set(seen)) == 230
    assert door.simulator.violations == []


def test_without_top_the_next_links_lead_through_the_list(opened: Opened) -> None:
    door = opened(Fleet(230, seed=1), page_size=70).sign_in()
    seen: list[str] = []
    link: str | None = "/api/machines?$select=id"
    while link:
        body = door.get(link).json()
        seen += [machine["id"] for machine in body["value"]]
        link = body.get("@odata.nextLink")
        assert link is None or link.startswith(f"{door.simulator.url}/api/machines?")
    assert seen == door.simulator.fleet.listing()
    assert door.simulator.violations == []


def test_page_size_makes_pages_with_a_next_link(door: Door) -> None:
    body = door.get("/api/machines", pageSize=15).json()
    assert len(body["value"]) == 15
    assert "pageSize=15&$skip=15" in body["@odata.nextLink"]
    again = door.get(body["@odata.nextLink"]).json()
    assert again["value"][0] == door.simulator.fleet.machine(door.simulator.fleet.listing()[15])


def test_with_a_filter_the_next_link_is_mangled_drops_the_filter_and_never_ends(
    opened: Opened,
) -> None:
    door = opened(Fleet(60, seed=1), page_size=20).sign_in()
    text = "onboardingstatus eq 'Onboarded'"
    body = door.get("/api/machines", filter=text).json()
    link = body["@odata.nextLink"]
    assert link == f"{door.simulator.url}/api/machines?={quote(text)}&=20&$skip=20"
    assert door.simulator.violations == []
    statuses = set()
    for turn in range(1, 8):
        body = door.get(link).json()
        statuses |= {machine["onboardingStatus"] for machine in body["value"]}
        link = body["@odata.nextLink"]
        assert link.endswith(f"&=20&$skip={20 + 20 * turn}")
    assert len(statuses) > 1
    assert door.simulator.violations == ["a followed bad link: GET /api/machines"] * 7


def test_a_filter_with_top_and_skip_works_and_has_no_link(opened: Opened) -> None:
    door = opened(Fleet(200, seed=1)).sign_in()
    text = "onboardingStatus eq 'Onboarded' and startswith(osPlatform,'Windows')"
    seen: list[str] = []
    while page := door.ids(filter=text, top=30, skip=len(seen)):
        seen += page
    fleet = door.simulator.fleet
    assert set(seen) == {
        id_ for id_ in fleet.onboarded() if str(fleet.machine(id_)["osPlatform"]).startswith("Windows")
    }
    assert "@odata.nextLink" not in door.get("/api/machines", filter=text, top=1).json()
    other = next(id_ for id_ in fleet.listed() if id_ not in seen)
    assert door.ids(filter=f"id eq '{other}'") == [other]
    fleet.change(other, osPlatform="Windows12", onboardingStatus="Onboarded")
    assert other in door.ids(filter=text)
    fleet.hide([*seen[1:], other])
    assert set(door.ids(filter=text)) == {seen[0]}


@pytest.mark.parametrize(
    "params",
    [
        {"filter": "nonsense"},
        {"filter": "osBuild eq 6"},
        {"top": "10001"},
        {"top": "x"},
        {"skip": "-1"},
        {"expand": "x"},
        {"pageSize": "0"},
        {"select": "nonsense"},
        {"orderby": "nonsense"},
    ],
)
def test_bad_options_are_a_bad_request(door: Door, params: dict[str, str]) -> None:
    answer = door.get("/api/machines", **params)
    assert answer.status_code == 400
    assert error(answer)["code"] == "ODataError"


def test_top_of_ten_thousand_is_allowed(door: Door) -> None:
    assert len(door.ids(top=10_000)) == 41
    assert door.ids(top=0) == []
    assert door.ids(top=10, skip=10_000) == []


def test_machines_can_be_counted_sorted_and_cut_to_some_properties(door: Door) -> None:
    body = door.get("/api/machines", count="true", orderby="lastSeen desc", select="id,lastSeen", top=5).json()
    assert body["@odata.count"] == 41
    times = [machine["lastSeen"] for machine in body["value"]]
    assert times == sorted(times, reverse=True)
    assert all(set(machine) == {"id", "lastSeen"} for machine in body["value"])


def test_no_machines_are_a_404_and_no_matches_are_not(opened: Opened) -> None:
    door = opened(Fleet(0)).sign_in()
    answer = door.get("/api/machines")
    assert answer.status_code == 404
    assert error(answer)["code"] == "NotFound"
    id_ = door.simulator.fleet.add()
    assert door.ids() == [id_]
    assert door.ids(filter="osPlatform eq 'BeOS'") == []


def test_an_id_comes_twice(opened: Opened) -> None:
    ids = opened(Fleet(250, seed=1)).sign_in().ids()
    assert len(ids) == 253
    assert len(set(ids)) == 250


def test_one_machine_by_its_id(door: Door) -> None:
    for id_ in door.simulator.fleet.listed():
        body = door.get(f"/api/machines/{id_}").json()
        assert body.pop("@odata.context").endswith("#Machines/$entity")
        assert body == door.simulator.fleet.machine(id_)


def test_a_machine_that_left_is_not_found(door: Door) -> None:
    id_ = door.simulator.fleet.listed()[3]
    door.simulator.fleet.remove(id_)
    for path in (f"/api/machines/{id_}", f"/api/machines/{id_}/getmissingkbs"):
        answer = door.get(path)
        assert answer.status_code == 404
        assert error(answer)["code"] == "ResourceNotFound"
        assert error(answer)["message"] == f"Machine {id_} was not found"


# Missing KBs


def test_every_machines_missing_kbs_are_the_fleets(door: Door) -> None:
    fleet = door.simulator.fleet
    fleet.pass_days(9)
    found = {}
    for id_ in fleet.listed():
        body = door.kbs(id_).json()
        assert body["@odata.context"].endswith("#Collection(microsoft.windowsDefenderATP.api.PublicProductFixDto)")
        assert "@odata.nextLink" not in body
        assert body["value"] == fleet.missing_kbs(id_)
        found[id_] = {row["id"] for row in body["value"]}
    assert {id_: found[id_] for id_ in fleet.onboarded()} == fleet.missing()
    assert all(not found[id_] for id_ in set(fleet.listed()) - set(fleet.onboarded()))
    assert any(found.values())


def test_paths_are_taken_without_regard_to_case_and_ids_percent_encoded(door: Door) -> None:
    id_ = door.simulator.fleet.add(id="odd/id ü%?")
    assert door.kbs(id_).status_code == 200
    assert door.simulator.journal[-1].machine_id == id_
    assert door.get(f"/API/Machines/{quote(id_, safe='')}/GetMissingKbs").status_code == 200


def test_the_missing_kbs_of_a_software(opened: Opened) -> None:
    door = opened(Fleet(200, seed=1, night=10)).sign_in()
    software = door.get("/api/Software").json()["value"]
    windows = next(one for one in software if one["id"] == "microsoft-_-windows_11")
    assert windows["exposedMachines"] > 0
    rows = door.get(f"/api/Software/{windows['id']}/getmissingkbs").json()["value"]
    assert rows
    assert all("windows_11" in row["productsNames"] for row in rows)
    assert all(row == door.simulator.fleet.kb(row["id"]) for row in rows)
    assert door.get(f"/api/Software/{windows['id']}").json()["name"] == "windows_11"
    assert len(door.get("/api/Software", top=2, skip=1).json()["value"]) == 2
    assert door.get("/api/Software/adobe-_-reader/getmissingkbs").status_code == 404
    assert door.simulator.violations == []


# What is refused


@pytest.mark.parametrize(
    ("roles", "path", "status"),
    [
        (["Machine.Read.All"], "/api/machines", 200),
        (["Machine.ReadWrite.All"], "/api/machines", 200),
        (["Software.Read.All"], "/api/machines", 403),
        (["Machine.Read.All"], "/api/machines/x/getmissingkbs", 403),
        (["Machine.Read.All"], "/api/Software", 403),
        (["Software.Read.All"], "/api/Software", 200),
        (["Machine.Read.All"], "/api/machines/x", 404),
        (["Software.Read.All"], "/api/machines/x", 403),
        (["Machine.Read.All"], "/api/Software/x", 403),
        (["Machine.Read.All"], "/api/Software/x/getmissingkbs", 403),
        (["Machine.Read.All", "Software.Read.All"], "/api/machines/SoftwareVulnerabilitiesExport", 403),
        (["Machine.Read.All", "Software.Read.All"], "/api/machines/SoftwareVulnerabilitiesByMachine", 403),
        ([], "/api/machines", 403),
    ],
)
def test_each_call_needs_its_role(opened: Opened, roles: list[str], path: str, status: int) -> None:
    answer = opened(roles=roles).sign_in().get(path)
    assert answer.status_code == status
    if status == 403:
        assert error(answer)["code"] == "Forbidden"


def test_a_missing_role_is_named(opened: Opened) -> None:
    answer = opened(roles=["Machine.Read.All"]).sign_in().kbs()
    assert error(answer)["message"] == (
        "Missing application roles. API required roles: Software.Read.All, application roles: Machine.Read.All."
    )


@pytest.mark.parametrize(
    "path",
    ["/api/machines/x/nonsense", "/api/machines/x/getmissingkbs/y", "/api/machines/SoftwareVulnerabilitiesExport/x"],
)
def test_an_unknown_function_is_not_found(door: Door, path: str) -> None:
    answer = door.get(path)
    assert answer.status_code == 404
    assert error(answer)["code"] == "NotFound"


@pytest.mark.parametrize("path", ["/api/nonsense", "/api/", "/api/api/machines", "/api/api/machines/x/getmissingkbs"])
def test_a_path_that_is_none_of_the_apis_is_a_404_without_its_error(door: Door, path: str) -> None:
    """Whoever writes `/api` behind the host asks there, and nobody says so."""
    answer = door.get(path)
    assert (answer.status_code, answer.content) == (404, b"")


@pytest.mark.parametrize("method", ["POST", "PATCH", "DELETE", "HEAD"])
def test_another_method_is_not_allowed(door: Door, method: str) -> None:
    answer = door.session.request(method, f"{door.simulator.url}/api/machines", timeout=10)
    assert answer.status_code == 405
    assert door.get("/api/machines").status_code == 200
