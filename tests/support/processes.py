"""What runs on this machine: out of /proc where there is one, else as `ps` says."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Listed:
    """A process.

    Attributes:
        pid: Its id.
        parent: That of the process that started it.
        command: Its command line.
    """

    pid: int
    parent: int
    command: str


def processes() -> list[Listed]:
    """Every process that this user may see."""
    proc = Path("/proc")
    if not (proc / "self" / "cmdline").exists():
        return _by_ps()
    return [found for each in proc.iterdir() if each.name.isdecimal() and (found := _by_proc(each))]


def _by_proc(folder: Path) -> Listed | None:
    try:
        command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        # The second field is a name in brackets, which may hold anything.
        parent = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()[1]
    except OSError:  # it has ended meanwhile
        return None
    return Listed(int(folder.name), int(parent), command)


def _by_ps() -> list[Listed]:
    listed = subprocess.run(
        ["ps", "-A", "-ww", "-o", "pid=,ppid=,args="],  # noqa: S607 - whichever ps there is
        capture_output=True,
        text=True,
        check=True,
    )
    rows = [line.split(maxsplit=2) for line in listed.stdout.splitlines()]
    return [Listed(int(pid), int(parent), command) for pid, parent, command in rows]
