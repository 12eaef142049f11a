"""What leaves the process: Singer messages on stdout, and a log on stderr that holds no secret.

Messages are whole lines whatever interrupts, and STATE has the same keys every time.

CPython 3.11 lost bytes of an interrupted 20 KB buffered write even when the signal's handler only set a
flag (8 of 15 runs); with the signals held back around each write, none of 40 did. Threads must be started
with them held back as well (`signals_held`), else the kernel hands a signal to one of those.
"""

from __future__ import annotations

import contextlib
import logging
import re
import signal
from typing import TYPE_CHECKING

from singer_sdk.contrib.msgspec import MsgSpecWriter
from singer_sdk.singerlib import StateMessage
from typing_extensions import override

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from singer_sdk.singerlib.encoding.simple import Message

HELD = {signal.SIGINT, signal.SIGTERM}
SHORTEST_SECRET = 4
SIGNATURE = re.compile(r"(?<=[?&]sig=)[^&\s\"']+", re.IGNORECASE)
"""What makes the link to a file of an export as good as a password."""

BOOKMARKED = ("machines", "missing_kbs")
"""The streams in STATE: a target's or Meltano's merge never finds a key left out, nor one too many."""


@contextlib.contextmanager
def signals_held() -> Iterator[None]:
    """Hold SIGINT and SIGTERM back; they arrive at the end, unless they were held before."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows, where a write is not interrupted
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, HELD)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def hold_signals() -> None:
    """Hold SIGINT and SIGTERM back for good: the end is under way, and a second one must not spoil it."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_BLOCK, HELD)


class Writer(MsgSpecWriter):
    """Writes each message as one whole line."""

    @override
    def write_message(self, message: Message) -> None:
        if isinstance(message, StateMessage):
            bookmarks = message.value["bookmarks"]
            message = StateMessage(value={"bookmarks": {name: bookmarks[name] for name in BOOKMARKED}})
        with signals_held():
            super().write_message(message)


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
