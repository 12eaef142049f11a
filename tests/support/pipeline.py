"""`tap-mde-kbs | target-…`, with the state kept as a scheduler keeps it, and killed on demand.

A pump in between keeps what the tap wrote, so that a test knows what was out when something was killed.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
import time
from dataclasses import dataclass, field
from functools import cached_property
from typing import IO, TYPE_CHECKING, Any

from tests.support.launch import TAP_MDE_KBS, TARGET_POSTGRES, launch
from tests.support.singer import UNLIMITED, clean_environ, tap_attributes, trust

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from demo.postgres import Postgres
    from mde_simulator import Simulator
    from tap_mde_kbs.patience import Patience
    from tests.support.launch import Attributes, Process

SECONDS = 120
"""No run of a test takes longer: what does, hangs."""

PROMPT = {"target_postgres.target:TargetPostgres._MAX_RECORD_AGE_IN_MINUTES": 0.2 / 60}
"""For a target that loads five times a second."""


@dataclass(frozen=True)
class Loader:
    """A target.

    Attributes:
        command: That starts it; empty: it is target-postgres.
        config: Its settings.
        attributes: What is set in target-postgres before it runs.
    """

    command: Sequence[str]
    config: Mapping[str, Any]
    attributes: Attributes = field(default_factory=dict)


def postgres_loader(database: Postgres, schema: str, *, prompt: bool = False, **settings: Any) -> Loader:
    """target-postgres into one schema of a database.

    Args:
        database: where to load to.
        schema: the tables' schema, one for each pipeline.
        prompt: whether it loads, and passes STATE on, five times a second instead of once in five minutes.
        settings: others of its settings.
    """
    place = {"host": database.host, "port": database.port, "database": database.database}
    who = {"user": database.user, "password": "", "default_target_schema": schema}
    return Loader((), {**place, **who, "use_copy": True, **settings}, PROMPT if prompt else {})


@dataclass(frozen=True)
class Interrupt:
    """When and how a run is broken off.

    Args:
        signal: What is sent.
        whom: "tap", "target", or "both".
        calls: After so many calls for missing KBs in this run; None: counted from the start of the processes.
        delay: Seconds after that.
        progress: Before the delay, wait also until the target passes on a STATE that is further in the sweep.
    """

    signal: signal.Signals
    whom: str = "tap"
    calls: int | None = None
    delay: float = 0.0
    progress: bool = False

    def __str__(self) -> str:
        since = "the start" if self.calls is None else f"{self.calls} calls"
        return f"{self.signal.name} to {self.whom}, {self.delay * 1000:.0f} ms after {since}"


@dataclass(frozen=True)
class Run:
    """What one run did.

    Attributes:
        status: The tap's exit status; negative: the signal that killed it.
        target_status: The target's.
        log: The tap's stderr.
        target_log: The end of the target's.
        output: What the tap wrote.
        passed_on: Each STATE that the target passed on.
        asked: The machines asked for, in the order of arrival, each as often as it was.
        calls: Calls of the API.
        interrupted: Whether the interrupt came before the tap had ended.
        seconds_to_end: Between the interrupt and the end of the tap.
    """

    status: int
    target_status: int
    log: str
    target_log: str
    output: bytes
    passed_on: list[dict[str, Any]]
    asked: list[str]
    calls: int
    interrupted: bool
    seconds_to_end: float

    @cached_property
    def messages(self) -> list[dict[str, Any]]:
        """The tap's messages; a line that SIGKILL cut is none."""
        lines = self.output.split(b"\n")
        cut = lines.pop()
        assert not cut or self.status == -signal.SIGKILL, f"a line without an end: {cut[-80:]!r}"
        return [json.loads(line) for line in lines]

    @property
    def written_since_state(self) -> set[str]:
        """The machines written after the last STATE that the target passed on: all, if it passed none on."""
        since = 0
        if self.passed_on:
            states = [n for n, message in enumerate(self.messages) if message.get("value") == self.passed_on[-1]]
            since = states[-1] if states else 0
        checks = [message for message in self.messages[since:] if message.get("stream") == "missing_kbs_checks"]
        return {message["record"]["machine_id"] for message in checks if message["type"] == "RECORD"}

    @property
    def last_line(self) -> str:
        """What a person reads first."""
        return self.log.strip().splitlines()[-1].rpartition(" | ")[2]


