"""What a run does: lists the machines, sweeps over them, writes rows, activates what is complete.

It drives; the rules are elsewhere: who is asked when in `sweep`, what is believed in `sweep.verdict`, what a later
run is told in `state`. Where the answers come from it does not know: a `Source` has them. Knows no HTTP, and of
Singer only tables that take rows.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import time
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from tap_mde_kbs import schema
from tap_mde_kbs.errors import ApiDownError, Stopped, TapError, printable
from tap_mde_kbs.progress import Progress
from tap_mde_kbs.state import ListBookmark
from tap_mde_kbs.sweep.machine_list import walk
from tap_mde_kbs.sweep.sweep import Listed, Rules, sweeps
from tap_mde_kbs.sweep.verdict import believe

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from tap_mde_kbs.api.client import Client
    from tap_mde_kbs.state import State
    from tap_mde_kbs.sweep.pool import Answer, Answers, Source
    from tap_mde_kbs.sweep.sweep import Outcome, Sweep
    from tap_mde_kbs.sweep.verdict import Verdict

ONBOARDED = (None, "Onboarded")
"""The values of `onboarding_status` that count as onboarded; absent is not known to be otherwise."""

NAMED_MACHINES = 20
"""How many machines a line of the log names."""


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
        """Whether the stream's maps keep such a record."""


