"""What goes wrong at the API, alone and mixed, through the real command line: what would a target hold after it?

The tap hardly pauses before it asks again (`nights`), but in one test.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from mde_simulator import Fault, Fleet
from tests.support.contract import answers_of
from tests.support.singer import HURRIED, Messages, Target, half_a_day_passes, lacking, named, run_tap

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from mde_simulator import Simulator
    from tests.conftest import StartSimulator

KBS = "/api/machines/*/getmissingkbs"
LIST = "/api/machines"
ALONE = {"max_parallel_requests": 1}


@dataclass
class Nights:
    """Runs of one tenant, one after the other, the state kept, into a target that is played."""

    folder: Path
    simulator: Simulator
    config: dict[str, Any] = field(default_factory=dict)
    target: Target = field(default_factory=Target)
    asked: list[str] = field(default_factory=list)
    calls: int = 0

    def run(self, *, status: int = 0) -> Messages:
        """Run once from the last state; it has to end with this exit status."""
        before = len(self.simulator.journal)
        messages = run_tap(self.folder, self.simulator, config=self.config, state=self.target.state, patience=HURRIED)
        entries = self.simulator.journal[before:]
        self.asked = [entry.machine_id for entry in entries if entry.machine_id]
        self.calls = sum(entry.is_api for entry in entries)
        assert messages.status == status, messages.stderr
        assert "Traceback" not in messages.stderr
        self.target.take(messages.all)
        return messages

    @property
    def sweep(self) -> dict[str, Any]:
        """The sweep's bookmark, as the next run finds it."""
        bookmark: dict[str, Any] = self.target.state["bookmarks"]["missing_kbs"]["sweep"]
        return bookmark

    @property
    def pairs(self) -> set[tuple[Any, ...]]:
        """Machine and update of every row that was not deleted."""
        return set(self.target.rows["missing_kbs"])

    @property
    def unbelieved(self) -> set[int]:
        """The sweeps that the tap itself does not believe."""
        return {row["sweep"] for row in self.target.rows["sweeps"].values() if row["is_believed"] is False}

    @property
    def outcomes(self) -> dict[str, str]:
        """What became of each machine of the newest sweep."""
        checks = self.target.rows["missing_kbs_checks"]
        newest = max(sweep for _, sweep in checks)
        return {machine_id: row["outcome"] for (machine_id, sweep), row in checks.items() if sweep == newest}

    def assert_true(self, but: Collection[str] = ()) -> None:
        """The tables are as the fleet is now; of some machines nothing is known."""
        fleet = self.simulator.fleet
        missing = {machine_id: kbs for machine_id, kbs in answers_of(fleet).items() if machine_id not in but}
        assert self.target.missing == self.target.missing_now == lacking(missing)
        assert {key for (key,) in self.target.rows["machines"]} == set(fleet.listed())
        outcomes = {machine_id: kind for machine_id, kind in self.outcomes.items() if machine_id not in but}
        assert outcomes == {
            machine_id: "answered" if machine_id in missing else "skipped"
            for machine_id in fleet.listed()
            if machine_id not in but
        }


class StartNights(Protocol):
    """Makes the runs of one tenant."""

    def __call__(self, fleet: Fleet | int = 40, config: dict[str, Any] | None = None, **options: Any) -> Nights:
        """A fleet, or how many machines; settings of the tap; the options are the Simulator's."""


@pytest.fixture
def nights(simulate: StartSimulator, tmp_path: Path) -> StartNights:
    """Runs of a tap that hardly pauses before it asks again."""

    def start(fleet: Fleet | int = 40, config: dict[str, Any] | None = None, **options: Any) -> Nights:
        return Nights(tmp_path, simulate(fleet, **options), config or {})

    return start


def activated(messages: Messages, stream: str = "missing_kbs") -> bool:
    """Whether the run deleted anything that was not written again."""
    return bool(messages.of("ACTIVATE_VERSION", stream))


# What passes


PASSING: dict[str, dict[str, Any]] = {
    "flapping": {"path": KBS},
    "not_found": {"path": KBS, "each": True, "times": 2, "chance": 0.2},
    **{kind: {} for kind in ("500", "502", "503", "504", "reset", "cut", "html", "garbage")},
    "slow": {"seconds": 0.3},
    "throttled": {},
    "revoked": {},
}


