"""Bounds for HTTP: no answer without an end in size or time, no call beyond the quota.

Knows the governor, and must not know tokens, streams or what an answer means.
"""

from __future__ import annotations

import contextlib
import threading
import time
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import requests
from requests.adapters import HTTPAdapter
from typing_extensions import override

from tap_mde_kbs.api.governor import Governor, retry_after
from tap_mde_kbs.errors import API_REMEDIES, NoAnswerError, ShapeError, printable
from tap_mde_kbs.signals import signals_held

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

MAX_ANSWER_BYTES = 128 * 2**20
"""Four times a page of 10,000 machines with all that is known of them."""

MAX_ERROR_BYTES = 2**20
"""Of a refusal: more than enough for its reason."""

MAX_TIMEOUTS_FOR_A_BODY = 5
"""A whole body may take this many times the timeout, however steadily it drips."""

MOST_REFUSALS = 10
"""So many 429s for one call, and as many other calls served meanwhile, are no matter of the quota."""

LONGEST_REFUSAL_SECONDS = 2 * 3600.0
"""Twice the longest window of the quota: whoever is refused for longer is not refused for the quota."""

LONG_WAIT = 20.0
"""Seconds without a word that a person at a terminal wonders about."""

SECONDS_BETWEEN_WORDS = 600.0
"""Where many short waits follow each other, how often they are spoken of."""

DEFAULT_TIMEOUT_SECONDS = 60.0
"""Where a call brings no timeout of its own."""

LAST_YEAR = 9999
"""What stands for never in .NET."""

LONGEST_WAIT = 86400.0
"""Seconds: where Date and Retry-After are further apart, Date is wrong."""

PIECE_BYTES = 2**16
SECONDS_BETWEEN_LOOKS = 0.5
"""How late the watchdog may be."""


class Watchdog:
    """Ends the reading of bodies that take too long.

    A read timeout bounds only the wait for the next byte, and a compressed body may go on for ever without yielding
    one.
    """

    def __init__(self) -> None:
        """Begin with nothing to watch."""
        self._watched: dict[int, tuple[float, requests.Response]] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    @contextlib.contextmanager
    def watch(self, response: requests.Response, deadline: float) -> Iterator[None]:
        """While the body is read: cut the connection at `deadline` (monotonic seconds)."""
        with self._lock:
            self._watched[id(response)] = (deadline, response)
            if self._thread is None:
                self._thread = threading.Thread(target=self._look, name="watchdog", daemon=True)
                with signals_held():
                    self._thread.start()
        try:
            yield
        finally:
            with self._lock:
                del self._watched[id(response)]

    def _look(self) -> None:
        while True:
            time.sleep(SECONDS_BETWEEN_LOOKS)
            with self._lock:
                overdue = [response for deadline, response in self._watched.values() if time.monotonic() > deadline]
            for response in overdue:
                # It may just have ended, and its connection be in the pool again.
                with contextlib.suppress(ValueError, RuntimeError, OSError):
                    response.raw.shutdown()


class BoundedAdapter(HTTPAdapter):
    """Reads every answer to its end, unless it is too large or takes too long.

    Raises:
        NoAnswerError: The body took too long.
        ShapeError: It is too large.
    """

    def __init__(self, **kwargs: Any) -> None:
        """Pass the arguments on to requests' own adapter."""
        self._watchdog = Watchdog()
        super().__init__(**kwargs)

    @override
    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        response = super().send(request, *args, **kwargs)
        timeout = kwargs.get("timeout")
        seconds = timeout if isinstance(timeout, (int, float)) else DEFAULT_TIMEOUT_SECONDS
        deadline = time.monotonic() + MAX_TIMEOUTS_FOR_A_BODY * seconds
        try:
            with self._watchdog.watch(response, deadline):
                body = _body(response)
        except requests.RequestException:
            if time.monotonic() < deadline:
                raise
        if time.monotonic() >= deadline:
            response.close()
            msg = f"GET {path_of(response)} was answered without an end."
            raise NoAnswerError(msg, API_REMEDIES["no answer"].advice)
        # As `Response.content` does it, which knows no bound.
        response._content = body  # noqa: SLF001 - see above
        response._content_consumed = True  # type: ignore[attr-defined] # noqa: SLF001
        return response


