"""What leaves the process: Singer messages on stdout, and a log on stderr that holds no secret.

Messages are whole lines whatever interrupts, STATE is what `state` says and nothing else. A SCHEMA is in the form that
targets read, and its RECORDs are as it says.
"""

from __future__ import annotations

import json
import logging
import re
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus

from singer_sdk.contrib.msgspec import MsgSpecWriter
from singer_sdk.singerlib import RecordMessage, SchemaMessage, StateMessage
from typing_extensions import override

from tap_mde_kbs import schema
from tap_mde_kbs.errors import TapError
from tap_mde_kbs.signals import signals_held

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    from singer_sdk.singerlib.encoding.simple import Message

SHORTEST_SECRET = 4
SIGNATURE = re.compile(r"(?<=[?&]sig=)[^&\s\"']+", re.IGNORECASE)
"""What makes the link to a file of an export as good as a password."""

TOKEN = re.compile(r"\beyJ[\w-]{8,}\.[\w-]+(\.[\w-]*)?")
"""A JSON web token: of the API, or one that signs in."""

CREDENTIALS = re.compile(r"(?<=://)[^/@\s\"']+(?=@)")
"""User and password in a URL, of a proxy."""


class MessageWriter(MsgSpecWriter):
    """Writes each message as one whole line.

    The SDK writes STATE at times of its own, and with keys of its own. Whatever it says, `state` is written, and only
    when it has changed.

    Args:
        state: What STATE says.
        flattens: Whether the SDK makes columns of what is inside objects.
    """

    def __init__(self, state: Callable[[], dict[str, Any]], *, flattens: bool = False) -> None:
        super().__init__()
        self._state = state
        self._written: dict[str, Any] | None = None
        self._flattens = flattens
        self._columns: dict[str, dict[str, None]] = {}

    @override
    def write_message(self, message: Message) -> None:
        if isinstance(message, StateMessage):
            self.write_state()
            return
        if isinstance(message, SchemaMessage):
            message.schema = schema.plain(message.schema)
            self._columns[message.stream] = dict.fromkeys(message.schema["properties"])
        elif self._flattens and isinstance(message, RecordMessage):
            message.record = _as_declared(message.record, self._columns[message.stream])
        with signals_held():
            self._write(message)

    def _write(self, message: Message) -> None:
        """Write a message out.

        Raises:
            BrokenPipeError: Nobody reads any more.
            TapError: It can't be written, for any other reason.
        """
        try:
            super().write_message(message)
        except BrokenPipeError:
            raise
        except OSError as error:
            msg = f"The messages can't be written to stdout: {error.strerror}."
            raise TapError(msg, "The next run goes on from the target's last STATE.") from None

    def write_state(self) -> None:
        """Write a STATE message, unless the last one said the same."""
        state = self._state()
        if state != self._written:
            with signals_held():
                self._write(StateMessage(value=state))
                self._written = state


def _as_declared(record: Mapping[str, Any], columns: Mapping[str, None]) -> dict[str, Any]:
    """A flattened record with every column of its SCHEMA, in that order.

    The SDK writes an object that is null by its own name, which no SCHEMA has then: it is its columns that are null.
    """
    stays = {name: value for name, value in record.items() if value is not None or name in columns}
    return {**columns, **stays}


class Redaction:
    """Makes log records that hold no secret, whoever logs and handles them, at whatever level, in tracebacks too.

    Secrets are the values of secret settings, however they are encoded, signatures of links to files, tokens, and what
    stands before the host in a URL. A record is blanked when it is made: whatever handlers a user's logging
    configuration has, on whatever loggers, get no other.
    """

    def __init__(self) -> None:
        self._make = logging.getLogRecordFactory()
        self._secrets: list[str] = []
        self._formatter = logging.Formatter()

    @classmethod
    def of(cls, secrets: Iterable[str]) -> Redaction:
        """The process's one, which knows these secrets, too; very short ones would blank half of the log."""
        made = logging.getLogRecordFactory()
        if not isinstance(made, cls):
            made = cls()
            logging.setLogRecordFactory(made)
        forms = {form for secret in secrets if len(secret) >= SHORTEST_SECRET for form in _forms(secret)}
        made._secrets = sorted({*made._secrets, *forms}, key=len, reverse=True)
        return made

    def __call__(self, *args: Any, **kwargs: Any) -> logging.LogRecord:
        """Make a record as the factory before did, blanked."""
        record = self._make(*args, **kwargs)
        try:
            message = record.getMessage()
        except Exception:  # noqa: BLE001 - a message and arguments that do not fit: logging would print both
            message, record.args = f"{record.msg} {record.args!r}", None
            record.msg = self.blanked(message)
        if (shown := self.blanked(message)) != message:
            record.msg, record.args = shown, None
        if record.exc_info:
            told = self._formatter.formatException(record.exc_info)
            record.exc_text = self.blanked(told)
            if record.exc_text != told:  # a formatter may look at the exception itself
                record.exc_info = None
        if record.stack_info:
            record.stack_info = self.blanked(record.stack_info)
        return record

    def blanked(self, text: str) -> str:
        """A text without secrets: for what is shown, but not by a log."""
        for secret in self._secrets:
            text = text.replace(secret, "<secret>")
        text = SIGNATURE.sub("<signature>", TOKEN.sub("<token>", text))
        return CREDENTIALS.sub("<credentials>", text) if "://" in text else text


def _forms(secret: str) -> set[str]:
    """A secret as it may stand in a text: plain, in a URL, in JSON, in Python."""
    return {secret, quote(secret, safe=""), quote_plus(secret), json.dumps(secret)[1:-1], repr(secret)[1:-1]}
