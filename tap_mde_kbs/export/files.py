"""An export read as files: fetched two ahead, each checked to be whole before it is read.

All files are read before the first row is written, so links do not expire while a target is slow. Must not know how
records are grouped, or what is asked of them.

Where links are refused, a new list of files is asked for. If it names other files, or another time, it is another
export, and what was read of this one is of no use.

Recorded answers show that files may be missing at first (404), empty, cut or malformed.
"""

from __future__ import annotations

import threading
import time
from functools import cached_property, partial
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from tap_mde_kbs.errors import (
    API_REMEDIES,
    ApiError,
    BrokenFileError,
    ExpiredLinkError,
    MalformedFileError,
    NoAnswerError,
    NotFoundError,
    SupersededError,
)
from tap_mde_kbs.export.calls import Export, newest_export
from tap_mde_kbs.export.download import shown
from tap_mde_kbs.export.mending import MENDED
from tap_mde_kbs.sweep.pool import Threads

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable
    from pathlib import Path

    from tap_mde_kbs.api.client import Client
    from tap_mde_kbs.export.download import Downloader
    from tap_mde_kbs.export.records import Records
    from tap_mde_kbs.patience import Patience

FILES_AHEAD = 2
TRIES = 4
"""How often a file that does not arrive whole is fetched."""

LOOKS = 13
"""How often a file that is missing or empty is fetched: over a minute, by the pauses of `Patience.file`."""

RENEWALS = 3
"""How many lists in a row are asked for when the links of each are refused."""

SECONDS_BETWEEN_LINES = 10.0


class Fetched(NamedTuple):
    """A file that was fetched whole."""

    path: Path
    is_in_lines: bool


class FileReader:
    """Reads an export out of its files.

    Args:
        client: Asks for the list of files, and provides the run's time limit.
        downloader: Makes what fetches them, once that is needed: discovery has no valid settings perhaps.
        log: For the lines about how reading goes.
        patience: How long to wait before another look for a file.
    """

    def __init__(
        self, client: Client, downloader: Callable[[], Downloader], log: logging.Logger, patience: Patience
    ) -> None:
        self._client = client
        self._make_downloader = downloader
        self._log = log
        self._patience = patience

    @cached_property
    def _downloader(self) -> Downloader:
        return self._make_downloader()

    def newest(self) -> Export:
        """The newest export that there is."""
        return newest_export(self._client)

    def probe(self) -> str:
        """List the files, and begin to fetch the first."""
        export = self.newest()
        for link in [*export.links.values()][:1]:
            try:
                self._downloader.probe(link)
            except (ExpiredLinkError, NotFoundError, BrokenFileError) as error:
                msg = f"A file of the export can't be fetched: {error}."
                raise ApiError(msg, API_REMEDIES["export"].advice) from None
        return f"an export of {export.made_at} in {len(export.links)} files"

    def read(self, export: Export, records: Records) -> int:
        """Fetch the files of an export, a few ahead, and take each file's records when it is whole.

        Returns:
            How many of the files stayed empty.

        Raises:
            SupersededError: The export is gone, and there is a newer one.
            TapError: It can't be read.
            Stopped: The run's time is over.
        """
        links = Links(export, self.newest, self._log)
        names = [*export.links]
        empty = 0
        logged_at = time.monotonic()
        fetch = partial(self._fetch, links, records.folder)
        with Threads(lambda name, _: fetch(name), FILES_AHEAD, self._client.check_time) as pool:
            ahead = iter(names)
            for name in islice(ahead, FILES_AHEAD):
                pool.submit(name)
            for number, name in enumerate(names, start=1):
                empty += not self._take(name, pool, links, records)
                for following in islice(ahead, 1):
                    pool.submit(following)
                if time.monotonic() - logged_at > SECONDS_BETWEEN_LINES:
                    logged_at = time.monotonic()
                    self._log.info("%d of %d files read, %d records.", number, len(names), records.count)
        return empty

    def _take(self, name: str, pool: Threads[Fetched | None], links: Links, records: Records) -> bool:
        """Take the records of a file that is being fetched; where it is malformed, it is fetched again.

        Returns:
            Whether there was anything in it.
        """
        tries_left = TRIES
        while fetched := pool.result(name):
            try:
                if mended := records.load(fetched.path, is_in_lines=fetched.is_in_lines):
                    self._log.warning(MENDED, shown(links.link(name)), mended)
            except MalformedFileError as error:
                tries_left -= 1
                self._count_failure(f"{shown(links.link(name))} is malformed: {error}", tries_left)
                pool.submit(name)
            else:
                return True
            finally:
                fetched.path.unlink()
        self._log.warning("%s is still empty after a minute: loaded as empty.", shown(links.link(name)))
        return False

    def _fetch(self, links: Links, folder: Path, name: str) -> Fetched | None:
        """Fetch a file, in a thread.

        Returns:
            The file, checked to be whole; None if it stays empty.
        """
        path = folder / f"{threading.get_ident()}-{time.monotonic_ns()}.json.gz"
        looks_left, tries_left = LOOKS, TRIES
        while True:
            self._client.check_time()
            link = links.link(name)
            try:
                content = self._downloader.fetch(link, path)
                if content.has_any:
                    links.accepted()
                    return Fetched(path, content.is_in_lines)
                looks_left -= 1
                if not looks_left:
                    return None
            except NotFoundError as error:
                looks_left -= 1
                if not looks_left:
                    msg = f"A file of the export is not there: {error}."
                    raise ApiError(msg, API_REMEDIES["export"].advice) from None
            except BrokenFileError as error:
                tries_left -= 1
                self._count_failure(str(error), tries_left)
            except ExpiredLinkError as error:
                links.renew(name, link, str(error))
                continue
            time.sleep(self._patience.file)

    def _count_failure(self, reason: str, tries_left: int) -> None:
        """Count a file that did not arrive whole.

        Raises:
            NoAnswerError: There is no try left.
        """
        if not tries_left:
            msg = f"{reason}. Tried {TRIES} times."
            raise NoAnswerError(msg, API_REMEDIES["export"].advice)
        self._client.retries += 1
        self._log.debug("Fetching it again: %s", reason)


class Links:
    """The links to the files of one export, which threads share; asked for anew when they are refused.

    Args:
        export: The export, with its first links.
        newest: Asks for the newest export that there is.
        log: For a line about each new list.
    """

    def __init__(self, export: Export, newest: Callable[[], Export], log: logging.Logger) -> None:
        self._made_at = export.made_at
        self._links = dict(export.links)
        self._newest = newest
        self._log = log
        self._lock = threading.Lock()
        self._refused = 0

    def link(self, name: str) -> str:
        """The link to a file, as new as there is."""
        return self._links[name]

    def accepted(self) -> None:
        """Begin to count refused lists anew: a link was accepted."""
        self._refused = 0

    def renew(self, name: str, refused: str, reason: str) -> None:
        """Ask for new links, unless another thread has done so since this one was refused.

        Args:
            name: The file's name.
            refused: The link to it that was refused.
            reason: Why.

        Raises:
            SupersededError: The new links are another export's.
            ApiError: The links of several lists in a row were refused.
        """
        with self._lock:
            if self._links[name] != refused:
                return
            if self._refused == RENEWALS:
                msg = f"The links of {RENEWALS} lists were refused: {reason}."
                raise ApiError(msg, API_REMEDIES["export"].advice)
            self._refused += 1
            self._log.debug("A new list of files: %s", reason)
            export = self._newest()
            if export.made_at != self._made_at or name not in export.links:
                raise SupersededError(export)
            self._links.update(export.links)