class GovernedAdapter(BoundedAdapter):
    """Sends a call when the quota allows, and again after a 429: it is the quota's, and no caller sees it.

    A call that is refused again and again while others are served is another matter: its caller gets the 429. Else one
    sick machine would make everybody wait for ever.

    Args:
        governor: The quota of the calls that go through this adapter.
        connections: How many connections are kept open.
        tell: Is given a sentence about a wait that is long.
    """

    def __init__(self, governor: Governor, connections: int, tell: Callable[[str], None]) -> None:
        self.governor = governor
        self._tell = tell
        self._told_until = 0.0
        self._telling = threading.Lock()
        super().__init__(pool_connections=1, pool_maxsize=connections)

    @override
    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        refusals, served, began = 0, self.governor.served, time.monotonic()
        while True:
            self._announce(self.governor.delay(), time.monotonic() - began if refusals else 0.0)
            self.governor.acquire()
            response = super().send(request, *args, **kwargs)
            if response.status_code != HTTPStatus.TOO_MANY_REQUESTS:
                self.governor.succeeded()
                return response
            self.governor.pause(seconds_to_wait(response.headers))
            refusals += 1
            are_others_served = refusals >= MOST_REFUSALS and self.governor.served - served >= MOST_REFUSALS
            if are_others_served or time.monotonic() - began > LONGEST_REFUSAL_SECONDS:
                return response

    def _announce(self, seconds: float, waited: float) -> None:
        """Say once that calls wait for long: those of other threads wait for the same.

        Args:
            seconds: How long the next call is to wait.
            waited: How long this one was refused before.
        """
        now = time.monotonic()
        if seconds + waited < LONG_WAIT:
            return
        with self._telling:
            if now + seconds <= self._told_until + LONG_WAIT:
                return
            self._told_until = now + max(seconds, SECONDS_BETWEEN_WORDS)
        why = "The API refuses calls (HTTP 429)" if self.governor.is_paused else "The quota is used up"
        so_far = f", for {waited:.0f} s so far" if waited >= 1 else ""
        self._tell(f"{why}{so_far}: the next goes out in {seconds:.0f} s.")


def path_of(response: requests.Response) -> str:
    """The path that was asked, for messages."""
    return shown_path(response.request.path_url or "")


def shown_path(path: str) -> str:
    """A path as a message shows it: without its query, and of a length to read."""
    return printable(path.partition("?")[0], 160)


def _body(response: requests.Response) -> bytes:
    """All of an answer; of a refusal as much as can hold its reason.

    Raises:
        ShapeError: It is larger than any honest one.
        requests.RequestException: It broke off.
    """
    refused = response.status_code >= HTTPStatus.BAD_REQUEST
    body = bytearray()
    for piece in response.iter_content(PIECE_BYTES):
        body += piece
        if refused and len(body) > MAX_ERROR_BYTES:
            response.close()
            break
        if len(body) > MAX_ANSWER_BYTES:
            response.close()
            msg = f"GET {path_of(response)} answered with more than {MAX_ANSWER_BYTES // 2**20} MiB."
            raise ShapeError(msg, API_REMEDIES["shape"].advice)
    return bytes(body)


def seconds_to_wait(headers: Mapping[str, str]) -> float | None:
    """Seconds that the server asks to wait, by its own clock where it tells a time that can be."""
    value, sent = headers.get("Retry-After"), _moment(headers.get("Date", ""))
    seconds = retry_after(value, sent) if sent else None
    if seconds is None or seconds > LONGEST_WAIT:
        return retry_after(value, datetime.now(timezone.utc))
    return seconds


def _moment(date: str) -> datetime | None:
    """The time in the header Date; None where it is unreadable, or stands for never."""
    try:
        moment = parsedate_to_datetime(date)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=timezone.utc)
        return moment.astimezone(timezone.utc) if moment.year < LAST_YEAR else None
    except (TypeError, ValueError, IndexError, OverflowError):
        return None
