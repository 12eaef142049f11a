"""What a run does: lists the machines, sweeps over them, writes rows, activates what is complete.

It drives; the rules are elsewhere: who is asked when in `sweep.sweep`, who is not in `sweep.machine_list`, what is
believed in `sweep.verdict`, what a later run is told in `state`. Where the answers come from it does not know: a
`Source` has them. Knows no HTTP, and of Singer only tables that take rows.

The exit status is decided here, in `finish`: 0 means that the table is as current as the API allows.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import time
from dataclasses import replace
from datetime import datetime, timezone
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from tap_mde_kbs import schema
from tap_mde_kbs.errors import ApiDownError, Stopped, TapError, printable
from tap_mde_kbs.progress import Progress
from tap_mde_kbs.settings import DEFAULTS
from tap_mde_kbs.state import seconds_since
from tap_mde_kbs.sweep.machine_list import Assessed, Walk, kept
from tap_mde_kbs.sweep.sweep import Rules, sweeps
from tap_mde_kbs.sweep.verdict import believe_list

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from tap_mde_kbs.api.client import Client
    from tap_mde_kbs.state import State, SweepBookmark
    from tap_mde_kbs.sweep.pool import Answer, Answers, Source
    from tap_mde_kbs.sweep.sweep import Listed, Outcome, Sweep
    from tap_mde_kbs.sweep.verdict import Verdict

NAMED_MACHINES = 20
"""How many machines a line of the log names."""

WALKS = 3
"""How often the machine list is walked at most, where it moves or is shorter than last time."""

DAY = 86400.0
LATER_SETTINGS = ("include_excluded", "silent_after_days")
OLD_EXPORT_DAYS = 3
"""So long nothing newer than the export that was loaded last is a fault: one is made every six hours."""


class Table(Protocol):
    """A stream as the runner sees it."""

    name: str

    @property
    def in_batches(self) -> bool:
        """Whether rows go to batch files, which carry no version and are written late."""

    def begin(self, version: int) -> None:
        """Give what is written from now on a version."""

    def write(self, record: dict[str, Any]) -> None:
        """Write a row, if the stream is selected."""

    def activate(self, version: int) -> str:
        """Tell the target that rows of earlier versions are gone; returns what was done, as a sentence."""

    def keeps(self, record: dict[str, Any]) -> bool:
        """Whether the stream's maps keep such a record; where they write none at all, they keep every one."""

    @property
    def is_written(self) -> bool:
        """Whether rows reach the target: the stream is selected, and no map removes it."""


class Tables(NamedTuple):
    """What a sweep writes."""

    missing_kbs: Table
    checks: Table
    sweeps: Table
    kb_cves: Table | None


class MachineList(NamedTuple):
    """The machines that a run listed.

    Attributes:
        in_scope: Those that this run sweeps over.
        ids: All of them.
        rows: How many rows of them reach the target.
        is_believed: Whether a machine that is missing from it has left.
    """

    in_scope: Sequence[Listed]
    ids: frozenset[str]
    rows: int
    is_believed: bool

    @property
    def to_ask(self) -> int:
        """How many machines are to be asked: those that are onboarded and report, unless settings say otherwise."""
        return sum(machine.skip is None for machine in self.in_scope)


