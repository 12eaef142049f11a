"""What another try mends, call by call, through the real command line: the table is right, and nobody was pestered.

How a sweep copes with machines that stay ill is in `tests/e2e/test_faults.py`.
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from mde_simulator import Fault, Fleet
from tap_mde_kbs.api import http
from tap_mde_kbs.api.auth import SignIn
from tap_mde_kbs.api.client import Client
from tap_mde_kbs.api.session import Session
from tap_mde_kbs.settings import DEFAULTS, endpoints
from tests.support.contract import answers_of
from tests.support.singer import HURRIED, UNLIMITED, Messages, Target, lacking, run_command, run_tap, trust

if TYPE_CHECKING:
    from pathlib import Path

    from mde_simulator import Simulator
    from tests.conftest import StartSimulator

LIST = "/api/machines"
KBS = "/api/machines/*/getmissingkbs"
ONE_AT_A_TIME = {"max_parallel_requests": 1}


def right(folder: Path, simulator: Simulator, **options: Any) -> Messages:
    """A run that ends well: every machine and pair that the tenant has, a check for each, all activated."""
    messages = run_tap(folder, simulator, **options)
    assert messages.status == 0, messages.stderr
    assert "Traceback" not in messages.stderr
    target = Target()
    target.take(messages.all)
    fleet = simulator.fleet
    assert target.missing == lacking(answers_of(fleet))
    assert {key for (key,) in target.rows["machines"]} == set(fleet.listed())
    answered = {row["machine_id"] for row in messages.records("missing_kbs_checks") if row["outcome"] == "answered"}
    assert answered == set(fleet.assessed())
    assert [message["stream"] for message in messages.of("ACTIVATE_VERSION")] == ["machines", "missing_kbs"]
    return messages


def asked(simulator: Simulator) -> Counter[str | None]:
    """How often each machine was asked about; the list under None."""
    return Counter(entry.machine_id for entry in simulator.journal if entry.is_api)


def sign_ins(simulator: Simulator) -> int:
    """How many tokens were asked for."""
    return sum(entry.path.endswith("/token") for entry in simulator.journal)


@pytest.mark.parametrize("kind", ["500", "502", "503", "504", "reset", "cut", "html", "garbage"])
def test_a_call_that_goes_wrong_once_is_made_once_more(simulate: StartSimulator, tmp_path: Path, kind: str) -> None:
    """The first page of the list, and one machine's answer; the others are not asked again."""
    simulator = simulate(8, faults=[Fault(kind, path=LIST, times=1), Fault(kind, path=KBS, times=1, after=2)])
    messages = right(tmp_path, simulator, patience=HURRIED)
    counts = asked(simulator)
    assert counts.pop(None) == 3  # the page twice, and the end
    assert sorted(counts.values()) == [1] * (len(counts) - 1) + [2]
    assert "2 retries" in messages.stderr


def test_an_answer_later_than_the_timeout_is_asked_for_again(simulate: StartSimulator, tmp_path: Path) -> None:
    simulator = simulate(
        4, faults=[Fault("slow", path=LIST, seconds=2, times=1), Fault("slow", path=KBS, seconds=2, times=1)]
    )
    messages = right(tmp_path, simulator, config={"request_timeout_seconds": 1}, patience=HURRIED)
    assert "2 retries" in messages.stderr


@pytest.mark.parametrize("retry_after", ["seconds", "date", "absent"])
def test_a_429_is_obeyed_and_is_no_failed_try(simulate: StartSimulator, tmp_path: Path, retry_after: str) -> None:
    """That nobody calls before Retry-After is over, the simulator watches; it is no retry, however often it comes."""
    faults = [Fault("throttled", path=path, times=1, seconds=2, retry_after=retry_after) for path in (LIST, KBS)]
    messages = right(tmp_path, simulate(4, faults=faults), config=ONE_AT_A_TIME)
    assert "0 retries, throttled 2 times" in messages.stderr


