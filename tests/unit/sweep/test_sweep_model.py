"""Whatever happens to the runs, the table ends up as the truth, and no live row is ever deleted.

Hypothesis makes up the history of a small tenant: machines come, leave and come back, updates are
installed and appear, machines answer 404 or nothing, lists hide machines, filters change, the clock
is set back, and runs are killed at any message, with a target that has passed on an older STATE. The
sweep is the real one, with rules that are hit by eight machines.
"""

from __future__ import annotations

import json
from collections import deque
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from tap_mde_kbs.errors import ApiDownError, NoAnswerError, NotFoundError
from tap_mde_kbs.state import SweepBookmark
from tap_mde_kbs.sweep.sweep import Listed, Rules, Sweep, sweeps
from tap_mde_kbs.sweep.verdict import believe
from tests.support.virtual import Clock, Desk

HOUR = 3600.0
DAY = 24 * HOUR
RULES = Rules(deferred=3, failed=2, in_a_row=3)
MAX_SHRINK_PERCENT = 5

IDS = "abcdefgh"
KBS = range(4)
FAULTS: dict[str, list[str]] = {
    "404 once": ["404", "ok"],
    "404": ["404"],
    "no answer once": ["502", "ok"],
    "no answer": ["502"],
    "both": ["502", "404", "ok"],
    "both for ever": ["404", "502", "404", "404"],
    "forbidden": ["403"],
}

#: What a filter keeps out: too little for the shrink guard, so the scope alone has to hold.
FILTERED: dict[str, set[str]] = {"scope": set(), "another": {"b"}}

machine_ids = st.sampled_from(IDS)
kbs = st.sampled_from(KBS)


class Killed(Exception):  # noqa: N818 - a test's way of saying kill -9
    """The process is gone."""


@dataclass
class Machine:
    """A machine of the tenant."""

    missing: set[int] = field(default_factory=set)
    onboarded: bool = True


@dataclass
class Known:
    """What became of the machines, as told by the messages up to a STATE.

    Attributes:
        outcomes: By sweep, the last outcome of each machine; "left" if a believed list of one of the
            sweep's runs did not hold it, and it had no better one.
        finished: Versions of sweeps in which everybody got an outcome.
    """

    outcomes: dict[int, dict[str, str]] = field(default_factory=dict)
    finished: set[int] = field(default_factory=set)

    def excused(self, version: int, machine_id: str) -> bool:
        """Whether the machine's rows may go with the activation of that version."""
        outcome = self.outcomes.get(version, {}).get(machine_id)
        if outcome == "failed":
            before = max((other for other in self.finished if other < version), default=0)
            return self.outcomes.get(before, {}).get(machine_id) == "failed"
        return outcome in {"not_found", "skipped", "left"}


@dataclass
class Target:
    """A warehouse: rows by key, each with its version, and the STATE it passed on.

    Attributes:
        deletes_all_others: ACTIVATE_VERSION deletes rows of any other version, as some targets do;
            the SDK's delete those of older ones.
        rows: Machine and KB, and the version.
        last_answer: What each machine lacked at its last answer, and the answer's version.
    """

    deletes_all_others: bool = False
    rows: dict[tuple[str, int], int] = field(default_factory=dict)
    last_answer: dict[str, frozenset[int]] = field(default_factory=dict)

    def activate(self, version: int) -> set[tuple[str, int]]:
        """Delete; the rows that are gone."""
        gone = {
            row for row, other in self.rows.items() if other < version or (self.deletes_all_others and other != version)
        }
        for row in gone:
            del self.rows[row]
        return gone


