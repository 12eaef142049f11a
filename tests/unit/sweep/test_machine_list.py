"""The walk over the machine list, against lists that shift under it; and who is not asked, and why."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tap_mde_kbs.errors import NoAnswerError
from tap_mde_kbs.sweep.machine_list import LARGEST_OVERLAP, Assessed, Walk, entries_with_ids, kept
from tap_mde_kbs.sweep.sweep import Listed

NOW = datetime(2026, 11, 26, 3, tzinfo=timezone.utc)


class Listing:
    """A machine list as the API pages it: capped, with departures and arrivals between two pages."""

    def __init__(self, ids: list[str], cap: int, departures: list[int] | None = None) -> None:
        self.ids = ids
        self.cap = cap
        self.departures = iter(departures or [])
        self.left: set[str] = set()
        self.calls = 0

    def page_at(self, position: int) -> list[dict[str, Any]]:
        self.calls += 1
        page = [{"id": machine_id} for machine_id in self.ids[position : position + self.cap]]
        gone = min(next(self.departures, 0), len(self.ids))
        self.left.update(self.ids[:gone])
        del self.ids[:gone]
        return page


def walked(listing: Listing) -> list[str]:
    """Each machine once, in the order in which it came first."""
    return [*dict.fromkeys(machine["id"] for machine in Walk(listing.page_at))]


def names(count: int) -> list[str]:
    return [f"m{number:05d}" for number in range(count)]


# --- the walk ------------------------------------------------------------------------------------


def test_every_machine_comes_in_the_order_of_the_list() -> None:
    assert walked(Listing(names(230), cap=70)) == names(230)


def test_the_usual_list_costs_one_call_more_than_its_pages() -> None:
    """The page with nothing new: without it nobody knows that the list ended."""
    listing = Listing(names(5_000), cap=10_000)
    walked(listing)
    assert listing.calls == 2


def test_the_next_page_is_asked_for_while_one_is_written() -> None:
    """Before the first of its machines is given: whoever writes them is slow. And never two at once."""
    listing = Listing(names(230), cap=70)
    asked = threading.Semaphore(0)

    def page_at(position: int) -> list[dict[str, Any]]:
        page = listing.page_at(position)
        asked.release()
        return page

    entries = iter(Walk(page_at))
    assert next(entries)["id"] == "m00000"
    assert [asked.acquire(timeout=60) for _ in range(2)] == [True, True]
    assert not asked.acquire(timeout=0.1)
    assert listing.calls == 2


def test_what_a_page_fails_with_comes_after_the_machines_before_it() -> None:
    def page_at(position: int) -> list[dict[str, Any]]:
        if position:
            message = "gone"
            raise NoAnswerError(message)
        return [{"id": name} for name in names(70)]

    entries = iter(Walk(page_at))
    assert [next(entries)["id"] for _ in range(70)] == names(70)
    with pytest.raises(NoAnswerError, match="gone"):
        next(entries)


def test_an_empty_list_is_one_call() -> None:
    listing = Listing([], cap=10_000)
    assert (walked(listing), listing.calls) == ([], 1)


def test_pages_of_a_single_machine_end_too() -> None:
    assert walked(Listing(names(5), cap=1)) == names(5)


def test_a_server_that_ignores_skip_ends_the_walk() -> None:
    page = [{"id": name} for name in names(5)]
    assert [*dict.fromkeys(machine["id"] for machine in Walk(lambda _position: page))] == names(5)


def test_more_departures_than_the_overlap_holds_lose_no_machine() -> None:
    """Five hundred machines leave after the first page: what followed them has shifted into it."""
    listing = Listing(names(10_600), cap=10_000, departures=[LARGEST_OVERLAP + 300])
    assert set(walked(listing)) == set(names(10_600))


@given(
    count=st.integers(0, 400),
    cap=st.integers(2, 120),
    departures=st.lists(st.integers(0, 60), max_size=8),
    doubled=st.sets(st.integers(0, 399), max_size=20),
)
def test_whoever_stays_is_listed_whatever_leaves_and_whatever_comes_twice(
    count: int, cap: int, departures: list[int], doubled: set[int]
) -> None:
    ids = names(count)
    for position in sorted(doubled, reverse=True):
        if position < len(ids):
            ids.insert(position, ids[position])
    listing = Listing(ids, cap, departures)
    assert set(walked(listing)) >= set(names(count)) - listing.left
    assert listing.calls < 3_000


def test_an_entry_that_comes_twice_is_shown_twice() -> None:
    """The second may say Onboarded where the first did not: whoever keeps the rows decides."""
    page = [
        {"id": "a", "onboardingStatus": "CanBeOnboarded"},
        {"id": "b"},
        {"id": "a", "onboardingStatus": "Onboarded"},
    ]
    found = [entry.get("onboardingStatus") for entry in Walk(lambda at: page[at:]) if entry["id"] == "a"]
    assert found[:2] == ["CanBeOnboarded", "Onboarded"]


@pytest.mark.parametrize("odd", [{}, {"id": None}, {"id": ""}, {"id": " . "}, {"id": True}, {"id": 1.5}, {"id": ["a"]}])
@pytest.mark.parametrize("where", [0, 3, 5, 11])
def test_an_entry_without_an_id_is_left_out_and_the_others_are_there(odd: dict[str, Any], where: int) -> None:
    """At the beginning and the end of a page, and in its overlap with the next."""
    entries: list[dict[str, Any]] = [{"id": name} for name in names(11)]
    entries.insert(where, odd)
    walk = Walk(lambda position: entries[position : position + 6])
    assert [*dict.fromkeys(entry["id"] for entry in walk)] == names(11)


def test_a_page_of_nothing_but_entries_without_ids_ends() -> None:
    """A wrong host's, perhaps."""
    assert [*Walk(lambda position: [{"name": "x"}] * 10_000 if position < 30_000 else [])] == []


