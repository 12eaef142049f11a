"""Answers that are well-formed and odd or not true, and a server whose clock is another."""

from __future__ import annotations

import json
import time
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

import pytest

from mde_simulator import Fault, Fleet

from .downloads import EXPORT, JSON, download, links, rows_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from .door import Door

    Opened = Callable[..., Door]

DAY = 86_400


def someone(door: Door) -> str:
    """A machine that misses something."""
    return next(id_ for id_, kbs in door.simulator.fleet.missing().items() if kbs)


def said(door: Door, kind: str, **options: Any) -> Any:
    """What a machine is said to miss, when the fault is for it alone; all others are answered as ever."""
    ill = someone(door)
    door.simulator.faults.add(Fault(kind, machine=ill, **options))
    others = [id_ for id_ in door.simulator.fleet.onboarded() if id_ != ill]
    fleet = door.simulator.fleet
    for id_ in (others[0], others[-1]):
        assert door.kbs(id_).json()["value"] == fleet.missing_kbs(id_)
    answer = door.kbs(ill)
    assert answer.status_code == 200
    assert answer.json() == door.kbs(ill).json() or kind == "error_in_200", "for good"
    return answer.json()


# One machine


def test_an_answer_is_empty_whatever_is_missing(opened: Opened) -> None:
    assert said(opened().sign_in(), "empty")["value"] == []


def test_for_everybody_too(opened: Opened) -> None:
    door = opened(faults=[Fault("empty")]).sign_in()
    assert all(door.kbs(id_).json()["value"] == [] for id_ in door.simulator.fleet.onboarded())
    assert door.ids()


def test_an_answer_has_fewer_kbs_than_are_missing(opened: Opened) -> None:
    door = opened().sign_in()
    right = door.simulator.fleet.missing_kbs(someone(door))
    assert len(right) > 2
    assert said(door, "fewer", size=2)["value"] == right[:2]


def test_the_value_is_null_or_missing_or_without_its_envelope(opened: Opened) -> None:
    assert said(opened().sign_in(), "null_value")["value"] is None
    assert list(said(opened().sign_in(), "no_value")) == ["@odata.context"]
    door = opened().sign_in()
    assert said(door, "bare_list") == door.simulator.fleet.missing_kbs(someone(door))


def test_a_kb_has_the_id_null_among_others_that_have_one(opened: Opened) -> None:
    door = opened().sign_in()
    *kbs, last = said(door, "null_id")["value"]
    assert kbs == door.simulator.fleet.missing_kbs(someone(door))
    assert last["id"] is None


def test_an_error_comes_as_200(opened: Opened) -> None:
    answer = said(opened().sign_in(), "error_in_200", text="not now")
    assert list(answer) == ["error"]
    assert answer["error"]["message"] == "not now"


def test_a_kb_comes_twice_with_other_products_and_counts(opened: Opened) -> None:
    door = opened().sign_in()
    value = said(door, "kb_twice")["value"]
    assert value[::2] == door.simulator.fleet.missing_kbs(someone(door))
    for kb, again in zip(value[::2], value[1::2], strict=True):
        assert kb["id"] == again["id"]
        assert not set(kb["productsNames"]) & set(again["productsNames"])
        assert kb["cveAddressed"] < again["cveAddressed"]
        assert kb["machineMissedOn"] < again["machineMissedOn"]


def test_a_404_has_no_error_of_the_apis(opened: Opened) -> None:
    door = opened(faults=[Fault("bare_404", times=1), Fault("bare_404", text="<h1>404</h1>")]).sign_in()
    answers = [door.get("/api/machines") for _ in range(2)]
    assert [(answer.status_code, answer.text) for answer in answers] == [(404, ""), (404, "<h1>404</h1>")]


# The list


def test_a_device_group_is_gone_from_list_machines_and_pages(opened: Opened) -> None:
    door = opened(Fleet(60, seed=1)).sign_in()
    fleet = door.simulator.fleet
    hidden = {id_ for id_ in fleet.listed() if fleet.machine(id_)["rbacGroupName"] == "Servers"}
    assert 0 < len(hidden) < 30
    door.simulator.faults.add(Fault("group_gone"))
    assert set(door.ids()) == set(fleet.listed()) - hidden
    one, other = min(hidden), min(set(fleet.listed()) - hidden)
    assert (door.kbs(one).status_code, door.kbs(other).status_code) == (404, 200)
    assert door.get(f"/api/machines/{one}").status_code == 404
    assert not {record.get("deviceId") for record in door.get(JSON).json()["value"]} & hidden
    door.simulator.faults.clear()
    door.simulator.faults.add(Fault("group_gone", text="Headquarters"))
    assert hidden <= set(door.ids())
    assert len(door.ids()) < len(fleet.listed())
    door.simulator.faults.clear()
    assert set(door.ids()) == set(fleet.listed())


