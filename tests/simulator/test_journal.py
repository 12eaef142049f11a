"""The journal, and every rule whose breach is a violation."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest

from mde_simulator import Fault, Quota

if TYPE_CHECKING:
    from collections.abc import Callable

    from .door import Door

    Opened = Callable[..., Door]


def broken(door: Door) -> list[str]:
    """The rules that were broken, without where."""
    return [text.partition(":")[0] for text in door.simulator.violations]


def test_every_request_is_in_the_journal(door: Door) -> None:
    id_ = door.simulator.fleet.onboarded()[0]
    door.get("/api/machines", top=5, filter="id ne 'x'")
    door.kbs(id_)
    sign_in, listing, kbs = door.simulator.journal
    assert (sign_in.method, sign_in.status, sign_in.is_api) == ("POST", 200, False)
    assert listing.query == {"$top": "5", "$filter": "id ne 'x'"}
    assert (listing.method, listing.path, listing.machine_id) == ("GET", "/api/machines", None)
    assert (kbs.machine_id, kbs.status, kbs.fault) == (id_, 200, None)
    assert sign_in.at <= listing.at <= kbs.at
    assert door.simulator.calls == 2
    assert len(door.simulator.journal[1:]) == 2


def test_no_token_and_no_secret_is_in_the_journal(door: Door) -> None:
    door.kbs()
    text = " ".join(f"{entry} {entry.headers}" for entry in door.simulator.journal)
    assert door.simulator.config["client_secret"] not in text
    assert str(door.session.headers["Authorization"]).partition(" ")[2] not in text
    assert "Bearer …" in text


def test_the_journal_says_what_fault_struck(opened: Opened) -> None:
    door = opened(faults=[Fault("500", times=1)]).sign_in()
    door.kbs()
    assert (door.simulator.journal[-1].fault, door.simulator.journal[-1].status) == ("500", 500)


def test_the_journal_counts_the_calls_in_flight(opened: Opened) -> None:
    door = opened(latency=0.3).sign_in()
    threads = [threading.Thread(target=door.kbs) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(entry.in_flight for entry in door.simulator.journal if entry.is_api) > 1
    door.kbs()
    last = door.simulator.journal[-1]
    deadline = time.monotonic() + 5
    while last.seconds is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert last.in_flight == 1
    assert last.seconds is not None
    assert last.seconds >= 0.3


def test_the_journal_can_be_cleared(door: Door) -> None:
    door.kbs()
    door.simulator.journal.clear()
    assert (len(door.simulator.journal), door.simulator.calls) == (0, 0)


def test_calls_over_the_quota_are_violations(opened: Opened) -> None:
    door = opened(quota=Quota(((2, 60.0),), grace=60)).sign_in()
    answers = [door.kbs() for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert 58 <= int(answers[2].headers["Retry-After"]) <= 60
    assert broken(door) == ["over the quota"]


def test_calls_before_retry_after_has_ended_are_violations(opened: Opened) -> None:
    door = opened(quota=Quota(((1, 60.0),), grace=0)).sign_in()
    for _ in range(3):
        door.kbs()
    assert broken(door) == ["over the quota", "before Retry-After had ended"]


def test_a_429_that_other_users_caused_is_none(opened: Opened) -> None:
    quota = Quota(((5, 60.0),))
    door = opened(quota=quota).sign_in()
    quota.consume(4)
    assert [door.kbs().status_code for _ in range(2)] == [200, 429]
    assert door.simulator.violations == []


def test_the_sign_in_is_not_under_the_quota_and_pages_are(opened: Opened) -> None:
    door = opened(quota=Quota(((3, 60.0),)))
    for _ in range(5):
        door.sign_in()
    assert [door.get("/api/machines", top=1).status_code for _ in range(3)] == [200, 200, 200]
    assert door.simulator.violations == []


@pytest.mark.parametrize("value", [None, "Bearer", "Bearer nonsense", "Basic abc", "nonsense"])
def test_a_bad_or_missing_authorization_header_is_one(opened: Opened, value: str | None) -> None:
    door = opened()
    if value is not None:
        door.session.headers["Authorization"] = value
    answer = door.kbs()
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert broken(door) == ["a bad or missing Authorization header"]


def test_a_token_to_the_sign_in_is_one(door: Door) -> None:
    door.token()
    assert broken(door) == ["a token to the wrong place"]
    door.simulator.journal.clear()


def test_an_unknown_host_is_one(door: Door) -> None:
    url = f"{door.simulator.url}/api/machines"
    door.session.get(url, headers={"Host": "storage.example"}, timeout=10)
    assert broken(door) == ["an unknown host in the header Host"]
    door.simulator.journal.clear()
    door.session.get(url.replace("127.0.0.1", "localhost"), timeout=10)


def test_a_body_where_there_is_none_is_one(door: Door) -> None:
    door.session.get(f"{door.simulator.url}/api/machines", data="{}", timeout=10)
    assert broken(door) == ["a request body where there is none"]
    door.simulator.journal.clear()


def test_unknown_query_options_are_some(door: Door) -> None:
    door.get("/api/machines?foo=1&top=5")
    id_ = door.simulator.fleet.listed()[0]
    door.get(f"/api/machines/{id_}/getmissingkbs?$top=5")
    assert broken(door) == [
        "an unknown query option 'foo'",
        "an unknown query option 'top'",
        "an unknown query option '$top'",
    ]
    door.simulator.journal.clear()
