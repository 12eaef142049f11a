"""A tap that runs, read and interrupted by hand."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from tap_mde_kbs.patience import Patience
from tests.support.launch import TAP_MDE_KBS, launch
from tests.support.pipeline import SECONDS
from tests.support.singer import UNLIMITED, clean_environ, tap_attributes, trust

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from mde_simulator import Simulator
    from tests.support.launch import Process

PROMPT = Patience(state=0.1)
"""A tap that writes ten STATEs a second, so that a test need not wait for one."""


@dataclass
class Started:
    """A tap that runs, its stdout read by hand, in a process group of its own."""

    simulator: Simulator
    folder: Path
    process: Process
    output: bytearray = field(default_factory=bytearray)

    def read_until(self, *, asked: int = 0, size: int = 0) -> None:
        """Read along until so many machines were asked, and so many bytes written."""
        while self._asked() < asked or len(self.output) < size:
            if not self._read(0.01):
                return

    def _asked(self) -> int:
        return sum(entry.machine_id is not None for entry in self.simulator.journal)

    def _read(self, timeout: float) -> bool:
        """Read what there is; False at the end."""
        assert self.process.stdout
        with contextlib.suppress(BlockingIOError):
            if not (chunk := os.read(self.process.stdout.fileno(), 65536)):
                return False
            self.output += chunk
            return True
        time.sleep(timeout)
        return True

    def send(self, *signals: signal.Signals, apart: float = 0.0) -> None:
        """Send signals, one after the other."""
        for number, each in enumerate(signals):
            time.sleep(apart if number else 0)
            self.process.send_signal(each)

    def end(self) -> float:
        """Read to the end; the seconds it took."""
        since = time.monotonic()
        while self._read(0.005):
            assert time.monotonic() - since < SECONDS
        self.process.wait(SECONDS)
        return time.monotonic() - since

    @property
    def stderr(self) -> str:
        """What it said."""
        return (self.folder / "log").read_text()

    def messages(self) -> list[dict[str, Any]]:
        """What it wrote: whole lines, unless SIGKILL cut the last."""
        *lines, rest = bytes(self.output).split(b"\n")
        assert not rest or self.process.returncode == -signal.SIGKILL, f"a line without an end: {rest[-80:]!r}"
        return [json.loads(line) for line in lines]


@contextlib.contextmanager
def started(
    folder: Path,
    simulator: Simulator,
    state: Mapping[str, Any] | None = None,
    *,
    patience: Patience | None = PROMPT,
    environ: Mapping[str, str] | None = None,
    **config: Any,
) -> Iterator[Started]:
    """A tap that writes a STATE often; nothing of it may be left at the end.

    Args:
        folder: for its files.
        simulator: the tenant.
        state: for --state.
        patience: how long it waits, before it asks again and between two STATEs; None: as long as it does.
        environ: variables over a clean environment.
        config: settings over the simulator's.
    """
    (folder / "config.json").write_text(json.dumps({**simulator.config, **UNLIMITED, **config}))
    options = ["--config", str(folder / "config.json")]
    if state:
        (folder / "state.json").write_text(json.dumps(state))
        options += ["--state", str(folder / "state.json")]
    with (folder / "log").open("wb") as log:
        process = launch(
            TAP_MDE_KBS,
            options,
            folder=folder,
            environ={**clean_environ(folder), **trust(simulator), **(environ or {})},
            stderr=log,
            attributes=tap_attributes(patience),
            new_session=True,
        )
        assert process.stdout
        os.set_blocking(process.stdout.fileno(), False)
        try:
            yield Started(simulator, folder, process)
            ended_by_itself = process.poll() is not None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            process.stdout.close()
    assert ended_by_itself
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
