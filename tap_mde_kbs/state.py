"""STATE: what a run leaves to the next. This module alone reads and writes it; knows neither Singer nor the API.

Plain values, and always all of them: Meltano and targets merge states, and a merge keeps a key that is left out, but
overwrites a list. A state may come from an older version, from a target that passed on less than was written, or out of
a merge: what is odd in it is as if it were not there.

Machines are named by a digest of their ids, so that one in a hundred of 20,000 fits; a list of them is one string.

Some targets pass on the bookmarks of the streams that they have written, and no others. So the sweep's progress stands
under `missing_kbs` and under `missing_kbs_checks`, and the older of the two counts: a machine is asked again rather
than its check lost.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

DIGEST_CHARACTERS = 6
"""36 bits: of 200 machines that failed and 20,000 listed, two are taken for each other once in 17,000 fleets."""

DIGESTS = "~"
"""What a string of digests begins with; any other string in a list of STATE is an id, as older versions wrote it."""

MOST_NAMED = 210
"""How many machines a list of STATE names at most: one in a hundred of 20,000, and a few; all else has room in 8 KB."""


MOST_DOCUMENTS, MOST_HELD = 62, 4
"""How many documents STATE names: those of five years, and a few; what is not named is read again."""

LONGEST_LINE = 60
"""Characters of a document's line; what is longer was not written by the tap."""

HTTP_DATE = re.compile(r"[A-Za-z]{3}, \d\d [A-Za-z]{3} \d{4} \d\d:\d\d:\d\d GMT", re.ASCII)
"""RFC 9110, section 5.6.7: a header that may go into STATE, and back into a header; nobody sends its two old forms."""

_DAY = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)

OUTCOMES = ("answered", "not_found", "failed", "skipped", "not_in_export", "unnamed", "pairs")
"""The counts that stand in both bookmarks of a sweep."""


def digest(machine_id: str) -> str:
    """What STATE calls a machine."""
    return base64.urlsafe_b64encode(hashlib.sha256(machine_id.encode()).digest())[:DIGEST_CHARACTERS].decode()


def moment(now: float) -> str:
    """The epoch seconds as STATE and tables have a moment: UTC, six decimals."""
    return f"{datetime.fromtimestamp(now, timezone.utc):%Y-%m-%dT%H:%M:%S.%fZ}"


def seconds_since(then: str | None, now: float) -> float | None:
    """Seconds since a moment of STATE; None where it is none, or lies in the future: it decides nothing then."""
    try:
        age = now - datetime.fromisoformat((then or "").replace("Z", "+00:00")).timestamp()
    except (ValueError, OverflowError, OSError):
        return None
    return age if age >= 0 else None


@dataclass
class Counts:
    """What became of a sweep so far, over all its runs; most of its row in `sweeps`.

    Attributes:
        answered: Machines with this outcome; the next four likewise.
        unnamed: Of those that failed, how many STATE had no room to name.
        pairs: Missing updates, over all machines.
        machines_listed: Rows of `machines` in the newest believed list.
        listing: The version of that list; 0 before any.
        listed_at: When that listing began.
        empty_files: Files of the export that were empty.
        empty_files_before: The same of the export loaded before; None where there was none.
        source: The setting `missing_kbs_source`.
        ended_at: When every machine had an outcome; None before.
        is_believed: Whether what is absent from the sweep is gone; None before.
        verdict: Why, or why not.
        is_partial: A version before this one began the sweep, and did not count.
    """

    answered: int = 0
    not_found: int = 0
    failed: int = 0
    skipped: int = 0
    not_in_export: int = 0
    unnamed: int = 0
    pairs: int = 0
    machines_listed: int = 0
    listing: int = 0
    listed_at: str | None = None
    empty_files: int = 0
    empty_files_before: int | None = None
    source: str | None = None
    ended_at: str | None = None
    is_believed: bool | None = None
    verdict: str | None = None
    is_partial: bool = False

    @property
    def asked(self) -> int:
        """Machines with an outcome that were to be asked."""
        return self.answered + self.not_found + self.failed + self.not_in_export

    @property
    def outcomes(self) -> int:
        """Machines with an outcome."""
        return self.asked + self.skipped

    def begun_anew(self) -> Counts:
        """What a sweep that asks everybody again starts with."""
        return Counts(
            machines_listed=self.machines_listed,
            listing=self.listing,
            listed_at=self.listed_at,
            empty_files_before=self.empty_files_before,
            source=self.source,
        )

    @classmethod
    def from_dict(cls, state: object) -> Counts:
        """Read what an earlier run left; what is odd counts as missing."""
        read = _mapping(state)
        readers = {"int": _number, "str": _text, "bool": _truth}
        values: dict[str, Any] = {
            each.name: readers[str(each.type).partition(" ")[0]](read.get(each.name)) for each in fields(cls)
        }
        return cls(**{name: value for name, value in values.items() if value is not None})


