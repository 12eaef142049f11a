"""Who answers a sweep: what it needs of a source, and the threads that ask a few machines at a time. Knows no HTTP."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, TypeVar

from tap_mde_kbs.errors import Stopped
from tap_mde_kbs.signals import signals_held

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence
    from contextlib import AbstractContextManager

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

QUICK = 0.02
"""Seconds that an answer may take before another thread is worth its while: two that compete for the interpreter take
twice the CPU, and no less time."""


class Answer(NamedTuple):
    """What a machine lacks: its rows, and the time of the answer."""

    rows: list[dict[str, Any]]
    checked_at: str


class Pool(Protocol[T_co]):
    """Asks machines, a few at a time."""

    @property
    def size(self) -> int:
        """How many machines may be asked before the first has answered."""

    def submit(self, machine_id: str, *, once: bool = False) -> None:
        """Have a machine asked, at once.

        Args:
            machine_id: Its id.
            once: In one call: it is not worth a second one.
        """

    def result(self, machine_id: str) -> T_co:
        """Wait for the answer to a submitted machine, and return it, or raise what asking raised.

        Raises:
            NotFoundError: The machine answered 404.
            NoAnswerError: It gave no answer, its retries included.
            NotInExportError: The answers come from an export, and the machine is not in it.
            ApiError: The API refuses the call, or answers in another shape than documented.
            Exception: Anything else ends the sweep, as `Stopped` does.
        """


class Answers(Pool[Answer], Protocol):
    """An opened source: what each machine lacks, and what else it knows."""

    @property
    def made_at(self) -> str | None:
        """When all answers were made, as `checked_at` is written; None where each has a time of its own."""

    @property
    def empty_files(self) -> int:
        """How many files of an export were empty; 0 where there are no files."""

    def kb_cves(self) -> Iterator[dict[str, Any]]:
        """The rows of `kb_cves`; none unless the source knows them."""

    def strangers(self, listed: Collection[str]) -> list[str]:
        """The machines that it has answers of and that are not listed."""


class Source(Protocol):
    """Where the missing KBs come from: each machine, or an export."""

    permission: str
    """The application permission that its calls need."""

    costs_calls: bool
    """Whether each machine costs a call of the quota."""

    def check(self) -> None:
        """Check, before any call, that it can be used here.

        Raises:
            SettingsError: It can't; says what to install.
        """

    def seconds_for(self, machines: int) -> float:
        """Estimate how long so many machines take."""

    def probe(self, machine_ids: Sequence[str]) -> tuple[bool | None, str]:
        """Try it in a call or two; for `--test`.

        Args:
            machine_ids: Onboarded machines that may be asked.

        Returns:
            Whether it works, None where that can't be told; and what was found, as a person says it.

        Raises:
            TapError: It does not.
        """

    def begin(self, is_due: Callable[[str], bool]) -> None:
        """Begin with what needs no machine, while they are listed, unless that has begun.

        What goes wrong there is raised by `opened`.

        Args:
            is_due: As for `opened`.
        """

    def close(self) -> None:
        """Give up what was begun and is not opened: the run ends."""

    def opened(self, is_due: Callable[[str], bool], idle: Callable[[], None]) -> AbstractContextManager[Answers | None]:
        """Make it ready to answer.

        Args:
            is_due: Whether answers that were all made at this time (`made_at`) are wanted.
            idle: Called now and then while an answer is waited for, in the waiting thread.

        Returns:
            The answers; None if they are not due.
        """


class Threads(Generic[T]):
    """The pool of a real run: daemon threads, one with the first machine, more where answers are waited for.

    They never get the signals that end a run. A context manager, closed at its end.

    Args:
        ask: Asks one machine, in one call if it is told so; called in several threads.
        size: How many threads at most.
        idle: Called now and then by whoever waits for an answer, in the waiting thread.
    """

    def __init__(self, ask: Callable[[str, bool], T], size: int, idle: Callable[[], None] = lambda: None) -> None:
        self.size = size
        self._idle = idle
        self._ask = ask
        self._queue: deque[tuple[str, bool]] = deque()
        self._done: dict[str, Callable[[], T]] = {}
        self._closed = False
        # Re-entrant: a signal handler may close the pool while its main thread holds it.
        self._changed = threading.Condition()
        self._threads: list[threading.Thread] = []

    def submit(self, machine_id: str, *, once: bool = False) -> None:
        """Have a machine asked as soon as a thread is free."""
        with self._changed:
            self._queue.append((machine_id, once))
            self._changed.notify_all()
        if not self._threads:
            self._start()

    def result(self, machine_id: str) -> T:
        """Wait for a submitted machine's answer, and return it, or raise what asking raised.

        Raises:
            Stopped: If the pool is closed, before or while the caller waits.
        """
        while True:
            with self._changed:
                may_grow = bool(self._queue) and len(self._threads) < self.size
                is_late = False
                if machine_id not in self._done and not self._closed:
                    # Not for ever: a signal handler's close() may come just before the wait begins.
                    is_late = not self._changed.wait(QUICK if may_grow else 1.0)
                if machine_id in self._done:
                    done = self._done.pop(machine_id)
                    break
                if self._closed:
                    msg = "Stopped while waiting for an answer"
                    raise Stopped(msg)
            if may_grow and is_late:
                self._start()
            self._idle()
        return done()

    def close(self, timeout: float = 1.0) -> bool:
        """Let nobody wait any longer, and the threads end.

        A thread ends once the call that it is in returns. It is not waited for longer than
        `timeout` seconds altogether: it is a daemon, and does not keep the process alive.

        Returns:
            Whether all have ended.
        """
        with self._changed:
            self._closed = True
            self._queue.clear()
            self._changed.notify_all()
        deadline = time.monotonic() + timeout
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def __enter__(self) -> Threads[T]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self) -> None:
        thread = threading.Thread(target=self._work, name="ask", daemon=True)
        self._threads.append(thread)
        with signals_held():
            thread.start()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._closed)
                if self._closed:
                    return
                machine_id, once = self._queue.popleft()
            done = _call(self._ask, machine_id, once)
            with self._changed:
                self._done[machine_id] = done
                self._changed.notify_all()


def _call(ask: Callable[[str, bool], T], machine_id: str, once: bool) -> Callable[[], T]:
    """Call, and return what gives the answer, or raises the error, in another thread."""
    try:
        answer = ask(machine_id, once)
    except BaseException as error:  # noqa: BLE001 - nothing is swallowed, the main thread raises it
        caught = error

        def fail() -> T:
            raise caught

        return fail
    return lambda: answer
