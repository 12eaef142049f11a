"""An export read as JSON pages, one after the other, from the API's own host.

Must not know how records are grouped, or what is asked of them.

Pages do not say when their export was made: the time is taken to be when the first page was asked for. It may be six
hours older.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from tap_mde_kbs import schema
from tap_mde_kbs.errors import API_REMEDIES, MalformedFileError, ShapeError
from tap_mde_kbs.export.calls import PAGES, Export, Page, page
from tap_mde_kbs.export.mending import MENDED

if TYPE_CHECKING:
    import logging

    from tap_mde_kbs.api.client import Client
    from tap_mde_kbs.export.records import Records

PROBED_RECORDS = 10
SECONDS_BETWEEN_LINES = 10.0

MOST_IDLE_PAGES = 20
"""So many pages in a row without a record, or with those of a page before, lead nowhere."""


class PageReader:
    """Reads an export by the page.

    Args:
        client: Asks for the pages, and provides the run's time limit.
        log: For the lines about how reading goes.
    """

    def __init__(self, client: Client, log: logging.Logger) -> None:
        self._client = client
        self._log = log

    def newest(self) -> Export:
        """The export that there is now."""
        return Export(schema.now(), {})

    def probe(self) -> str:
        """Ask for a short page."""
        found = page(self._client, size=PROBED_RECORDS)
        return f"{len(found.records)} records of an export on a page of ten"

    def read(self, export: Export, records: Records) -> int:  # noqa: ARG002 - pages are always of the newest
        """Follow the links to the last page, and take the records of each.

        Returns:
            0: there are no files that could be empty.

        Raises:
            TapError: It can't be read.
            Stopped: The run's time is over.
        """
        query: str | None = None
        places: set[str] = set()
        known_ends: set[str] = set()
        pages = idle = 0
        logged_at = time.monotonic()
        while True:
            found = page(self._client, query)
            ends = repr([len(found.records), *found.records[:1], *found.records[-1:]])
            idle = idle + 1 if not found.records or ends in known_ends else 0
            known_ends.add(ends)
            self._take(found, records)
            pages += 1
            query = found.next_query
            if query is None:
                return 0
            if (place := _place(query)) in places or idle >= MOST_IDLE_PAGES:
                msg = f"The pages of {PAGES} go round in a circle."
                raise ShapeError(msg, API_REMEDIES["shape"].advice)
            places.add(place)
            self._client.check_time()
            if time.monotonic() - logged_at > SECONDS_BETWEEN_LINES:
                logged_at = time.monotonic()
                self._log.info("%d pages read, %d records.", pages, records.count)

    def _take(self, found: Page, records: Records) -> None:
        if not found.records:
            return
        try:
            if mended := records.add(found.records):
                self._log.warning(MENDED, f"A page of {PAGES}", mended)
        except MalformedFileError as error:
            msg = f"GET {PAGES} answered with records of another shape than documented: {error}."
            raise ShapeError(msg, API_REMEDIES["shape"].advice) from None


def _place(query: str) -> str:
    """Where in the export a link leads: its skip token; the rest of its query may differ each time."""
    return dict(parse_qsl(query)).get("$skiptoken", query)
