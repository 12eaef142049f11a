"""The command line: its options, the files given to it, and the exit status."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click
from singer_sdk.exceptions import ConfigValidationError
from singer_sdk.plugin_base import _ConfigInput
from singer_sdk.singerlib import CatalogEntry
from singer_sdk.tap_base import CliTestOptionValue
from typing_extensions import override

from tap_mde_kbs.doctor import Line
from tap_mde_kbs.errors import FileError, Interrupted, SettingsError, TapError, printable
from tap_mde_kbs.given import decoded
from tap_mde_kbs.messages import Redaction
from tap_mde_kbs.settings import variable
from tap_mde_kbs.signals import hold_signals
from tap_mde_kbs.tap import TapMdeKbs

if TYPE_CHECKING:
    from collections.abc import Iterator


class CommandLine(TapMdeKbs):
    """Singer tap for Microsoft Defender for Endpoint: machines and the security updates each one lacks."""

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
        with _told_as_settings_errors():
            tap = cls(
                config=config.config,
                parse_env_config=config.parse_env,
                state=json.load(state) if state else None,
                catalog=json.load(catalog) if catalog else None,
            )
        tap.run()

    @classmethod
    @override
    def cb_config(cls, ctx: click.Context, param: click.Option, value: tuple[str, ...]) -> _ConfigInput:
        """Read the config files ourselves: the SDK's messages name neither the file nor what to do."""
        config: dict[str, Any] = {}
        for path in value:
            if path != "ENV":
                config |= read_json_file(path, "--config")
        return _ConfigInput(config, parse_env="ENV" in value)

    @classmethod
    @override
    def cb_test(cls, ctx: click.Context, param: click.Option, value: str) -> None:
        """Examine the settings and the tenant; `--test=schema` stays the SDK's, whose connection test is none."""
        if value in {CliTestOptionValue.Disabled.value, CliTestOptionValue.Schema.value}:
            super().cb_test(ctx, param, value)
            return
        if value != CliTestOptionValue.All.value:
            msg = f"--test is given alone, or as --test=schema; {printable(value, 80)} is neither."
            raise click.BadParameter(msg, ctx, param)
        config: _ConfigInput = ctx.params.get("config") or _ConfigInput()
        try:
            with _told_as_settings_errors():
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


@contextlib.contextmanager
def _told_as_settings_errors() -> Iterator[None]:
    """What the SDK finds wrong with settings, of flattening or maps: it would log that, and end the command itself."""
    try:
        yield
    except ConfigValidationError as error:
        told = [*error.errors] or [str(error)]
        raise SettingsError("\n".join(f"The settings are not valid: {printable(each)}." for each in told)) from None


class JsonFile(click.ParamType[io.StringIO]):
    """A file of JSON given on the command line, read and checked at once."""

    name = "filename"

    def __init__(self, option: str) -> None:
        """Take the option's name, for the error."""
        self._option = option

    @override
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> io.StringIO:
        option = f"--{self._option}"
        document = state_in(value, option) if self._option == "state" else read_json_file(value, option)
        if fault := FILE_CHECKS[self._option](document):
            msg = f"The file {value} given as {option} is not a {self._option}: {fault}."
            raise FileError(msg, ADVICE[self._option])
        return io.StringIO(json.dumps(document))


