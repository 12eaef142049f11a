"""An export that was read, as answers for a sweep: machine by machine, in id order, as they are asked for.

Must not know how the export was read, or what becomes of the answers.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from tap_mde_kbs import schema
from tap_mde_kbs.errors import NotInExportError
from tap_mde_kbs.sweep.pool import Answer

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from tap_mde_kbs.export.records import Records

DAY = timedelta(days=1)


class Loaded:
    """What the machines of an export lack. Each is asked once, in id order.

    Args:
        records: The export's.
        made_at: When the export was made.
        check_time: Raises `Stopped` when the run's time is over.
        unlisted: Where values that do not fit are reported.
        empty_files: How many files of the export were empty.
    """

    size = 1
    empty_files = 0

    def __init__(
        self,
        records: Records,
        made_at: str,
        check_time: Callable[[], None],
        unlisted: schema.Unlisted,
        empty_files: int = 0,
    ) -> None:
        self.made_at: str | None = made_at
        self.empty_files = empty_files
        self._records = records
        self._checked_at = made_at
        self._check_time = check_time
        self._unlisted = unlisted
        self._latest = schema.utc(datetime.fromisoformat(made_at.replace("Z", "+00:00")) + DAY)
        """Nothing is first seen later than the export was made: by a clock that was wrong, or so much."""
        self._machines: Iterator[tuple[str, list[dict[str, Any]]]] | None = None
        self._next: tuple[str, list[dict[str, Any]]] | None = None

    def submit(self, machine_id: str, *, once: bool = False) -> None:
        """Do nothing: all answers are here already."""

    def result(self, machine_id: str) -> Answer:
        """What a machine lacks.

        Raises:
            NotInExportError: The export does not have it.
            Stopped: The run's time is over.
        """
        self._check_time()
        if self._machines is None:
            self._machines = self._records.missing(machine_id)
            self._next = next(self._machines, None)
        while self._next and self._next[0] < machine_id:
            self._next = next(self._machines, None)
        if not self._next or self._next[0] != machine_id:
            msg = f"The machine {machine_id} is not in the export."
            raise NotInExportError(msg)
        return Answer([self._row(kb) for kb in self._next[1]], self._checked_at)

    def kb_cves(self) -> Iterator[dict[str, Any]]:
        """Which CVEs each update closes, a row for each."""
        for record in self._records.kb_cves():
            yield {**schema.KB_CVES.from_columns(record, self._unlisted), "checked_at": self._checked_at}

    def strangers(self, listed: Collection[str]) -> list[str]:
        """The machines that are in the export and not listed."""
        return [machine_id for machine_id in self._records.machines() if machine_id not in listed]

    def _row(self, kb: dict[str, Any]) -> dict[str, Any]:
        row = {**schema.MISSING_KBS.from_columns(kb, self._unlisted), "checked_at": self._checked_at}
        if (row["first_seen_at"] or "") > self._latest:
            row["first_seen_at"] = None
        return row
