"""The checkout, and environments beside the project's for programs that cannot share it: made by uv, and kept."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).parents[2]


def uv() -> str:
    """The uv that runs this, that of PATH, or the one that `make` puts into the checkout."""
    return os.environ.get("UV") or shutil.which("uv") or str(ROOT / ".uv" / "bin" / "uv")


def git(*words: str) -> str:
    """What git prints in the checkout; nothing where there is no git, or no repository."""
    program = shutil.which("git")
    if not program:
        return ""
    return subprocess.run([program, *words], cwd=ROOT, capture_output=True, text=True, check=False).stdout


def loader(name: str) -> dict[str, Any]:
    """A loader as `meltano.yml` defines it."""
    project = yaml.safe_load((ROOT / "meltano.yml").read_text())
    [found] = [each for each in project["plugins"]["loaders"] if each["name"] == name]
    return dict(found)


def settings_of(name: str, **others: Any) -> dict[str, Any]:
    """The settings that `meltano.yml` has values of for a loader, nested at their dots as Meltano passes them.

    Args:
        name: of the loader.
        others: settings over those, with two underscores for a dot.
    """
    values = {each["name"]: each["value"] for each in loader(name)["settings"] if "value" in each}
    settings: dict[str, Any] = {}
    for path, value in {**values, **{other.replace("__", "."): value for other, value in others.items()}}.items():
        *folders, last = path.split(".")
        place = settings
        for folder in folders:
            place = place.setdefault(folder, {})
        place[last] = value
    return settings


def environment(folder: Path, requirements: Sequence[str], python: str) -> Path:
    """The programs of an environment with these requirements.

    Args:
        folder: where environments are kept; one that is there is taken as it is.
        requirements: as pip takes them.
        python: the versions of Python that will do, as uv takes them.

    Raises:
        subprocess.CalledProcessError: it cannot be made; uv has said why.
    """
    key = hashlib.sha256("\n".join([python, *requirements]).encode()).hexdigest()[:16]
    place = folder / key
    done = place / "done"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{key}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the other workers of pytest want it too
        if not done.exists():
            environ = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
            for command in (
                ["venv", "--quiet", "--clear", "--no-project", "--python", python, str(place)],
                ["pip", "install", "--quiet", "--python", str(place / "bin" / "python"), *requirements],
            ):
                subprocess.run([uv(), *command], env=environ, cwd=folder, check=True)
            done.touch()
    return place / "bin"
