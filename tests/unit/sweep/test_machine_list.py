"""The walk over the machine list, against lists that shift under it."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tap_mde_kbs.sweep.machine_list import LARGEST_OVERLAP, walk


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
    return [machine["id"] for machine in walk(listing.page_at, set())]


def names(count: int) -> list[str]:
    return [f"m{number:05d}" for number in range(count)]


def test_every_machine_comes_once_in_the_order_of_the_list() -> None:
    assert walked(Listing(names(230), cap=70)) == names(230)


def test_the_usual_list_costs_one_call_more_than_its_pages() -> None:
    """The page with nothing new: without it nobody knows that the list ended."""
    listing = Listing(names(5_000), cap=10_000)
    walked(listing)
    assert listing.calls == 2


def test_an_empty_list_is_one_call() -> None:
    listing = Listing([], cap=10_000)
    assert (walked(listing), listing.calls) == ([], 1)


def test_pages_of_a_single_machine_end_too() -> None:
    assert walked(Listing(names(5), cap=1)) == names(5)


def test_a_server_that_ignores_skip_ends_the_walk() -> None:
    page = [{"id": name} for name in names(5)]
    assert [machine["id"] for machine in walk(lambda _position: page, set())] == names(5)


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
    found = walked(listing)
    assert len(found) == len(set(found))
    assert set(found) >= set(names(count)) - listing.left
    assert listing.calls < 3_000
