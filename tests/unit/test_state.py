"""STATE: what a run leaves to the next, whatever targets and Meltano make of it on the way."""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tap_mde_kbs.state import (
    DIGEST_CHARACTERS,
    MOST_NAMED,
    OUTCOMES,
    Counts,
    ListBookmark,
    State,
    SweepBookmark,
    digest,
    moment,
    seconds_since,
)

NOW = 1_790_000_000.0
MACHINES = {"version", "listed", "listed_short", "listing", "listed_at"}
SWEEP = {
    "version",
    "scope",
    "began_at",
    "progress_at",
    "after",
    "deferred",
    "failed",
    "failed_before",
    "asked_all",
    "complete",
    "counts",
    "answered_last",
    "answered_short",
    "pairs_last",
    "pairs_short",
    "source_time",
}
CHECKS = {"version", "after", "asked_all", "counts"}
LEAST_LEFT = 3_200
"""Characters that the bookmarks of advisories may take."""


def ids(count: int) -> list[str]:
    """As long as real ones."""
    return [f"{number:040x}" for number in range(count)]


def named(*numbers: int) -> list[str]:
    """Digests of some of them."""
    return [digest(f"{number:040x}") for number in numbers]


def state_of(sweep: SweepBookmark, machines: ListBookmark | None = None) -> State:
    """A STATE with one sweep in it."""
    state = State()
    state.machines = machines or ListBookmark()
    state.keep(sweep)
    return state


def through(*states: object) -> State:
    """What the next run reads, when STATEs were merged one after the other as Meltano does it."""
    merged: dict[str, Any] = {}
    for each in states:
        merge(merged, json.loads(json.dumps(each)))
    state = State()
    state.read(merged)
    return state


def merge(into: dict[str, Any], other: dict[str, Any]) -> None:
    """Meltano's deep merge: dicts key by key, all else overwritten."""
    for key, value in other.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            merge(into[key], value)
        else:
            into[key] = deepcopy(value)


def keys_of(state: dict[str, Any]) -> list[set[str]]:
    """Of its three bookmarks."""
    bookmarks = state["bookmarks"]
    return [{*bookmarks["machines"]}, {*bookmarks["missing_kbs"]["sweep"]}, {*bookmarks["missing_kbs_checks"]}]


FULL = SweepBookmark(
    version=9,
    scope="s",
    began_at=moment(NOW),
    progress_at=moment(NOW),
    after=ids(60)[59],
    deferred=named(3, 4),
    failed=named(5, 6),
    failed_before=named(6, 7),
    counts=Counts(answered=50, failed=2, skipped=6, pairs=150, machines_listed=100, source="api"),
    answered_last=90,
    answered_short=80,
    pairs_last=300,
    pairs_short=100,
    source_time=moment(NOW),
)

# --- its shape -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "read",
    [
        None,
        {},
        {"bookmarks": {}},
        {"bookmarks": {"missing_kbs": {"sweep": {"version": 7, "counts": {}}}}},
        {"bookmarks": {"missing_kbs_checks": {"version": "x", "counts": [], "more": "of it"}}},
        state_of(FULL).to_dict(),
    ],
)
def test_every_state_has_every_key(read: object) -> None:
    """A merge keeps a key that is left out, so nothing is ever said by leaving one out."""
    state = State()
    state.read(read)
    assert keys_of(state.to_dict()) == [MACHINES, SWEEP, CHECKS]
    counts = state.to_dict()["bookmarks"]["missing_kbs"]["sweep"]["counts"]
    assert {*counts} == {*vars(Counts())}
    assert {*state.to_dict()["bookmarks"]["missing_kbs_checks"]["counts"]} == {*OUTCOMES, "deferred"}


def test_what_is_written_is_read() -> None:
    """Through JSON, as plain values."""
    machines = ListBookmark(version=8, listed=100, listed_short=50, listing=7, listed_at=moment(NOW))
    read = through(state_of(FULL, machines).to_dict())
    assert (read.machines, read.sweep) == (machines, FULL)
    read.settle(checks_are_written=True)
    assert read.sweep == FULL


