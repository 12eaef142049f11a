"""Whatever happens to the runs, the tables end up as the truth, and nothing is taken for gone on a guess.

A small tenant has a history: machines come, leave and come back, fall silent and are excluded, updates are installed
and appear, machines answer 404, nothing, something odd or a refusal, all answer with empty lists, lists hide machines,
filters change, the clock jumps both ways, the API is down, the time is over after a few calls, and runs are killed at
any message, with a target that flushes its streams apart: it has lost rows, and passed on bookmarks of different age.
Hypothesis makes up short histories, chance some of 200 nights. The sweep is the real one, with rules that are hit by
eight machines. What must hold:

- Nothing is activated away, or closed by a believed sweep, that is there, unless the contract says so: its machine
  failed twice, is skipped, answered 404 for good, or a list that may be believed does not hold it; or the answers lie
  in a way that the guards may believe, by their own rules, which stand here once more.
- No check is lost: at the end of a sweep every machine that all its lists held has one, and the rows that go with it.
- After a few good nights the tables are the truth.
- Every machine is asked within a few runs, also where some are sick and a run has time for few calls.
"""

from __future__ import annotations

import json
import random
from collections import deque
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from tap_mde_kbs.errors import (
    ApiDownError,
    ApiError,
    BadRequestError,
    NoAnswerError,
    NotFoundError,
    ShapeError,
    Stopped,
)
from tap_mde_kbs.state import State
from tap_mde_kbs.sweep.sweep import Listed, Rules, Sweep, sweeps
from tap_mde_kbs.sweep.verdict import believe_list
from tests.support.virtual import Clock, Desk

HOUR = 3600.0
DAY = 24 * HOUR
RULES = Rules(deferred=3, named=4, in_a_row=3)
MAX_SHRINK_PERCENT = 5
ENOUGH_CALLS = 20
"""For three machines that are asked again, three times each, and a few others."""

IDS = "abcdefgh"
KBS = range(4)
PAIRS = 10
"""So many updates does each of these stand for, so that the guards have something to count."""
FAULTS: dict[str, list[str]] = {
    "404 once": ["404", "ok"],
    "404": ["404"],
    "no answer once": ["502", "ok"],
    "no answer": ["502"],
    "both": ["502", "404", "ok"],
    "both for ever": ["404", "502", "404", "404"],
    "odd": ["odd"],
    "odd once": ["odd", "ok"],
    "bad request": ["400"],
    "forbidden": ["403"],
}
ERRORS = {"404": NotFoundError, "502": NoAnswerError, "odd": ShapeError, "400": BadRequestError, "403": ApiError}

FILTERED: dict[str, set[str]] = {"scope": set(), "another": {"b"}}
"""What a filter keeps out: too little for the shrink guard, so the scope alone has to hold."""


class Killed(Exception):  # noqa: N818 - a test's way of saying kill -9
    """The process is gone."""


@dataclass
class Machine:
    """A machine of the tenant."""

    missing: set[int] = field(default_factory=set)
    skip: str | None = None


@dataclass
class Night:
    """What goes wrong in a run.

    Attributes:
        faults: Machines that answer something else.
        hidden: Machines that the list does not hold.
        is_empty: All lists of updates are empty.
        is_down: Nobody answers.
        scope: What is asked for; another one keeps a machine out.
        size: Calls in flight.
        calls: The time is over after so many.
        every: A STATE after so many outcomes,
        early: before the last one's rows are out.
        kill: After so many messages.
        lags: So many STATEs older than the last are those whose bookmarks of `missing_kbs`, and of the checks, the
            target has passed on.
        loses: What it had not passed on a bookmark of, it lost.
        change: At this call, on that machine, an update is installed; or the machine leaves.
    """

    faults: dict[str, str] = field(default_factory=dict)
    hidden: set[str] = field(default_factory=set)
    is_empty: bool = False
    is_down: bool = False
    scope: str = "scope"
    size: int = 4
    calls: int | None = None
    every: int = 1
    early: bool = False
    kill: int | None = None
    lags: tuple[int, int] = (0, 0)
    loses: bool = False
    change: tuple[int, str, int | None] | None = None


