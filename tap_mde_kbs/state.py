"""STATE: what a run leaves to the next. This module alone reads and writes it; knows neither Singer nor the API.

Plain values, and always all of them: Meltano and targets merge states, and a merge keeps a key that is left out. A
state may come from an older version, from a target that passed on less than was written, or out of a merge: what is
odd in it is as if it were not there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any


@dataclass
class SweepBookmark:
    """What STATE keeps of a sweep; always all of it, since a merge keeps a key that is left out.

    Attributes:
        version: The epoch second the sweep began; 0 before any.
        scope: What was asked for: another one begins a new sweep. Empty: no sweep to go on with.
        after: The machine up to which the first pass has come.
        deferred: Machines to be asked again.
        failed: Machines that gave no answer in this sweep.
        failed_before: Machines that gave none in the sweep before.
        asked_all: The first pass is through.
        complete: The sweep is finished, and was activated.
        answered: How many machines answered.
        answered_last: How many did in the last complete sweep; None before any.
        short_sweeps: How many sweeps in a row, up to this, were held back by the shrink guard.
        source_time: The newest `checked_at` of the rows written.
    """

    version: int = 0
    scope: str = ""
    after: str | None = None
    deferred: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    failed_before: list[str] = field(default_factory=list)
    asked_all: bool = False
    complete: bool = False
    answered: int = 0
    answered_last: int | None = None
    short_sweeps: int = 0
    source_time: str | None = None

    @classmethod
    def from_dict(cls, state: object) -> SweepBookmark:
        """Read what an earlier run left. What is odd counts as missing, a cursor as a whole."""
        read = _mapping(state)
        kept = cls(
            version=_number(read.get("version")) or 0,
            failed_before=_ids(read.get("failed_before")) or [],
            answered_last=_number(read.get("answered_last")),
            short_sweeps=_number(read.get("short_sweeps")) or 0,
            source_time=_text(read.get("source_time")),
        )
        scope, after = _text(read.get("scope")), read.get("after", 0)
        deferred, failed = _ids(read.get("deferred")), _ids(read.get("failed"))
        answered = _number(read.get("answered"))
        asked_all, complete = read.get("asked_all"), read.get("complete")
        if (
            scope is None
            or not (after is None or isinstance(after, str))
            or deferred is None
            or failed is None
            or answered is None
            or not isinstance(asked_all, bool)
            or not isinstance(complete, bool)
        ):
            return kept
        return replace(
            kept,
            scope=scope,
            after=after,
            deferred=deferred,
            failed=failed,
            asked_all=asked_all,
            complete=complete,
            answered=answered,
        )

    def to_dict(self) -> dict[str, Any]:
        """All keys, as plain values of their own: what was stored does not change with the bookmark."""
        return {
            **vars(self),
            "deferred": [*self.deferred],
            "failed": [*self.failed],
            "failed_before": [*self.failed_before],
        }

    @property
    def finished(self) -> bool:
        """Every machine has an outcome."""
        return self.asked_all and not self.deferred

    @property
    def newly_failed(self) -> list[str]:
        """Machines that failed now and not in the sweep before."""
        return [machine_id for machine_id in self.failed if machine_id not in self.failed_before]


@dataclass
class ListBookmark:
    """What STATE keeps of the machine list.

    Attributes:
        version: The epoch second the last listing began; 0 before any.
        listed: How many machines were listed when last believed; None before any.
        short_lists: How many lists in a row, up to the last, were held back by the shrink guard.
    """

    version: int = 0
    listed: int | None = None
    short_lists: int = 0

    @classmethod
    def from_dict(cls, state: object) -> ListBookmark:
        """Read what an earlier run, version or merge left."""
        read = _mapping(state)
        return cls(
            version=_number(read.get("version")) or 0,
            listed=_number(read.get("listed")),
            short_lists=_number(read.get("short_lists")) or 0,
        )

    def to_dict(self) -> dict[str, Any]:
        """All keys, as plain values."""
        return {**vars(self)}


class State:
    """What STATE says: read at the start of a run, changed by whoever lists and sweeps, written from here.

    Attributes:
        machines: Of the machine list.
        sweep: Of the sweep, as last kept: later changes of a running sweep's bookmark are not in it.
    """

    def __init__(self, machines: ListBookmark | None = None, sweep: SweepBookmark | None = None) -> None:
        self.machines = machines or ListBookmark()
        self.sweep = sweep or SweepBookmark()

    def read(self, state: object) -> None:
        """Take what an earlier run left: the value of its last STATE message."""
        bookmarks = _mapping(_mapping(state).get("bookmarks"))
        self.machines = ListBookmark.from_dict(bookmarks.get("machines"))
        self.sweep = SweepBookmark.from_dict(_mapping(bookmarks.get("missing_kbs")).get("sweep"))

    def keep(self, sweep: SweepBookmark) -> None:
        """Take the sweep's bookmark as it is now."""
        self.sweep = SweepBookmark.from_dict(sweep.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """The value of a STATE message."""
        return {
            "bookmarks": {
                "machines": self.machines.to_dict(),
                "missing_kbs": {"sweep": self.sweep.to_dict()},
            }
        }


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _number(value: object) -> int | None:
    """A number of something out of a state, None if it is none."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _ids(value: object) -> list[str] | None:
    """Ids out of a state, None if it holds anything else."""
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        return None
    return [*value]
