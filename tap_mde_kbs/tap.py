"""The tap: discovery, what a run is made of, and how it ends. The command line is `cli`."""

from __future__ import annotations

import sys
import threading
from collections.abc import Mapping
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Any, ClassVar

import click
from singer_sdk import Tap
from singer_sdk.exceptions import ConfigValidationError
from singer_sdk.singerlib import Catalog
from typing_extensions import override

from tap_mde_kbs import catalogs, schema, settings
from tap_mde_kbs.advisories.reading import STREAMS_OF, Advisories
from tap_mde_kbs.api.client import Client
from tap_mde_kbs.api.machines import LIST_PERMISSION, MachineSource, machine_page
from tap_mde_kbs.doctor import Doctor, Line, report
from tap_mde_kbs.errors import Interrupted, TapError, missing_permission
from tap_mde_kbs.export.source import export_source
from tap_mde_kbs.messages import MessageWriter, Redaction
from tap_mde_kbs.patience import Patience
from tap_mde_kbs.runner import Runner
from tap_mde_kbs.signals import hold_signals, signals_held
from tap_mde_kbs.state import State
from tap_mde_kbs.streams import (
    ADVISORY_STREAMS,
    STREAMS,
    DefenderStream,
    KbCves,
    Machines,
    MissingKbsChecks,
    RowStream,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

    from singer_sdk.streams import Stream

    from tap_mde_kbs.sweep.pool import Source


PAGE_SIZE = 2_000
"""Machines asked for at once in a run: the largest page would take some 80 MiB more while it is read."""


class TapMdeKbs(Tap):
    """Singer tap for Microsoft Defender for Endpoint: machines and the security updates each one lacks."""

    name = settings.PACKAGE
    config_jsonschema: ClassVar[dict[str, Any]] = settings.SCHEMA
    patience: ClassVar[Patience] = Patience()

    def __init__(self, *, config: Any = None, parse_env_config: bool = False, **kwargs: Any) -> None:
        """Check the settings before the SDK does: its messages quote the value refused, a secret perhaps."""
        settings_schema = self.config_jsonschema
        self.append_builtin_config(settings_schema)
        self._notes: list[str] = []
        given, unreadable = settings.read(config or {}, settings_schema, self._note, with_environment=parse_env_config)
        if kwargs.get("validate_config", True):
            settings.check(given, settings_schema, unreadable)
        self._redaction = Redaction.of(str(given[name]) for name in settings.SECRETS if given.get(name))
        self._is_ending = False
        self.bookmarks = State()
        self._messages = MessageWriter(
            self.bookmarks.to_dict,
            flattens=bool(given.get("flattening_enabled") and given.get("flattening_max_depth")),
        )
        catalog = kwargs.pop("catalog", None)
        if isinstance(catalog, Mapping):
            kwargs["catalog"] = self._kept(catalog.to_dict() if isinstance(catalog, Catalog) else catalog, given)
        super().__init__(config=given, parse_env_config=parse_env_config, message_writer=self._messages, **kwargs)

    def _note(self, line: str) -> None:
        """Say what is odd about the settings and no error, at once: what fails next may come of it."""
        self._notes.append(line)
        self.logger.warning(line)

    def _kept(self, catalog: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
        """A catalog as people edit it, as the tap can keep it."""
        streams = [*self._streams_of(config), *self._advisory_streams_of(config)]
        known = {stream.name for stream in (*STREAMS, *ADVISORY_STREAMS)}
        return catalogs.kept(catalog, {each.name: each.table for each in streams}, known, self.logger.warning)

    _env_var_config: ClassVar[dict[str, Any]] = {}
    """Nothing is left for the SDK to read: `settings.read` has."""

    # What a run is made of; each is made when first used, so that discovery needs no settings.

    @cached_property
    def client(self) -> Client:
        """The API: cloud, session, quota and sign-in."""
        return Client(self.config, self.logger, self.patience)

    @cached_property
    def unlisted(self) -> schema.Unlisted:
        """Where fields that no schema lists are reported, each once a run."""
        return schema.Unlisted(self.logger.warning)

    @cached_property
    def source(self) -> Source:
        """Where the missing KBs come from."""
        kind = self.config["missing_kbs_source"]
        if kind == settings.PER_MACHINE:
            return MachineSource(self.client, self.unlisted)
        return export_source(kind, self.client, self.config["user_agent"], self.unlisted, self.logger)

    @cached_property
    def runner(self) -> Runner:
        """What drives the run."""
        return Runner(
            config=self.config,
            client=self.client,
            source=self.source,
            page_at=lambda position: self._machine_page(position, PAGE_SIZE),
            state=self.bookmarks,
            write_state=self._messages.write_state,
            unlisted=self.unlisted,
            log=self.logger,
        )

    @cached_property
    def advisories(self) -> Advisories:
        """What reads the advisory feeds."""
        return Advisories(
            config=self.config,
            state=self.bookmarks,
            patience=self.patience,
            check_time=self.client.check_time,
            write_state=self._messages.write_state,
            log=self.logger,
        )

    def _machine_page(self, skip: int, top: int) -> list[dict[str, Any]]:
        return machine_page(self.client, skip, top, self.config.get("machines_filter"), self.unlisted)

    @staticmethod
    def _streams_of(config: Mapping[str, Any]) -> list[type[DefenderStream]]:
        """The streams of the sweep that there are with these settings."""
        has_cves = config.get("missing_kbs_source", settings.PER_MACHINE) != settings.PER_MACHINE
        return [stream for stream in STREAMS if has_cves or stream is not KbCves]

    @staticmethod
    def _advisory_streams_of(config: Mapping[str, Any]) -> list[type[RowStream]]:
        """The streams of the feeds that these settings name: a feed that is off has none."""
        names = {name for feed in config.get("advisory_feeds") or () for name in STREAMS_OF.get(feed, ())}
        return [stream for stream in ADVISORY_STREAMS if stream.name in names]

    @override
    def discover_streams(self) -> Sequence[Stream]:
        return [
            *(stream(self, self.runner) for stream in self._streams_of(self.config)),
            *(stream(self) for stream in self._advisory_streams_of(self.config)),
        ]

    @override
    def setup_mapper(self) -> None:
        """Map the streams that a catalog leaves out as well: a parent that is not selected is still listed."""
        super().setup_mapper()
        for stream in self.streams.values():
            if stream.name not in self.mapper.stream_maps:
                self.mapper.register_raw_stream_schema(stream.name, stream.schema, stream.primary_keys)

    @override
    def _validate_config(self, *, raise_errors: bool = True) -> list[str]:
        """Keep quiet where settings need not be valid: `--discover` works without any, the SDK's warns of them."""
        try:
            return super()._validate_config()
        except ConfigValidationError as error:
            if raise_errors:
                raise
            return error.errors

    @override
    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take what an earlier run left; for the SDK it is all of STATE, so that it writes one at the start."""
        self.bookmarks.read(state)
        self.state["bookmarks"] = self.bookmarks.to_dict()["bookmarks"]

    # A run

    def run(self) -> None:
        """Sync everything, within the time limit; whatever ends it, the last STATE is written."""
        limit = self.config.get("time_limit_minutes")
        if limit:
            timer = threading.Timer(float(limit) * 60, self.client.stop)
            timer.daemon = True
            with signals_held():
                timer.start()
        try:
            self._check_permissions()
            self.runner.settle(checks_are_written=self.streams[MissingKbsChecks.name].selected, sweeps=self._sweeps)
            self.sync_all()
            self._messages.write_state()  # where batch files were written last, not even the SDK has
            self.advisories.read({name: each for name, each in self.streams.items() if isinstance(each, RowStream)})
            self._messages.write_state()
            self.runner.finish()
        except BrokenPipeError:  # there is nobody to write a last STATE to; click would end it without a word
            msg = "The target closed the pipe."
            raise TapError(msg, "Its own messages say why; the next run goes on from its last STATE.") from None
        except BaseException:
            hold_signals()
            self.runner.leave()
            raise
        finally:
            self.runner.close()

    @property
    def _sweeps(self) -> bool:
        """Whether a stream is selected that a sweep writes."""
        return any(
            stream.selected
            for name, stream in self.streams.items()
            if name != Machines.name and isinstance(stream, DefenderStream)
        )

    def examine(self) -> bool:
        """Check what a run needs, a line each on stdout; returns whether all is well."""
        doctor = Doctor(self.client, self.source, self._machine_page, self.runner.assessed, self.unlisted)
        notes = (Line(ok=None, text=f"settings: {note}") for note in self._notes)
        feeds = (Line(ok, text) for ok, text in self.advisories.lines())
        lines = chain(notes, doctor.checks(), feeds)
        return report(lines, lambda line: click.echo(self._redaction.blanked(line)), sys.stdout.encoding)

    def _check_permissions(self) -> None:
        """Fail before the first RECORD for a permission that the token is known to lack.

        `meltano config test` passes at the first RECORD, and would never see it.
        """
        asked = self._sweeps
        if asked:
            self.source.check()
        if asked or self.streams[Machines.name].selected:
            roles = self.client.sign_in.roles()
            for needed in (LIST_PERMISSION, *((self.source.permission,) if asked else ())):
                if roles is not None and (error := missing_permission(needed, roles)):
                    raise error

    @override
    def _handle_termination(self, signum: int, frame: FrameType | None) -> None:
        """End the run from where it is, between two lines: the SDK's own writes STATE into one, and exits with 0.

        A second signal, which is the rule under Meltano, may come before anybody has heard of the first.
        """
        if not self._is_ending:
            hold_signals()
            self._is_ending = True
            raise Interrupted(signum)