@dataclass
class SweepBookmark:
    """What STATE keeps of a sweep.

    Attributes:
        version: What orders sweeps: the epoch second it began, or one more than the last; 0 before any.
        scope: What was asked for: another one begins a new sweep. A `?` at its end: a machine list was not believed
            while it ran. Empty: no sweep to go on with.
        began_at: When it began.
        progress_at: When a machine last had an outcome.
        after: The machine up to which the first pass has come.
        deferred: Digests of machines to be asked again.
        failed: Digests of machines that gave no answer in this sweep, as many as can be named.
        failed_before: Of those that gave none in the sweep before, or when they were asked again in a later run.
        asked_all: The first pass is through.
        complete: Nothing is left to do in it: it was activated, or can't be.
        counts: What became of the machines.
        answered_last: How many answered or were skipped in the last believed sweep; None before any.
        answered_short: How many did in the last sweep, if they were too few.
        pairs_last: How many updates were missing in the last believed sweep; None before any.
        pairs_short: How many were in the last sweep, if they were too few.
        source_time: The `checked_at` of the rows written last; of an export, when it was made.
    """

    version: int = 0
    scope: str = ""
    began_at: str | None = None
    progress_at: str | None = None
    after: str | None = None
    deferred: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    failed_before: list[str] = field(default_factory=list)
    asked_all: bool = False
    complete: bool = False
    counts: Counts = field(default_factory=Counts)
    answered_last: int | None = None
    answered_short: int | None = None
    pairs_last: int | None = None
    pairs_short: int | None = None
    source_time: str | None = None

    @classmethod
    def from_dict(cls, state: object) -> SweepBookmark:
        """Read what an earlier run left. What is odd counts as missing, a cursor as a whole."""
        read = _mapping(state)
        version = _number(read.get("version")) or 0
        kept = cls(
            version=version,
            began_at=_text(read.get("began_at")) or _moment_of(version),
            progress_at=_text(read.get("progress_at")),
            failed_before=_digests(read.get("failed_before")) or [],
            answered_last=_number(read.get("answered_last")),
            answered_short=_number(read.get("answered_short")),
            pairs_last=_number(read.get("pairs_last")),
            pairs_short=_number(read.get("pairs_short")),
            source_time=_text(read.get("source_time")),
        )
        scope, after = _text(read.get("scope")), read.get("after", 0)
        deferred, failed = _digests(read.get("deferred")), _digests(read.get("failed"))
        asked_all, complete = _truth(read.get("asked_all")), _truth(read.get("complete"))
        # Versions before this one counted answers alone.
        answered = _number(read.get("answered"))
        counts = (
            Counts.from_dict(read["counts"])
            if "counts" in read
            else Counts(answered=answered or 0, failed=len(failed or ()), is_partial=True)
        )
        if (
            scope is None
            or not (after is None or isinstance(after, str))
            or deferred is None
            or failed is None
            or ("counts" not in read and answered is None)
            or asked_all is None
            or complete is None
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
            counts=counts,
        )

    def to_dict(self) -> dict[str, Any]:
        """All keys, as plain values of their own: what was stored does not change with the bookmark."""
        return {
            **vars(self),
            "deferred": _packed(self.deferred),
            "failed": _packed(self.failed),
            "failed_before": _packed(self.failed_before),
            "counts": {**vars(self.counts)},
        }

    def copy(self) -> SweepBookmark:
        """The same values, to be changed by themselves."""
        return self.from_dict(self.to_dict())

    @property
    def finished(self) -> bool:
        """Every machine has an outcome."""
        return self.asked_all and not self.deferred

    @property
    def newly_failed(self) -> list[str]:
        """Of the machines that failed, those that had not failed before."""
        return [each for each in self.failed if each not in self.failed_before]

    @property
    def checks(self) -> dict[str, Any]:
        """The progress again, for the bookmark of `missing_kbs_checks`."""
        counts = {name: getattr(self.counts, name) for name in OUTCOMES}
        counts["deferred"] = _packed(self.deferred)
        return {"version": self.version, "after": self.after, "asked_all": self.asked_all, "counts": counts}

    def handed_on(self) -> SweepBookmark:
        """What the sweep after this one needs of it; by itself, there is no sweep to go on with."""
        counts = self.counts.begun_anew()
        return SweepBookmark(
            version=self.version,
            failed_before=[*(self.failed if self.finished else self.failed_before)],
            counts=replace(counts, empty_files_before=self.counts.empty_files) if self.finished else counts,
            answered_last=self.answered_last,
            answered_short=self.answered_short,
            pairs_last=self.pairs_last,
            pairs_short=self.pairs_short,
            source_time=self.source_time,
        )

    def no_further_than(self, checks: Mapping[str, Any]) -> SweepBookmark:
        """The bookmark, taken back to where the bookmark of `missing_kbs_checks` stands, if that is older.

        If it was not believed before, it stays so: one sweep is never two in a row.

        Args:
            checks: What STATE says there.
        """
        version, after = _number(checks.get("version")) or 0, _text(checks.get("after"))
        asked_all, said = bool(checks.get("asked_all")), _mapping(checks.get("counts"))
        outcomes: dict[str, Any] = {name: _number(said.get(name)) or 0 for name in OUTCOMES}
        counts = replace(self.counts, **outcomes, ended_at=None)
        if version > self.version:  # of that sweep nothing else is known, and this one's rows would be older than its
            return replace(self.handed_on(), version=version)
        there = (version, asked_all, after or "", counts.outcomes)
        here = (self.version, self.asked_all, self.after or "", self.counts.outcomes)
        if there == here and counts.failed > self.counts.failed:  # who was healed since is not known
            return self.handed_on()
        if there >= here:
            return self
        is_believed, verdict = (False, self.counts.verdict) if self.counts.is_believed is False else (None, None)
        if version < self.version:  # nothing is known of the checks of this sweep
            started = replace(self.counts.begun_anew(), is_believed=is_believed, verdict=verdict)
            return replace(self, after=None, deferred=[], failed=[], asked_all=False, complete=False, counts=started)
        # Who was deferred then may have got an outcome since, and its check be lost.
        deferred = _digests(said.get("deferred")) or []
        return replace(
            self,
            after=after,
            deferred=[*dict.fromkeys([*deferred, *self.deferred])],
            failed=[each for each in self.failed if each not in deferred],
            asked_all=asked_all,
            complete=False,
            counts=replace(counts, is_believed=is_believed, verdict=verdict),
        )