def test_what_was_stored_does_not_change_with_the_sweep() -> None:
    """The writer of STATE may hold it back."""
    sweep = FULL.copy()
    state = state_of(sweep)
    stored = state.to_dict()
    before = deepcopy(stored)
    for each in (sweep.deferred, sweep.failed, sweep.failed_before):
        each.append("d")
    sweep.counts.answered += 1
    assert stored == before
    assert state.to_dict() == before


def test_the_largest_state_of_twenty_thousand_machines_leaves_room_for_the_advisories() -> None:
    """All lists full, all texts long, all numbers large: 8,192 bytes less what is measured here."""
    twenty = 20_000
    counts = Counts(
        answered=twenty,
        not_found=twenty,
        failed=twenty,
        skipped=twenty,
        not_in_export=twenty,
        unnamed=twenty,
        pairs=twenty * 40,
        machines_listed=twenty,
        empty_files=512,
        empty_files_before=512,
        source="export_files",
        ended_at=moment(NOW),
        is_believed=False,
        verdict=f"{twenty} machines gave no answer that had not failed before: they are asked again first next time.",
    )
    sweep = SweepBookmark(
        version=int(NOW),
        scope="0123456789abcdef?",
        began_at=moment(NOW),
        progress_at=moment(NOW),
        after=ids(1)[0] * 2,
        deferred=named(*range(60)),
        failed=named(*range(MOST_NAMED)),
        failed_before=named(*range(MOST_NAMED)),
        asked_all=False,
        complete=False,
        counts=counts,
        answered_last=twenty,
        answered_short=twenty,
        pairs_last=twenty * 40,
        pairs_short=twenty * 40,
        source_time=moment(NOW),
    )
    machines = ListBookmark(int(NOW), twenty, twenty, int(NOW), moment(NOW))
    written = len(json.dumps({"type": "STATE", "value": state_of(sweep, machines).to_dict()}))
    assert written + LEAST_LEFT <= 8_192, f"{8_192 - written} characters left"
    assert twenty / 100 <= MOST_NAMED


def test_no_two_machines_of_a_fleet_are_taken_for_each_other() -> None:
    """Digests are long enough for those that fail among those that are listed."""
    assert len({digest(machine_id) for machine_id in ids(20_000)}) == 20_000
    assert {len(digest(machine_id)) for machine_id in ids(100)} == {DIGEST_CHARACTERS}


# --- odd states ----------------------------------------------------------------------------------

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)
odd_bookmarks = st.dictionaries(st.sampled_from(sorted(SWEEP | CHECKS | MACHINES)), json_values) | json_values


@given(
    st.fixed_dictionaries(
        {
            "bookmarks": st.fixed_dictionaries(
                {},
                optional={
                    "machines": odd_bookmarks,
                    "missing_kbs": st.fixed_dictionaries({"sweep": odd_bookmarks}) | json_values,
                    "missing_kbs_checks": odd_bookmarks,
                },
            )
        }
    )
    | json_values
)
def test_whatever_is_read_a_whole_state_is_written(read: object) -> None:
    """Of any shape; and reading that again changes nothing."""
    state = State()
    state.read(read)
    again = through(state.to_dict())
    assert again.to_dict() == state.to_dict()
    assert keys_of(state.to_dict()) == [MACHINES, SWEEP, CHECKS]
    state.settle(checks_are_written=True)
    json.dumps(state.to_dict())


@pytest.mark.parametrize(
    ("key", "odd"),
    [
        ("after", 5),
        ("deferred", None),
        ("deferred", [1]),
        ("failed", "ab"),
        ("failed", ["~" + "x" * DIGEST_CHARACTERS * (MOST_NAMED + 1)]),
        ("asked_all", None),
        ("complete", 0),
        ("scope", None),
    ],
)
def test_an_odd_cursor_is_no_cursor_but_the_rest_is_kept(key: str, odd: object) -> None:
    """Otherwise machines nobody asked could pass for checked."""
    whole = FULL.to_dict()
    read = SweepBookmark.from_dict({**whole, key: odd})
    assert (read.scope, read.after, read.counts) == ("", None, Counts())
    assert (read.deferred, read.failed, read.asked_all, read.complete) == ([], [], False, False)
    kept = ("version", "failed_before", "answered_last", "answered_short", "pairs_last", "pairs_short", "source_time")
    assert {name: vars(read)[name] for name in kept} == {name: vars(FULL)[name] for name in kept}
    assert SweepBookmark.from_dict({name: whole[name] for name in whole if name != key}) == read