@dataclass
class Levels:
    """What the guards compare with, as the contract has it: of the last believed sweep, and of a short one after it.

    Attributes:
        over_unbelieved: Sweeps that ran over a list that was not believed.
    """

    answered: int | None = None
    answered_short: int | None = None
    pairs: int | None = None
    pairs_short: int | None = None
    over_unbelieved: set[int] = field(default_factory=set)

    def may_believe(self, answered: int, pairs: int, *, nobody_answered: bool) -> bool:
        """Judge a sweep, and remember."""
        if nobody_answered:
            self.answered_short = self.pairs_short = None
            return False
        few_machines = self.answered is not None and is_far_below(answered, self.answered, 5, 1)
        few_pairs = self.pairs is not None and is_far_below(pairs, self.pairs, 50, 20)
        second = (
            self.answered_short is not None
            and not is_far_below(answered, self.answered_short, 5, 1)
            and not is_far_below(self.answered_short, answered, 5, 1)
        )
        second_pairs = self.pairs_short is not None and not is_far_below(pairs, self.pairs_short, 50, 20)
        believed = (not few_machines or second) and (not few_pairs or second_pairs)
        self.answered_short = answered if few_machines else None
        self.pairs_short = pairs if few_pairs else None
        if believed:
            self.answered, self.pairs, self.answered_short, self.pairs_short = answered, pairs, None, None
        return believed


def is_far_below(count: int, than: int, percent: float, few: int) -> bool:
    """Lower by more than so many per cent, and by more than a few."""
    return than - count > few and 100 * (than - count) > percent * than


@dataclass
class Tables:
    """What the target holds.

    Attributes:
        rows: Machine and KB, and the sweep.
        checks: Machine and sweep, the outcome and what was missing.
    """

    rows: dict[tuple[str, int], int] = field(default_factory=dict)
    checks: dict[tuple[str, int], tuple[str, frozenset[int]]] = field(default_factory=dict)


def newest_of(state: dict[str, Any]) -> int:
    """The newest sweep that a STATE knows of."""
    bookmarks = state["bookmarks"]
    return max(bookmarks["missing_kbs"]["sweep"]["version"], bookmarks["missing_kbs_checks"]["version"])