def test_more_429s_than_tries_fail_nothing(simulate: StartSimulator, tmp_path: Path) -> None:
    """An ordinary tap dies after five."""
    simulator = simulate(3, faults=[Fault("throttled", path=KBS, times=4, seconds=1)])
    messages = right(tmp_path, simulator, config=ONE_AT_A_TIME)
    assert "throttled 4 times" in messages.stderr


@pytest.mark.long
@pytest.mark.parametrize("options", [[], ["--test"]], ids=["a run", "--test"])
def test_a_long_wait_is_said_once_with_its_length(simulate: StartSimulator, tmp_path: Path, options: list[str]) -> None:
    """While the list is read; 25 seconds are long for whoever sits before it."""
    simulator = simulate(4, faults=[Fault("throttled", path=LIST, times=1, seconds=25)])
    config = tmp_path / "config.json"
    config.write_text(json.dumps(simulator.config))
    done = run_command(tmp_path, "--config", str(config), *options, environ=trust(simulator))
    assert done.status == 0, done.stderr
    said = [line for line in done.stderr.splitlines() if "HTTP 429" in line]
    assert len(said) == 1
    assert re.search(r"The API refuses calls \(HTTP 429\): the next goes out in 2[45] s\.", said[0])


@pytest.mark.parametrize(
    ("times", "seconds", "threads", "said"),
    [
        (1, 2, 4, r"The API refuses calls \(HTTP 429\): the next goes out in [12] s\."),
        (4, 1, 1, r"The API refuses calls \(HTTP 429\)(, for 1 s so far)?: the next goes out in 1 s\."),
    ],
)
def test_those_who_wait_for_the_same_say_it_once(  # noqa: PLR0917 - fixtures and parameters
    simulate: StartSimulator,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    times: int,
    seconds: int,
    threads: int,
    said: str,
) -> None:
    """All threads, and all refusals of one call; what is long is a second and a half here."""
    simulator = simulate(4, faults=[Fault("throttled", path=KBS, times=times, seconds=seconds)])
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", simulator.environment["REQUESTS_CA_BUNDLE"])
    monkeypatch.setattr(http, "LONG_WAIT", 1.5)
    config = {**simulator.config, **UNLIMITED, "token_scope": f"{simulator.url}/.default"}
    client = Client({**DEFAULTS, **config}, logging.getLogger("test"), HURRIED)
    paths = [f"/api/machines/{machine_id}/getmissingkbs" for machine_id in simulator.fleet.listed()]
    with ThreadPoolExecutor(threads) as pool, caplog.at_level(logging.WARNING, logger="test"):
        asked = []
        for path in paths:  # one after the other, since what is in flight already would come too early
            asked.append(pool.submit(client.get, path, permission=""))
            time.sleep(0.3)
        assert all(each.result() for each in asked)
    [line] = caplog.messages
    assert re.fullmatch(said, line)


def test_a_404_that_passes_is_not_believed(simulate: StartSimulator, tmp_path: Path) -> None:
    """The API answers so for machines that exist, and gives 200 on the first to third try again."""
    simulator = simulate(8, faults=[Fault("flapping")])
    right(tmp_path, simulator, patience=HURRIED)
    assert {count for machine_id, count in asked(simulator).items() if machine_id} == {3}


def test_a_404_that_stays_is_believed_and_its_rows_go(simulate: StartSimulator, tmp_path: Path) -> None:
    simulator = simulate(20)
    ill = next(machine_id for machine_id, kbs in sorted(answers_of(simulator.fleet).items()) if kbs)
    target = Target()
    target.take(run_tap(tmp_path, simulator).all)
    assert ill in target.missing
    simulator.faults.add(Fault("not_found", machine=ill))
    messages = run_tap(tmp_path, simulator, state=target.state, patience=HURRIED)
    assert messages.status == 0, messages.stderr
    target.take(messages.all)
    [check] = [row for row in messages.records("missing_kbs_checks") if row["machine_id"] == ill]
    assert (check["outcome"], check["missing_kbs"], check["missing_kb_ids"]) == ("not_found", None, None)
    assert target.missing == lacking({**answers_of(simulator.fleet), ill: frozenset()})
    assert (ill,) in target.rows["machines"]