@pytest.mark.parametrize("odd", [-1, True, 1.5, "7", None, [], 10**400])
def test_a_number_that_is_none_counts_as_missing(odd: object) -> None:
    """Save for one that is merely large."""
    read = SweepBookmark.from_dict({**FULL.to_dict(), "answered_last": odd, "version": odd})
    assert read.answered_last in {None, 10**400}
    assert read.version in {0, 10**400}


@pytest.mark.parametrize("then", [None, "", "soon", "2026-13-01T00:00:00Z", moment(NOW + 1), "9999-12-31T23:59:59Z"])
def test_a_moment_that_is_none_or_lies_ahead_decides_nothing(then: str | None) -> None:
    """Nor does one that no clock can show."""
    assert seconds_since(then, NOW) is None


def test_seconds_are_counted_from_a_moment_of_state() -> None:
    """As this version writes it, and as others do."""
    assert seconds_since(moment(NOW - 90), NOW) == pytest.approx(90)
    assert seconds_since("2026-09-21T14:13:20+00:00", NOW) == pytest.approx(0)


# --- the version before --------------------------------------------------------------------------

OLD = {
    "machines": {"version": 8, "listed": 100, "short_lists": 1},
    "missing_kbs": {
        "sweep": {
            "version": 9,
            "scope": "s",
            "after": ids(60)[59],
            "deferred": ids(60)[3:5],
            "failed": ids(60)[5:7],
            "failed_before": ids(60)[6:8],
            "asked_all": False,
            "complete": False,
            "answered": 56,
            "answered_last": 90,
            "short_sweeps": 1,
            "source_time": "2026-11-24T00:00:00Z",
        }
    },
}


def test_a_state_of_the_version_before_is_read_without_a_loss() -> None:
    """It has no bookmark of the checks, counts answers alone, and names machines by their ids."""
    read = through({"bookmarks": OLD})
    read.settle(checks_are_written=True)
    sweep = read.sweep
    assert read.machines == ListBookmark(version=8, listed=100)
    assert (sweep.version, sweep.scope, sweep.after, sweep.asked_all) == (9, "s", ids(60)[59], False)
    assert (sweep.deferred, sweep.failed, sweep.failed_before) == (named(3, 4), named(5, 6), named(6, 7))
    assert (sweep.counts.answered, sweep.counts.failed, sweep.counts.is_partial) == (56, 2, True)
    assert (sweep.answered_last, sweep.source_time) == (90, "2026-11-24T00:00:00Z")
    assert sweep.newly_failed == named(5)
    assert sweep.began_at == moment(9)


def test_the_first_state_of_this_version_merges_into_the_one_before() -> None:
    """Lists are overwritten, keys that are no more do no harm."""
    read = through({"bookmarks": OLD}, state_of(FULL).to_dict())
    read.settle(checks_are_written=True)
    assert read.sweep == FULL


# --- two bookmarks of the same sweep -------------------------------------------------------------


def two(kbs: SweepBookmark | None, checks: SweepBookmark | None) -> SweepBookmark:
    """Where a run goes on whose target passed on these two."""
    bookmarks: dict[str, Any] = {}
    if kbs:
        bookmarks["missing_kbs"] = {"sweep": kbs.to_dict()}
    if checks:
        bookmarks["missing_kbs_checks"] = checks.checks
    state = through({"bookmarks": bookmarks})
    state.settle(checks_are_written=True)
    return state.sweep


EARLIER = replace(
    FULL,
    after=ids(60)[30],
    deferred=named(3),
    failed=named(5),
    counts=Counts(answered=25, failed=1, skipped=3, pairs=70, machines_listed=100, source="api"),
)


def test_of_two_bookmarks_of_a_sweep_the_older_decides_where_to_go_on() -> None:
    """Whichever of the two it is; the counts are those of that moment."""
    assert two(EARLIER, FULL) == EARLIER
    back = two(FULL, EARLIER)
    assert (back.version, back.after, back.asked_all, back.complete) == (9, ids(60)[30], False, False)
    assert back.counts == EARLIER.counts