@dataclass
class ListBookmark:
    """What STATE keeps of the machine list.

    Attributes:
        version: Of the last listing: the epoch second it began, or one more than the last; 0 before any.
        listed: How many machines were listed when last believed; None before any.
        listed_short: How many were listed last time, if that was too few.
        listing: The version of the newest believed listing; 0 before any.
        listed_at: When that one began.
    """

    version: int = 0
    listed: int | None = None
    listed_short: int | None = None
    listing: int = 0
    listed_at: str | None = None

    @classmethod
    def from_dict(cls, state: object) -> ListBookmark:
        """Read what an earlier run, version or merge left; what is odd counts as missing."""
        read = _mapping(state)
        return cls(
            version=_number(read.get("version")) or 0,
            listed=_number(read.get("listed")),
            listed_short=_number(read.get("listed_short")),
            listing=_number(read.get("listing")) or 0,
            listed_at=_text(read.get("listed_at")),
        )

    def to_dict(self) -> dict[str, Any]:
        """All keys, as plain values."""
        return {**vars(self)}


class FeedDocument(NamedTuple):
    """What STATE keeps of a document that was read: a line of four words.

    Attributes:
        document_id: Its id.
        released: When the index says that it was released last; `-` where it was read by its URL alone.
        digest: Of its rows.
        pairs: How many pairs of update and CVE it has.
    """

    document_id: str
    released: str
    digest: str
    pairs: int