def test_an_id_may_be_a_number() -> None:
    """Taken as it is; what can be no id is dropped."""
    page: list[dict[str, Any]] = [{"id": 17}, {"id": None}, {"id": "a b"}]
    assert [machine_id for machine_id, _ in entries_with_ids(page)] == ["17", "a b"]


# --- a list that moves ---------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 5, 70, 71, 230])
def test_a_list_that_stands_still_has_not_moved(count: int) -> None:
    """Walking it again would be a waste of calls."""
    walk = Walk(Listing(names(count), cap=70).page_at)
    assert len({entry["id"] for entry in walk}) == count
    assert not walk.moved


def test_departures_show_as_a_move() -> None:
    """What left before the place shifts the rest."""
    walk = Walk(Listing(names(230), cap=70, departures=[0, 3]).page_at)
    assert [*walk]
    assert walk.moved


def test_arrivals_before_the_place_show_as_a_move() -> None:
    """Machines that were read come again, others did not come."""
    ids = names(230)
    calls = 0

    def page_at(position: int) -> list[dict[str, Any]]:
        nonlocal calls
        calls += 1
        if calls == 2:
            ids[0:0] = ["new1", "new2"]
        return [{"id": name} for name in ids[position : position + 70]]

    walk = Walk(page_at)
    assert [*walk]
    assert walk.moved


def test_as_many_that_come_as_go_show_as_a_move() -> None:
    """The length is the same, and a machine slipped through: only the order of the overlap tells."""
    ids = names(230)
    calls = 0

    def page_at(position: int) -> list[dict[str, Any]]:
        nonlocal calls
        calls += 1
        if calls == 2:
            ids[:] = [*ids[100:101], *ids[:100], *ids[101:]]
        return [{"id": name} for name in ids[position : position + 70]]

    walk = Walk(page_at)
    found = {entry["id"] for entry in walk}
    assert walk.moved
    assert names(230)[100] not in found
    again = Walk(page_at)
    assert found | {entry["id"] for entry in again} == {*names(230)}
    assert not again.moved


def test_another_order_for_each_page_shows_as_a_move() -> None:
    """As an API without an order of its own gives it."""
    ids = names(100)
    calls = 0

    def page_at(position: int) -> list[dict[str, Any]]:
        nonlocal calls
        calls += 1
        turned = ids if calls % 2 else [*reversed(ids)]
        return [{"id": name} for name in turned[position : position + 40]]

    walk = Walk(page_at)
    assert [*walk]
    assert walk.moved


# --- who is assessed -----------------------------------------------------------------------------

DEFAULT = Assessed(include_not_onboarded=False, include_excluded=False, silent_after_days=30)


def days_ago(days: float) -> str:
    """As rows have it."""
    return f"{NOW - timedelta(days=days):%Y-%m-%dT%H:%M:%S.%fZ}"


def machine(name: str, last_seen: str | None = None, **fields: object) -> dict[str, Any]:
    """What is kept of a row."""
    row = {"id": name, "onboarding_status": "Onboarded", "is_excluded": False, "last_seen": last_seen, **fields}
    return kept({**row, "health_status": "Active"})