class World:
    """The tenant, its nights, and the tables.

    Args:
        deletes_all_others: ACTIVATE_VERSION deletes rows of any other version, as some targets do; the SDK's delete
            those of older ones.
    """

    def __init__(self, *, deletes_all_others: bool = False) -> None:
        self.deletes_all_others = deletes_all_others
        self.clock = Clock()
        self.latest = 0.0
        self.machines: dict[str, Machine] = {}
        self.tables = Tables()
        self.state: dict[str, Any] = {}
        self.levels = Levels()
        self.states: list[tuple[dict[str, Any], Levels, Tables]] = []
        """The STATEs of a run, what the guards knew at each, and what the target had been sent."""
        self.runs = 0
        self.always_listed: dict[int, set[str]] = {}
        self.failures: dict[str, set[tuple[int, int]]] = {}
        self.asked: set[str] = set()
        self.versions: list[int] = []
        self.faults: dict[str, str] = {}

    def passes(self, hours: float) -> None:
        """Time, until the next run."""
        self.clock.now += hours * HOUR
        self.latest = max(self.latest, self.clock.wall())

    def patches(self, machine_id: str, kb: int) -> None:
        """An update is installed, or a new one appears."""
        if machine_id in self.machines:
            self.machines[machine_id].missing ^= {kb}

    # --- a run ---

    def run(self, night: Night) -> bool:
        """As the runner does it; whether it came to its end."""
        self.runs += 1
        self.passes(1 / 60)
        self.left = night.kill
        self.calls_left = night.calls
        self.states = []
        self.asked = set()
        desk = Desk(self.asker(night), size=night.size)
        listed = [
            Listed(name, machine.skip)
            for name, machine in self.machines.items()
            if name not in night.hidden | FILTERED[night.scope]
        ]
        self.emit(self.state)
        ended = False
        try:
            self.work(desk, listed, night)
            ended = True
        except (ApiDownError, ApiError, Stopped):
            pass
        except Killed:
            self.pass_on(night)
            return False
        finally:
            self.asked = {*desk.asked}
        self.state, self.levels = self.states[-1][0], self.states[-1][1]
        return ended

    def asker(self, night: Night) -> Any:
        """Who answers in this run."""
        scripts = {name: deque(FAULTS[fault]) for name, fault in night.faults.items()}
        calls = iter(range(1_000_000))

        def ask(machine_id: str) -> frozenset[int]:
            number = next(calls)
            if night.calls is not None and number >= night.calls:
                raise Stopped
            if night.change and number == night.change[0]:
                _, name, kb = night.change
                self.patches(name, kb) if kb is not None else self.machines.pop(name, None)
            script = scripts.get(machine_id) or deque(["ok"])
            answer = script.popleft() if len(script) > 1 else script[0]
            if night.is_down:
                answer = "502"
            if machine_id not in self.machines:
                answer = "404"
            if answer != "ok":
                raise ERRORS[answer](answer)
            return frozenset() if night.is_empty else frozenset(self.machines[machine_id].missing)

        return ask

    def work(self, desk: Desk[frozenset[int]], listed: list[Listed], night: Night) -> None:
        """List, sweep, write."""
        state = State()
        state.read(self.state)
        about = state.machines
        believed, about.listed_short = believe_list(len(listed), about.listed, about.listed_short, MAX_SHRINK_PERCENT)
        if believed:
            about.listed = len(listed)
        state.settle(checks_are_written=True)
        for sweep in sweeps(
            state.sweep,
            listed,
            scope=night.scope,
            pool=desk,
            now=self.clock.wall,
            sleep=desk.sleep,
            list_believed=believed,
            max_shrink_percent=MAX_SHRINK_PERCENT,
            rules=RULES,
        ):
            self.begin(sweep, listed, newest_of(state.to_dict()), believed=believed)
            self.store(state, sweep)
            try:
                for number, outcome in enumerate(sweep.outcomes(), start=1):
                    if night.early and number % night.every == 0:
                        self.store(state, sweep)
                    rows = outcome.answer or frozenset()
                    for kb in sorted(rows):
                        self.message()
                        self.tables.rows[outcome.machine.id, kb] = sweep.version
                    self.message()
                    self.tables.checks[outcome.machine.id, sweep.version] = outcome.kind, rows
                    if outcome.kind == "failed":
                        self.failures.setdefault(outcome.machine.id, set()).add((self.runs, sweep.version))
                    sweep.written(outcome, rows=PAIRS * len(rows))
                    if not night.early and number % night.every == 0:
                        self.store(state, sweep)
            except (ApiError, Stopped):
                self.store(state, sweep)
                raise
            self.end(sweep)
            self.store(state, sweep)

    def begin(self, sweep: Sweep[frozenset[int]], listed: list[Listed], before: int, *, believed: bool) -> None:
        """A sweep begins, or goes on; the newest that STATE knew is given."""
        if sweep.mode == "new":  # a version may come twice where its STATE was lost, and the clock is behind
            assert sweep.version > before
            self.always_listed.pop(sweep.version, None)
            self.levels.over_unbelieved.discard(sweep.version)
        ids = {machine.id for machine in listed}
        self.always_listed[sweep.version] = self.always_listed.get(sweep.version, ids) & ids
        if not believed:
            self.levels.over_unbelieved.add(sweep.version)
        self.was_judged = sweep.bookmark.counts.is_believed
        self.failed_before = {*sweep.bookmark.failed_before}

    def end(self, sweep: Sweep[frozenset[int]]) -> None:
        """Everybody has an outcome: what is believed, what is activated."""
        counts, version, verdict = sweep.bookmark.counts, sweep.version, sweep.verdict
        assert verdict is not None
        if self.was_judged is None:
            nobody = bool(counts.asked) and not counts.answered
            machines = counts.answered + counts.skipped
            assert verdict.is_believed == self.levels.may_believe(machines, counts.pairs, nobody_answered=nobody)
        else:
            assert verdict.is_believed == self.was_judged
            if verdict.is_believed:
                machines = counts.answered + counts.skipped
                self.levels = Levels(machines, None, counts.pairs, None, self.levels.over_unbelieved)
        checks = {name: check for (name, other), check in self.tables.checks.items() if other == version}
        assert counts.outcomes <= len(checks), "somebody was counted twice"
        for name in self.always_listed[version]:
            assert name in checks, f"the check of {name} is lost"
            for kb in checks[name][1]:
                assert self.tables.rows.get((name, kb), 0) >= version, f"a row of {name} is lost"
        if verdict.activate:
            self.message()
            self.activate(version, checks)

    def activate(self, version: int, checks: dict[str, tuple[str, frozenset[int]]]) -> None:
        """Delete; nothing that is there may go, unless the contract says so."""
        assert version not in self.levels.over_unbelieved
        rows = self.tables.rows
        gone = [row for row, other in rows.items() if other < version or (self.deletes_all_others and other != version)]
        for row in gone:
            del rows[row]
            kind, _ = checks.get(row[0], ("left", None))
            if kind == "failed" and row[0] in self.always_listed[version]:
                twice = {(run, other) for run, other in self.failures[row[0]] if other <= version}
                assert len(twice) > 1, f"{row} is gone, and its machine failed once"
            elif kind == "left":
                assert row[0] not in self.always_listed[version]

    def message(self) -> None:
        """One more is out, unless the process was killed before."""
        if self.left is not None:
            if not self.left:
                raise Killed
            self.left -= 1

    def store(self, state: State, sweep: Sweep[frozenset[int]]) -> None:
        """Write a STATE."""
        state.keep(sweep.bookmark)
        self.message()
        self.emit(state.to_dict(), in_sweep=sweep.version)

    def emit(self, state: dict[str, Any], in_sweep: int | None = None) -> None:
        """The target takes a STATE in; it may pass it on later.

        A target that deletes all other versions is only safe when it passes on a sweep's first STATE with the sweep's
        first rows, at the latest.
        """
        if self.deletes_all_others and in_sweep and self.states:
            last = self.states[-1][0].get("bookmarks", {}).get("missing_kbs", {}).get("sweep", {})
            if last.get("version") != in_sweep:
                self.states = []
        tables = Tables(dict(self.tables.rows), dict(self.tables.checks))
        self.states.append((json.loads(json.dumps(state)), deepcopy(self.levels), tables))

    def pass_on(self, night: Night) -> None:
        """What is left after a kill: of each stream its rows and its bookmark up to some STATE."""
        kbs, checks = (self.states[max(0, len(self.states) - 1 - lag)] for lag in night.lags)
        state, self.levels = deepcopy(kbs[0]), kbs[1]
        if state.get("bookmarks") and checks[0].get("bookmarks"):
            state["bookmarks"]["missing_kbs_checks"] = checks[0]["bookmarks"]["missing_kbs_checks"]
        elif checks[0].get("bookmarks"):
            state = {"bookmarks": {"missing_kbs_checks": checks[0]["bookmarks"]["missing_kbs_checks"]}}
        self.state = state
        if night.loses:
            self.tables = Tables(dict(kbs[2].rows), dict(checks[2].checks))

    # --- its end ---

    def finish(self) -> None:
        """A few runs with sick machines and little time, then a few good nights."""
        self.clock.set_back = 0.0
        self.passes(max(0.0, self.latest - self.clock.wall()) / HOUR)
        asked: set[str] = set()
        is_up = True
        for _ in range(14):
            self.passes(13)
            night = Night(faults=self.faults, calls=ENOUGH_CALLS)
            is_up = self.run(night) or len(self.asked) > 0
            asked |= self.asked
        to_ask = {name for name, machine in self.machines.items() if machine.skip is None}
        sick = {*self.faults}
        if is_up and not to_ask <= sick:
            assert asked >= to_ask, f"never asked: {to_ask - asked}"
        for _ in range(5):
            self.passes(24)
            assert self.run(Night())
        if not to_ask:
            return
        state = State()
        state.read(self.state)
        assert state.sweep.complete
        assert {*self.tables.rows} == {(name, kb) for name in to_ask for kb in self.machines[name].missing}
        newest = {name: self.tables.checks[name, state.sweep.version] for name in self.machines}
        for name, machine in self.machines.items():
            missing = frozenset[int]() if machine.skip else frozenset(machine.missing)
            assert newest[name] == ("skipped" if machine.skip else "answered", missing)


