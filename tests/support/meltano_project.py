"""A checkout as somebody has it who runs Meltano in it; and Meltano's commands, started and read."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.conftest import NAMES_OF_USERS, TRUST
from tests.support import readme
from tests.support.environments import ROOT
from tests.support.processes import processes
from tests.support.singer import UNLIMITED
from tests.support.warehouse import PostgresWarehouse

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from demo.postgres import Postgres
    from mde_simulator import Simulator

MELTANO = "meltano==4.4.1"
SECONDS = 240
"""No command of a test takes longer: what does, hangs."""
SECONDS_UNTIL_LOST = 60
"""After so long a SIGTERM has had no effect: on a busy machine it takes some seconds."""
SECONDS_TO_FOLLOW = 20
"""What Meltano started ends soon after it; Python's own helpers of dbt's processes, for one."""
OF_THE_CHECKOUT = shutil.ignore_patterns(".*", "__pycache__", "dist", "output", "target", "logs")
"""What git ignores, and git itself."""


def commands(block: str) -> list[list[str]]:
    """The commands in a block of README or docs, without `meltano`."""
    words = [shlex.split(line, comments=True) for line in readme.block(f"bash: {block}").splitlines()]
    assert all(each[0] == "meltano" for each in words)
    return [each[1:] for each in words]


@dataclass
class Done:
    """A command that has ended."""

    status: int
    stdout: str
    said: str


@dataclass
class Running:
    """A command that runs, in a process group of its own."""

    process: subprocess.Popen[str]

    def child(self, program: str) -> int:
        """The process that Meltano started for a plugin."""
        [pid] = [each.pid for each in processes() if each.parent == self.process.pid and program in each.command]
        return pid

    def end_by_sigterm(self) -> Done:
        """Send it SIGTERM, and wait for its end.

        target-postgres 0.8.1 loses a SIGTERM now and then (in 1 of 60 runs): it raises SystemExit in the handler, and
        not everything that is interrupted lets that through. The target then reads on, and Meltano, which has stopped
        writing, waits for it without end. After a minute the target gets another, and the test says so.
        """
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(SECONDS_UNTIL_LOST)
            return self.end()
        print("The target has lost the SIGTERM, and gets another.")  # noqa: T201 - pytest shows it with a failure
        os.kill(self.child("target-postgres"), signal.SIGTERM)
        return self.end()

    def end(self) -> Done:
        """Wait for its end, and see that it leaves nobody behind."""
        stdout, stderr = self.process.communicate(timeout=SECONDS)
        until = time.monotonic() + SECONDS_TO_FOLLOW
        while self._somebody_runs():
            assert time.monotonic() < until, stderr
            time.sleep(0.05)
        return Done(self.process.returncode, stdout, stdout + stderr)

    def _somebody_runs(self) -> bool:
        try:
            os.killpg(self.process.pid, 0)
        except ProcessLookupError:
            return False
        return True


@dataclass(frozen=True)
class Project:
    """The project's folder, and Meltano beside it."""

    folder: Path
    programs: Path

    @classmethod
    def made_in(cls, folder: Path, programs: Path) -> Project:
        """Copy the checkout, and install what the README says, with this Meltano."""
        environ = {name: value for name, value in os.environ.items() if not name.startswith(NAMES_OF_USERS)}
        shutil.copytree(ROOT, folder / "project", ignore=OF_THE_CHECKOUT)
        project = cls(folder / "project", programs)
        meltano = Meltano(project, environ)
        installed = [meltano.run(*each) for each in commands("meltano") if each[0] == "install"]
        assert [each.status for each in installed] == [0], installed
        return project


@dataclass
class Meltano:
    """Meltano's commands in that project, with a database of its own for states and jobs.

    Args:
        project: where.
        environ: the settings, and what else is in the environment.
        database_uri: Meltano's own database; None: in the project.
    """

    project: Project
    environ: dict[str, str] = field(default_factory=dict)
    database_uri: str | None = None

    @classmethod
    def between(cls, project: Project, simulator: Simulator, database: Postgres, folder: Path) -> Meltano:
        """From a tenant to a warehouse, by the environment alone."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(NAMES_OF_USERS) and name not in TRUST
        }
        quick = {f"TAP_MDE_KBS_{name.upper()}": str(value) for name, value in UNLIMITED.items()}
        place = {
            "PG_HOST": database.host,
            "PG_PORT": str(database.port),
            "PG_USER": database.user,
            "PG_PASSWORD": "nobody asks for it",
            "PG_DATABASE": database.database,
        }
        settings = {**kept, **simulator.environment, **quick, **place}
        return cls(project, settings, f"sqlite:///{folder / 'meltano.db'}")

    def run(self, *words: str, **environ: str) -> Done:
        """Run a command to its end."""
        with self.start(*words, **environ) as running:
            return running.end()

    @contextlib.contextmanager
    def start(self, *words: str, **environ: str) -> Iterator[Running]:
        """Start a command; nothing of it is left at the end, whatever that is."""
        process = subprocess.Popen(
            [self.project.programs / "meltano", *words],
            cwd=self.project.folder,
            env={
                **self.environ,
                # Nothing is asked of the hub: who asks, asks in vain.
                "MELTANO_HUB_URL": "https://127.0.0.1:9",
                "MELTANO_CLI_DISABLE_VERSION_CHECK": "true",
                "NO_COLOR": "1",
                **({"MELTANO_DATABASE_URI": self.database_uri} if self.database_uri else {}),
                **environ,
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            yield Running(process)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()

    def sweep(self, environment: str) -> dict[str, Any]:
        """The sweep's bookmark in the state that the next run would get; empty without one."""
        shown = self.run("state", "get", f"{environment}:tap-mde-kbs-to-target-postgres")
        state = json.loads(shown.stdout).get("singer_state", {"bookmarks": {}})
        return dict(state["bookmarks"].get("missing_kbs", {}).get("sweep", {}))


def wait_until_asked(simulator: Simulator, running: Running, machines: int, *, seconds: float = 0.0) -> None:
    """Until so many machines were asked for their KBs, and that again so many seconds after the first."""
    since: float | None = None
    goal = machines
    until = time.monotonic() + SECONDS
    while (asked := len(asked_of(simulator))) < goal or since is None or time.monotonic() < since + seconds:
        assert running.process.poll() is None, running.process.communicate()
        assert time.monotonic() < until
        since = since or (time.monotonic() if asked else None)
        if since and time.monotonic() < since + seconds:
            goal = asked + machines
        time.sleep(0.01)


def wait_until_loaded(database: Postgres, running: Running) -> None:
    """Until the machines are in the warehouse."""
    warehouse = PostgresWarehouse(database, "mde")
    until = time.monotonic() + SECONDS
    there = "SELECT to_regclass('mde.machines') IS NOT NULL AS is_there"
    while not (warehouse.query(there)[0]["is_there"] and warehouse.all("machines")):
        assert running.process.poll() is None, running.process.communicate()
        assert time.monotonic() < until
        time.sleep(0.1)


def asked_of(simulator: Simulator, since: int = 0) -> list[str]:
    """The machines that a tenant was asked about, since an entry of its journal."""
    return [entry.machine_id for entry in simulator.journal[since:] if entry.machine_id]