def read_json_file(path: str, option: str) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        FileError: it can't be read, is not JSON, or no object.
    """
    return _object(_text(path, option), path, option)


def state_in(path: str, option: str) -> dict[str, Any]:
    """The state in a file: a state, a STATE message, or what a target wrote, a line each, of which the last counts.

    An empty file is no state: so a shell leaves it after a night that wrote none. A last line that was cut, by whatever
    killed the target, is left out: the one before it is true as well.

    Raises:
        FileError: it can't be read, or there is no state in it.
    """
    text = _text(path, option)
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines or text.strip() == "null":
        return {}
    documents: list[dict[str, Any]] = []
    try:
        documents.append(_object(text, path, option))
    except FileError as error:
        for line in lines if len(lines) > 1 else ():
            with contextlib.suppress(FileError):
                documents.append(_object(line, path, option))
        is_cut = len(documents) == len(lines) - 1 and not _is_json(lines[-1])
        if not documents or (len(documents) < len(lines) and not is_cut):
            raise error from None
    return _unwrapped(documents[-1])


def _unwrapped(document: dict[str, Any]) -> dict[str, Any]:
    """The state in a STATE message, or in what `meltano state get` prints."""
    for key in ("value", "completed", "singer_state"):
        if "bookmarks" not in document and isinstance(document.get(key), dict):
            document = document[key]
    return document


def _text(path: str, option: str) -> str:
    """What is in a text file."""
    try:
        content = Path(path).read_bytes()
    except (OSError, ValueError) as error:  # a path with a null character is a ValueError
        reason = error.strerror if isinstance(error, OSError) else "that is no path"
        msg = f"The file {path} given as {option} can't be read: {reason}."
        raise FileError(msg, "Check the path.") from None
    try:
        return decoded(content)
    except UnicodeDecodeError:
        msg = f"The file {path} given as {option} is no text in UTF-8 or UTF-16."
        raise FileError(msg, "Save it as UTF-8.") from None


def _object(text: str, path: str, option: str) -> dict[str, Any]:
    advice = ADVICE[option.lstrip("-")]
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        where = f" (line {error.lineno}, column {error.colno})" if isinstance(error, json.JSONDecodeError) else ""
        msg = f"The file {path} given as {option} is not JSON{where}."
        raise FileError(msg, advice) from None
    if not isinstance(document, dict):
        msg = f"The file {path} given as {option} holds no JSON object."
        raise FileError(msg, advice)
    return document


def _is_json(line: str) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


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
        named = f"the stream {printable(stream['tap_stream_id'], 80)}"
        metadata = [] if stream.get("metadata") is None else stream["metadata"]
        if not isinstance(stream.get("schema"), dict) or not isinstance(metadata, list):
            return f"{named} has no schema, or no list of metadata"
        if not all(isinstance(item, dict) and isinstance(item.get("breadcrumb"), list) for item in metadata):
            return f"{named} has a schema or metadata of another shape"
        try:
            CatalogEntry.from_dict(stream)
        except (LookupError, TypeError, ValueError, AttributeError):
            return f"{named} has a schema or metadata of another shape"
    return ""


FILE_CHECKS = {"state": _state_fault, "catalog": _catalog_fault}
ADVICE = {
    "config": "It is one JSON object of settings; `tap-mde-kbs --about` lists them.",
    "state": "Give the value of the last STATE message, or none to start anew.",
    "catalog": "Make one with `tap-mde-kbs --discover > catalog.json`.",
}


def main() -> NoReturn:
    """Run the command line; a failure is told in a line or two, the reason last, and the exit status says so."""
    closed = _open_all()
    if sys.stdout.fileno() in closed:
        _say("stdout is closed: there is nobody to write to. Start the tap with a pipe to a target, or with a file.")
        status = 1
    else:
        status = _exit_status()
    logging.shutdown()
    try:
        sys.stdout.flush()
    except OSError as error:
        if not (status or isinstance(error, BrokenPipeError)):
            _say(f"stdout can't be written: {error.strerror}.")
        status = status or 1
    with contextlib.suppress(OSError):
        sys.stderr.flush()
    # Threads that wait for an answer or sleep before a retry must not keep the process.
    os._exit(status)


def _open_all() -> set[int]:
    """See to it that stdin, stdout and stderr are open, and return which were not.

    What is opened next would get the number of a closed one: a log or a message would go into a connection.
    """
    closed = set()
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            closed.add(number)
            os.dup2(os.open(os.devnull, os.O_RDWR), number)  # the lowest number that is free, perhaps this very one
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115 - for good
    return closed


def _exit_status() -> int:
    log = CommandLine.logger
    try:
        _check_levels()
        status = CommandLine.cli.main(standalone_mode=False)
    except TapError as error:
        _tell(log, error, str(error))
    except Interrupted as error:
        hold_signals()
        _tell(log, error, f"Stopped by {error}. The last STATE is out; the next run goes on from there.")
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


def _check_levels() -> None:
    """Refuse a log level that there is none of; the SDK's own error does not name the variable.

    Raises:
        SettingsError: Names it.
    """
    for name in (variable("loglevel"), "LOGLEVEL"):
        level = os.environ.get(name)
        if level and not isinstance(logging.getLevelName(level.upper()), int):
            msg = f"The environment variable {name} is no log level."
            raise SettingsError(msg, "Set it to DEBUG, INFO, WARNING, ERROR or CRITICAL, or unset it.")


def _tell(log: logging.Logger, error: BaseException, text: str) -> None:
    """Log why the run failed, and write it to stderr where the log does not: a failure is never silent."""
    log.debug("Where it happened:", exc_info=error)
    redaction = Redaction.of(())
    for line in text.splitlines():
        log.critical("%s", line)
        if not _is_heard(log):
            _say(redaction.blanked(line))


def _say(line: str) -> None:
    with contextlib.suppress(OSError):
        sys.stderr.write(f"{line}\n")


def _is_heard(log: logging.Logger) -> bool:
    """Whether a critical line reaches stderr, whatever a logging configuration has switched off."""
    if not log.isEnabledFor(logging.CRITICAL):
        return False
    record = log.makeRecord(log.name, logging.CRITICAL, __file__, 0, "", (), None)
    if not log.filter(record):
        return False
    if not log.hasHandlers():
        return logging.lastResort is not None
    at: logging.Logger | None = log
    while at:
        for handler in at.handlers:
            is_stderr = getattr(handler, "stream", None) is sys.stderr
            if is_stderr and handler.level <= logging.CRITICAL and handler.filter(record):
                return True
        at = at.parent if at.propagate else None
    return False