@dataclass
class MsrcBookmark:
    """What STATE keeps of MSRC's documents.

    Attributes:
        scope: What was asked for: another one reads all again.
        documents: By id, those that were read.
        held: By id, those that had lost too much to be believed at once.
    """

    scope: str | None = None
    documents: dict[str, FeedDocument] = field(default_factory=dict)
    held: dict[str, FeedDocument] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, state: object) -> MsrcBookmark:
        """Read what an earlier run left; what is odd counts as missing."""
        read = _mapping(state)
        return cls(_text(read.get("scope")), _documents(read.get("documents")), _documents(read.get("held")))

    def to_dict(self) -> dict[str, Any]:
        """All keys, as plain values; the newest documents, where there are more than there is room for."""
        return {
            "scope": self.scope,
            "documents": _lines(self.documents, MOST_DOCUMENTS),
            "held": _lines(self.held, MOST_HELD),
        }


@dataclass
class KevBookmark:
    """What STATE keeps of CISA's catalogue.

    Attributes:
        released_at: When the one that was written last was released.
        last_modified: The header of that answer.
        entries: How many it had; None before any.
        short_lists: How many there were last time, if that was too few; else empty.
    """

    released_at: str | None = None
    last_modified: str | None = None
    entries: int | None = None
    short_lists: list[int] = field(default_factory=list)

    @classmethod
    def from_dict(cls, state: object) -> KevBookmark:
        """Read what an earlier run left; what is odd counts as missing."""
        read = _mapping(state)
        lists, modified = read.get("short_lists"), _text(read.get("last_modified")) or ""
        short = [each for each in lists if _number(each) is not None] if isinstance(lists, list) else []
        return cls(
            _text(read.get("released_at")),
            modified if HTTP_DATE.fullmatch(modified) else None,
            _number(read.get("entries")),
            short[-1:],
        )

    def to_dict(self) -> dict[str, Any]:
        """All keys, as plain values."""
        return {**vars(self), "short_lists": [*self.short_lists]}


@dataclass
class EpssBookmark:
    """What STATE keeps of FIRST's scores: of which day those are that were written last."""

    score_date: str | None = None

    @classmethod
    def from_dict(cls, state: object) -> EpssBookmark:
        """Read what an earlier run left; what is odd counts as missing."""
        said = _text(_mapping(state).get("score_date")) or ""
        return cls(said if _DAY.fullmatch(said) else None)

    def to_dict(self) -> dict[str, Any]:
        """All keys, as plain values."""
        return {**vars(self)}


