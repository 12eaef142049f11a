"""What the streams are: names, keys, schemas, and how they sit on singer-sdk 0.54. What a run does is the runner's.

A parent starts its child once, by hand and in its tail, so that every stream has one SCHEMA and all machines come
before the first KB. The SDK's underscored names that this needs (`_sync_children`, `_write_record_message`,
`_stream_version`) are used here and nowhere else.
"""

from __future__ import annotations

import logging
from datetime import datetime, timezone
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from singer_sdk import Stream
from singer_sdk.helpers.conform import TypeConformanceLevel
from singer_sdk.mapper import RemoveRecordTransform, SameRecordTransform
from singer_sdk.singerlib import ActivateVersionMessage, RecordMessage
from typing_extensions import override

from tap_mde_kbs import catalogs, schema
from tap_mde_kbs.runner import Tables

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from singer_sdk.helpers.types import Context
    from singer_sdk.tap_base import Tap

    from tap_mde_kbs.runner import Runner


def _is_not_the_sdks_unhandled_error(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith("An unhandled error occurred while syncing")


class RowStream(Stream):
    """A stream whose rows are made elsewhere, and written when their time has come."""

    table: ClassVar[schema.Table]
    state_partitioning_keys = ()

    def __init__(self, tap: Tap) -> None:
        """Keep a line out of the log that the SDK writes for every stream on the way of an error, without it."""
        super().__init__(tap, schema=self.table.schema)
        self.primary_keys = self.table.keys
        # By its name: singer-sdk 0.55 wraps it.
        logging.getLogger(self.logger.name).addFilter(_is_not_the_sdks_unhandled_error)

    @property
    @override
    def emit_activate_version_messages(self) -> bool:
        """False: the SDK writes them at the start, which deletes what is about to be written again."""
        return False

    @cached_property
    def TYPE_CONFORMANCE_LEVEL(self) -> TypeConformanceLevel:  # type: ignore[override] # noqa: N802 - the SDK's name
        """How far the SDK makes rows fit: not at all, unless a catalog's schema is another than the stream's.

        Rows fit that one already; looking at each value again was a seventh of the CPU.
        """
        is_own = self.effective_schema.get("properties") == self.schema["properties"]
        return TypeConformanceLevel.NONE if is_own else TypeConformanceLevel.RECURSIVE

    @cached_property
    def _columns_as_text(self) -> frozenset[str]:
        """The columns that a catalog wants as text."""
        return catalogs.columns_as_text(self.schema, self.effective_schema)

    @cached_property
    def _writes_rows_as_they_are(self) -> bool:
        """Whether no catalog and no map has a say in what is written: half of the time that the SDK takes for a row."""
        maps = self.stream_maps
        return (
            self.TYPE_CONFORMANCE_LEVEL == TypeConformanceLevel.NONE
            and not self._columns_as_text
            and all(self.mask.values())
            and [type(each) for each in maps] == [SameRecordTransform]
            and not maps[0].flattening_enabled
        )

    @override
    def _write_record_message(self, record: dict[str, Any]) -> None:
        """Write a row as its schema was announced."""
        if self._writes_rows_as_they_are:
            self._tap.write_message(
                RecordMessage(
                    stream=self.name,
                    record=record,
                    version=self._stream_version,
                    time_extracted=datetime.now(timezone.utc),
                )
            )
            self.state_manager.is_flushed = False
            return
        if self._columns_as_text:
            texts = {name: catalogs.as_text(record.get(name)) for name in self._columns_as_text}
            record = {**record, **texts}
        super()._write_record_message(record)

    @property
    def in_batches(self) -> bool:
        """Whether rows go to batch files: they carry no version, so nothing is ever activated."""
        return self.get_batch_config(self.config) is not None

    def begin(self, version: int) -> None:
        """Give what is written from now on a version, if one will be activated; batch files carry none."""
        is_activated = self.config["emit_activate_version_messages"] and not self.in_batches
        self._stream_version = version if is_activated else None

    def write(self, record: dict[str, Any]) -> None:
        """Write a row from outside of the stream's own sync, if the stream is selected."""
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

    def keeps(self, record: dict[str, Any]) -> bool:
        """Whether the stream's own map keeps a record; one that writes no record at all keeps every one."""
        stream_map = self.stream_maps[0]
        return isinstance(stream_map, RemoveRecordTransform) or bool(stream_map.get_filter_result(record))

    @property
    def is_written(self) -> bool:
        """Whether rows reach the target: the stream is selected, and its map does not remove it."""
        return self.selected and not isinstance(self.stream_maps[0], RemoveRecordTransform)

    @override
    def generate_child_contexts(self, record: Any, context: Context | None) -> Iterable[Context | None]:
        """Nothing: the child is started once, not for every record."""
        return ()

    @override
    def get_records(self, context: Context | None) -> Iterable[dict[str, Any]]:
        """Nothing, but the SDK writes the SCHEMA."""
        return ()


class DefenderStream(RowStream):
    """A stream whose rows the runner makes."""

    def __init__(self, tap: Tap, runner: Runner) -> None:
        super().__init__(tap)
        self.runner = runner


class Machines(DefenderStream):
    """Every machine that the tenant lists and the application may see, once a run."""

    name = "machines"
    table = schema.MACHINES

    @override
    def get_records(self, context: Context | None) -> Iterator[dict[str, Any]]:
        """List the machines; when the last is out, start the sweep."""
        yield from self.runner.list_machines(self)
        if self.runner.has_listed:
            self._sync_children({})


class MissingKbs(DefenderStream):
    """The security updates that each machine lacks."""

    name = "missing_kbs"
    table = schema.MISSING_KBS
    parent_stream_type = Machines

    @override
    def get_records(self, context: Context | None) -> Iterator[dict[str, Any]]:
        """Sweep over the listed machines; the children's SCHEMAs come first, their rows in between."""
        self._sync_children({})
        children = {child.name: child for child in self.child_streams if isinstance(child, DefenderStream)}
        checks, sweeps = children[MissingKbsChecks.name], children[Sweeps.name]
        yield from self.runner.sweep(Tables(self, checks, sweeps, children.get(KbCves.name)))


class MissingKbsChecks(DefenderStream):
    """What became of each machine in each sweep: the history of what was missing since when."""

    name = "missing_kbs_checks"
    table = schema.MISSING_KBS_CHECKS
    parent_stream_type = MissingKbs


class Sweeps(DefenderStream):
    """What the tap itself makes of each sweep: a row when it begins, and again when a run ends."""

    name = "sweeps"
    table = schema.SWEEPS
    parent_stream_type = MissingKbs


class KbCves(DefenderStream):
    """Which CVEs an update closes, and how bad they are; from an export alone."""

    name = "kb_cves"
    table = schema.KB_CVES
    parent_stream_type = MissingKbs


STREAMS: tuple[type[DefenderStream], ...] = (Machines, MissingKbs, MissingKbsChecks, Sweeps, KbCves)


class MsrcKbs(RowStream):
    """Updates as MSRC's documents name them: a row for each document that does."""

    name = "msrc_kbs"
    table = schema.MSRC_KBS


class MsrcKbCves(RowStream):
    """Which CVEs an update closes, by MSRC."""

    name = "msrc_kb_cves"
    table = schema.MSRC_KB_CVES


class MsrcCves(RowStream):
    """What MSRC says of the CVEs that an update closes."""

    name = "msrc_cves"
    table = schema.MSRC_CVES


class Kev(RowStream):
    """CISA's catalogue of known exploited vulnerabilities, whole."""

    name = "kev"
    table = schema.KEV


class Epss(RowStream):
    """FIRST's scores of how likely CVEs are to be exploited, those from `epss_min` on."""

    name = "epss"
    table = schema.EPSS


ADVISORY_STREAMS: tuple[type[RowStream], ...] = (MsrcKbs, MsrcKbCves, MsrcCves, Kev, Epss)
