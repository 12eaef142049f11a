"""Faults: which request meets which, and what each does over the socket."""

from __future__ import annotations

import time
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests

from mde_simulator import Fault, Faults, Fleet
from mde_simulator.faults.fault import KINDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from .door import Door

    Opened = Callable[..., Door]

KBS = "/api/machines/{}/getmissingkbs"


def strikes(faults: Faults, path: str, count: int = 1, **options: Any) -> list[str | None]:
    """What so many requests meet."""
    met = [faults.strike("GET", path, **options) for _ in range(count)]
    return [fault.kind if fault else None for fault in met]


# Which request meets which


def test_a_fault_strikes_after_some_and_so_many_times() -> None:
    faults = Faults([Fault("500", after=2, times=1)])
    assert strikes(faults, "/api/machines", 5) == [None, None, "500", None, None]


def test_flapping_strikes_each_machine_twice() -> None:
    faults = Faults([Fault("flapping")])
    for name in ("a", "b"):
        path = KBS.format(name)
        assert strikes(faults, path, 3) == ["flapping", "flapping", None]


def test_a_fault_is_for_a_machine_a_path_or_a_method() -> None:
    faults = Faults([Fault("not_found", machine="a"), Fault("502", path="*/software", method="GET")])
    assert strikes(faults, KBS.format("a"), machine_id="a") == ["not_found"]
    assert strikes(faults, KBS.format("b"), machine_id="b") == [None]
    assert strikes(faults, "/api/Software") == ["502"]
    assert faults.strike("POST", "/api/Software") is None


def test_faults_of_the_list_wait_for_its_second_page() -> None:
    faults = Faults([Fault("leaving")])
    assert strikes(faults, "/api/machines") == [None]
    assert strikes(faults, "/api/machines", 2, walking=True) == ["leaving", None]


def test_chance_is_a_share_the_same_for_the_same_seed_in_any_order() -> None:
    def struck(seed: int, names: list[str]) -> set[str]:
        faults = Faults([Fault("reset", chance=0.3)], seed)
        return {name for name in names if strikes(faults, KBS.format(name)) == ["reset"]}

    names = [str(number) for number in range(1000)]
    assert 250 < len(struck(1, names)) < 350
    assert struck(1, names) == struck(1, names[::-1]) != struck(2, names)


def test_chance_is_drawn_once_for_a_path_where_each_counts_for_itself() -> None:
    faults = Faults([Fault("500", each=True, times=2, chance=0.5)])
    runs = [strikes(faults, KBS.format(number), 3) for number in range(100)]
    assert all(run in (["500", "500", None], [None] * 3) for run in runs)
    assert 30 < runs.count([None] * 3) < 70


def test_faults_can_be_added_and_cleared_at_any_time() -> None:
    faults = Faults()
    assert strikes(faults, "/api/machines") == [None]
    faults.add(Fault("500", times=1))
    assert [fault.kind for fault in faults] == ["500"]
    assert strikes(faults, "/api/machines", 2) == ["500", None]
    faults.clear()
    faults.add(Fault("502", times=1))
    assert strikes(faults, "/api/machines", 2) == ["502", None]


def test_a_fault_can_be_written_as_text() -> None:
    written = "throttled:path=/api/*,times=3,chance=0.5,seconds=2.5,retry_after=date,each=true"
    assert Fault.parse(written) == Fault(
        "throttled", path="/api/*", times=3, chance=0.5, seconds=2.5, retry_after="date", each=True
    )
    assert Fault.parse("sign_in:code=53003,status=400") == Fault("sign_in", code=53003, status=400)
    assert Fault.parse("reset") == Fault("reset")


@pytest.mark.parametrize(
    "text",
    ["nonsense", "", "500:times", "500:sometimes=1", "500:times=many", "500:chance=2", "500:after=-1",
     "throttled:retry_after=never", "500:kind=502"],
)  # fmt: skip
def test_a_text_that_is_no_fault_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        Fault.parse(text)


# What each does