class State:
    """What STATE says: read at the start of a run, changed by whoever lists and sweeps, written from here.

    Attributes:
        machines: Of the machine list.
        sweep: Of the sweep, as last kept: later changes of a running sweep's bookmark are not in it.
        msrc: Of MSRC's documents; the next two of the other feeds.
    """

    def __init__(self) -> None:
        self.machines = ListBookmark()
        self.sweep = SweepBookmark()
        self.msrc = MsrcBookmark()
        self.kev = KevBookmark()
        self.epss = EpssBookmark()
        self._checks = self.sweep.checks

    def read(self, state: object) -> None:
        """Take what an earlier run left: the value of its last STATE message."""
        bookmarks = _mapping(_mapping(state).get("bookmarks"))
        self.machines = ListBookmark.from_dict(bookmarks.get("machines"))
        sweep = _mapping(bookmarks.get("missing_kbs")).get("sweep")
        self.sweep = SweepBookmark.from_dict(sweep)
        self.msrc = MsrcBookmark.from_dict(bookmarks.get("msrc_kbs"))
        self.kev = KevBookmark.from_dict(bookmarks.get("kev"))
        self.epss = EpssBookmark.from_dict(bookmarks.get("epss"))
        # A version before this one wrote no bookmark of the checks.
        is_old = "counts" not in _mapping(sweep) and "missing_kbs_checks" not in bookmarks
        self._checks = self.sweep.checks if is_old else _checks(bookmarks.get("missing_kbs_checks"))

    def settle(self, *, checks_are_written: bool) -> None:
        """Decide where to go on: of the two bookmarks of the sweep the older counts, if both streams are written."""
        if checks_are_written:
            self.sweep = self.sweep.no_further_than(self._checks)
        self._checks = self.sweep.checks

    def keep(self, sweep: SweepBookmark) -> None:
        """Take the sweep's bookmark as it is now."""
        self.sweep = sweep.copy()
        self._checks = self.sweep.checks

    def to_dict(self) -> dict[str, Any]:
        """The value of a STATE message."""
        return {
            "bookmarks": {
                "machines": self.machines.to_dict(),
                "missing_kbs": {"sweep": self.sweep.to_dict()},
                "missing_kbs_checks": {**self._checks},
                "msrc_kbs": self.msrc.to_dict(),
                "kev": self.kev.to_dict(),
                "epss": self.epss.to_dict(),
            }
        }


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _checks(value: object) -> dict[str, Any]:
    """The bookmark of `missing_kbs_checks` out of a state, all its keys."""
    read = _mapping(value)
    said = _mapping(read.get("counts"))
    return {
        "version": _number(read.get("version")) or 0,
        "after": _text(read.get("after")),
        "asked_all": _truth(read.get("asked_all")) or False,
        "counts": {
            **{name: _number(said.get(name)) or 0 for name in OUTCOMES},
            "deferred": _packed(_digests(said.get("deferred")) or []),
        },
    }


def _documents(value: object) -> dict[str, FeedDocument]:
    """The documents in a list of lines, those that are four words."""
    found = {}
    for line in value if isinstance(value, list) else ():
        words = line.split(" ") if isinstance(line, str) else []
        if len(words) == len(FeedDocument._fields) and words[3].isdecimal() and len(line) <= LONGEST_LINE:
            found[words[0]] = FeedDocument(words[0], words[1], words[2], int(words[3]))
    return found


def _lines(documents: Mapping[str, FeedDocument], most: int) -> list[str]:
    """Documents as STATE has them: a line each, since a merge overwrites a list."""
    return [" ".join(map(str, document)) for document in documents.values()][:most]


def _number(value: object) -> int | None:
    """A number of something out of a state, None if it is none."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _truth(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


def _packed(digests: Sequence[str]) -> list[str]:
    """Digests as STATE has them: one string in a list, since a merge overwrites a list."""
    return [DIGESTS + "".join(digests)] if digests else []


def _digests(value: object) -> list[str] | None:
    """The digests in a list of a state, None if it holds anything else than text, or more than is ever written."""
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        return None
    found = []
    for item in value:
        if item.startswith(DIGESTS):
            packed = item.removeprefix(DIGESTS)
            found += [packed[start : start + DIGEST_CHARACTERS] for start in range(0, len(packed), DIGEST_CHARACTERS)]
        else:
            found.append(digest(item))
    return found if len(found) <= MOST_NAMED else None


def _moment_of(version: int) -> str | None:
    """When a sweep of a version began, as far as its version tells."""
    try:
        return moment(version) if version else None
    except (ValueError, OverflowError, OSError):
        return None
