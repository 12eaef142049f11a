"""What a run does with the feeds: which are read, what of them is written, and what the next run is told.

The missing KBs come first: whatever a feed does ends in one warning; of a feed that is odd nothing is written, nothing
deleted, and its bookmark stays. Knows no HTTP, and of Singer only tables that take rows.
"""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import replace
from datetime import date, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from tap_mde_kbs import schema
from tap_mde_kbs.addresses import url_or_path
from tap_mde_kbs.advisories import epss, kev, msrc
from tap_mde_kbs.advisories.fetch import Fetcher
from tap_mde_kbs.errors import FeedError, Stopped, TapError
from tap_mde_kbs.settings import FEEDS
from tap_mde_kbs.state import HTTP_DATE, FeedDocument
from tap_mde_kbs.sweep.verdict import Tolerance, believe, believe_list

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Iterator, Mapping

    from tap_mde_kbs.advisories.fetch import Fetched
    from tap_mde_kbs.patience import Patience
    from tap_mde_kbs.state import MsrcBookmark, State

Parsed = TypeVar("Parsed")

MSRC, KEV, EPSS = FEEDS

STREAMS_OF: Mapping[str, tuple[str, ...]] = {
    MSRC: ("msrc_kbs", "msrc_kb_cves", "msrc_cves"),
    KEV: ("kev",),
    EPSS: ("epss",),
}
"""The streams of a feed."""

NEWEST = 2
"""So many months are always read: they change under the same date now and then."""

RECENT = 3
"""So many months are asked for by their URL when the index does not have them: now and then it loses one."""

FAR_AHEAD = timedelta(days=366)
"""A month or day that is later than this from now is a slip of its feed's: generous, since clocks are wrong, too."""

JSON = {"Accept": "application/json"}
UNAFFECTED = "missing KBs are not affected"


class Rows(Protocol):
    """A stream as a feed sees it."""

    @property
    def selected(self) -> bool:
        """Whether its rows are written."""

    def begin(self, version: int) -> None:
        """Give what is written from now on a version."""

    def write(self, record: dict[str, Any]) -> None:
        """Write a row, if the stream is selected."""

    def activate(self, version: int) -> str:
        """Tell the target that rows of earlier versions are gone; returns what was done, as a sentence."""