def skips(assessed: Assessed, *machines: dict[str, Any], now: datetime = NOW) -> dict[str, str | None]:
    """Why each is not asked."""
    return {listed.id: listed.skip for listed in assessed.listed(machines, now)}


def test_a_machine_is_listed_with_its_last_report() -> None:
    """Its check has it."""
    assert DEFAULT.listed([machine("a", days_ago(1))], NOW) == [Listed("a", None, days_ago(1))]


def test_whoever_is_silent_excluded_or_not_onboarded_is_not_asked_and_why() -> None:
    """An empty answer of theirs would read as: everything installed."""
    fleet = [
        machine("active", days_ago(0.1)),
        machine("quiet", days_ago(29.9)),
        machine("silent", days_ago(30.2)),
        machine("excluded", days_ago(0.1), is_excluded=True),
        machine("discovered", days_ago(0.1), onboarding_status="CanBeOnboarded"),
        machine("unknown", days_ago(0.1), onboarding_status=None),
        machine("never seen"),
        machine("excluded, nobody says", days_ago(0.1), is_excluded=None),
    ]
    assert skips(DEFAULT, *fleet) == {
        "active": None,
        "quiet": None,
        "silent": "silent",
        "excluded": "excluded",
        "discovered": "not_onboarded",
        "unknown": None,
        "never seen": None,
        "excluded, nobody says": None,
    }
    everybody = Assessed(include_not_onboarded=True, include_excluded=True, silent_after_days=0)
    assert not any(skips(everybody, *fleet).values())


def test_silence_is_measured_to_the_day() -> None:
    """Thirty days after the newest report, and not a moment before; a setting of one day counts one."""
    fleet = [machine("a", days_ago(0)), machine("b", days_ago(30)), machine("c", days_ago(30.0001))]
    assert skips(DEFAULT, *fleet) == {"a": None, "b": None, "c": "silent"}
    strict = DEFAULT._replace(silent_after_days=0.5)
    assert skips(strict, *fleet) == {"a": None, "b": "silent", "c": "silent"}


@pytest.mark.parametrize("ahead", [-0.9, 0, 1, 40, 4_000])
def test_the_hosts_clock_makes_nobody_silent(ahead: float) -> None:
    """Ahead by years, or behind by less than a day: the newest report in the list is the measure."""
    fleet = [machine("a", days_ago(0)), machine("b", days_ago(20)), machine("c", days_ago(31))]
    assert skips(DEFAULT, *fleet, now=NOW + timedelta(days=ahead)) == {"a": None, "b": None, "c": "silent"}


@pytest.mark.parametrize("behind", [2, 40, 4_000])
def test_a_hosts_clock_far_behind_makes_fewer_silent_never_more(behind: float) -> None:
    """By the contract a report of over a day in the host's future is no measure; where there is none, nobody is silent.

    So with a host's clock behind by forty days the silent are asked, and what they answer is judged by the guards.
    """
    fleet = [machine("a", days_ago(0)), machine("b", days_ago(20)), machine("c", days_ago(55))]
    found = skips(DEFAULT, *fleet, now=NOW - timedelta(days=behind))
    assert not found["a"]
    assert not found["b"]
    assert found["c"] == ("silent" if behind == 2 else None)


def test_a_device_whose_clock_is_in_2087_makes_nobody_silent_and_is_asked() -> None:
    """Its report is no measure."""
    fleet = [machine("a", days_ago(0)), machine("b", days_ago(20)), machine("x", "2087-01-01T00:00:00.000000Z")]
    assert skips(DEFAULT, *fleet) == {"a": None, "b": None, "x": None}


def test_where_nobody_has_reported_nobody_is_silent() -> None:
    """No measure."""
    assert skips(DEFAULT, machine("a"), machine("b")) == {"a": None, "b": None}
    assert skips(DEFAULT, machine("a", "2087-01-01T00:00:00.000000Z")) == {"a": None}
    assert skips(DEFAULT) == {}


def test_reports_of_the_first_day_of_all_are_no_trouble() -> None:
    """What an API writes for never; thirty days before it there is no time."""
    never = "0001-01-01T00:00:00.000000Z"
    assert skips(DEFAULT, machine("a", never)) == {"a": None}
    assert skips(DEFAULT, machine("a", never), machine("b", days_ago(0))) == {"a": "silent", "b": None}


def test_a_simulated_past_is_as_good_as_the_present() -> None:
    """A tenant of 2020, listed today."""
    fleet = [machine("a", days_ago(2_000)), machine("b", days_ago(2_029)), machine("c", days_ago(2_031))]
    assert skips(DEFAULT, *fleet) == {"a": None, "b": None, "c": "silent"}
