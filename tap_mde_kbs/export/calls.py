"""The two calls for a vulnerability export, with their quotas: the list of its files, and its records by the page.

Must not know how files are fetched, or what is done with records.

Decisions:

- A file is known by the path of its link, and its place among those of the same path: after a 403 the new list has
  other signatures for the same paths.
- Of a next link its query alone is used, whatever host and path it names: Microsoft's own samples name another of the
  API's hosts, and the token goes to none but ours.

Source: learn.microsoft.com, "Export software vulnerabilities assessment per device".
"""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from tap_mde_kbs import schema
from tap_mde_kbs.api.client import records_of, shape_error
from tap_mde_kbs.errors import API_REMEDIES, ApiError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from tap_mde_kbs.api.client import Client

PERMISSION = "Vulnerability.Read.All"
FILES = "/api/machines/SoftwareVulnerabilitiesExport"
PAGES = "/api/machines/SoftwareVulnerabilitiesByMachine"
QUOTAS: Mapping[str, Sequence[tuple[int, float]]] = {
    FILES: ((5, 60.0), (20, 3600.0)),
    PAGES: ((30, 60.0), (1000, 3600.0)),
}
"""Calls, and the seconds in which they may go out, by path."""

LINKS_VALID_HOURS = 1
PAGE_SIZE = 20_000
"""Records of a page; some 25 MB. At 30 calls a minute that is 600,000 records a minute."""


class Export(NamedTuple):
    """An export, as the API lists it."""

    made_at: str
    """When it was made, as `checked_at` is written, so that the two compare."""

    links: Mapping[str, str]
    """The links to its files, by a name that stays the same in a list with new signatures; none for pages."""


class Page(NamedTuple):
    """A page of an export."""

    records: list[dict[str, Any]]

    next_query: str | None
    """What to ask for to get the page after it, a URL's query; None on the last page."""


def limit(client: Client) -> None:
    """Make both calls keep to their own quotas."""
    for path, limits in QUOTAS.items():
        client.limit(path, limits)


def newest_export(client: Client) -> Export:
    """Ask for the files of the newest export.

    Raises:
        ApiError: The list can't be had, or names no file: nobody knows then what is missing.
    """
    export = export_in(client.get(FILES, {"sasValidHours": LINKS_VALID_HOURS}, permission=PERMISSION))
    if not export.links:
        msg = f"The export of {export.made_at} lists no files: nothing is known of any machine."
        raise ApiError(msg, API_REMEDIES["no files"].advice)
    return export


def export_in(document: object) -> Export:
    """The export in an answer.

    Raises:
        ShapeError: The answer has another shape than documented.
    """
    listed = document if isinstance(document, dict) else {}
    links = listed.get("exportFiles")
    if not isinstance(links, list) or not all(isinstance(link, str) for link in links):
        raise shape_error(document, FILES, "there is no list `exportFiles` of links in it")
    try:
        made_at = _moment(str(listed.get("generatedTime")))
    except ValueError:
        raise shape_error(document, FILES, "there is no `generatedTime` in it") from None
    try:
        return Export(made_at, dict(_named(links)))
    except ValueError:  # an IPv6 address without its bracket
        raise shape_error(document, FILES, "an entry of `exportFiles` is no link") from None


def page(client: Client, query: str | None = None, size: int = PAGE_SIZE) -> Page:
    """Ask for a page of the newest export.

    Args:
        client: Makes the call.
        query: The `next_query` of the page before; None for the first page.
        size: Records of a page at most, where it is the first.

    Raises:
        ApiError: The page can't be had.
    """
    path, options = (f"{PAGES}?{query}", None) if query else (PAGES, {"pageSize": size})
    return page_in(client.get(path, options, permission=PERMISSION))


def page_in(document: object) -> Page:
    """The page in an answer.

    Raises:
        ShapeError: The answer has another shape than documented, or its next link has no query.
    """
    records = records_of(document, PAGES, has_id=False)
    link = document.get("@odata.nextLink") if isinstance(document, dict) else None
    if not link:
        return Page(records, None)
    try:
        query = urlsplit(link).query if isinstance(link, str) else ""
    except ValueError:  # an IPv6 address without its bracket
        query = ""
    if not query:
        raise shape_error(document, PAGES, "its next link has no query")
    return Page(records, query)


def _moment(text: str) -> str:
    """A time of the API as `checked_at` is written: UTC, always six decimals.

    Raises:
        ValueError: It is not a time.
    """
    read = schema.date_time(text) or ""
    return schema.utc(datetime.fromisoformat(read.replace("Z", "+00:00")))


def _named(links: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Each link once, with its file's name."""
    places: Counter[str] = Counter()
    for link in dict.fromkeys(links):
        path = urlsplit(link).path
        yield f"{path} {places[path]}", link
        places[path] += 1
