"""The one way that tests start the tap and target-postgres, and the one way that they hurry them.

A program is forked from a Python that has imported it already (`tests/support/warm.py`), unless its environment says
something to Python itself, or a test wants the installed script in a Python of its own.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import select
import signal
import socket
import subprocess
import sys
import sysconfig
import threading
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol

from tests.support import warm

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SCRIPTS = Path(sysconfig.get_path("scripts"))

FOR_PYTHON = ("PYTHON", "LC_", "LANG", "LD_", "MALLOC_")
"""Variables that a Python reads when it starts: a program that gets one has to be started, not forked."""

FOR_COVERAGE = "COVERAGE_"
"""Variables by which a process that is started measures coverage; no environment of a test hides them."""

Attributes = dict[str, Any]
"""What is set before a program runs, by path: `package.module:Class.attribute`."""


@dataclass(frozen=True)
class Program:
    """A console script of this environment.

    Attributes:
        name: The script's.
        entry: What it calls: `package.module:function`.
    """

    name: str
    entry: str


TAP_MDE_KBS = Program("tap-mde-kbs", "tap_mde_kbs.cli:main")
TARGET_POSTGRES = Program("target-postgres", "target_postgres.target:TargetPostgres.cli")


class Process(Protocol):
    """What a test may do with a process: a part of what `subprocess.Popen` offers."""

    pid: int
    stdin: IO[bytes] | None
    stdout: IO[bytes] | None

    @property
    def returncode(self) -> int | Any:
        """The exit status once it was seen to have ended; negative: the signal that killed it."""

    def poll(self) -> int | None:
        """The exit status, or None while it runs."""

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end.

        Raises:
            subprocess.TimeoutExpired: it still runs.
        """

    def send_signal(self, sig: int) -> None:
        """Send a signal, unless it has ended."""

    def kill(self) -> None:
        """Send SIGKILL."""


class Forked:
    """A process that a warm Python forked; as `Process` says."""

    def __init__(self, report: socket.socket, stdin: IO[bytes] | None, stdout: IO[bytes] | None) -> None:
        """Read the process id from where it is reported."""
        self._report = report
        weakref.finalize(self, report.close)
        self.stdin = stdin
        self.stdout = stdout
        self.pid = self._reported()

    def _reported(self, flags: int = 0) -> int:
        message = self._report.recv(warm.REPORT.size, flags)
        if not message:
            msg = "The Python that the program was forked from has ended."
            raise ChildProcessError(msg)
        number: int
        (number,) = warm.REPORT.unpack(message)
        return number

    def _is_over(self, timeout: float | None) -> bool:
        return bool(select.select([self._report], [], [], timeout)[0])

    @property
    def returncode(self) -> int | None:
        """The exit status, left where it is for other threads to read."""
        return os.waitstatus_to_exitcode(self._reported(socket.MSG_PEEK)) if self._is_over(0) else None

    def poll(self) -> int | None:
        """The exit status, or None while it runs."""
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end."""
        if not self._is_over(timeout):
            who = f"process {self.pid}"
            raise subprocess.TimeoutExpired(who, timeout or 0)
        return os.waitstatus_to_exitcode(self._reported(socket.MSG_PEEK))

    def send_signal(self, sig: int) -> None:
        """Send a signal, unless it has ended."""
        if self.returncode is None:
            os.kill(self.pid, sig)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)


class _Warm:
    """A Python that has imported a program, and forks when asked."""

    def __init__(self, program: Program) -> None:
        """Start it: in a session of its own, so that Ctrl-C is the tests' alone."""
        self._control, theirs = socket.socketpair()
        self._lock = threading.Lock()
        with theirs:
            self._python = subprocess.Popen(
                [sys.executable, warm.__file__, "serve", program.entry, str(theirs.fileno())],
                env={**_measured(), "PATH": os.environ.get("PATH", os.defpath)},
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            )

    def close(self) -> None:
        """End it."""
        self._control.close()
        self._python.wait()

    def fork(self, request: Mapping[str, Any], files: Sequence[int]) -> socket.socket:
        """Have a request run with these three standard files; where it is reported."""
        report, theirs = socket.socketpair()
        body = json.dumps(request).encode()
        with theirs, self._lock:
            socket.send_fds(self._control, [warm.LENGTH.pack(len(body))], [*files, theirs.fileno()])
            self._control.sendall(body)
        return report


@functools.cache
def _warm(program: Program) -> _Warm:
    started = _Warm(program)
    atexit.register(started.close)
    return started


def _measured() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith(FOR_COVERAGE)}


def launch(
    program: Program,
    options: Sequence[str],
    *,
    folder: Path,
    environ: Mapping[str, str],
    stdin: int | IO[bytes] = subprocess.DEVNULL,
    stdout: int | IO[bytes] = subprocess.PIPE,
    stderr: IO[bytes] | IO[str],
    attributes: Attributes | None = None,
    memory: int | None = None,
    new_session: bool = False,
    afresh: bool = False,
) -> Process:
    """Start a program.

    Args:
        program: which.
        options: its arguments.
        folder: where it runs.
        environ: all of its environment.
        stdin: a file, DEVNULL or PIPE; the pipes are unbuffered.
        stdout: the same.
        stderr: a file.
        attributes: what is set before it runs.
        memory: bytes of address space that it gets at most, libraries and threads included.
        new_session: whether it gets a session, and so a process group, of its own.
        afresh: start the installed script, whatever that takes.
    """
    environ = {**_measured(), **environ}
    request = {
        "entry": program.entry,
        "argv": [program.name, *options],
        "attributes": attributes or {},
        "memory": memory,
    }
    if afresh or any(name.startswith(FOR_PYTHON) for name in environ):
        script = [str(SCRIPTS / program.name), *options]
        return subprocess.Popen(
            [sys.executable, warm.__file__, "once", json.dumps(request)] if attributes or memory else script,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            cwd=folder,
            env=environ,
            bufsize=0,
            start_new_session=new_session,
        )
    request |= {"environ": environ, "folder": str(folder), "new_session": new_session}
    theirs: list[int] = []
    try:
        own_stdin = _end(stdin, theirs, write=True)
        own_stdout = _end(stdout, theirs, write=False)
        return Forked(_warm(program).fork(request, [*theirs[:2], stderr.fileno()]), own_stdin, own_stdout)
    finally:
        for file in theirs:
            os.close(file)


def _end(which: int | IO[bytes], theirs: list[int], *, write: bool) -> IO[bytes] | None:
    """Open what the program is to have, add it to `theirs`, and return the test's end where that is a pipe."""
    if which == subprocess.PIPE:
        reading, writing = os.pipe()
        theirs.append(reading if write else writing)
        return os.fdopen(writing, "wb", 0) if write else os.fdopen(reading, "rb", 0)
    if which == subprocess.DEVNULL:
        theirs.append(os.open(os.devnull, os.O_RDWR))
    else:
        theirs.append(os.dup(which if isinstance(which, int) else which.fileno()))
    return None
