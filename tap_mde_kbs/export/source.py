"""The export as a source that a sweep can ask: read to its end, checked and grouped on disk, before the first answer.

It is read in a thread: beside the machine list, where that keeps one waiting. Files or pages, the reader makes no
difference here. Must not know sweeps, streams or STATE.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, NamedTuple, Protocol

from tap_mde_kbs.errors import ApiError, SupersededError
from tap_mde_kbs.export import calls
from tap_mde_kbs.export.download import Downloader
from tap_mde_kbs.export.files import FileReader
from tap_mde_kbs.export.loaded import Loaded
from tap_mde_kbs.export.pages import PageReader
from tap_mde_kbs.export.records import Records, require_duckdb
from tap_mde_kbs.progress import export_seconds
from tap_mde_kbs.settings import EXPORT
from tap_mde_kbs.sweep.pool import Threads

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Iterator, Sequence

    from tap_mde_kbs.api.client import Client
    from tap_mde_kbs.export.calls import Export
    from tap_mde_kbs.schema import Unlisted

EXPORTS = 3
"""How many exports are begun in a run: another one where the files of the one before are gone."""

NEWEST = "newest"
"""What the thread is asked for."""

LONGEST_END = 5.0
"""Seconds that the thread may take to end, when what it reads is wanted no more."""


class Reader(Protocol):
    """A way to read an export."""

    def newest(self) -> Export:
        """The newest export that there is."""

    def probe(self) -> str:
        """Check in a call or two that an export can be read; what was found, as a person says it.

        Raises:
            TapError: It can't be read.
        """

    def read(self, export: Export, records: Records) -> int:
        """Read all of an export.

        Returns:
            How many of its files stayed empty.

        Raises:
            SupersededError: It is gone, and there is a newer one.
            TapError: It can't be read.
            Stopped: The run's time is over.
        """


class Found(NamedTuple):
    """An export that was read.

    Attributes:
        records: To be closed.
        empty_files: How many of its files stayed empty.
    """

    made_at: str
    records: Records
    empty_files: int


class ExportSource:
    """Answers out of an export.

    Args:
        reader: Reads it.
        client: Provides the run's time limit.
        unlisted: Where values that do not fit are reported.
        log: For the lines about how reading goes.
    """

    permission = calls.PERMISSION
    costs_calls = False

    def __init__(self, reader: Reader, client: Client, unlisted: Unlisted, log: logging.Logger) -> None:
        self._reader = reader
        self._client = client
        self._unlisted = unlisted
        self._log = log
        self._thread: Threads[Found | None] | None = None
        self._records: Records | None = None

    def check(self) -> None:
        """Check that DuckDB is installed.

        Raises:
            SettingsError: It is not.
        """
        require_duckdb()

    def seconds_for(self, machines: int) -> float:
        """Estimate how long an export of so many machines takes, with all its rows."""
        return export_seconds(machines)

    def probe(self, machine_ids: Sequence[str]) -> tuple[bool | None, str]:  # noqa: ARG002 - no machine is asked
        """Check in a call or two that an export can be read."""
        return True, self._reader.probe()

    def begin(self, is_due: Callable[[str], bool]) -> None:
        """Read the newest export, if it is due, in a thread."""
        self._begun(is_due)

    def _begun(self, is_due: Callable[[str], bool]) -> Threads[Found | None]:
        """The thread; it begins if it has not."""
        if not self._thread:
            _ = self._client.session  # made here: two threads would make one each
            self._thread = Threads(lambda *_: self._newest(is_due), 1)
            self._thread.submit(NEWEST)
        return self._thread

    def close(self) -> None:
        """End the thread, and remove what it has read, unless that was opened."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        deadline = time.monotonic() + LONGEST_END
        while not thread.close(timeout=0.1):
            self._client.stop()
            records = self._records
            if records and time.monotonic() < deadline:
                records.interrupt()
            elif time.monotonic() > deadline:  # it waits for an answer: as a daemon, it ends with the process
                if records:
                    records.remove()
                return
        if self._records:
            self._records.close()

    @contextlib.contextmanager
    def opened(
        self,
        is_due: Callable[[str], bool],
        idle: Callable[[], None],  # noqa: ARG002 - all answers are there when the first is asked for
    ) -> Iterator[Loaded | None]:
        """The newest export, wholly read; None if it is not due."""
        thread = self._begun(is_due)
        try:
            found = thread.result(NEWEST)
        except BaseException:
            self.close()
            raise
        thread.close()
        self._thread = self._records = None
        if not found:
            yield None
            return
        with found.records:
            yield Loaded(found.records, found.made_at, self._client.check_time, self._unlisted, found.empty_files)

    def _newest(self, is_due: Callable[[str], bool]) -> Found | None:
        """Read the newest export, or a newer one if it is gone meanwhile; None if it is not due."""
        export = self._reader.newest()
        if not is_due(export.made_at):
            return None
        started = time.monotonic()
        for _ in range(EXPORTS):
            try:
                found = self._read(export)
            except SupersededError as error:
                export = error.newer
                self._log.warning("There is a newer export, of %s: starting over.", export.made_at)
            else:
                seconds = time.monotonic() - started
                self._log.info("Export of %s: %d records read in %d s.", export.made_at, found.records.count, seconds)
                return found
        msg = f"The files of {EXPORTS} exports were gone before they were read."
        raise ApiError(msg, "Run again; if that goes on, set missing_kbs_source to export_json.")

    def _read(self, export: Export) -> Found:
        """Read an export; if that fails, nothing stays on disk."""
        self._records = records = Records()
        try:
            return Found(export.made_at, records, self._reader.read(export, records))
        except BaseException:
            self._records = None
            records.close()
            raise


def export_source(kind: str, client: Client, user_agent: str, unlisted: Unlisted, log: logging.Logger) -> ExportSource:
    """The source that a setting names; its calls keep to their own quotas from now on.

    Args:
        kind: The setting `missing_kbs_source`: `export` or `export_json`.
        client: Makes the calls.
        user_agent: The header User-Agent, for the host that stores the files.
        unlisted: Where values that do not fit are reported.
        log: For the lines about how reading goes.
    """
    calls.limit(client)
    reader: Reader
    if kind == EXPORT:
        reader = FileReader(client, lambda: Downloader(client.timeout, user_agent), log, client.patience)
    else:
        reader = PageReader(client, log)
    return ExportSource(reader, client, unlisted, log)
