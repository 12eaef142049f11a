"""Run a command under every other Python that the project supports and this machine has.

Each gets the locked dependencies in an environment of its own, made by uv and gone afterwards.
`make test-all` runs the tests marked `every_python` so.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import metadata
from pathlib import Path

CLASSIFIER = "Programming Language :: Python :: "
UNTESTED = {"3.14"}
"""DuckDB before 1.3, which the tests need, has no wheel for it: the workflow tries the tap's own wheel there."""

ISOLATED = ["run", "--isolated", "--frozen", "--no-default-groups", "--group", "test"]


def supported() -> set[str]:
    """The versions that the project says it supports, and its tests run on: "3.10" and so on."""
    classifiers = metadata("tap-mde-kbs").get_all("Classifier") or []
    return {each.removeprefix(CLASSIFIER) for each in classifiers if each.startswith(CLASSIFIER)} - UNTESTED


def search_path() -> str:
    """PATH, and the folders of every Python of a pyenv found on it.

    The shims of pyenv that are on PATH run only the versions that are switched on.
    """
    folders = os.environ.get("PATH", "").split(os.pathsep)
    shims = [Path(folder) for folder in folders if Path(folder).name == "shims"]
    hidden = [each for folder in shims for each in sorted(folder.parent.glob("versions/*/bin"))]
    return os.pathsep.join([*map(str, hidden), *folders])


def installed(uv: str) -> dict[str, str]:
    """The CPythons of this machine that uv finds: "3.10" and the like, with one path each."""
    listed = subprocess.run(
        [uv, "python", "list", "--only-installed", "--output-format", "json"],
        env={**os.environ, "PATH": search_path()},
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, str] = {}
    for each in json.loads(listed.stdout):
        parts = each["version_parts"]
        version = f"{parts['major']}.{parts['minor']}"
        if each["implementation"] == "cpython" and each["variant"] == "default":
            found.setdefault(version, each["path"])
    return found


def say(what: str) -> None:
    """Say it before the next command says anything."""
    sys.stdout.write(f"--- {what}\n")
    sys.stdout.flush()


def main(command: list[str]) -> int:
    """Run it under each in turn, and stop at the first that fails."""
    uv = os.environ.get("UV", "uv")  # `uv run` sets it
    ours = f"{sys.version_info.major}.{sys.version_info.minor}"
    found = installed(uv)
    others = sorted((supported() & set(found)) - {ours}, key=lambda version: int(version[2:]))
    for version in others:
        say(f"Python {version}: {found[version]}")
        run = [uv, *ISOLATED, "--python", found[version], *command]
        status = subprocess.run(run, check=False).returncode
        if status != 0:
            return status
    if not others:
        say("no other supported Python on this machine")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
