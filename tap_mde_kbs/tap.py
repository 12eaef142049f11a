"""The tap: discovery, the command line, signals, and how a run ends."""

from __future__ import annotations

import io
import json
import logging
import os
import sys
import threading
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

import click
from singer_sdk import Tap
from singer_sdk.exceptions import ConfigValidationError
from singer_sdk.plugin_base import _ConfigInput
from singer_sdk.singerlib import CatalogEntry
from singer_sdk.tap_base import CliTestOptionValue
from typing_extensions import override

from tap_mde_kbs import settings
from tap_mde_kbs.api.client import Connection
from tap_mde_kbs.doctor import Doctor, Line, report
from tap_mde_kbs.errors import FileError, Interrupted, SettingsError, TapError, missing_permission, printable
from tap_mde_kbs.export.records import require as require_duckdb
from tap_mde_kbs.messages import Redaction, Writer, hold_signals, signals_held
from tap_mde_kbs.state import Bookmark, ListBookmark
from tap_mde_kbs.streams import KbCves, Machines, MissingKbs, MissingKbsChecks

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import FrameType

    from singer_sdk.streams import Stream


class TapMdeKbs(Tap):
    """Singer tap for Microsoft Defender for Endpoint: machines and the security updates each one lacks."""

    name = settings.PACKAGE
    config_jsonschema: ClassVar[dict[str, Any]] = settings.SCHEMA
    message_writer_class = Writer

    def __init__(self, *, config: Any = None, parse_env_config: bool = False, **kwargs: Any) -> None:
        """Check the settings before the SDK does: its messages quote the value refused, a secret perhaps."""
        schema = self.config_jsonschema
        self.append_builtin_config(schema)
        given = {
            **(config or {}),
            **(settings.from_environment(schema) if parse_env_config else {}),
        }
        given = {name: value for name, value in given.items() if value is not None}
        if kwargs.get("validate_config", True):
            settings.check(given, schema)
        secrets = [str(given[name]) for name in settings.SECRETS if given.get(name)]
        for handler in logging.getLogger().handlers:
            handler.addFilter(Redaction(secrets))
        super().__init__(config=given, **kwargs)

    @cached_property
    def connection(self) -> Connection:
        """What the streams share: cloud, session, governor and sign-in."""
        return Connection(self.config, self.logger)

    @override
    def discover_streams(self) -> Sequence[Stream]:
        machines = Machines(self, self.connection)
        missing_kbs = MissingKbs(self, self.connection, machines)
        streams = [machines, missing_kbs, MissingKbsChecks(self, self.connection)]
        if missing_kbs.source != settings.PER_MACHINE:
            streams.append(KbCves(self, self.connection))
        return streams

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
        """Take what an earlier run left, with every key of the contract at every level."""
        bookmarks = state.get("bookmarks") or {}
        sweep = (bookmarks.get("missing_kbs") or {}).get("sweep")
        self.state["bookmarks"] = {
            "machines": ListBookmark.from_dict(bookmarks.get("machines")).to_dict(),
            "missing_kbs": {"sweep": Bookmark.from_dict(sweep).to_dict()},
        }

    def run(self) -> None:
        """Sync everything, within the time limit; whatever ends it, the last STATE is written."""
        limit = self.config.get("time_limit_minutes")
        if limit:
            timer = threading.Timer(float(limit) * 60, self.connection.stop)
            timer.daemon = True
            with signals_held():
                timer.start()
        try:
            self._check_permissions()
            self.sync_all()
        except BrokenPipeError:  # there is nobody to write a last STATE to; click would end it without a word
            msg = "The target closed the pipe."
            raise TapError(msg, "What it said itself tells why; the next run goes on from its last STATE.") from None
        except BaseException:
            hold_signals()
            self._missing_kbs.save()
            raise

    def examine(self) -> bool:
        """Check what a run needs, a line each on stdout; returns whether all is well."""
        machines = self.streams[Machines.name]
        assert isinstance(machines, Machines)  # noqa: S101 - for the type checker
        return report(Doctor(self.connection, machines, self._missing_kbs), click.echo, sys.stdout.encoding)

    def _check_permissions(self) -> None:
        """Fail before the first RECORD for a permission that the token is known to lack.

        `meltano config test` passes at the first RECORD, and would never see it.
        """
        asked = any(stream.selected for name, stream in self.streams.items() if name != Machines.name)
        if asked and self._missing_kbs.source != settings.PER_MACHINE:
            require_duckdb()
        if asked or self.streams[Machines.name].selected:
            roles = self.connection.sign_in.roles()
            for needed in (Machines.permission, *((self._missing_kbs.permission,) if asked else ())):
                if roles is not None and (error := missing_permission(needed, roles)):
                    raise error

    @property
    def _missing_kbs(self) -> MissingKbs:
        stream = self.streams[MissingKbs.name]
        assert isinstance(stream, MissingKbs)  # noqa: S101 - for the type checker
        return stream

    @override
    def _handle_termination(self, signum: int, frame: FrameType | None) -> NoReturn:
        """End the run from where it is, between two lines: the SDK's own writes STATE into one, and exits with 0."""
        raise Interrupted(signum)

    @classmethod
    @override
    def invoke(  # type: ignore[override] # as the SDK's own
        cls,
        *,
        about: bool = False,
        about_format: str | None = None,
        config: _ConfigInput | None = None,
        state: io.StringIO | None = None,
        catalog: io.StringIO | None = None,
    ) -> None:
        if about:
            cls.print_about(about_format)
            return
        cls.print_version(print_fn=cls.logger.info)
        config = config or _ConfigInput()
        tap = cls(
            config=config.config,
            parse_env_config=config.parse_env,
            state=json.load(state) if state else None,
            catalog=_with_keys(json.load(catalog)) if catalog else None,
        )
        tap.run()

    @classmethod
    @override
    def cb_config(cls, ctx: click.Context, param: click.Option, value: tuple[str, ...]) -> _ConfigInput:
        for path in value:
            if path != "ENV":
                read_json_file(path, "--config")
        return super().cb_config(ctx, param, value)

    @classmethod
    @override
    def cb_test(cls, ctx: click.Context, param: click.Option, value: str) -> None:
        """Examine the settings and the tenant; `--test=schema` stays the SDK's."""
        if value != CliTestOptionValue.All.value:
            super().cb_test(ctx, param, value)
            return
        config: _ConfigInput = ctx.params.get("config") or _ConfigInput()
        try:
            tap = cls(config=config.config, parse_env_config=config.parse_env)
        except SettingsError as error:
            for line in str(error).splitlines():
                click.echo(Line(ok=False, text=f"settings: {line}").marked(sys.stdout.encoding))
            ctx.exit(1)
        ctx.exit(0 if tap.examine() else 1)

    @classmethod
    @override
    def get_singer_command(cls) -> click.Command:
        command = super().get_singer_command()
        for param in command.params:
            if param.name in FILE_CHECKS:
                param.type = JsonFile(param.name)
            if param.name == "test" and isinstance(param, click.Option):
                param.help = (
                    "Check settings, sign-in, permissions and the API in a handful of calls, a line each. "
                    "Use --test=schema to print the schemas."
                )
        return command