@dataclass
class Pipeline:
    """A scheduled pipeline from one tenant to one target.

    Args:
        folder: for its files.
        simulator: the tenant.
        loader: the target.
        config: settings of the tap over the simulator's.
        state: what the target passed on last.
        patience: how long the tap waits, before it asks again and between two STATEs; None: as long as it does.
        catalog: for the tap.
        environ: variables of the tap over a clean environment.
    """

    folder: Path
    simulator: Simulator
    loader: Loader
    config: dict[str, Any] = field(default_factory=dict)
    state: dict[str, Any] = field(default_factory=dict)
    patience: Patience | None = None
    catalog: Mapping[str, Any] | None = None
    environ: Mapping[str, str] = field(default_factory=dict)

    def run(self, interrupt: Interrupt | None = None) -> Run:
        """Run once, from the state that the target passed on last, to whatever end."""
        before = len(self.simulator.journal)
        passed_on: list[dict[str, Any]] = []
        output = bytearray()
        with contextlib.ExitStack() as stack:
            log = stack.enter_context((self.folder / "tap.log").open("w+"))
            tap, target = self._start(stack, log)
            threads = [
                threading.Thread(target=_pump, args=(tap, target, output)),
                threading.Thread(target=_read_states, args=(target, passed_on)),
            ]
            for thread in threads:
                thread.start()
            interrupted, moment = self._wait(tap, target, interrupt, before, passed_on)
            tap.wait(SECONDS)
            seconds_to_end = time.monotonic() - moment
            target.wait(SECONDS)
            for thread in threads:
                thread.join(SECONDS)
            log.seek(0)
            entries = self.simulator.journal[before:]
            if passed_on:
                self.state = passed_on[-1]
            return Run(
                status=tap.returncode,
                target_status=target.returncode,
                log=log.read(),
                target_log=(self.folder / "target.log").read_text()[-2000:],
                output=bytes(output),
                passed_on=passed_on,
                asked=[entry.machine_id for entry in entries if entry.machine_id],
                calls=sum(entry.is_api for entry in entries),
                interrupted=interrupted,
                seconds_to_end=seconds_to_end,
            )

    def run_whole(self) -> Run:
        """Run once; both ends have to be happy."""
        done = self.run()
        assert (done.status, done.target_status) == (0, 0), f"{done.log}\n{done.target_log}"
        return done

    def load(self, messages: Iterable[Mapping[str, Any]]) -> None:
        """Let the target load messages that no tap of today has written."""
        with contextlib.ExitStack() as stack:
            target = self._start_target(stack)
            assert target.stdin
            assert target.stdout
            target.stdin.write("".join(f"{json.dumps(message)}\n" for message in messages).encode())
            target.stdin.close()
            target.stdout.read()
            assert target.wait(SECONDS) == 0, (self.folder / "target.log").read_text()

    def _start(self, stack: contextlib.ExitStack, log: IO[str]) -> tuple[Process, Process]:
        environ = clean_environ(self.folder)
        tap = launch(
            TAP_MDE_KBS,
            self._tap_options(),
            folder=self.folder,
            environ={**environ, **trust(self.simulator), **self.environ},
            stderr=log,
            attributes=tap_attributes(self.patience),
        )
        stack.callback(_end, tap)
        return tap, self._start_target(stack)

    def _start_target(self, stack: contextlib.ExitStack) -> Process:
        target_log = stack.enter_context((self.folder / "target.log").open("wb"))
        environ = clean_environ(self.folder)
        options = ["--config", self._write("target", self.loader.config)]
        target: Process
        if self.loader.command:
            target = subprocess.Popen(
                [*self.loader.command, *options],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=target_log,
                cwd=self.folder,
                env=environ,
                bufsize=0,
            )
        else:
            target = launch(
                TARGET_POSTGRES,
                options,
                folder=self.folder,
                environ=environ,
                stdin=subprocess.PIPE,
                stderr=target_log,
                attributes=self.loader.attributes,
            )
        stack.callback(_end, target)
        return target

    def _wait(
        self,
        tap: Process,
        target: Process,
        interrupt: Interrupt | None,
        before: int,
        passed_on: list[dict[str, Any]],
    ) -> tuple[bool, float]:
        """Wait for the moment of the interrupt, and send it; whether it met the tap alive, and when that was."""
        if interrupt:
            until = time.monotonic() + SECONDS
            while self._asked_since(before) < (interrupt.calls or 0) or (
                interrupt.progress and not any(_cursor(state) not in {None, _cursor(self.state)} for state in passed_on)
            ):
                if tap.poll() is not None or time.monotonic() > until:
                    return False, time.monotonic()
                time.sleep(0.001)
            with contextlib.suppress(subprocess.TimeoutExpired):
                tap.wait(interrupt.delay)
                return False, time.monotonic()
            for process in {"tap": [tap], "target": [target], "both": [tap, target]}[interrupt.whom]:
                process.send_signal(interrupt.signal)
            return True, time.monotonic()
        return False, time.monotonic()

    def _asked_since(self, before: int) -> int:
        return sum(entry.machine_id is not None for entry in self.simulator.journal[before:])

    def _tap_options(self) -> list[str]:
        options = ["--config", self._write("config", {**self.simulator.config, **UNLIMITED, **self.config})]
        for option, document in (("state", self.state), ("catalog", self.catalog)):
            if document:
                options += [f"--{option}", self._write(option, document)]
        return options

    def _write(self, name: str, document: Mapping[str, Any]) -> str:
        path = self.folder / f"{name}.json"
        path.write_text(json.dumps(document))
        return str(path)


def _pump(tap: Process, target: Process, output: bytearray) -> None:
    """Pass on what the tap writes, and keep it; a target that is gone is gone for the tap too."""
    assert tap.stdout
    assert target.stdin
    try:
        while chunk := os.read(tap.stdout.fileno(), 65536):
            output += chunk
            while chunk:
                chunk = chunk[os.write(target.stdin.fileno(), chunk) :]
    except BrokenPipeError:
        tap.send_signal(signal.SIGSTOP)  # so that nothing it has written is lost to the test
        os.set_blocking(tap.stdout.fileno(), False)
        with contextlib.suppress(BlockingIOError):
            while chunk := os.read(tap.stdout.fileno(), 65536):
                output += chunk
        tap.stdout.close()
        tap.send_signal(signal.SIGCONT)
    with contextlib.suppress(BrokenPipeError):
        target.stdin.close()


def _read_states(target: Process, states: list[dict[str, Any]]) -> None:
    states.extend(json.loads(line) for line in target.stdout or () if line.endswith(b"\n") and line.strip())


def _cursor(state: Mapping[str, Any]) -> str | None:
    """How far the checks of the sweep are; None at its beginning."""
    after: str | None = state.get("bookmarks", {}).get("missing_kbs_checks", {}).get("after")
    return after


def _end(process: Process) -> None:
    if process.poll() is None:
        process.kill()
        process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe:
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