class Advisories:
    """Reads the feeds that the settings name.

    Args:
        config: The tap's settings.
        state: What the last run left, and this one leaves.
        patience: How long each feed may take.
        check_time: Raises `Stopped` when the run's time is over.
        write_state: Writes a STATE message.
        log: What a person reads.
    """

    def __init__(  # noqa: PLR0913 - what reading is made of, each a keyword
        self,
        *,
        config: Mapping[str, Any],
        state: State,
        patience: Patience,
        check_time: Callable[[], None],
        write_state: Callable[[], None],
        log: logging.Logger,
    ) -> None:
        self._config = config
        self._state = state
        self._patience = patience
        self._check_time = check_time
        self._write_state = write_state
        self._log = log

    def read(self, tables: Mapping[str, Rows]) -> None:
        """Read every feed of which a stream is selected, one after the other. Raises nothing of theirs.

        Args:
            tables: The streams, by name.
        """
        readers = {MSRC: self._read_msrc, KEV: self._read_kev, EPSS: self._read_epss}
        for feed in FEEDS:
            selected = {name: tables[name] for name in STREAMS_OF[feed] if name in tables and tables[name].selected}
            if not selected or feed not in self._config["advisory_feeds"]:
                continue
            try:
                self._check_time()
            except Stopped:
                self._log.info("%s: not read, time_limit_minutes is over.", feed)
                continue
            self._guarded(feed, lambda feed=feed, selected=selected: readers[feed](selected))  # type: ignore[misc]

    def lines(self) -> Iterator[tuple[bool | None, str]]:
        """What `--test` says, a line a feed: True where it can be read, else None, since none fails anything."""
        probes = {MSRC: self._probe_msrc, KEV: self._probe_kev, EPSS: self._probe_epss}
        for feed in FEEDS:
            if feed in self._config["advisory_feeds"]:
                try:
                    yield True, f"{feed}: {probes[feed](self._fetcher(feed))}"
                except FeedError as error:
                    yield None, f"{feed}: {error}; {UNAFFECTED}. {error.advice}"
                except Exception as error:  # noqa: BLE001 - a feed fails nothing
                    yield None, f"{feed}: {_defect(error)}; {UNAFFECTED}"

    def _guarded(self, feed: str, read: Callable[[], None]) -> None:
        """Read a feed; whatever it does ends in one warning."""
        try:
            read()
        except FeedError as error:
            self._log.warning("%s: %s; %s. %s", feed, error, UNAFFECTED, error.advice)
        except (OSError, TapError):
            raise  # of stdout: the target is gone
        except Exception as error:  # noqa: BLE001 - the last resort: a feed ends no run
            self._log.warning("%s: %s; %s.", feed, _defect(error), UNAFFECTED)
            self._log.debug("Where it happened:", exc_info=error)

    def _fetcher(self, feed: str) -> Fetcher:
        return Fetcher(
            url_or_path(self._config[f"{feed}_url"]),
            setting=f"{feed}_url",
            user_agent=str(self._config["user_agent"]),
            timeout=float(self._config["request_timeout_seconds"]),
            seconds=self._patience.feed,
            wait=self._patience.retry,
        )

    # MSRC: documents, each with its own bookmark

    def _read_msrc(self, tables: Mapping[str, Rows]) -> None:
        """Read the documents that changed, newest first; each is marked as read when its last row is out."""
        fetcher, began, read_at = self._fetcher(MSRC), time.monotonic(), schema.now()
        index = _index(fetcher)
        bookmark = self._msrc_bookmark(tables, index)
        read = written = rows = 0
        faults: list[FeedError] = []
        for document_id in self._due(index):
            self._check_msrc_time()
            try:
                document, entry = self._document(fetcher, document_id, index)
            except FeedError as error:
                if document_id not in index and error.status == 404:  # noqa: PLR2004 - there is no such month yet
                    continue
                if error.is_gone and read:  # the time is over, most likely: a first run over a slow line
                    faults.append(FeedError(f"{error}, after {read} documents", "The next run goes on from there."))
                    break
                faults.append(error)
                if error.is_gone:
                    break
                continue
            read += 1
            before = bookmark.documents.get(document_id)
            if not self._is_believed(document_id, entry):
                faults.append(_shrunken(fetcher, entry, before))
                continue
            if before is None or before.digest != entry.digest:
                written += 1
                rows += _write(tables, document, read_at)
            bookmark.documents = self._newest_first({**bookmark.documents, document_id: entry})
            bookmark.held.pop(document_id, None)
            self._write_state()
        self._log.info(
            "msrc: %d documents of %d read in %.0f s, %d changed, %d rows.",
            read,
            len(index),
            time.monotonic() - began,
            written,
            rows,
        )
        if faults:
            more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
            msg = f"{faults[0]}{more}"
            raise FeedError(msg, faults[0].advice)

    def _check_msrc_time(self) -> None:
        """End the reading when the run's time is over: the next run goes on."""
        try:
            self._check_time()
        except Stopped:
            msg = "time_limit_minutes is over before all documents were read"
            raise FeedError(msg, "The next run goes on.") from None

    def _msrc_bookmark(self, tables: Mapping[str, Rows], index: Mapping[str, str]) -> MsrcBookmark:
        """The bookmark: begun anew where others are asked for, and without documents that are too old, or a slip."""
        asked = [self._config["msrc_url"], self._config["msrc_months"], sorted(tables)]
        scope = hashlib.sha256(json.dumps(asked, default=str).encode()).hexdigest()[:16]
        bookmark = self._state.msrc
        if bookmark.scope != scope:
            bookmark.scope, bookmark.documents, bookmark.held = scope, {}, {}
        oldest, newest = self._oldest(index), self._newest(index)
        for kept in (bookmark.documents, bookmark.held):
            for document_id in [each for each in kept if not oldest <= (msrc.month_of(each) or date.min) <= newest]:
                del kept[document_id]
        return bookmark

    def _newest(self, index: Mapping[str, str]) -> date:
        """The newest month that is known: the index may have lost one that was read before.

        One that is more than a year ahead is a slip, and must not make all others too old.
        """
        months = [month for each in (*index, *self._state.msrc.documents) if (month := msrc.month_of(each))]
        ahead = _today() + FAR_AHEAD
        return max([month for month in months if month <= ahead] or months)

    @staticmethod
    def _newest_first(documents: Mapping[str, FeedDocument]) -> dict[str, FeedDocument]:
        """Documents in the order in which STATE names them, since it may not have room for all."""
        return dict(
            sorted(documents.items(), key=lambda item: (msrc.month_of(item[0]) or date.min, item[0]), reverse=True)
        )

    def _oldest(self, index: Mapping[str, str]) -> date:
        return _months_before(self._newest(index), int(self._config["msrc_months"]) - 1)

    def _due(self, index: Mapping[str, str]) -> list[str]:
        """The documents to read, newest first."""
        known = self._state.msrc.documents
        oldest, newest = self._oldest(index), self._newest(index)
        listed = sorted(
            (each for each in index if (msrc.month_of(each) or oldest) >= oldest),
            key=lambda each: (msrc.month_of(each) or oldest, each),
            reverse=True,
        )
        months = {msrc.month_of(each) for each in listed}
        always = sorted((month for month in months if month), reverse=True)[:NEWEST]
        lost = [_months_before(newest, back) for back in range(RECENT)]
        return [
            *(msrc.id_of(month) for month in lost if month not in months and month >= oldest),
            *(
                each
                for each in listed
                if msrc.month_of(each) in always or each not in known or known[each].released != index[each]
            ),
        ]

    def _document(
        self, fetcher: Fetcher, document_id: str, index: Mapping[str, str]
    ) -> tuple[msrc.Document, FeedDocument]:
        content = _fetched(fetcher, f"cvrf/{document_id}").content
        document = _parsed(fetcher, lambda: msrc.document_in(content, document_id), f"{document_id}: ")
        released = index.get(document_id, "-")
        return document, FeedDocument(document_id, released, document.digest, len(document.kb_cves))

    def _is_believed(self, document_id: str, entry: FeedDocument) -> bool:
        """Whether a document has lost no more than may be, or the same for the second time."""
        bookmark = self._state.msrc
        before, held = bookmark.documents.get(document_id), bookmark.held.get(document_id)
        if before is None or not before.pairs:
            return True
        percent = float(self._config["max_shrink_percent"])
        level = believe(entry.pairs, before.pairs, held.pairs if held else None, Tolerance(percent))
        if not level.is_believed:
            bookmark.held[document_id] = entry
            self._write_state()
        return level.is_believed

    def _probe_msrc(self, fetcher: Fetcher) -> str:
        index = _index(fetcher)
        newest = max(index, key=lambda each: msrc.month_of(each) or date.min)
        return f"{len(index)} documents, newest {newest}"

    # KEV and EPSS: whole tables

    def _read_kev(self, tables: Mapping[str, Rows]) -> None:
        """Write the catalogue if it was released anew."""
        fetcher, bookmark = self._fetcher(KEV), self._state.kev
        since = {"If-Modified-Since": bookmark.last_modified} if bookmark.last_modified else {}
        fetched = fetcher.get(headers={**JSON, **since})
        if fetched is None:
            self._log.info("kev: not modified since the last reading.")
            return
        catalogue = _parsed(fetcher, lambda: kev.catalogue_in(fetched.content))
        if catalogue.released_at == bookmark.released_at:
            self._state.kev = replace(bookmark, last_modified=_kept(fetched) or bookmark.last_modified)
            self._log.info("kev: nothing newer than %s.", catalogue.released_at)
            return
        count, short = len(catalogue.rows), bookmark.short_lists[-1] if bookmark.short_lists else None
        level = believe_list(count, bookmark.entries, short, float(self._config["max_shrink_percent"]))
        if not level.is_believed:
            self._state.kev = replace(bookmark, short_lists=[] if level.short is None else [level.short])
            self._write_state()
            msg = f"{fetcher.where} lists only {count} entries, {bookmark.entries or 0} last time"
            raise FeedError(msg, "That is believed if the next reading has as few.")
        self._write_table(tables[KEV], catalogue.rows)
        self._state.kev = replace(
            bookmark,
            released_at=catalogue.released_at,
            last_modified=_kept(fetched),
            entries=count,
            short_lists=[],
        )
        self._write_state()
        self._log.info("kev: %d entries, released %s.", count, catalogue.released_at)

    def _probe_kev(self, fetcher: Fetcher) -> str:
        content = _fetched(fetcher).content
        catalogue = _parsed(fetcher, lambda: kev.catalogue_in(content))
        return f"{len(catalogue.rows)} entries, released {catalogue.released_at[:10]}"

    def _read_epss(self, tables: Mapping[str, Rows]) -> None:
        """Write the scores if they are of a later day."""
        fetcher, bookmark = self._fetcher(EPSS), self._state.epss
        scores = self._scores(fetcher)
        last = bookmark.score_date or ""
        is_slip = last > (_today() + FAR_AHEAD).isoformat()  # or nothing would be later for good
        if scores.score_date == last or (scores.score_date < last and not is_slip):
            self._log.info("epss: nothing newer than %s.", bookmark.score_date)
            return
        self._write_table(tables[EPSS], scores.rows)
        self._state.epss = replace(bookmark, score_date=scores.score_date)
        self._write_state()
        self._log.info("epss: %d scores of %s.", len(scores.rows), scores.score_date)

    def _scores(self, fetcher: Fetcher) -> epss.Scores:
        fetched, least = _fetched(fetcher), float(self._config["epss_min"])
        return _parsed(fetcher, lambda: epss.scores_in(fetched.content, fetched.name, least))

    def _probe_epss(self, fetcher: Fetcher) -> str:
        scores = self._scores(fetcher)
        return f"{len(scores.rows)} scores of {self._config['epss_min']} or more, of {scores.score_date}"

    def _write_table(self, table: Rows, rows: list[dict[str, Any]]) -> None:
        """Write a whole table, and activate it: what is not in it is gone from the feed."""
        last = self._state.machines
        version = max(int(time.time()), last.version + 1)
        self._state.machines = replace(last, version=version)  # one counter for all: it only grows
        table.begin(version)
        read_at = schema.now()
        for row in rows:
            table.write({**row, "read_at": read_at})
        table.activate(version)


