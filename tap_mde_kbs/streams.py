"""The streams: `machines`, `missing_kbs` of each, `missing_kbs_checks` with a row for every sweep, and `kb_cves`.

How they sit on singer-sdk 0.54: a parent starts its child once, by hand and in its tail, so that every
stream has one SCHEMA and all machines come before the first KB. The SDK's underscored names that this
needs (`_sync_children`, `_write_record_message`, `_stream_version`) are used here and nowhere else.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import time
from datetime import datetime, timezone
from functools import cached_property
from http import HTTPStatus
from itertools import islice
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from singer_sdk.helpers.conform import TypeConformanceLevel
from singer_sdk.mapper import RemoveRecordTransform
from singer_sdk.singerlib import ActivateVersionMessage
from typing_extensions import override

from tap_mde_kbs import schema as schemas
from tap_mde_kbs.api.client import DefenderStream
from tap_mde_kbs.api.governor import Stopped
from tap_mde_kbs.errors import API_REMEDIES, BadRequestError, NoAnswerError, NotFoundError, TapError
from tap_mde_kbs.export.download import Storage
from tap_mde_kbs.export.export import PERMISSION, Export, FileSource, ListOfFiles, Pages, PageSource, Source, Taken
from tap_mde_kbs.progress import Progress
from tap_mde_kbs.settings import EXPORT, PER_MACHINE
from tap_mde_kbs.state import Bookmark
from tap_mde_kbs.sweep.machine_list import walk
from tap_mde_kbs.sweep.pool import Answer, NotFound, Pool, Threads, Unavailable
from tap_mde_kbs.sweep.sweep import ApiDown, Listed, Outcome, Sweep, Verdict, believe, sweeps

if TYPE_CHECKING:
    import logging
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from singer_sdk.helpers.types import Context
    from singer_sdk.tap_base import Tap

    from tap_mde_kbs.api.client import Connection

LARGEST_PAGE = 10_000
"""The most machines that the API gives at once."""

PAGE_SIZE = 2_000
"""Machines asked for at once in a run: the largest page would take some 80 MiB more while it is read."""

SECONDS_BETWEEN_STATES = 10.0
ONBOARDED = (None, "Onboarded")
"""The values of `onboarding_status` that count as onboarded; absent is not known to be otherwise."""


def _is_not_the_sdks_unhandled_error(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith("An unhandled error occurred while syncing")


def _now() -> str:
    return schemas.utc(datetime.now(timezone.utc))


class TapStream(DefenderStream):
    """What the streams share: rows made to fit the schema, and the end of a version."""

    def __init__(self, tap: Tap, connection: Connection) -> None:
        """Keep a line out of the log that the SDK writes for every stream on the way of an error, without it."""
        super().__init__(tap, connection)
        self.logger.addFilter(_is_not_the_sdks_unhandled_error)

    @cached_property
    def unlisted(self) -> schemas.Unlisted:
        """Where fields that no schema lists are reported, each once a run."""
        return schemas.Unlisted(self.logger.warning)

    @cached_property
    def TYPE_CONFORMANCE_LEVEL(self) -> TypeConformanceLevel:  # type: ignore[override] # noqa: N802 - the SDK's name
        """How far the SDK makes rows fit: not at all, unless a catalog's schema is another than the stream's.

        Rows fit that one already; looking at each value again was a seventh of the CPU.
        """
        is_own = self.effective_schema.get("properties") == self.schema["properties"]
        return TypeConformanceLevel.NONE if is_own else TypeConformanceLevel.RECURSIVE

    @property
    def in_batches(self) -> bool:
        """Whether rows go to batch files: they carry no version, so nothing is ever activated."""
        return self.get_batch_config(self.config) is not None

    def begin(self, version: int) -> None:
        """Give what is written from now on a version; batch files carry none."""
        self._stream_version = None if self.in_batches else version

    def write(self, record: dict[str, Any]) -> None:
        """Write a record from outside of the stream's own sync, if the stream is selected."""
        if self.selected:
            self._write_record_message(record)

    def activate(self, version: int) -> str:
        """Tell the target that rows of earlier versions are gone; returns what was done, as a sentence."""
        if not self.config["emit_activate_version_messages"]:
            return f"{self.name}: not activated, emit_activate_version_messages is off."
        if self.in_batches:
            return f"{self.name}: not activated, batch files carry no version."
        if not self.selected:
            return f"{self.name}: not activated, it is not selected."
        for stream_map in self.stream_maps:
            if not isinstance(stream_map, RemoveRecordTransform):
                self._tap.write_message(ActivateVersionMessage(stream=stream_map.stream_alias, version=version))
        return f"{self.name}: version {version} activated."

    @override
    def generate_child_contexts(self, record: Any, context: Context | None) -> Iterable[Context | None]:
        """Nothing: the child is started once, not for every record."""
        return ()