# --- short histories, made up by Hypothesis ------------------------------------------------------

machine_ids = st.sampled_from(IDS)
kbs = st.sampled_from(KBS)
nights = st.builds(
    Night,
    faults=st.dictionaries(machine_ids, st.sampled_from(sorted(FAULTS))),
    hidden=st.just(set()) | st.sets(machine_ids, max_size=4),
    is_empty=st.sampled_from([False, False, False, True]),
    is_down=st.sampled_from([False] * 7 + [True]),
    scope=st.sampled_from(["scope", "scope", "scope", "another"]),
    size=st.integers(1, 4),
    calls=st.none() | st.integers(1, 30),
    every=st.integers(1, 6),
    early=st.booleans(),
    kill=st.none() | st.integers(0, 60),
    lags=st.tuples(st.sampled_from([0, 0, 1, 3, 1000]), st.sampled_from([0, 0, 1, 3, 1000])),
    loses=st.booleans(),
    change=st.none() | st.tuples(st.integers(0, 12), machine_ids, st.none() | kbs),
)


class Tenant(RuleBasedStateMachine):
    """The world, with what may happen to it."""

    deletes_all_others = False

    def __init__(self) -> None:
        super().__init__()
        self.world = World(deletes_all_others=self.deletes_all_others)

    @initialize(machines=st.dictionaries(machine_ids, st.sets(kbs), min_size=3))
    def begin(self, machines: dict[str, set[int]]) -> None:
        """A tenant, and a first sweep."""
        self.world.machines = {name: Machine(set(missing)) for name, missing in machines.items()}
        self.world.run(Night())

    @rule(machine_id=machine_ids, missing=st.sets(kbs))
    def comes(self, machine_id: str, missing: set[int]) -> None:
        """A machine is new, or comes back."""
        self.world.machines.setdefault(machine_id, Machine(set(missing)))

    @rule(machine_id=machine_ids)
    def leaves(self, machine_id: str) -> None:
        """A machine is not listed any more, and answers 404."""
        self.world.machines.pop(machine_id, None)

    @rule(machine_id=machine_ids, kb=kbs)
    def patches(self, machine_id: str, kb: int) -> None:
        """An update is installed, or a new one appears."""
        self.world.patches(machine_id, kb)

    @rule(machine_id=machine_ids, skip=st.sampled_from(["silent", "excluded", "not_onboarded", None]))
    def is_assessed_no_more(self, machine_id: str, skip: str | None) -> None:
        """It falls silent, is excluded, offboarded, or is back."""
        if machine_id in self.world.machines:
            self.world.machines[machine_id].skip = skip

    @rule(hours=st.sampled_from([1, 11, 13, 24, 40 * 24]))
    def time_passes(self, hours: int) -> None:
        """Until the next run."""
        self.world.passes(hours)

    @rule(hours=st.sampled_from([0.01, 2, 30, 100 * 24, -2, -30, -100 * 24]))
    def clock_jumps(self, hours: float) -> None:
        """Back or ahead, by a little or a lot."""
        self.world.clock.set_back += hours * HOUR
        self.world.passes(0)

    @rule()
    def night(self) -> None:
        """A run in which nothing goes wrong."""
        self.world.run(Night())

    @rule(night=nights)
    def bad_night(self, night: Night) -> None:
        """A run in which anything may go wrong."""
        self.world.faults = night.faults
        self.world.run(night)

    @invariant()
    def the_state_is_bounded(self) -> None:
        """By the rules of this test."""
        state = State()
        state.read(self.world.state)
        assert len(state.sweep.deferred) <= RULES.deferred + RULES.in_a_row
        assert len(state.sweep.failed) <= RULES.named
        assert len(state.sweep.failed_before) <= RULES.named

    def teardown(self) -> None:
        """A few nights without trouble, and the tables are the truth."""
        self.world.finish()


