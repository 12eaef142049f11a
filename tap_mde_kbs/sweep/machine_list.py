"""The walk over the machine list: how to get every machine out of pages that shift. Knows no HTTP.

What the API does (learn.microsoft.com, "List machines API"; MicrosoftDocs/microsoft-365-docs#8316, #8489,
firezone#14768, #14856): with `$top` it gives no next link, with `$filter` one that never ends; a page may
hold fewer than asked; machines that leave during the walk shift the rest into pages already read; the same
machine may come twice. So the walk counts by itself: pages overlap, a machine met before is dropped, and a
page with nothing new is the end: at once if it holds no more than the overlap, else at the second in a row
(a short page may hold nothing but doubles; a server that ignores `$skip` gives the same page for ever).

Decision: a page that does not begin with a machine met before leaves a gap that more departures than the
overlap have made; the walk then steps back, each time twice as far, until the pages meet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LARGEST_OVERLAP = 200


def overlap(length: int) -> int:
    """How many machines of a page of this length are read again with the next one."""
    return min(LARGEST_OVERLAP, max(1, length // 10)) if length > 1 else 0


def walk(page_at: Callable[[int], list[dict[str, Any]]], given: set[str]) -> Iterator[dict[str, Any]]:
    """Every machine once, in the order of the list.

    Args:
        page_at: the machines from that position on, at most as many as the API gives; empty past the end.
        given: the ids of machines that are not wanted again; those that are yielded are added.

    Yields:
        The API's objects, each with an `id` that was not among the given.
    """
    joined: set[str] = set()  # met on pages that reach from the list's beginning to here without a gap
    position = shared = back = stale = 0  # shared: how many machines this page and the one before have in common
    while True:
        page = page_at(position)
        ids = [machine["id"] for machine in page]
        for machine in page:
            if machine["id"] not in given:
                given.add(machine["id"])
                yield machine
        if shared and position and not joined.intersection(ids[:1]):
            back = 2 * (back or shared)
            position = max(0, position - back)
            continue
        stale = stale + 1 if joined.issuperset(ids) else 0
        if stale > 1 or (stale and len(page) <= shared):
            return
        joined.update(ids)
        shared, back = overlap(len(page)), 0
        position = max(position + 1, position + len(page) - shared)