class JsonFile(click.ParamType[io.StringIO]):
    """A file of JSON given on the command line, read and checked at once."""

    name = "filename"

    def __init__(self, option: str) -> None:
        """Take the option's name, for the error."""
        self._option = option

    @override
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> io.StringIO:
        document = read_json_file(value, f"--{self._option}")
        if fault := FILE_CHECKS[self._option](document):
            msg = f"The file {value} given as --{self._option} is not a {self._option}: {fault}."
            raise FileError(msg, ADVICE[self._option])
        return io.StringIO(json.dumps(document))


def read_json_file(path: str, option: str) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        FileError: it can't be read, is not JSON, or no object.
    """
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except OSError as error:
        msg = f"The file {path} given as {option} can't be read: {error.strerror}."
        raise FileError(msg, "Check the path.") from None
    except (ValueError, RecursionError) as error:
        where = f" (line {error.lineno}, column {error.colno})" if isinstance(error, json.JSONDecodeError) else ""
        msg = f"The file {path} given as {option} is not JSON{where}."
        raise FileError(msg, ADVICE[option.lstrip("-")]) from None
    if not isinstance(document, dict):
        msg = f"The file {path} given as {option} holds no JSON object."
        raise FileError(msg, ADVICE[option.lstrip("-")])
    return document


def _state_fault(state: dict[str, Any]) -> str:
    if state and "bookmarks" not in state:
        return "there are no `bookmarks` in it"
    bookmarks = state.get("bookmarks", {})
    if not isinstance(bookmarks, dict) or not all(isinstance(of, dict) for of in bookmarks.values()):
        return "`bookmarks` is no object of objects"
    return ""


def _catalog_fault(catalog: dict[str, Any]) -> str:
    streams = catalog.get("streams")
    if not isinstance(streams, list):
        return "there is no list `streams` in it"
    for stream in streams:
        if not isinstance(stream, dict) or not isinstance(stream.get("tap_stream_id"), str):
            return "an entry of `streams` has no tap_stream_id"
        if not isinstance(stream.get("schema"), dict) or not isinstance(stream.get("metadata", []), list):
            return f"the stream {stream['tap_stream_id']} has no schema, or no list of metadata"
        try:
            CatalogEntry.from_dict(stream)
        except (LookupError, TypeError, ValueError, AttributeError):
            return f"the stream {stream['tap_stream_id']} has a schema or metadata of another shape"
    return ""


def _with_keys(catalog: dict[str, Any]) -> dict[str, Any]:
    """The catalog with the streams' keys where it leaves them out: the SDK would load such a stream without any."""
    for entry in catalog["streams"]:
        if not entry.get("key_properties"):
            entry["key_properties"] = KEYS.get(entry["tap_stream_id"], [])
    return catalog