@pytest.mark.parametrize("kind", ["flapping", "not_found"])
def test_a_machine_that_exists_is_not_found(opened: Opened, kind: str) -> None:
    door = opened(faults=[Fault(kind)]).sign_in()
    id_ = door.simulator.fleet.onboarded()[0]
    answers = [door.kbs(id_) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [404, 404, 200 if kind == "flapping" else 404]
    error = answers[0].json()["error"]
    assert (error["code"], error["message"]) == ("ResourceNotFound", f"Machine {id_} was not found")
    assert door.get(f"/api/machines/{id_}").status_code == 200


@pytest.mark.parametrize(("kind", "type_"), [("500", "json"), ("502", "html"), ("503", "html"), ("504", "html")])
def test_the_server_or_a_gateway_fails(opened: Opened, kind: str, type_: str) -> None:
    door = opened(faults=[Fault(kind, times=1)]).sign_in()
    answer = door.kbs()
    assert answer.status_code == int(kind)
    assert type_ in answer.headers["Content-Type"]
    assert door.kbs().status_code == 200


@pytest.mark.parametrize("kind", ["reset", "cut"])
@pytest.mark.parametrize("compress", [True, False])
def test_the_connection_breaks(opened: Opened, kind: str, compress: bool) -> None:
    door = opened(faults=[Fault(kind, times=1)], compress=compress).sign_in()
    with pytest.raises((requests.ConnectionError, requests.exceptions.ChunkedEncodingError)):
        door.kbs()
    assert door.kbs().status_code == 200
    broken = next(entry for entry in door.simulator.journal if entry.fault == kind)
    assert broken.status == (None if kind == "reset" else 200)


@pytest.mark.parametrize("kind", ["html", "garbage"])
def test_an_answer_of_200_is_not_json(opened: Opened, kind: str) -> None:
    answer = opened(faults=[Fault(kind)]).sign_in().kbs()
    assert answer.status_code == 200
    assert ("html" in answer.headers["Content-Type"]) is (kind == "html")
    with pytest.raises(requests.exceptions.JSONDecodeError):
        answer.json()


def test_an_answer_is_slow_and_a_stop_does_not_wait_for_it(opened: Opened) -> None:
    door = opened(faults=[Fault("slow", seconds=0.3, times=1), Fault("slow", seconds=60)]).sign_in()
    begun = time.monotonic()
    assert door.kbs().status_code == 200
    assert time.monotonic() - begun >= 0.3
    with pytest.raises(requests.ReadTimeout):
        door.session.get(f"{door.simulator.url}/api/machines", timeout=0.2)
    stopping = time.monotonic()
    door.simulator.stop()
    assert time.monotonic() - stopping < 60, "it waited for the slow answer"


def test_other_users_take_the_quota_and_retry_after_is_seconds(opened: Opened) -> None:
    door = opened(faults=[Fault("throttled", seconds=1, times=1)]).sign_in()
    answer = door.kbs()
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "1")
    assert answer.json()["error"]["code"] == "TooManyRequests"
    time.sleep(1)
    assert door.kbs().status_code == 200
    assert door.simulator.violations == []


def test_retrying_earlier_earns_another_429_and_is_a_violation(opened: Opened) -> None:
    door = opened(faults=[Fault("throttled", seconds=5, times=1)]).sign_in()
    assert door.kbs().status_code == 429
    time.sleep(0.2)
    assert door.kbs().status_code == 429
    assert [text.partition(":")[0] for text in door.simulator.violations] == ["before Retry-After had ended"]


def test_retry_after_may_be_a_date_or_absent(opened: Opened) -> None:
    door = opened(
        faults=[Fault("throttled", retry_after="absent", times=1), Fault("throttled", retry_after="date", seconds=90)]
    ).sign_in()
    assert "Retry-After" not in door.kbs().headers
    answer = door.kbs()
    until = parsedate_to_datetime(answer.headers["Retry-After"]).timestamp()
    assert 85 < until - time.time() <= 90
    assert door.simulator.violations == []


def test_a_revoked_token_is_no_longer_taken_and_a_new_one_is(opened: Opened) -> None:
    door = opened(faults=[Fault("revoked", after=1)]).sign_in()
    assert [door.kbs().status_code for _ in range(3)] == [200, 401, 401]
    assert door.sign_in().kbs().status_code == 200
    assert door.simulator.violations == []


def test_a_role_or_the_licence_is_missing(opened: Opened) -> None:
    door = opened(
        faults=[Fault("forbidden", times=1), Fault("unlicensed", times=1), Fault("unlicensed", status=401)]
    ).sign_in()
    answers = [door.kbs() for _ in range(3)]
    assert [answer.status_code for answer in answers] == [403, 403, 401]
    assert "API required roles: Software.Read.All" in answers[0].json()["error"]["message"]
    assert "No Tvm license" in answers[1].json()["error"]["message"]