class StrictTenant(Tenant):
    """The same with a target that deletes the rows of all other versions."""

    deletes_all_others = True


many = settings(
    max_examples=60,
    stateful_step_count=15,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)


def test_the_tables_become_the_truth_and_nothing_is_taken_for_gone() -> None:
    """With a target that deletes older versions, flushes streams apart, and passes STATE on as late as it likes."""
    run_state_machine_as_test(Tenant, settings=many)


def test_so_it_is_with_a_target_that_deletes_all_other_versions() -> None:
    """If it passes on a sweep's first STATE with its first rows."""
    run_state_machine_as_test(StrictTenant, settings=many)


# --- long histories, by chance -------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_two_hundred_nights_of_anything(seed: int) -> None:
    """Every third night is a bad one."""
    chance = random.Random(seed)  # noqa: S311 - no secret
    world = World(deletes_all_others=False)
    world.machines = {name: Machine({kb for kb in KBS if chance.random() < 0.7}) for name in IDS}
    for _ in range(200):
        world.passes(chance.choice([1, 13, 24, 24, 24, 24, 24 * 8]))
        if chance.random() < 0.05:
            world.clock.set_back += chance.choice([-30, 30, 2, -2400, 2400]) * HOUR
        name = chance.choice(IDS)
        match chance.randrange(6):
            case 0:
                world.machines.pop(name, None)
            case 1:
                world.machines.setdefault(name, Machine({*KBS}))
            case 2:
                world.machines.setdefault(name, Machine()).skip = chance.choice(["silent", None, None])
            case _:
                world.patches(name, chance.choice(KBS))
        world.run(bad(chance) if chance.random() < 1 / 3 else Night())
    world.finish()


def bad(chance: random.Random) -> Night:
    """Something goes wrong, or several things do."""
    night = Night(size=chance.randint(1, 4), every=chance.randint(1, 5), early=chance.random() < 0.5)
    if chance.random() < 0.5:
        night.faults = {name: chance.choice(sorted(FAULTS)) for name in chance.sample(IDS, chance.randint(1, 5))}
    if chance.random() < 0.2:
        night.hidden = {*chance.sample(IDS, chance.randint(1, 7))}
    night.is_empty = chance.random() < 0.15
    night.is_down = chance.random() < 0.1
    if chance.random() < 0.2:
        night.calls = chance.randint(1, 20)
    if chance.random() < 0.5:
        night.kill = chance.randint(0, 60)
        night.lags = chance.choice([0, 1, 3]), chance.choice([0, 1, 3, 1000])
        night.loses = chance.random() < 0.5
    return night