class Machines(TapStream):
    """Every machine that the tenant lists and the application may see, once a run."""

    name = "machines"
    path = "/api/machines"
    primary_keys = ("id",)
    schema = schemas.MACHINES
    permission = "Machine.Read.All"

    def __init__(self, tap: Tap, connection: Connection) -> None:
        """Begin with no machine listed."""
        super().__init__(tap, connection)
        self.listed: dict[str, Listed] = {}
        self.seen: set[str] = set()
        self.believed = True

    @override
    def get_records(self, context: Context | None) -> Iterator[dict[str, Any]]:
        """List the machines; when the last is out, activate them and start the sweep."""
        bookmark = self.stream_state
        version = max(int(time.time()), bookmark["version"] + 1)
        self.begin(version)
        listed_at = _now()
        seen = self.seen
        last = bookmark["listed"]
        try:
            yield from self._list(seen, listed_at)
            if last is not None and len(seen) < last:
                self.log(
                    "%d machines listed, fewer than the %d of last time: listing again.",
                    len(seen),
                    last,
                )
                yield from self._list(seen, listed_at)
        except Stopped:
            self.logger.warning("time_limit_minutes is over before all machines were listed: nothing was asked.")
            return
        self._end_listing(len(seen), version)
        self._sync_children({})

    @override
    def validate_response(self, response: Any) -> None:
        if response.status_code != HTTPStatus.NOT_FOUND:
            super().validate_response(response)

    @override
    def parse_response(self, response: Any) -> Iterable[Any]:
        """Take a 404 for an empty list: so the API says that there are no recent machines."""
        return ([],) if response.status_code == HTTPStatus.NOT_FOUND else super().parse_response(response)

    @override
    def get_url_params(self, context: Context | None, next_page_token: Any) -> dict[str, Any]:
        context = context or {}
        return {
            "$top": context.get("top", PAGE_SIZE),
            "$skip": context["skip"],
            "$filter": self.config.get("machines_filter") or None,
        }

    @override
    def advice(self, status: int, reason: str) -> str:
        if status == HTTPStatus.BAD_REQUEST and self.config.get("machines_filter"):
            return API_REMEDIES["filter"].advice
        return super().advice(status, reason)

    @override
    def backoff_max_tries(self) -> int:
        """More than for one machine: without the list there is no run."""
        return 6

    def _list(self, seen: set[str], listed_at: str) -> Iterator[dict[str, Any]]:
        for machine in walk(lambda position: self.ask({"skip": position}), seen):
            record = schemas.machine_fields(machine, self.unlisted)
            record["listed_at"] = listed_at
            if self._is_in_scope(record):
                self.listed[record["id"]] = Listed(record["id"], asked=self._is_asked(record))
            yield record

    def _is_in_scope(self, record: dict[str, Any]) -> bool:
        """Whether the stream's own map keeps the machine; one that writes no machine at all keeps every one."""
        stream_map = self.stream_maps[0]
        return isinstance(stream_map, RemoveRecordTransform) or bool(stream_map.get_filter_result(record))

    def _is_asked(self, record: dict[str, Any]) -> bool:
        return self.config["include_not_onboarded"] or record["onboarding_status"] in ONBOARDED

    def _end_listing(self, count: int, version: int) -> None:
        bookmark = self.stream_state
        last = bookmark["listed"]
        self.believed, bookmark["short_lists"] = believe(
            count, last, bookmark["short_lists"], float(self.config["max_shrink_percent"])
        )
        bookmark["version"] = version
        if self.believed:
            bookmark["listed"] = count
            self.log("%d machines listed. %s", count, self.activate(version))
        elif count:
            self.logger.warning(
                "Only %d machines listed, %d last time: nothing is deleted unless the next run lists as few. Has the "
                "application lost a device group?",
                count,
                last,
            )
        else:
            self.logger.warning("No machines listed: nothing is deleted.")