KEYS = {stream.name: [*stream.primary_keys] for stream in (Machines, MissingKbs, MissingKbsChecks, KbCves)}
FILE_CHECKS = {"state": _state_fault, "catalog": _catalog_fault}
ADVICE = {
    "config": "It is one JSON object of settings; `tap-mde-kbs --about` lists them.",
    "state": "Give the value of the last STATE message, or none to start anew.",
    "catalog": "Make one with `tap-mde-kbs --discover > catalog.json`.",
}


def main() -> NoReturn:
    """Run the command line; a failure is told in a line or two, the reason last, and the exit status says so."""
    status = _exit_status()
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            status = status or 1
    # Threads that wait for an answer or sleep before a retry must not keep the process.
    os._exit(status)


def _exit_status() -> int:
    log = TapMdeKbs.logger
    try:
        status = TapMdeKbs.cli.main(standalone_mode=False)
    except TapError as error:
        _tell(log, error, str(error))
    except Interrupted as error:
        hold_signals()
        log.critical("Stopped by %s. The last STATE is out; the next run goes on from there.", error)
        return error.exit_status
    except (click.Abort, KeyboardInterrupt):
        return 130
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else 1
    except Exception as error:  # noqa: BLE001 - the last resort: no traceback by default
        _tell(log, error, f"{type(error).__name__}: {printable(error)} (LOGLEVEL=DEBUG shows where)")
    else:
        return status if isinstance(status, int) else 0
    return 1


def _tell(log: logging.Logger, error: BaseException, text: str) -> None:
    log.debug("Where it happened:", exc_info=error)
    for line in text.splitlines():
        log.critical("%s", line)