@pytest.mark.parametrize("kind", PASSING)
def test_a_fault_that_passes_leaves_no_trace(nights: StartNights, kind: str) -> None:
    """Twice for the list, four times for machines, or as the kind does it; the second night over an older table."""
    options = PASSING[kind]
    night = nights(40, ALONE if kind == "throttled" else {}, page_size=25)
    night.run()
    night.simulator.fleet.pass_days(30)
    if "path" in options:
        night.simulator.faults.add(Fault(kind, **options))
    else:
        night.simulator.faults.add(
            Fault(kind, path=LIST, times=1 if kind in {"throttled", "revoked"} else 2, **options),
            Fault(kind, path=KBS, times=1 if kind in {"throttled", "revoked"} else 4, after=5, **options),
        )
    messages = night.run()
    assert any(entry.fault == kind for entry in night.simulator.journal)
    assert activated(messages)
    night.assert_true()


@pytest.mark.parametrize("retry_after", ["date", "absent"])
def test_a_429_is_waited_out_however_it_says_how_long(nights: StartNights, retry_after: str) -> None:
    """Or does not say."""
    night = nights(20, ALONE)
    night.simulator.faults.add(Fault("throttled", path=KBS, times=2, after=5, retry_after=retry_after, seconds=2))
    assert "throttled 2 times" in night.run().stderr
    night.assert_true()


@pytest.mark.parametrize("kind", ["leaving", "duplicate"])
def test_a_list_that_shifts_while_it_is_walked_loses_nobody(nights: StartNights, kind: str) -> None:
    """A machine leaves, or comes twice, while 200 are read in pages of 40."""
    night = nights(200, page_size=40)
    night.simulator.faults.add(Fault(kind, times=3))
    night.run()
    assert {key for (key,) in night.target.rows["machines"]} >= set(night.simulator.fleet.listed())
    assert night.target.missing == lacking(answers_of(night.simulator.fleet))


def test_the_retries_of_the_command_as_it_is(simulate: StartSimulator, tmp_path: Path) -> None:
    """With its real pauses: a 503, and a 404 that is asked again later."""
    simulator = simulate(12, faults=[Fault("503", path=KBS, times=1), Fault("not_found", times=1, after=3)])
    target = Target()
    messages = run_tap(tmp_path, simulator, afresh=True)
    target.take(messages.all)
    assert messages.status == 0
    assert target.missing == lacking(answers_of(simulator.fleet))


def test_sixty_ill_machines_of_160_in_six_ways(nights: StartNights) -> None:
    """Some answer at the second time, some after a 404 or two: the table is exact, and nobody else is asked twice."""
    night = nights(160)
    night.run()
    night.simulator.fleet.pass_days(30)
    fleet = night.simulator.fleet
    ways = [("flapping", 2), ("not_found", 1), ("500", 2), ("reset", 1), ("cut", 1), ("html", 2)]
    ill = [fleet.assessed()[number] for number in range(0, 120, 2)]
    for number, machine_id in enumerate(ill):
        kind, times = ways[number % len(ways)]
        night.simulator.faults.add(Fault(kind, machine=machine_id, times=times))
    messages = night.run()
    assert activated(messages)
    night.assert_true()
    asked = {machine_id: night.asked.count(machine_id) for machine_id in fleet.assessed()}
    assert {machine_id for machine_id, times in asked.items() if times > 1} == set(ill)
    assert night.sweep["failed"] == []


def test_tokens_that_live_for_seconds_are_renewed_in_mid_sweep(nights: StartNights) -> None:
    """Nobody is refused, and nobody is asked twice."""
    night = nights(80, {"max_parallel_requests": 2}, token_life=2.5, latency=0.05)
    night.run()
    night.assert_true()
    assert sum(entry.path.endswith("/token") for entry in night.simulator.journal) > 1
    assert len(night.asked) == len(set(night.asked))


# What does not pass


def test_what_ends_a_run_deletes_nothing_and_the_next_run_is_right(nights: StartNights) -> None:
    """A permission or the licence lost, a redirect, a list of another shape, no sign-in."""
    night = nights(30, ALONE)
    night.run()
    before = night.pairs
    night.simulator.fleet.pass_days(30)
    for kind in ("forbidden", "unlicensed", "redirect"):
        night.simulator.faults.clear()
        night.simulator.faults.add(Fault(kind, path=KBS, after=3))
        assert not activated(night.run(status=1)), kind
        assert before <= night.pairs
    night.simulator.faults.clear()
    night.simulator.faults.add(Fault("not_a_list", path=LIST))
    assert not activated(night.run(status=1), "machines")
    night.simulator.faults.clear()
    night.simulator.faults.add(Fault("sign_in"))
    assert not activated(night.run(status=1), "machines")
    assert before <= night.pairs
    night.simulator.faults.clear()
    assert activated(night.run())
    night.assert_true()


