"""`tap-mde-kbs | target-postgres`, as a scheduler runs it: two processes, and the state kept."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sysconfig
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from demo.clock import environment_at

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

    from demo.postgres import Postgres

SCHEMA = "mde"
PREFIX = "TAP_MDE_KBS_"


class PipelineError(Exception):
    """The tap or the target failed; the message is what it said last."""


@dataclass
class Pipeline:
    """The two commands, with a folder for their files, and the state from run to run.

    Args:
        folder: For the configuration, the state and the logs; not where a `.env` may be above it.
        environment: The tap's settings, and what else it should find in its environment.
        database: Where to load to.
    """

    folder: Path
    environment: Mapping[str, str]
    database: Postgres
    state: dict[str, Any] = field(default_factory=dict)

    def run(self, moment: datetime | None = None) -> float:
        """Run once.

        Args:
            moment: What the tap takes for now; None: now.

        Returns:
            How many seconds it took.

        Raises:
            PipelineError: One of the two ended with another status than 0.
        """
        started = time.monotonic()
        config = self._write("target.json", self._target_config())
        tap_command = [program("tap-mde-kbs"), "--config=ENV"]
        if self.state:
            tap_command += ["--state", self._write("state.json", self.state)]
        tap_log, target_log = self.folder / "tap.log", self.folder / "target.log"
        started_programs: list[subprocess.Popen[bytes]] = []
        with tap_log.open("wb") as tap_errors, target_log.open("wb") as target_errors:
            try:
                with _ctrl_c_put_off():
                    tap = subprocess.Popen(
                        tap_command,
                        stdin=subprocess.DEVNULL,
                        stdout=subprocess.PIPE,
                        stderr=tap_errors,
                        cwd=self.folder,
                        env=self._environment(moment),
                    )
                    started_programs.append(tap)
                    target = subprocess.Popen(
                        [program("target-postgres"), "--config", config],
                        stdin=tap.stdout,
                        stdout=subprocess.PIPE,
                        stderr=target_errors,
                        cwd=self.folder,
                    )
                    started_programs.append(target)
                self._keep_last_state(tap, target)
            finally:
                _end(*started_programs)
        # The target first: a tap whose target goes away fails too.
        for name, process, log in (
            ("target-postgres", target, target_log),
            ("tap-mde-kbs", tap, tap_log),
        ):
            if process.returncode != 0:
                message = f"{name} ended with status {process.returncode}: {_last_line(log)}"
                raise PipelineError(message)
        return time.monotonic() - started

    def _keep_last_state(self, tap: subprocess.Popen[bytes], target: subprocess.Popen[bytes]) -> None:
        if tap.stdout:
            tap.stdout.close()  # the target's alone, so that the tap notices when that ends
        # The target passes a STATE on when what came before it is loaded.
        for line in target.stdout or ():
            if line.strip():
                self.state = json.loads(line)
        tap.wait()
        target.wait()

    def _target_config(self) -> dict[str, Any]:
        return {
            "host": self.database.host,
            "port": self.database.port,
            "user": self.database.user,
            "password": "",
            "database": self.database.database,
            "default_target_schema": SCHEMA,
        }

    def _environment(self, moment: datetime | None) -> dict[str, str]:
        """Ours without settings of a real tenant, and without a proxy for what is on loopback."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
        mine = {**kept, "NO_PROXY": "127.0.0.1,localhost", **self.environment}
        return {**mine, **environment_at(moment, mine.get("PYTHONPATH", ""))} if moment else mine

    def _write(self, name: str, content: dict[str, Any]) -> str:
        path = self.folder / name
        path.write_text(json.dumps(content))
        return str(path)


def program(name: str) -> str:
    """A command of the very environment that runs this."""
    return str(Path(sysconfig.get_path("scripts")) / name)


@contextlib.contextmanager
def _ctrl_c_put_off() -> Iterator[None]:
    """Put Ctrl-C off until both programs are known: one that nobody knows would stay."""
    came: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if came and before is not signal.SIG_IGN:
        raise KeyboardInterrupt


def _end(*processes: subprocess.Popen[bytes]) -> None:
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it ended without a word"