def test_a_redirect_must_not_be_followed(opened: Opened) -> None:
    door = opened(faults=[Fault("redirect", times=1)]).sign_in()
    answer = door.kbs()
    assert answer.status_code == 302
    assert door.simulator.violations == []
    assert door.get(answer.headers["Location"]).status_code == 404
    assert [text.partition(":")[0] for text in door.simulator.violations] == [
        "a token to the wrong place",
        "a redirect that was followed",
    ]


@pytest.mark.parametrize("kind", ["not_a_list", "not_an_object", "no_id"])
def test_an_answer_has_the_wrong_shape(opened: Opened, kind: str) -> None:
    door = opened(faults=[Fault(kind)]).sign_in()
    id_ = next(id_ for id_, kbs in door.simulator.fleet.missing().items() if kbs)
    for answer in (door.kbs(id_), door.get("/api/machines")):
        value = answer.json()["value"]
        if kind == "not_a_list":
            assert not isinstance(value, list)
        elif kind == "not_an_object":
            assert not isinstance(value[0], dict)
        else:
            assert "id" not in value[0]


def test_the_group_id_may_be_a_text_as_in_the_documentation(opened: Opened) -> None:
    door = opened(faults=[Fault("text_group_id")]).sign_in()
    fleet = door.simulator.fleet
    first = fleet.listed()[0]
    for machine in (*door.get("/api/machines").json()["value"], door.get(f"/api/machines/{first}").json()):
        assert machine["rbacGroupId"] == str(fleet.machine(machine["id"])["rbacGroupId"])
    assert door.get(f"/api/machines?$filter=rbacGroupId eq {fleet.machine(first)['rbacGroupId']}").json()["value"]
    assert door.kbs(first).json()["value"] == fleet.missing_kbs(first)


def test_an_empty_answer_and_a_single_machine_can_have_the_wrong_shape_too(opened: Opened) -> None:
    fleet = Fleet(300, seed=1)
    id_ = next(id_ for id_, kbs in fleet.missing().items() if not kbs)
    door = opened(fleet, faults=[Fault("no_id", times=2), Fault("not_a_list")]).sign_in()
    assert "id" not in door.kbs(id_).json()["value"][0]
    assert "id" not in door.get(f"/api/machines/{id_}").json()
    assert isinstance(door.get(f"/api/machines/{id_}").json(), list)


def test_a_machine_leaves_while_the_list_is_walked_and_the_rest_shifts(opened: Opened) -> None:
    fleet = Fleet(30, seed=1, duplicates=0)
    before = list(fleet.listed())
    door = opened(fleet, faults=[Fault("leaving")]).sign_in()
    walked = [id_ for skip in (0, 10, 20) for id_ in door.ids(top=10, skip=skip)]
    assert walked == before[:10] + before[11:]
    assert before[0] not in fleet.listed()


def test_a_machine_comes_twice_while_the_list_is_walked_and_the_rest_shifts(opened: Opened) -> None:
    fleet = Fleet(30, seed=1, duplicates=0)
    door = opened(fleet, faults=[Fault("duplicate", times=1)]).sign_in()
    walked = [id_ for skip in (0, 10, 20, 30) for id_ in door.ids(top=10, skip=skip)]
    ids = list(fleet.listed())
    assert walked == ids[:10] + ids[9:]


def test_the_sign_in_may_fail_too(opened: Opened) -> None:
    door = opened(faults=[Fault("503", path="*/token", times=1), Fault("sign_in", code=53003, times=1)])
    assert door.token().status_code == 503
    answer = door.token()
    assert answer.status_code == 400
    assert answer.json()["error_codes"] == [53003]
    assert door.token().status_code == 200


def test_every_kind_is_said_what_it_is() -> None:
    assert all(kind.path and kind.help for kind in KINDS.values())


def test_every_kind_is_struck_in_a_test() -> None:
    """By name, which is as much as a search can see."""
    tests = "".join(path.read_text(encoding="utf-8") for path in Path(__file__).parents[1].rglob("test_*.py"))
    assert [kind for kind in KINDS if f'"{kind}"' not in tests] == []