class MachineList(NamedTuple):
    """The machines that a run listed.

    Attributes:
        in_scope: Those that this run sweeps over, by id.
        ids: All of them.
        is_believed: Whether a machine that is missing from it has left.
    """

    in_scope: Mapping[str, Listed]
    ids: frozenset[str]
    is_believed: bool


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
        self._listed: MachineList | None = None
        self._sweep: Sweep[Answer] | None = None
        self._in_batches = False
        self._saved_at = 0.0

    @property
    def has_listed(self) -> bool:
        """Whether all machines were listed, so that a sweep can begin."""
        return self._listed is not None

    def list_machines(self, machines: Table) -> Iterator[dict[str, Any]]:
        """List the machines, their rows; when the last is written, activate them if the list is believed."""
        last = self._state.machines
        version = max(int(time.time()), last.version + 1)
        machines.begin(version)
        listed_at = schema.now()
        ids: set[str] = set()
        in_scope: dict[str, Listed] = {}
        try:
            for attempt in range(2):
                if attempt and (last.listed is None or len(ids) >= last.listed):
                    break
                if attempt:
                    self._log.info(
                        "%d machines listed, fewer than the %d of last time: listing again.", len(ids), last.listed
                    )
                for machine in walk(self._page_at, ids):
                    record = {**schema.MACHINES.from_wire(machine, self._unlisted), "listed_at": listed_at}
                    if machines.keeps(record):
                        in_scope[record["id"]] = Listed(record["id"], asked=self._is_asked(record))
                    yield record
        except Stopped:
            self._log.warning("time_limit_minutes is over before all machines were listed: nothing was asked.")
            return
        self._listed = MachineList(in_scope, frozenset(ids), self._believe_list(len(ids), version, machines))

    def _is_asked(self, record: Mapping[str, Any]) -> bool:
        return self._config["include_not_onboarded"] or record["onboarding_status"] in ONBOARDED

    def _believe_list(self, count: int, version: int, machines: Table) -> bool:
        """Judge how many machines were listed, and activate them if that is believed."""
        last = self._state.machines
        is_believed, short_lists = believe(count, last.listed, last.short_lists, self._max_shrink_percent)
        self._state.machines = ListBookmark(version, count if is_believed else last.listed, short_lists)
        if is_believed:
            self._log.info("%d machines listed. %s", count, machines.activate(version))
        elif count:
            self._log.warning(
                "Only %d machines listed, %d last time: nothing is deleted unless the next run lists as few. Has the "
                "application lost a device group?",
                count,
                last.listed,
            )
        else:
            self._log.warning("No machines listed: nothing is deleted.")
        return is_believed

    def sweep(self, missing_kbs: Table, checks: Table, kb_cves: Table | None) -> Iterator[dict[str, Any]]:
        """Sweep over the listed machines: the rows of `missing_kbs`; those of the other tables are written in between.

        Raises:
            TapError: The API is down, too many machines failed, or whatever else ends the run.
        """
        self._in_batches = missing_kbs.in_batches
        if self._in_batches:
            self._log.warning("Batch files carry no version: no STATE in mid-sweep, and nothing is activated.")
        try:
            with self._source.opened(self._is_due, self._save_when_due) as answers:
                if answers is None:
                    return
                listed = self._listed or MachineList({}, frozenset(), is_believed=False)
                self._warn_of_strangers(answers, listed)
                for sweep in self._sweeps(answers, listed):
                    yield from self._run(sweep, answers, missing_kbs, checks, kb_cves)
        except Stopped:
            self._log.warning("time_limit_minutes is over before the export was read: the next run begins anew.")

    def save(self) -> None:
        """Write a STATE up to the last machine fully written; not where batch files are still to be written."""
        self._saved_at = time.monotonic()
        if self._sweep and not (self._in_batches and self._sweep.verdict is None):
            self._state.keep(self._sweep.bookmark)
        if not self._in_batches:
            self._write_state()

    def _save_when_due(self) -> None:
        """Write a STATE every few seconds, also while nothing but the quota is waited for."""
        if time.monotonic() - self._saved_at >= self._client.patience.state:
            self.save()

    @property
    def _max_shrink_percent(self) -> float:
        return float(self._config["max_shrink_percent"])

    def _is_due(self, made_at: str) -> bool:
        """Whether an export is newer than what was written last, or as old and not wholly written."""
        bookmark = self._state.sweep
        last = bookmark.source_time or ""
        if made_at > last or (made_at == last and not bookmark.finished):
            self._log.info(
                "Export of %s. It differs from what each machine answers: it is up to six hours old, updates without a "
                "CVE are not in it, os_build is null, first_seen_at is filled, machine_missed_on counts its machines.",
                made_at,
            )
            return True
        self._log.info(
            "The export of %s is not newer than what was loaded last (%s): nothing to do. One is made every six hours.",
            made_at,
            last,
        )
        return False

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
            listed.in_scope.values(),
            scope=self._scope(answers.made_at or ""),
            pool=answers,
            list_believed=listed.is_believed,
            max_shrink_percent=self._max_shrink_percent,
            rules=Rules(pause=self._client.patience.machine),
        )
        # Of answers that are here already, a second sweep would only read the same again.
        return found if self._source.costs_calls else islice(found, 1)

    def _run(
        self, sweep: Sweep[Answer], answers: Answers, missing_kbs: Table, checks: Table, kb_cves: Table | None
    ) -> Iterator[dict[str, Any]]:
        self._sweep = sweep
        missing_kbs.begin(sweep.version)
        progress = Progress(self._client, sweep, self._log, costs_calls=self._source.costs_calls)
        try:
            with progress:
                self.save()
                self._write_cves(answers, kb_cves, sweep.version)
                for outcome in sweep.outcomes():
                    checked_at = outcome.answer.checked_at if outcome.answer else answers.made_at
                    yield from outcome.answer.rows if outcome.answer else ()
                    checks.write(_check(outcome, sweep.version, checked_at or schema.now()))
                    sweep.written(outcome, checked_at)
                    progress.count(outcome)
                    self._save_when_due()
        except ApiDownError as error:
            msg = f"The API is down: {error}. Nothing was deleted; the next run goes on from here."
            raise TapError(msg) from None
        except Stopped:
            self.save()
            self._log.warning(
                "time_limit_minutes is over: stopped with %d machines to go; the next run goes on from here.",
                sweep.left,
            )
        if sweep.verdict:
            self._end(sweep, sweep.verdict, progress, [missing_kbs, *([kb_cves] if kb_cves else [])])

    def _write_cves(self, answers: Answers, kb_cves: Table | None, version: int) -> None:
        """Write all of them before the first machine: a run that goes on writes them again."""
        if kb_cves:
            kb_cves.begin(version)
            for record in answers.kb_cves():
                kb_cves.write(record)

    def _end(self, sweep: Sweep[Answer], verdict: Verdict, progress: Progress, tables: Sequence[Table]) -> None:
        told = f"{tables[0].name}: not activated. {verdict.reason}"
        if verdict.activate:
            told = " ".join(table.activate(sweep.version) for table in tables)
        self.save()
        progress.end(told, verdict)
        if verdict.fails:
            msg = f"{len(verdict.newly_failed)} machines that answered before gave no answer now: too many."
            raise TapError(msg, "The table is as current as possible; nothing was deleted. Run again.")

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
        ]
        return hashlib.sha256(json.dumps(decides, default=str).encode()).hexdigest()[:16]


def _check(outcome: Outcome[Answer], version: int, checked_at: str) -> dict[str, Any]:
    """The row of `missing_kbs_checks` for an outcome."""
    rows = outcome.answer.rows if outcome.answer else None
    return {
        "machine_id": outcome.machine_id,
        "sweep": version,
        "checked_at": checked_at,
        "outcome": outcome.kind,
        "missing_kbs": None if rows is None else len(rows),
        "missing_kb_ids": None if rows is None else [row["id"] for row in rows],
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