class TestTokens:
    def test_one_token_is_enough_for_a_run(self, simulate: StartSimulator, tmp_path: Path) -> None:
        simulator = simulate(30)
        right(tmp_path, simulator)
        assert sign_ins(simulator) == 1

    @pytest.mark.parametrize(("life", "reused"), [(100, 50), (10, 5)])
    def test_a_token_is_renewed_well_before_it_ends(
        self, simulate: StartSimulator, monkeypatch: pytest.MonkeyPatch, life: int, reused: int
    ) -> None:
        """At half its life, where that is shorter than MSAL's five minutes; on a clock that the test moves."""
        simulator = simulate(1, token_life=life)
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", simulator.environment["REQUESTS_CA_BUNDLE"])
        config = {**simulator.config, "token_scope": f"{simulator.url}/.default"}
        now = 1000.0
        sign_in = SignIn(
            config,
            endpoints(config),
            Session(simulator.url, 10),
            log=logging.getLogger("test"),
            clock=lambda: now,
        )
        first = sign_in.token()
        now += reused - 1
        assert sign_in.token() == first
        assert sign_ins(simulator) == 1
        now += 2
        assert sign_in.token() != first
        assert sign_ins(simulator) == 2

    def test_a_token_that_ends_in_mid_run_is_renewed(self, simulate: StartSimulator, tmp_path: Path) -> None:
        simulator = simulate(10, token_life=2, latency=0.3)
        right(tmp_path, simulator, config=ONE_AT_A_TIME)
        assert sign_ins(simulator) >= 2

    def test_a_token_that_is_revoked_is_renewed_once_whoever_had_it(
        self, simulate: StartSimulator, tmp_path: Path
    ) -> None:
        """Four calls are in flight with it."""
        simulator = simulate(20, latency=0.05, faults=[Fault("revoked", path=KBS, after=5)])
        messages = right(tmp_path, simulator)
        assert sign_ins(simulator) == 2
        assert "0 retries" in messages.stderr

    def test_tokens_that_are_never_accepted_end_the_run(self, simulate: StartSimulator, tmp_path: Path) -> None:
        simulator = simulate(3, faults=[Fault("revoked", times=1000)])
        messages = run_tap(tmp_path, simulator)
        assert messages.status == 1
        assert "HTTP 401" in messages.last_line
        assert "renewed once and refused again" in messages.last_line
        assert sign_ins(simulator) == 2

    @pytest.mark.parametrize("kind", ["503", "reset", "html"])
    def test_an_authority_that_fails_once_is_asked_again(
        self, simulate: StartSimulator, tmp_path: Path, kind: str
    ) -> None:
        """With real pauses: MSAL answers from a cache of failures for five seconds."""
        simulator = simulate(2, faults=[Fault(kind, path="*/token", times=1)])
        messages = right(tmp_path, simulator)
        assert sign_ins(simulator) == 2
        assert "Sign-in" in messages.stderr


