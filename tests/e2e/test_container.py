"""The Containerfile without an engine: its own commands build the tree, and the tap runs as it would run in there.

As another user where we are root, in a tree that nobody may write to, with no home and little memory, and with the
variables of the Containerfile alone. The base image's Python is played by a copy of this one.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import pytest

from tests.support.environments import ROOT, uv
from tests.support.singer import Messages, Target, lacking

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mde_simulator import Simulator
    from tests.conftest import StartSimulator

pytestmark = [pytest.mark.long, pytest.mark.xdist_group("container")]

TEXT = re.sub(r"\\\n", "", (ROOT / "Containerfile").read_text())
MIB = 1024
"""In the words of `ulimit -v`."""

LARGEST = 160 * 2**20
"""Bytes that the tap and all it needs take, DuckDB included."""


def instruction(name: str) -> str:
    """What the Containerfile says last under this name."""
    found: list[str] = re.findall(rf"^{name} (.*)$", TEXT, re.MULTILINE)
    return found[-1]


class Tree:
    """A folder that stands for the root of the image."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.scratch = folder / "tmp"

    def build(self) -> None:
        """Do what the Containerfile says; then nobody may write to it but to the temporary folder."""
        self._copy_python()
        subprocess.run(
            ["make", "--silent", "image", "CONTAINER=true", f"IMAGE_FILES={self.folder / 'dist'}"],  # noqa: S607 - whichever make there is
            cwd=ROOT,
            env={**os.environ, "PATH": f"{Path(uv()).parent}{os.pathsep}{os.environ['PATH']}"},
            check=True,
        )
        commands = re.sub(r"(?<![\w/])/(opt|dist)/", rf"{self.folder}/\1/", instruction("RUN"))
        path = f"{self.folder / 'python' / 'bin'}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            ["bash", "-euc", commands],  # noqa: S607 - whichever bash there is
            env={**os.environ, "PATH": path, **self._loading()},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        for each in (self.folder, *self.folder.rglob("*")):
            if not each.is_symlink():
                each.chmod(stat.S_IMODE(each.stat().st_mode) & ~0o222 | 0o444 | (0o111 if each.is_dir() else 0))
        self.folder.chmod(0o755)
        self.scratch.mkdir(mode=0o777)
        self.scratch.chmod(0o777)

    def _copy_python(self) -> None:
        """This Python where anybody may run it: a home of root's is closed to others."""
        base, ours = Path(sys.base_prefix), f"python{sys.version_info.major}.{sys.version_info.minor}"
        place = self.folder / "python"
        (place / "bin").mkdir(parents=True)
        shutil.copy(Path(sys.executable).resolve(), place / "bin" / "python3")
        without = shutil.ignore_patterns("site-packages", "test", "tests", "__pycache__", "idlelib", "tkinter")
        shutil.copytree(sysconfig.get_path("stdlib"), place / "lib" / ours, ignore=without)
        (place / "lib" / ours / "site-packages").mkdir()
        for library in (base / "lib").glob("libpython*.so*"):
            shutil.copy(library, place / "lib")

    def _loading(self) -> dict[str, str]:
        """Where a Python that is linked with a library of its own finds it."""
        return {"LD_LIBRARY_PATH": str(self.folder / "python" / "lib")}

    @property
    def size(self) -> int:
        """Bytes of what the Containerfile takes over into the image."""
        return sum(path.lstat().st_size for path in (self.folder / "opt").rglob("*"))

    def state(self) -> dict[str, int]:
        """Every path, and when a file was written last."""
        return {str(path): 0 if path.is_dir() else path.lstat().st_mtime_ns for path in self.folder.rglob("*")}

    def run(self, simulator: Simulator, kibibytes: int, **settings: str) -> Messages:
        """Run what the Containerfile runs.

        Args:
            simulator: The tenant.
            kibibytes: Address space that the tap gets at most.
            settings: Over the simulator's, as environment variables have them.
        """
        authority = self.folder.with_suffix(".pem")
        shutil.copy(simulator.environment["REQUESTS_CA_BUNDLE"], authority)
        authority.chmod(0o644)
        command = [*json.loads(instruction("ENTRYPOINT")), *json.loads(instruction("CMD"))]
        command[0] = f"{self.folder}{command[0]}"
        done = subprocess.run(
            ["bash", "-c", f'ulimit -v {kibibytes}; exec "$@"', "bash", *command],  # noqa: S607 - whichever bash there is
            cwd=instruction("WORKDIR"),
            env={
                **dict(each.split("=") for each in instruction("ENV").split()),
                **simulator.environment,
                **{f"TAP_MDE_KBS_{name.upper()}": value for name, value in settings.items()},
                **self._loading(),
                "REQUESTS_CA_BUNDLE": str(authority),
                "TMPDIR": str(self.scratch),
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            **identity(),
        )
        return Messages(done.stdout, done.stderr, done.returncode)


class Identity(TypedDict, total=False):
    """Who a process runs as, in the words of `subprocess`."""

    user: int
    group: int
    extra_groups: list[int]


def identity() -> Identity:
    """Whom the Containerfile names, where we may be somebody else."""
    user, group = map(int, instruction("USER").split(":"))
    return {"user": user, "group": group, "extra_groups": []} if os.geteuid() == 0 else {}


@pytest.fixture(scope="module")
def tree() -> Iterator[Tree]:
    """The image, built once."""
    with tempfile.TemporaryDirectory(prefix="tap-mde-kbs-image-") as folder:
        place = Path(folder)
        place.chmod(0o755)  # pytest's own folders are closed to others
        made = Tree(place / "root")
        made.folder.mkdir()
        made.build()
        yield made
        for path in (made.folder, *made.folder.rglob("*")):
            if path.is_dir() and not path.is_symlink():
                path.chmod(0o755)


def test_it_is_not_root_and_small(tree: Tree) -> None:
    user, group = map(int, instruction("USER").split(":"))
    assert user
    assert group
    assert tree.size < LARGEST
    assert not [*(tree.folder / "opt").rglob("pip")]


@pytest.mark.parametrize(
    ("source", "kibibytes"), [("per_machine", 256 * MIB), ("export", 1024 * MIB)], ids=["per_machine", "export"]
)
def test_it_runs_as_nobody_in_a_tree_it_can_not_write(
    simulate: StartSimulator, tree: Tree, source: str, kibibytes: int
) -> None:
    """In 256 MiB, an export in 1 GiB; and it leaves nothing behind, in the temporary folder neither."""
    simulator = simulate(60)
    before = tree.state()
    messages = tree.run(simulator, kibibytes, missing_kbs_source=source)
    assert messages.status == 0, messages.stderr
    target = Target()
    target.take(messages.all)
    devices = simulator.exports.devices() if source == "export" else simulator.fleet.listed()
    truth = {device: kbs for device, kbs in lacking(simulator.fleet.missing()).items() if device in devices}
    assert truth
    assert target.missing_now == truth
    assert tree.state() == before