def test_the_list_ends_early(opened: Opened) -> None:
    door = opened(Fleet(60, seed=1, duplicates=0), page_size=20, faults=[Fault("short_list", size=30)]).sign_in()
    right = list(door.simulator.fleet.listed())
    assert [door.ids(top=20, skip=skip) for skip in (0, 20, 40)] == [right[:20], right[20:30], []]
    first = door.get("/api/machines").json()
    last = door.get(first["@odata.nextLink"]).json()
    assert [machine["id"] for machine in (*first["value"], *last["value"])] == right[:30]
    assert "@odata.nextLink" not in last


def test_entries_have_no_id_and_the_machines_are_all_there(opened: Opened) -> None:
    door = opened(faults=[Fault("no_id_entry", size=3)]).sign_in()
    entries = door.get("/api/machines").json()["value"]
    assert ["id" in entry for entry in entries[:4]] == [False] * 3 + [True]
    assert [entry["id"] for entry in entries[3:]] == door.simulator.fleet.listing()
    assert door.ids() == door.simulator.fleet.listing()


def test_a_machine_comes_twice_onboarded_and_not(opened: Opened) -> None:
    door = opened(Fleet(40, seed=1, duplicates=0)).sign_in()
    fleet = door.simulator.fleet
    id_ = fleet.onboarded()[3]
    door.simulator.faults.add(Fault("two_statuses", text=id_, times=1), Fault("two_statuses"))
    entries = door.get("/api/machines").json()["value"]
    assert [entry["onboardingStatus"] for entry in entries if entry["id"] == id_] == ["CanBeOnboarded", "Onboarded"]
    assert len(entries) == 41
    assert len(door.get("/api/machines").json()["value"]) == 40 + len(fleet.onboarded())


def test_the_list_moves_while_it_is_walked_and_machines_join(opened: Opened) -> None:
    fleet = Fleet(60, seed=1, duplicates=0)
    before = set(fleet.listed())
    door = opened(fleet, faults=[Fault("moving", size=2)]).sign_in()
    walked = [id_ for skip in (0, 20, 40) for id_ in door.ids(top=20, skip=skip)]
    assert len(fleet.listed()) == 64
    assert before - set(walked), "nobody was missed"
    assert len(walked) > len(set(walked)), "nobody came twice"
    assert set(walked) <= set(fleet.listed())
    door.simulator.faults.clear()
    assert {id_ for skip in (0, 20, 40, 60) for id_ in door.ids(top=20, skip=skip)} == set(fleet.listed())


def test_the_list_may_fail_on_its_second_page_alone(opened: Opened) -> None:
    door = opened(faults=[Fault("500", path="/api/machines", after=1)]).sign_in()
    assert [door.get("/api/machines", top=20, skip=skip).status_code for skip in (0, 20, 20)] == [200, 500, 500]


# Exports


def test_an_export_lists_no_files(opened: Opened) -> None:
    door = opened(faults=[Fault("export_no_files", times=1)]).sign_in()
    body = door.get(EXPORT).json()
    assert (body["exportFiles"], body["generatedTime"]) == ([], door.simulator.exports.latest.generated_time)
    assert links(door)


def test_a_next_link_names_another_of_the_apis_hosts(opened: Opened) -> None:
    door = opened(faults=[Fault("renamed_link")]).sign_in()
    link = door.get(f"{JSON}?pageSize=5").json()["@odata.nextLink"]
    host = "https://api.securitycenter.windows.com"
    assert link.startswith(f"{host}/api/machines/")
    right = link.replace(host, door.simulator.url)
    page, _ = door.simulator.exports.latest.page(5, 5)
    assert door.get(right).json()["value"] == [json.loads(record) for record in page]


# Clocks


@pytest.mark.parametrize("ahead", [DAY, -3 * DAY])
def test_the_servers_clock_may_differ_from_the_hosts(opened: Opened, ahead: float) -> None:
    throttled = Fault("throttled", retry_after="date", seconds=90, times=1)
    door = opened(clock=lambda: time.time() + ahead, faults=[throttled]).sign_in()
    answer = door.kbs()
    date, until = (parsedate_to_datetime(answer.headers[name]).timestamp() for name in ("Date", "Retry-After"))
    assert abs(date - time.time() - ahead) < 30
    assert 85 < until - date <= 90
    assert abs(door.simulator.exports.generated.timestamp() - time.time() - ahead) < 60
    door.simulator.faults.clear()
    link = links(door)[0]
    assert rows_of(download(door, link))
    assert abs(parsedate_to_datetime(download(door, link).headers["Date"]).timestamp() - time.time() - ahead) < 30


def test_the_header_date_may_be_any(opened: Opened) -> None:
    far = "Fri, 31 Dec 9999 23:59:59 GMT"
    faults = [
        Fault("wrong_date", times=1),
        Fault("slow", seconds=0, times=1, date="soon"),
        Fault("throttled", date=far),
    ]
    door = opened(faults=faults).sign_in()
    answers = [door.get("/api/machines/x") for _ in range(3)]
    assert [answer.headers["Date"] for answer in answers] == [far, "soon", far]
    assert answers[2].headers["Retry-After"] == "1"