class TestTheList:
    def test_an_empty_one_after_machines_deletes_nothing_and_fails(
        self, simulate: StartSimulator, tmp_path: Path
    ) -> None:
        """The API says 404 then."""
        simulator = simulate(5)
        first = run_tap(tmp_path, simulator)
        for machine_id in simulator.fleet.listed():
            simulator.fleet.remove(machine_id)
        messages = run_tap(tmp_path, simulator, state=first.state)
        assert messages.status == 1, messages.stderr
        assert messages.of("ACTIVATE_VERSION") == []
        assert {record["stream"] for record in messages.of("RECORD")} <= {"sweeps"}
        assert "No machines listed: nothing is deleted." in messages.stderr
        assert "No machines are listed, 5 were before" in messages.last_line
        assert [message["stream"] for message in messages.of("SCHEMA")][:1] == ["machines"]
        assert messages.state["bookmarks"]["machines"]["listed"] == 5

    def test_who_stays_is_listed_though_others_leave_meanwhile(self, simulate: StartSimulator, tmp_path: Path) -> None:
        """One leaves before each of three pages, and shifts the rest into pages already read."""
        simulator = simulate(60, page_size=12, faults=[Fault("leaving", times=3)])
        before = set(simulator.fleet.listed())
        messages = run_tap(tmp_path, simulator, patience=HURRIED)
        assert messages.status == 0, messages.stderr
        stayed = set(simulator.fleet.listed())
        assert len(before - stayed) == 3
        written = [record["id"] for record in messages.records("machines")]
        assert len(written) == len(set(written))
        assert stayed <= set(written) <= before
        target = Target()
        target.take(messages.all)
        assert target.missing == lacking(answers_of(simulator.fleet))
        outcomes = {row["machine_id"]: row["outcome"] for row in messages.records("missing_kbs_checks")}
        for gone in before - stayed:
            assert outcomes.get(gone) in {None, "not_found", "skipped"}

    def test_a_machine_that_comes_twice_shifts_nobody_out(self, simulate: StartSimulator, tmp_path: Path) -> None:
        simulator = simulate(60, page_size=12, faults=[Fault("duplicate", times=3)])
        right(tmp_path, simulator)

    def test_the_walk_is_its_own_and_keeps_the_filter_on_every_page(
        self, simulate: StartSimulator, tmp_path: Path
    ) -> None:
        """With a filter the API's own next link drops it and never ends."""
        simulator = simulate(60, page_size=7)
        wanted = "osPlatform eq 'Windows11' or startswith(osPlatform,'WindowsServer')"
        messages = run_tap(tmp_path, simulator, config={"machines_filter": wanted})
        assert messages.status == 0, messages.stderr
        fleet = simulator.fleet
        kept = {
            machine_id
            for machine_id in fleet.listed()
            if str(fleet.machine(machine_id)["osPlatform"]).startswith(("Windows11", "WindowsServer"))
        }
        assert 7 < len(kept) < 60
        assert {record["id"] for record in messages.records("machines")} == kept
        pages = [entry.query for entry in simulator.journal if entry.path == LIST]
        assert len(pages) > 2
        assert {(page["$top"], page["$filter"]) for page in pages} == {("2000", wanted)}
        skips = [int(page["$skip"]) for page in pages]
        assert skips == sorted(set(skips))

    @pytest.mark.parametrize("where", [LIST, KBS])
    def test_no_link_from_the_wire_is_followed(self, simulate: StartSimulator, tmp_path: Path, where: str) -> None:
        """Neither to another host, which would get the token, nor to this one."""
        elsewhere, simulator = simulate(1), simulate(2)
        ids = [{"id": machine_id} for machine_id in simulator.fleet.listed()]
        for host in (elsewhere.url, simulator.url):
            body = {"value": ids if where == LIST else [], "@odata.nextLink": f"{host}/api/machines?=x&$skip=1"}
            simulator.faults.add(Fault("garbage", path=where, times=1, text=json.dumps(body)))
        messages = run_tap(tmp_path, simulator)
        assert messages.status == 0, messages.stderr
        assert list(elsewhere.journal) == []
        assert {tuple(entry.query) for entry in simulator.journal if entry.path == LIST} == {("$top", "$skip")}

    def test_a_list_shorter_than_last_time_is_read_once_more_and_the_two_are_merged(
        self, simulate: StartSimulator, tmp_path: Path
    ) -> None:
        """One bad listing must not make a machine look gone."""
        fleet = Fleet(machines=12, seed=1)
        simulator = simulate(fleet)
        first = run_tap(tmp_path, simulator)
        short = [fleet.machine(machine_id) for machine_id in fleet.listed()[:-1]]
        for page in (short, short[-1:]):  # and the walk believes that this is the end
            simulator.faults.add(Fault("garbage", path=LIST, times=1, text=json.dumps({"value": page})))
        messages = right(tmp_path, simulator, state=first.state)
        assert len(messages.records("machines")) == 12
        assert "11 machines listed, fewer than the 12 of last time: listing again." in messages.stderr