def test_whoever_was_deferred_at_the_older_moment_is_asked_again() -> None:
    """It may have failed or answered since, and its check be lost; who failed before that is not asked again."""
    since = replace(FULL, deferred=named(4), failed=named(3, 5))
    back = two(since, EARLIER)
    assert {*back.deferred} >= {*named(3)}
    assert back.failed == named(5)


def test_a_sweep_of_whose_checks_nothing_is_known_begins_again_with_its_version() -> None:
    """The checks' bookmark is of the sweep before, or there is none."""
    for checks in (None, replace(FULL, version=8, asked_all=True, complete=True)):
        back = two(FULL, checks)
        assert (back.version, back.scope, back.after, back.asked_all) == (9, "s", None, False)
        assert (back.deferred, back.failed, back.counts.outcomes) == ([], [], 0)
        assert (back.failed_before, back.answered_last) == (FULL.failed_before, 90)


@pytest.mark.parametrize("kbs", [None, replace(FULL, version=7), replace(FULL, version=7, asked_all=True, deferred=[])])
def test_where_the_checks_are_of_a_later_sweep_the_next_is_newer_than_that(kbs: SweepBookmark | None) -> None:
    """Nothing else is known of it; going on with the one before would write rows older than its checks."""
    state = two(kbs, FULL)
    assert state.version == 9
    assert state.scope == ""
    assert not state.finished
    if kbs:
        assert state.failed_before == (kbs.failed if kbs.finished else kbs.failed_before)
        assert (state.answered_last, state.pairs_short) == (90, 100)


def test_healed_machines_whose_checks_are_lost_are_asked_again() -> None:
    """The checks' bookmark is from before they were healed: who that was is not known, so a new sweep begins."""
    held = replace(FULL, asked_all=True, deferred=[], counts=replace(FULL.counts, is_believed=True, verdict="2 failed"))
    counts = replace(held.counts, answered=51, failed=1)
    healed = replace(held, failed=named(6), counts=counts)
    state = two(healed, held)
    assert (state.version, state.scope) == (9, "")
    assert state.failed_before == named(6)
    assert two(held, healed) == held


@pytest.mark.parametrize("is_believed", [True, False])
def test_a_sweep_that_is_taken_back_is_judged_again_unless_it_was_not_believed(is_believed: bool) -> None:
    """What is answered now may be less than was believed; and one short sweep must not be two in a row."""
    counts = replace(FULL.counts, is_believed=is_believed, verdict="why")
    ended = replace(FULL, asked_all=True, complete=True, deferred=[], counts=counts)
    for checks in (EARLIER, replace(FULL, version=8), None):
        back = two(ended, checks)
        assert back.counts.is_believed == (None if is_believed else False)
        assert back.counts.verdict == (None if is_believed else "why")
        assert not back.complete


def test_where_no_checks_are_written_their_bookmark_is_no_matter() -> None:
    """The stream is not selected."""
    state = through({"bookmarks": {"missing_kbs": {"sweep": FULL.to_dict()}}})
    state.settle(checks_are_written=False)
    assert state.sweep == FULL


def test_a_state_that_was_only_read_is_written_as_it_was() -> None:
    """A run that ends before it sweeps changes no bookmark of the sweep."""
    bookmarks = {"missing_kbs": {"sweep": FULL.to_dict()}, "missing_kbs_checks": EARLIER.checks}
    read = through({"bookmarks": bookmarks})
    assert through(read.to_dict()).to_dict() == read.to_dict()
    assert read.to_dict()["bookmarks"]["missing_kbs_checks"] == EARLIER.checks


def test_both_bookmarks_say_where_a_run_goes_on_once_that_is_settled() -> None:
    """A target that loads streams apart takes the first STATE for what it has: else rows asked for again are lost."""
    state = State()
    newer = SweepBookmark(version=9, scope="s", after="m", counts=Counts(answered=5))
    older = replace(newer, after="c", counts=Counts(answered=2))
    state.read({"bookmarks": {"missing_kbs": {"sweep": newer.to_dict()}, "missing_kbs_checks": older.checks}})
    state.settle(checks_are_written=True)
    bookmarks = state.to_dict()["bookmarks"]
    assert bookmarks["missing_kbs"]["sweep"]["after"] == bookmarks["missing_kbs_checks"]["after"] == "c"