class Tenant(RuleBasedStateMachine):
    """The tenant, its nights, and the table."""

    deletes_all_others = False

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.latest = 0.0
        self.machines: dict[str, Machine] = {}
        self.target = Target(self.deletes_all_others)
        self.sweep: Sweep[frozenset[int]] | None = None
        #: The STATEs of a run, and what was known at each.
        self.states: list[tuple[dict[str, Any], Known]] = []
        self.state: dict[str, Any] = {"machines": {"listed": None, "short": 0}, "sweep": {}}
        self.known = Known()

    # --- what happens to the tenant ---

    @initialize(machines=st.dictionaries(machine_ids, st.sets(kbs), min_size=3))
    def begin(self, machines: dict[str, set[int]]) -> None:
        """A tenant, and a first sweep."""
        self.machines = {name: Machine(set(missing)) for name, missing in machines.items()}
        self.night()

    @rule(machine_id=machine_ids, missing=st.sets(kbs))
    def comes(self, machine_id: str, missing: set[int]) -> None:
        """A machine is new, or comes back."""
        self.machines.setdefault(machine_id, Machine(set(missing)))

    @rule(machine_id=machine_ids)
    def leaves(self, machine_id: str) -> None:
        """A machine is not listed any more, and answers 404."""
        self.machines.pop(machine_id, None)

    @rule(machine_id=machine_ids, kb=kbs)
    def patches(self, machine_id: str, kb: int) -> None:
        """An update is installed, or a new one appears."""
        if machine_id in self.machines:
            self.machines[machine_id].missing ^= {kb}

    @rule(machine_id=machine_ids)
    def is_offboarded(self, machine_id: str) -> None:
        """Or onboarded again."""
        if machine_id in self.machines:
            self.machines[machine_id].onboarded ^= True

    @rule(hours=st.sampled_from([1, 11, 13, 24, 40 * 24]))
    def time_passes(self, hours: int) -> None:
        """Until the next run."""
        self.clock.now += hours * HOUR
        self.latest = max(self.latest, self.clock.wall())

    @rule(hours=st.sampled_from([0.01, 2, 30, 100 * 24]))
    def clock_is_set_back(self, hours: float) -> None:
        """By a little or a lot."""
        self.clock.set_back += hours * HOUR

    # --- runs ---

    @rule()
    def night(self) -> None:
        """A run in which nothing goes wrong."""
        self.run()

    @rule(
        faults=st.dictionaries(machine_ids, st.sampled_from(sorted(FAULTS))),
        hidden=st.sets(machine_ids, max_size=4) | st.just(set()),
        scope=st.sampled_from(["scope", "scope", "scope", "another"]),
        size=st.integers(1, 4),
        every=st.integers(1, 6),
        early=st.booleans(),
        kill=st.none() | st.integers(0, 60),
        lag=st.sampled_from([0, 0, 1, 3, 1000]),
        change=st.none() | st.tuples(st.integers(0, 12), machine_ids, st.none() | kbs),
    )
    def bad_night(  # noqa: PLR0917 - all that may go wrong
        self,
        faults: dict[str, str],
        hidden: set[str],
        scope: str,
        size: int,
        every: int,
        early: bool,
        kill: int | None,
        lag: int,
        change: tuple[int, str, int | None] | None,
    ) -> None:
        """A run in which anything may go wrong.

        Args:
            faults: Machines that answer something else.
            hidden: Machines that the list does not hold.
            scope: What is asked for; another one keeps a machine out.
            size: Calls in flight.
            every: A STATE after so many outcomes,
            early: before the last one's rows are out.
            kill: After so many messages.
            lag: So many STATEs older than the last is the one that the target has passed on.
            change: At this call, on that machine, an update is installed; or the machine leaves.
        """
        self.run(faults, hidden, scope, size=size, every=every, early=early, kill=kill, lag=lag, change=change)

    def run(
        self,
        faults: dict[str, str] | None = None,
        hidden: set[str] | None = None,
        scope: str = "scope",
        *,
        size: int = 4,
        every: int = 1,
        early: bool = False,
        kill: int | None = None,
        lag: int = 0,
        change: tuple[int, str, int | None] | None = None,
    ) -> None:
        """As the streams do it."""
        scripts = {name: deque(FAULTS[fault]) for name, fault in (faults or {}).items()}
        calls = iter(range(1_000_000))

        def ask(machine_id: str) -> frozenset[int]:
            number = next(calls)
            if change and number == change[0]:
                self.patches(change[1], change[2]) if change[2] is not None else self.leaves(change[1])
            script = scripts.get(machine_id) or deque(["ok"])
            answer = script.popleft() if len(script) > 1 else script[0]
            if answer == "404" or machine_id not in self.machines:
                raise NotFoundError(answer)
            if answer == "403":
                raise PermissionError
            if answer != "ok":
                raise NoAnswerError(answer)
            return frozenset(self.machines[machine_id].missing)

        self.clock.now += 60
        self.latest = max(self.latest, self.clock.wall())
        listed = {name: machine.onboarded for name, machine in self.machines.items() if name not in (hidden or set())}
        self.left = kill
        self.states = []
        self.passed_on = lag
        self.emit()
        try:
            self.work(Desk(ask, size=size), listed, scope, every, early=early)
        except (ApiDownError, PermissionError):
            assert self.sweep is not None
            self.state["sweep"] = self.sweep.bookmark.to_dict()
            self.emit(in_sweep=self.sweep.version)
        except Killed:
            pass
        else:
            self.passed_on = 0
        state, known = self.states[max(0, len(self.states) - 1 - self.passed_on)]
        self.state, self.known = json.loads(json.dumps(state)), known

    def work(self, desk: Desk[frozenset[int]], listed: dict[str, bool], scope: str, every: int, *, early: bool) -> None:
        """List, sweep, write."""
        about = self.state["machines"]
        believed, about["short"] = believe(len(listed), about["listed"], about["short"], MAX_SHRINK_PERCENT)
        if believed:
            about["listed"] = len(listed)
        for sweep in sweeps(
            SweepBookmark.from_dict(self.state["sweep"]),
            [Listed(name, asked=asked) for name, asked in listed.items()],
            scope=scope,
            pool=desk,
            now=self.clock.wall,
            sleep=desk.sleep,
            list_believed=believed,
            max_shrink_percent=MAX_SHRINK_PERCENT,
            rules=RULES,
        ):
            outcomes = self.known.outcomes.setdefault(sweep.version, {})
            if believed:
                unlisted = set(IDS) - set(listed)
                outcomes.update({name: "left" for name in unlisted if outcomes.get(name, "failed") == "failed"})
            self.sweep = sweep
            self.store(sweep)
            for number, outcome in enumerate(sweep.outcomes(), start=1):
                if early and number % every == 0:
                    self.store(sweep)
                if outcome.kind == "answered":
                    assert outcome.answer is not None
                    self.target.last_answer[outcome.machine_id] = outcome.answer
                    for kb in sorted(outcome.answer):
                        self.message()
                        self.target.rows[outcome.machine_id, kb] = sweep.version
                self.message()
                sweep.written(outcome)
                # The machine is written: the next STATE may count it.
                outcomes[outcome.machine_id] = outcome.kind
                if not early and number % every == 0:
                    self.store(sweep)
            assert sweep.verdict is not None
            self.known.finished.add(sweep.version)
            if sweep.verdict.activate:
                self.message()
                self.check(sweep.version, self.target.activate(sweep.version))
            self.store(sweep)

    def message(self) -> None:
        """One more is out, unless the process was killed before."""
        if self.left is not None:
            if not self.left:
                raise Killed
            self.left -= 1

    def store(self, sweep: Sweep[frozenset[int]]) -> None:
        """Write a STATE."""
        self.state["sweep"] = sweep.bookmark.to_dict()
        self.message()
        self.emit(in_sweep=sweep.version)

    def emit(self, in_sweep: int | None = None) -> None:
        """The target takes a STATE in; it may pass it on later.

        A target that deletes all other versions is only safe when it passes on a sweep's first STATE
        with the sweep's first rows, at the latest.
        """
        if self.deletes_all_others and in_sweep and self.states:
            last = self.states[-1][0]["sweep"]
            if last.get("version") != in_sweep:
                self.states = []
        self.states.append((deepcopy(self.state), deepcopy(self.known)))

    # --- what must hold ---

    def check(self, version: int, gone: set[tuple[str, int]]) -> None:
        """No row that was deleted was live."""
        for machine_id, kb in gone:
            live = kb in self.target.last_answer[machine_id]
            assert not live or self.known.excused(version, machine_id), (machine_id, kb)

    @invariant()
    def the_state_is_bounded(self) -> None:
        """By the rules of this test: three deferred, two failed."""
        sweep = SweepBookmark.from_dict(self.state["sweep"])
        assert len(sweep.deferred) <= RULES.deferred
        assert len(sweep.failed) <= RULES.failed
        assert len(sweep.failed_before) <= RULES.failed

    def teardown(self) -> None:
        """A few nights without trouble, and the table is the truth."""
        self.clock.set_back = 0.0
        self.clock.now += max(0.0, self.latest - self.clock.wall())
        for _ in range(4):
            self.clock.now += DAY
            self.night()
        if not any(machine.onboarded for machine in self.machines.values()):
            return
        assert SweepBookmark.from_dict(self.state["sweep"]).complete
        assert set(self.target.rows) == {
            (name, kb) for name, machine in self.machines.items() if machine.onboarded for kb in machine.missing
        }


class StrictTenant(Tenant):
    """The same with a target that deletes the rows of all other versions."""

    deletes_all_others = True


many = settings(max_examples=100, stateful_step_count=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def test_the_table_becomes_the_truth_and_no_live_row_is_deleted() -> None:
    """With a target that deletes older versions, and passes STATE on as late as it likes."""
    run_state_machine_as_test(Tenant, settings=many)


def test_so_it_does_with_a_target_that_deletes_all_other_versions() -> None:
    """If it passes on a sweep's first STATE with its first rows."""
    run_state_machine_as_test(StrictTenant, settings=many)