@pytest.mark.parametrize("kind", ["not_a_list", "not_an_object", "no_id"])
def test_odd_answers_of_most_machines_delete_nothing_and_the_next_run_is_right(nights: StartNights, kind: str) -> None:
    """Each of these machines has failed; the others are up to date, the sweep ends, and is not believed."""
    night = nights(30, ALONE)
    night.run()
    before = night.pairs
    night.simulator.fleet.pass_days(30)
    night.simulator.faults.add(Fault(kind, path=KBS, after=3))
    assert not activated(night.run(status=1))
    assert before <= night.pairs
    assert sorted(night.outcomes.values()).count("answered") == 3
    assert night.outcomes.keys() == set(night.simulator.fleet.listed())
    assert night.unbelieved == {night.sweep["version"]}
    night.simulator.faults.clear()
    assert activated(night.run())
    night.assert_true()


def test_one_machine_that_fails_holds_the_deleting_back_and_heals_with_few_calls(nights: StartNights) -> None:
    """It is named in the log, the pipeline goes on; answering in the next run, it makes the table exact."""
    night = nights(60)
    night.run()
    before = night.pairs
    fleet = night.simulator.fleet
    fleet.pass_days(30)
    ill = fleet.assessed()[7]
    night.simulator.faults.add(Fault("500", machine=ill))
    messages = night.run(status=0)
    assert not activated(messages)
    assert before <= night.pairs
    assert ill in messages.stderr
    assert night.outcomes[ill] == "failed"
    assert named(night.sweep["failed"]) == 1

    night.simulator.faults.clear()
    assert activated(night.run())
    assert night.calls < 20
    assert set(night.asked) == {ill}
    night.assert_true()


def test_a_machine_that_never_answers_holds_the_rest_back_for_one_sweep_only(nights: StartNights) -> None:
    """In its second sweep what others installed goes; its own rows go too, and its checks say why."""
    night = nights(60)
    night.run()
    fleet = night.simulator.fleet
    ill = max(answers_of(fleet), key=lambda machine_id: len(answers_of(fleet)[machine_id]))
    night.simulator.faults.add(Fault("reset", machine=ill))
    fleet.pass_days(30)
    assert not activated(night.run(status=0))
    half_a_day_passes(night.target.state)
    assert activated(night.run(status=0))
    assert len(set(night.asked)) == len(fleet.assessed())
    night.assert_true(but=[ill])
    assert night.outcomes[ill] == "failed"
    last_known = [
        row["missing_kb_ids"]
        for (machine_id, _), row in night.target.rows["missing_kbs_checks"].items()
        if machine_id == ill and row["outcome"] == "answered"
    ]
    assert len(last_known) == 1, "what it lacked is still to be read there"


@pytest.mark.parametrize(("one_in", "believed"), [(30, True), (10, False)])
def test_several_that_fail_at_once_are_exit_status_1(nights: StartNights, one_in: int, *, believed: bool) -> None:
    """Nothing deleted, those that answered are up to date; the next run asks just the rest, or all if many did."""
    night = nights(120)
    night.run()
    before = night.pairs
    fleet = night.simulator.fleet
    fleet.pass_days(30)
    ill = set(fleet.assessed()[3::one_in])
    night.simulator.faults.add(*(Fault("503", machine=machine_id) for machine_id in ill))
    assert not activated(night.run(status=1))
    assert before <= night.pairs
    assert {machine_id for machine_id, kind in night.outcomes.items() if kind == "failed"} == ill
    night.simulator.faults.clear()
    assert bool(night.unbelieved) != believed
    assert activated(night.run())
    assert set(night.asked) == (ill if believed else set(fleet.assessed()))
    night.assert_true()


@pytest.mark.parametrize("after", [0, 60], ids=["from the start", "in the middle"])
def test_a_dead_api_stops_the_run_within_forty_machines(nights: StartNights, after: int) -> None:
    """The cursor is kept: the next run asks nobody again who has answered."""
    night = nights(160)
    night.simulator.faults.add(Fault("503", path=KBS, after=after))
    messages = night.run(status=1)
    answered = {machine_id for machine_id, kind in night.outcomes.items() if kind == "answered"} if after else set()
    assert len(set(night.asked) - answered) <= 40
    assert "API is down" in messages.last_line
    version = night.sweep["version"]

    night.simulator.faults.clear()
    assert activated(night.run())
    assert answered.isdisjoint(night.asked)
    assert night.sweep["version"] == version
    night.assert_true()


