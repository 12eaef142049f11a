"""What leaves the process: Singer messages on stdout, and a log on stderr that holds no secret.

Messages are whole lines whatever interrupts, STATE is what `state` says and nothing else. A SCHEMA is in the form that
targets read, and its RECORDs are as it says.
"""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING

from singer_sdk.contrib.msgspec import MsgSpecWriter
from singer_sdk.singerlib import RecordMessage, SchemaMessage, StateMessage
from typing_extensions import override

from tap_mde_kbs import schema
from tap_mde_kbs.signals import signals_held

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    from singer_sdk.singerlib.encoding.simple import Message

SHORTEST_SECRET = 4
SIGNATURE = re.compile(r"(?<=[?&]sig=)[^&\s\"']+", re.IGNORECASE)
"""What makes the link to a file of an export as good as a password."""


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
            super().write_message(message)

    def write_state(self) -> None:
        """Write a STATE message, unless the last one said the same."""
        state = self._state()
        if state != self._written:
            with signals_held():
                super().write_message(StateMessage(value=state))
                self._written = state


def _as_declared(record: Mapping[str, Any], columns: Mapping[str, None]) -> dict[str, Any]:
    """A flattened record with every column of its SCHEMA, in that order.

    The SDK writes an object that is null by its own name, which no SCHEMA has then: it is its columns that are null.
    """
    stays = {name: value for name, value in record.items() if value is not None or name in columns}
    return {**columns, **stays}


class Redaction(logging.Filter):
    """Blanks secrets in whatever is logged, at any level, by whomever, in tracebacks too.

    They are the values of secret settings, and the signatures of links to files.
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        """Take the values; very short ones would blank half of the log, and are no secrets."""
        super().__init__()
        self._secrets = sorted((secret for secret in secrets if len(secret) >= SHORTEST_SECRET), key=len, reverse=True)
        self._formatter = logging.Formatter()

    @override
    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        if (shown := self._blanked(message)) != message:
            record.msg, record.args = shown, None
        if record.exc_info and not record.exc_text:
            record.exc_text = self._blanked(self._formatter.formatException(record.exc_info))
        return True

    def _blanked(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "<secret>")
        return SIGNATURE.sub("<signature>", text)