class MissingKbs(TapStream):
    """The security updates that each machine lacks."""

    name = "missing_kbs"
    path = "/api/machines/{machine_id}/getmissingkbs"
    primary_keys = ("machine_id", "id")
    schema = schemas.MISSING_KBS
    parent_stream_type = Machines
    state_partitioning_keys = ()

    def __init__(self, tap: Tap, connection: Connection, machines: Machines) -> None:
        """Take the stream that lists the machines to ask."""
        super().__init__(tap, connection)
        self._machines = machines
        self._sweep: Sweep[Answer] | None = None
        self._saved_at = 0.0

    @property
    def source(self) -> str:
        """Where the missing KBs come from: the setting `missing_kbs_source`."""
        return str(self.config["missing_kbs_source"])

    @property
    def permission(self) -> str:  # type: ignore[override] # it depends on a setting here
        """The application permission that the calls need."""
        return "Software.Read.All" if self.source == PER_MACHINE else PERMISSION

    @cached_property
    def export(self) -> Export:
        """What reads an export."""
        connection, log = self.connection, self.logger
        source: Source
        if self.source == EXPORT:
            storage = Storage(connection.timeout, self.config["user_agent"])
            source = FileSource(ListOfFiles(self._tap, connection), connection, storage, log)
        else:
            source = PageSource(Pages(self._tap, connection), connection, log)
        return Export(source, connection, log, self.unlisted)

    @override
    def get_records(self, context: Context | None) -> Iterator[dict[str, Any]]:
        """Sweep over the listed machines; see `sweep`, and `export` for where the answers may come from."""
        self._sync_children({})
        if self.in_batches:
            self.logger.warning("Batch files carry no version: no STATE in mid-sweep, and nothing is activated.")
        if self.source == PER_MACHINE:
            with Threads(self._answer, self.connection.parallel, self._save_when_due) as pool:
                for sweep in self._sweeps(pool, ""):
                    yield from self._run(sweep, pool)
        else:
            yield from self._take_export()

    def _take_export(self) -> Iterator[dict[str, Any]]:
        """Sweep over the listed machines by a new export, if there is one."""
        try:
            with self.export.taken(self._is_due) as taken:
                if taken is None:
                    return
                if strangers := taken.strangers(self._machines.seen):
                    # With a filter, that is what was asked for.
                    tell = self.logger.info if self.config.get("machines_filter") else self.logger.warning
                    tell("%s", strangers)
                # One sweep at most: another would only read the same again.
                for sweep in islice(self._sweeps(taken, taken.generated_at), 1):
                    yield from self._run(sweep, taken)
        except Stopped:
            self.logger.warning("time_limit_minutes is over before the export was read: the next run begins anew.")

    def _is_due(self, generated_at: str) -> bool:
        """Whether an export is newer than what was written last, or as old and not wholly written."""
        bookmark = Bookmark.from_dict(self.stream_state["sweep"])
        last = bookmark.source_time or ""
        if generated_at > last or (generated_at == last and not bookmark.finished):
            self.log(
                "Export of %s. It differs from what each machine answers: it is up to six hours old, updates without a "
                "CVE are not in it, os_build is null, first_seen_at is filled, machine_missed_on counts its machines.",
                generated_at,
            )
            return True
        self.log(
            "The export of %s is not newer than what was loaded last (%s): nothing to do. One is made every six hours.",
            generated_at,
            last,
        )
        return False

    def save(self) -> None:
        """Write a STATE as of the last machine that is wholly out; not where batch files are still to be written."""
        self._saved_at = time.monotonic()
        if self._sweep and not (self.in_batches and self._sweep.verdict is None):
            self.stream_state["sweep"] = self._sweep.bookmark.to_dict()
        if not self.in_batches:
            self._tap.state_writer.write_state(self.tap_state)

    def _save_when_due(self) -> None:
        """Write a STATE about every ten seconds, also while nothing but the quota is waited for."""
        if time.monotonic() - self._saved_at >= SECONDS_BETWEEN_STATES:
            self.save()

    def _sweeps(self, pool: Pool[Answer], made_at: str) -> Iterator[Sweep[Answer]]:
        return sweeps(
            Bookmark.from_dict(self.stream_state["sweep"]),
            self._machines.listed.values(),
            scope=self._scope(made_at),
            pool=pool,
            listing_believed=self._machines.believed,
            max_shrink_percent=float(self.config["max_shrink_percent"]),
        )

    def _run(self, sweep: Sweep[Answer], pool: Pool[Answer]) -> Iterator[dict[str, Any]]:
        self._sweep = sweep
        self.begin(sweep.version)
        taken = pool if isinstance(pool, Taken) else None
        progress = Progress(self.connection, sweep, self.logger, costs_calls=taken is None)
        try:
            with progress:
                self.save()
                if taken:
                    self._write_cves(taken, sweep.version)
                for outcome in sweep.outcomes():  # all before this one are written, and counted in the bookmark
                    self._save_when_due()
                    yield from self._write(outcome, sweep, taken.generated_at if taken else None)
                    progress.count(outcome)
        except ApiDown as error:
            msg = f"The API is down: {error}. Nothing was deleted; the next run goes on from here."
            raise TapError(msg) from None
        except Stopped:
            self.save()
            self.logger.warning(
                "time_limit_minutes is over: stopped with %d machines to go; the next run goes on from here.",
                sweep.left,
            )
        if sweep.verdict:
            self._end(sweep, sweep.verdict, progress)

    def _write(self, outcome: Outcome[Answer], sweep: Sweep[Answer], made_at: str | None) -> Iterator[dict[str, Any]]:
        """Write a machine's rows, and its check, as of when it answered or the export was made."""
        answer = outcome.answer
        if answer:
            yield from answer.rows
        checked_at = answer.checked_at if answer else made_at or _now()
        if answer or made_at:
            sweep.bookmark.source_time = max(sweep.bookmark.source_time or "", checked_at)
        self._child(MissingKbsChecks).write(
            {
                "machine_id": outcome.machine_id,
                "sweep": sweep.version,
                "checked_at": checked_at,
                "outcome": outcome.kind,
                "missing_kbs": len(answer.rows) if answer else None,
                "missing_kb_ids": [row["id"] for row in answer.rows] if answer else None,
            }
        )

    def _write_cves(self, taken: Taken, version: int) -> None:
        """Write all of them before the first machine: a run that goes on writes them again."""
        cves = self._child(KbCves)
        cves.begin(version)
        for record in taken.kb_cves():
            cves.write(record)

    def _child(self, kind: type[TapStream]) -> TapStream:
        return next(child for child in self.child_streams if isinstance(child, kind))

    def _end(self, sweep: Sweep[Answer], verdict: Verdict, progress: Progress) -> None:
        told = f"{self.name}: not activated. {verdict.reason}"
        if verdict.activate:
            streams = [self, *(child for child in self.child_streams if isinstance(child, KbCves))]
            told = " ".join(stream.activate(sweep.version) for stream in streams)
        self.save()
        progress.end(told, verdict)
        if verdict.fails:
            msg = f"{len(verdict.newly_failed)} machines gave no answer that had given one before, too many to go on."
            raise TapError(msg, "The table is as current as could be; nothing was deleted. Run again.")

    def try_one(self, machine_ids: Sequence[str]) -> tuple[str, int] | None:
        """Ask the first few machines until one answers: its id, and how many KBs it lacks; None if all say 404."""
        for machine_id in machine_ids[:3]:
            try:
                return machine_id, len(self._ask_machine(machine_id))
            except NotFoundError:
                continue
        return None

    def _ask_machine(self, machine_id: str) -> list[dict[str, Any]]:
        """One machine's missing KBs as the API has them; its id may hold anything that a URL may not."""
        records: list[dict[str, Any]] = self.ask({"machine_id": quote(machine_id, safe="")})
        return records

    def _answer(self, machine_id: str) -> Answer:
        """Ask for the missing KBs of a machine; called in the pool's threads.

        Source: learn.microsoft.com, "Get missing KBs by device ID".
        """
        try:
            records = self._ask_machine(machine_id)
        except NotFoundError as error:
            raise NotFound(str(error)) from None
        except (NoAnswerError, BadRequestError) as error:
            raise Unavailable(str(error)) from None
        checked_at = _now()
        rows: dict[str, dict[str, Any]] = {}
        for record in records:
            row = schemas.kb_fields(record, self.unlisted)
            rows.setdefault(
                row["id"],
                {"machine_id": machine_id, **row, "first_seen_at": None, "checked_at": checked_at},
            )
        return Answer([*rows.values()], checked_at)

    @override
    def backoff_max_tries(self) -> int:
        """Few: the sweep asks again later, and more patiently."""
        return 3

    def _scope(self, made_at: str) -> str:
        """A hash of all that decides which machines are asked, and of what; another one means another sweep.

        Args:
            made_at: When the export was made that is asked; empty if each machine is.
        """
        decides = [
            self.config["tenant_id"],
            self.connection.endpoints.api_url,
            self.source + made_at,
            self.config.get("machines_filter") or None,
            self.config["include_not_onboarded"],
            _filters_of(self._machines.name, self.config.get("stream_maps") or {}),
        ]
        return hashlib.sha256(json.dumps(decides, default=str).encode()).hexdigest()[:16]


class ChildOfMissingKbs(TapStream):
    """A stream without a sync of its own: `MissingKbs` writes its records when their time has come."""

    parent_stream_type = MissingKbs
    state_partitioning_keys = ()
    permission = ""  # it makes no call

    @override
    def get_records(self, context: Context | None) -> Iterable[dict[str, Any]]:
        """Nothing; but the SDK writes its SCHEMA."""
        return ()


class MissingKbsChecks(ChildOfMissingKbs):
    """What became of each machine in each sweep: the history of what was missing since when."""

    name = "missing_kbs_checks"
    primary_keys = ("machine_id", "sweep")
    schema = schemas.MISSING_KBS_CHECKS


class KbCves(ChildOfMissingKbs):
    """Which CVEs an update closes, and how bad they are; from an export alone."""

    name = "kb_cves"
    primary_keys = ("kb_id", "cve_id")
    schema = schemas.KB_CVES


def _filters_of(stream: str, stream_maps: Mapping[str, Any]) -> list[str]:
    return [
        str(definition["__filter__"])
        for key, definition in stream_maps.items()
        if isinstance(definition, dict)
        and "__filter__" in definition
        and "__source__" not in definition
        and fnmatch.fnmatch(stream, key)
    ]