def test_a_machine_that_is_gone_since_the_listing_loses_its_rows(nights: StartNights) -> None:
    """A 404 is believed after the fourth time."""
    night = nights(40)
    night.run()
    gone = next(iter(lacking(answers_of(night.simulator.fleet))))
    night.simulator.faults.add(Fault("not_found", machine=gone))
    assert activated(night.run())
    assert night.outcomes[gone] == "not_found"
    night.assert_true(but=[gone])
    assert night.asked.count(gone) == 4


def test_a_storm_of_404s_deletes_nothing(nights: StartNights) -> None:
    """One machine in five answers 404 for a whole night: that is no fleet that shrank."""
    night = nights(60)
    night.run()
    before = night.pairs
    night.simulator.fleet.pass_days(30)
    stormy = night.simulator.fleet.assessed()[::5]
    night.simulator.faults.add(*(Fault("not_found", machine=machine_id) for machine_id in stormy))
    assert not activated(night.run(status=0))
    assert before <= night.pairs
    night.simulator.faults.clear()
    assert activated(night.run())
    night.assert_true()


# What is asked for changes


@pytest.mark.parametrize("stays", [True, False], ids=["for good", "for a night"])
def test_a_permission_that_hides_half_the_machines_deletes_nothing_the_first_time(
    nights: StartNights, *, stays: bool
) -> None:
    """Believed the second time; or forgotten if they are seen again by then."""
    night = nights(80)
    night.run()
    before, machines = night.pairs, set(night.target.rows["machines"])
    fleet = night.simulator.fleet
    hidden = fleet.listed()[::2]
    fleet.hide(hidden)
    messages = night.run(status=0)
    assert not activated(messages)
    assert not activated(messages, "machines")
    assert (night.pairs, set(night.target.rows["machines"])) == (before, machines)
    assert "nothing is deleted" in messages.stderr

    if not stays:
        fleet.show(hidden)
    messages = night.run(status=0)
    assert activated(messages)
    assert activated(messages, "machines")
    night.assert_true()


def test_a_filter_changed_in_mid_sweep_takes_nobody_for_asked(nights: StartNights) -> None:
    """A sweep broken off, then another filter: all of its machines are asked, and nothing is deleted on a guess."""
    night = nights(100)
    night.run()
    before = night.pairs
    fleet = night.simulator.fleet
    fleet.pass_days(30)
    night.simulator.faults.add(Fault("503", path=KBS, after=40))
    night.run(status=1)
    night.simulator.faults.clear()

    night.config["machines_filter"] = "osPlatform eq 'Windows11'"
    kept = {machine_id for machine_id in fleet.assessed() if fleet.machine(machine_id)["osPlatform"] == "Windows11"}
    assert not activated(night.run())
    assert set(night.asked) == kept
    assert before <= night.pairs
    night.run()
    assert night.target.missing == lacking({machine_id: answers_of(fleet)[machine_id] for machine_id in kept})

    del night.config["machines_filter"]
    night.run()
    assert set(night.asked) == set(fleet.assessed())
    night.assert_true()


def test_a_filter_dropped_in_mid_sweep_takes_nobody_for_asked(nights: StartNights) -> None:
    """The list is longer then, and the machines that the filter had left out lie before the cursor too."""
    night = nights(100, {"machines_filter": "osPlatform eq 'Windows11'"})
    night.simulator.faults.add(Fault("503", path=KBS, after=20))
    night.run(status=1)
    night.simulator.faults.clear()
    del night.config["machines_filter"]
    assert activated(night.run())
    assert set(night.asked) == set(night.simulator.fleet.assessed())
    night.assert_true()


def test_a_time_limit_spreads_a_sweep_over_runs(nights: StartNights) -> None:
    """Each ends cleanly with 0; together they ask each machine once, and the last one deletes."""
    night = nights(150, {**ALONE, "time_limit_minutes": 0.04}, latency=0.05)
    asked: list[str] = []
    for _ in range(20):
        messages = night.run(status=0)
        asked += night.asked
        if night.sweep["complete"]:
            break
        assert not activated(messages)
        assert "time_limit_minutes is over" in messages.stderr
    assert activated(messages)
    assert len(asked) > len(night.asked), "one run was enough"
    assert set(asked) == set(night.simulator.fleet.assessed())
    night.assert_true()