class Runner:
    """Drives a run.

    Args:
        config: The tap's settings.
        client: For what calls cost, and the run's time.
        source: Where the missing KBs come from.
        page_at: Asks for the machine list from a position on.
        state: What the last run left, and this one leaves.
        write_state: Writes a STATE message.
        unlisted: Where fields that no schema lists are reported.
        log: What a person reads.
    """

    def __init__(  # noqa: PLR0913 - what a run is made of, each a keyword
        self,
        *,
        config: Mapping[str, Any],
        client: Client,
        source: Source,
        page_at: Callable[[int], list[dict[str, Any]]],
        state: State,
        write_state: Callable[[], None],
        unlisted: schema.Unlisted,
        log: logging.Logger,
    ) -> None:
        self._config = config
        self._client = client
        self._source = source
        self._page_at = page_at
        self._state = state
        self._write_state = write_state
        self._unlisted = unlisted
        self._log = log
        self._found = state.sweep
        self._listed: MachineList | None = None
        self._sweep: Sweep[Answer] | None = None
        self._tables: Tables | None = None
        self._answered = 0
        self._sweeps_follow = False
        self._fault = ""
        self._saved_at = 0.0

    @property
    def has_listed(self) -> bool:
        """Whether all machines were listed, so that a sweep can begin."""
        return self._listed is not None

    def settle(self, *, checks_are_written: bool, sweeps: bool) -> None:
        """Decide where to go on, before the first STATE: a target that loads streams apart takes that for what it has.

        Args:
            checks_are_written: `missing_kbs_checks` is selected, so that its bookmark tells how far it has come.
            sweeps: Whether a sweep will follow the list.
        """
        self._sweeps_follow = sweeps
        self._found = self._state.sweep
        self._state.settle(checks_are_written=checks_are_written)

    def _begin(self) -> None:
        """Have the source begin, since the list keeps one waiting: two that both compute gain nothing side by side."""
        if self._sweeps_follow:
            self._source.begin(self._is_due)

    def list_machines(self, machines: Table) -> Iterator[dict[str, Any]]:
        """List the machines, their rows; when the last is written, activate them if the list is believed."""
        last = self._state.machines
        version = max(int(time.time()), last.version + 1)
        self._state.machines = replace(last, version=version)
        machines.begin(version)
        bears = {"listed_at": schema.now(), "listing": version}
        listed: dict[str, dict[str, Any]] = {}
        in_scope: dict[str, dict[str, Any]] = {}
        try:
            for walks_left in reversed(range(WALKS)):
                walk = Walk(self._page_at, self._begin)
                for entry in walk:
                    if record := self._news(entry, listed):
                        record.update(bears)
                        if machines.keeps(record):
                            in_scope[str(entry["id"])] = kept(record)
                        yield record
                if not walk.moved and len(listed) >= (last.listed or 0):
                    break
                if walks_left:
                    self._log.info(
                        "%d machines listed, %s: listing again.",
                        len(listed),
                        "and the list moved meanwhile" if walk.moved else f"fewer than the {last.listed} of last time",
                    )
        except Stopped:
            self._log.warning("time_limit_minutes is over before all machines were listed: nothing was asked.")
            return
        self._listed = MachineList(
            self.assessed.listed([*in_scope.values()], datetime.now(timezone.utc)),
            frozenset(listed),
            len(in_scope) if machines.is_written else 0,
            self._believe_list(len(listed), bears, machines),
        )

    def _news(self, entry: dict[str, Any], listed: dict[str, dict[str, Any]]) -> dict[str, Any] | None:
        """An entry of the list as a row; None if the machine was met before. It is onboarded if any entry says so."""
        known = listed.get(str(entry["id"]))
        if known and not (entry.get("onboardingStatus") == "Onboarded" != known["onboarding_status"]):
            return None
        record = schema.MACHINES.from_wire(entry, self._unlisted)
        listed[str(entry["id"])] = kept(record)
        return record

    @property
    def assessed(self) -> Assessed:
        """Which machines are asked, by the settings."""
        return Assessed(
            include_not_onboarded=self._config["include_not_onboarded"],
            include_excluded=self._config["include_excluded"],
            silent_after_days=float(self._config["silent_after_days"]),
        )

    def _believe_list(self, count: int, bears: Mapping[str, Any], machines: Table) -> bool:
        """Judge how many machines were listed, and activate them if that is believed."""
        last = self._state.machines
        is_believed, short = believe_list(count, last.listed, last.listed_short, self._max_shrink_percent)
        self._state.machines = replace(last, listed_short=short)
        if is_believed:
            self._state.machines = replace(self._state.machines, listed=count, **bears)
            self._log.info("%d machines listed. %s", count, machines.activate(last.version))
        elif count:
            self._log.warning(
                "Only %d machines listed, %d last time: nothing is deleted unless the next run lists as few. Has the "
                "application lost a device group?",
                count,
                last.listed,
            )
        else:
            self._log.warning("No machines listed: nothing is deleted.")
            if last.listed:
                self._fault = f"No machines are listed, {last.listed} were before."
        return is_believed

    def sweep(self, tables: Tables) -> Iterator[dict[str, Any]]:
        """Sweep over the listed machines: the rows of `missing_kbs`; those of the other tables are written in between.

        Raises:
            TapError: The API is down, or whatever else ends the run.
        """
        self._tables = tables
        if self._found.scope and not self._found.counts.is_partial:
            # A target that was killed may have lost the row, and with it what is not believed.
            self._write_sweep(self._found)
        if tables.missing_kbs.in_batches:
            self._log.warning("Batch files carry no version: no STATE in mid-sweep, and nothing is activated.")
        listed = self._listed or MachineList((), frozenset(), 0, is_believed=False)
        last = self._state.sweep
        if listed.is_believed:
            last.counts.machines_listed = listed.rows
            last.counts.listing, last.counts.listed_at = self._state.machines.listing, self._state.machines.listed_at
        try:
            with self._source.opened(self._is_due, self._save_when_due) as answers:
                if answers is None:
                    self._write_sweep(last)  # the machine list may be news
                    return
                self._warn_of_strangers(answers, listed)
                for sweep in self._sweeps(answers, listed):
                    yield from self._run(sweep, answers, tables)
        except Stopped:
            self._log.warning("time_limit_minutes is over before the export was read: the next run begins anew.")

    def leave(self) -> None:
        """Write what the next run and the reader of the tables need, wherever this run is."""
        if self._sweep:
            self._write_sweep(self._sweep.bookmark)
        self._save()

    def close(self) -> None:
        """Give up what was begun for nothing."""
        self._source.close()

    def finish(self) -> None:
        """Sum up, and decide the exit status.

        Raises:
            TapError: The table is not as current as the API allows; says why.
        """
        if self._listed and self._tables:
            self._log.info("%s", self._summary(self._listed))
        if self._fault:
            raise TapError(self._fault, "The table is as current as possible; nothing was deleted. Run again.")

    def _summary(self, listed: MachineList) -> str:
        """What share of the machines answered in the last 24 hours, by what source, and what was believed."""
        bookmark, to_ask = self._state.sweep, listed.to_ask
        counts, source = bookmark.counts, str(self._config["missing_kbs_source"])
        since = bookmark.began_at if self._source.costs_calls else bookmark.source_time
        age = seconds_since(since, time.time())
        answered = counts.answered if age is not None and age <= DAY else self._answered
        believed = {None: "not judged yet", True: "believed", False: "not believed"}
        return (
            f"{min(answered, to_ask)} of {to_ask} onboarded, reporting machines "
            f"({round(100 * min(answered, to_ask) / to_ask) if to_ask else 100} %) answered in the last 24 hours "
            f"({source}). Machine list: {believed[listed.is_believed]}; answers: {believed[counts.is_believed]}."
        )

    def _save(self) -> None:
        """Write a STATE up to the last machine fully written; not where batch files are still to be written."""
        self._saved_at = time.monotonic()
        in_batches = self._tables is not None and self._tables.missing_kbs.in_batches
        if self._sweep and not (in_batches and self._sweep.verdict is None):
            self._state.keep(self._sweep.bookmark)
        if not in_batches:
            self._write_state()

    def _save_when_due(self) -> None:
        """Write a STATE every few seconds, also while nothing but the quota is waited for."""
        if time.monotonic() - self._saved_at >= self._client.patience.state:
            self._save()

    @property
    def _max_shrink_percent(self) -> float:
        return float(self._config["max_shrink_percent"])

    def _is_due(self, made_at: str) -> bool:
        """Whether an export is another than the one loaded last, or that one is not wholly written."""
        bookmark = self._state.sweep
        days = (seconds_since(made_at, time.time()) or 0.0) / DAY
        if made_at == bookmark.source_time and bookmark.finished:
            self._log.info("The export of %s is the one that was loaded last: nothing to do.", made_at)
            if days > OLD_EXPORT_DAYS:
                self._fault = f"No export newer than that of {made_at} came for {days:.0f} days."
            return False
        self._log.info(
            "Export of %s. It differs from what each machine answers: it is up to six hours old, updates without a "
            "CVE are not in it, os_build is null, first_seen_at is filled, machine_missed_on counts its machines.",
            made_at,
        )
        if days > 1:
            self._log.warning("The export of %s is %.1f days old; one is made every six hours.", made_at, days)
        return True

    def _warn_of_strangers(self, answers: Answers, listed: MachineList) -> None:
        if found := answers.strangers(listed.ids):
            named = ", ".join(printable(machine_id, 80) for machine_id in found[:NAMED_MACHINES])
            # With a filter, that is what was asked for.
            tell = self._log.info if self._config.get("machines_filter") else self._log.warning
            tell(
                "%d machines of the export are not in the list, and have no rows: %s%s",
                len(found),
                named,
                ", …" if len(found) > NAMED_MACHINES else "",
            )

    def _sweeps(self, answers: Answers, listed: MachineList) -> Iterator[Sweep[Answer]]:
        found = sweeps(
            self._state.sweep,
            listed.in_scope,
            scope=self._scope(answers.made_at or ""),
            pool=answers,
            list_believed=listed.is_believed,
            max_shrink_percent=self._max_shrink_percent,
            rules=Rules(pause=self._client.patience.machine),
        )
        # Of answers that are here already, a second sweep would only read the same again.
        return found if self._source.costs_calls else islice(found, 1)

    def _run(self, sweep: Sweep[Answer], answers: Answers, tables: Tables) -> Iterator[dict[str, Any]]:
        self._sweep, self._answered = sweep, 0
        sweep.bookmark.counts.source = self._config["missing_kbs_source"]
        sweep.bookmark.counts.empty_files = answers.empty_files
        tables.missing_kbs.begin(sweep.version)
        progress = Progress(self._client, sweep, self._log, costs_calls=self._source.costs_calls)
        try:
            with progress:
                self.leave()
                self._write_cves(answers, tables.kb_cves, sweep.version)
                for outcome in sweep.outcomes():
                    yield from self._write(outcome, sweep, answers.made_at, tables.checks)
                    progress.count(outcome)
                    self._save_when_due()
        except ApiDownError as error:
            msg = f"The API is down: {error}. Nothing was deleted; the next run goes on from here."
            raise TapError(msg) from None
        except Stopped:
            self.leave()
            self._log.warning(
                "time_limit_minutes is over: stopped with %d machines to go; the next run goes on from here.",
                sweep.left,
            )
        if sweep.verdict:
            self._end(sweep, sweep.verdict, progress, tables)

    def _write(
        self, outcome: Outcome[Answer], sweep: Sweep[Answer], made_at: str | None, checks: Table
    ) -> Iterator[dict[str, Any]]:
        """Write a machine's rows, and its check, as of when it answered or the export was made."""
        rows = outcome.answer.rows if outcome.answer else []
        answered_at = outcome.answer.checked_at if outcome.answer else made_at
        for row in rows:
            row["sweep"] = sweep.version
            yield row
        checks.write(_check(outcome, sweep.version, answered_at or schema.now()))
        sweep.written(outcome, rows=len(rows), answered_at=answered_at)
        self._answered += outcome.kind == "answered"

    def _write_sweep(self, bookmark: SweepBookmark) -> None:
        """Write the row of a sweep, as it stands."""
        if self._tables and bookmark.version:
            self._tables.sweeps.write(_sweep(bookmark))

    def _write_cves(self, answers: Answers, kb_cves: Table | None, version: int) -> None:
        """Write all of them before the first machine: a run that goes on writes them again."""
        if kb_cves:
            kb_cves.begin(version)
            for record in answers.kb_cves():
                kb_cves.write({**record, "checked_at": answers.made_at})

    def _end(self, sweep: Sweep[Answer], verdict: Verdict, progress: Progress, tables: Tables) -> None:
        told = f"{tables.missing_kbs.name}: not activated. {verdict.reason}"
        if verdict.activate:
            activated = [table for table in (tables.missing_kbs, tables.kb_cves) if table]
            told = " ".join(table.activate(sweep.version) for table in activated)
        self.leave()
        progress.end(told, verdict)
        self._fault = verdict.fault

    def _scope(self, made_at: str) -> str:
        """A hash of all that decides which machines are asked, and of what; another one means another sweep.

        Args:
            made_at: When the answers were made, if that was at one time.
        """
        decides = [
            self._config["tenant_id"],
            self._client.endpoints.api_url,
            self._config["missing_kbs_source"] + made_at,
            self._config.get("machines_filter") or None,
            self._config["include_not_onboarded"],
            _filters_of("machines", self._config.get("stream_maps") or {}),
            # Settings that came later, where they are not the default: else every sweep under way would begin anew.
            *([name, self._config[name]] for name in LATER_SETTINGS if self._config[name] != DEFAULTS[name]),
        ]
        return hashlib.sha256(json.dumps(decides, default=str).encode()).hexdigest()[:16]