def _write(tables: Mapping[str, Rows], document: msrc.Document, read_at: str) -> int:
    """Write a document's rows to the streams that are selected; how many."""
    count = 0
    for name, rows in zip(STREAMS_OF[MSRC], document, strict=True):
        if name in tables:
            for row in rows:
                tables[name].write({**row, "read_at": read_at})
            count += len(rows)
    return count


def _fetched(fetcher: Fetcher, name: str = "") -> Fetched:
    """A file that was asked for without a condition."""
    fetched = fetcher.get(name, JSON if name else None)
    if fetched is None:
        raise AssertionError  # only where it was asked for
    return fetched


def _kept(fetched: Fetched) -> str | None:
    """When a file was modified, as STATE keeps it: what is no date is not sent back."""
    return fetched.last_modified if HTTP_DATE.fullmatch(fetched.last_modified) else None


def _index(fetcher: Fetcher) -> dict[str, str]:
    content = _fetched(fetcher, "updates").content
    return _parsed(fetcher, lambda: msrc.index_in(content), "as its index ")


def _parsed(fetcher: Fetcher, parse: Callable[[], Parsed], what: str = "") -> Parsed:
    """What a parser makes of a file.

    Args:
        fetcher: Whose file it is.
        parse: Parses it.
        what: Said before what the parser found.

    Raises:
        FeedError: It is another file than it should be; never quotes content.
    """
    try:
        return parse()
    except (ValueError, RecursionError) as error:
        own = type(error) is ValueError  # of our parsers, whose texts are clauses
        found = str(error) if own else f"no such file as it was before ({type(error).__name__})"
        msg = f"{fetcher.where} sent {what}{found}"
        raise FeedError(msg, "If that stays so, report it; a mirror or a file may serve meanwhile.") from None


def _shrunken(fetcher: Fetcher, entry: FeedDocument, before: FeedDocument | None) -> FeedError:
    what = (
        f"{fetcher.where} sent {entry.document_id} with {entry.pairs} fixes, {before.pairs if before else 0} last time"
    )
    return FeedError(what, "That is believed if the next reading has as few.")


def _defect(error: Exception) -> str:
    return f"a defect of the tap, please report it ({type(error).__name__})"


def _today() -> date:
    return datetime.now(timezone.utc).date()


def _months_before(month: date, count: int) -> date:
    number = max(month.year * 12 + month.month - 1 - count, 12)
    return date(number // 12, number % 12 + 1, 1)
