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
        page_at: The machines from that position on, at most as many as the API gives; empty past the end.
        given: The ids of machines that are not wanted again; those that are yielded are added.

    Yields:
        The API's objects, each with an `id` that was not among the given.
    """
    met: set[str] = set()  # on pages that reach from the list's beginning to here without a gap
    position = shared = pages_without_news = 0
    while True:
        page: list[dict[str, Any]] = []
        for where, page in _joined(page_at, position, shared, met):
            position = where
            for machine in page:
                if machine["id"] not in given:
                    given.add(machine["id"])
                    yield machine
        ids = {machine["id"] for machine in page}
        pages_without_news = pages_without_news + 1 if ids <= met else 0
        if pages_without_news > 1 or (pages_without_news and len(page) <= shared):
            return
        met |= ids
        shared = overlap(len(page))
        position = max(position + 1, position + len(page) - shared)


def _joined(
    page_at: Callable[[int], list[dict[str, Any]]], position: int, shared: int, met: set[str]
) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """The page at a position, and where it leaves a gap, pages further and further back, until one joins those before.

    Args:
        page_at: As of `walk`.
        position: Where the page is to begin.
        shared: How many machines it should have in common with the page before; 0: none, it leaves no gap.
        met: The machines of the pages before.
    """
    back = shared
    while True:
        page = page_at(position)
        yield position, page
        if not shared or not position or (page and page[0]["id"] in met):
            return
        back *= 2
        position = max(0, position - back)