def _check(outcome: Outcome[Answer], version: int, checked_at: str) -> dict[str, Any]:
    """The row of `missing_kbs_checks` for an outcome."""
    rows = outcome.answer.rows if outcome.answer else None
    return {
        "machine_id": outcome.machine.id,
        "sweep": version,
        "checked_at": checked_at,
        "outcome": outcome.kind,
        "missing_kbs": None if rows is None else len(rows),
        "missing_kb_ids": None if rows is None else [row["id"] for row in rows],
        "reason": outcome.reason if outcome.kind in {"skipped", "failed"} else None,
        "last_seen": outcome.machine.last_seen,
    }


def _sweep(bookmark: SweepBookmark) -> dict[str, Any]:
    """The row of `sweeps` for a sweep as it stands."""
    counts = bookmark.counts
    return {
        "sweep": bookmark.version,
        "source": counts.source,
        "began_at": bookmark.began_at,
        "ended_at": counts.ended_at,
        "listing": counts.listing,
        "listed_at": counts.listed_at,
        "machines_listed": counts.machines_listed,
        "machines_asked": counts.asked,
        "machines_answered": counts.answered,
        "machines_not_found": counts.not_found,
        "machines_failed": counts.failed,
        "machines_skipped": counts.skipped,
        "machines_not_in_export": counts.not_in_export,
        "missing_pairs": counts.pairs,
        "is_complete": counts.ended_at is not None,
        "is_believed": counts.is_believed,
        "verdict": counts.verdict,
    }


def _filters_of(stream: str, stream_maps: Mapping[str, Any]) -> list[str]:
    """The filters that stream maps put on a stream itself."""
    return [
        str(definition["__filter__"])
        for key, definition in stream_maps.items()
        if isinstance(definition, dict)
        and "__filter__" in definition
        and "__source__" not in definition
        and fnmatch.fnmatch(stream, key)
    ]
