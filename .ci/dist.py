#!/usr/bin/env python3
"""Look at an sdist and a wheel before strangers install them: what is in them, and what they say of themselves.

`.ci/dist.py [--version 0.1.0] dist/*` names all that is wrong, and ends with 1. Needs nothing but Python.
"""

from __future__ import annotations

import argparse
import email
import re
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from email.message import Message

NAME = "tap-mde-kbs"
PACKAGES = {"tap_mde_kbs", "mde_simulator"}
BESIDES = {"PKG-INFO", "pyproject.toml", "README.md", "CHANGELOG.md", "SECURITY.md", "LICENSE", ".gitignore"}
"""What an sdist has beside the packages; the last is what hatchling always puts in."""

COMMANDS = {"tap-mde-kbs = tap_mde_kbs.cli:main", "mde-simulator = mde_simulator.cli:main"}

STRANGE = re.compile(
    r"(^|/)(tests?|\.env|\.git|__pycache__)(/|$)|(^|/)(test_[^/]*|conftest\.py)$|\.(pem|pfx|key|py[co])$"
)
"""Names of files that nobody should get: tests, settings, keys."""

PRIVATE = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----\s+[A-Za-z0-9+/=]{40}|(?<![\w.])/(?:home|Users|root)/\w")
"""Contents that nobody should get: a key, and where somebody's home folder is."""

Files = dict[str, bytes]


def files_of(archive: Path) -> Files:
    """What is in an archive, by path."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            return {name: wheel.read(name) for name in wheel.namelist() if not name.endswith("/")}
    with tarfile.open(archive) as sdist:
        found = {each.name: sdist.extractfile(each) for each in sdist.getmembers() if not each.isdir()}
        return {name: file.read() if file else b"" for name, file in found.items()}


def wrong_contents(files: Mapping[str, bytes]) -> Iterator[str]:
    """Files that should not be there, and those that are lacking."""
    for name, content in sorted(files.items()):
        if STRANGE.search(name):
            yield f"{name} should not be in it"
        if PRIVATE.search(content):
            yield f"{name} holds a private key, or the path of a home folder"
    for package in sorted(PACKAGES):
        if f"{package}/py.typed" not in files:
            yield f"{package}/py.typed is lacking"


def wrong_metadata(said: Message, version: str, readme: str | None) -> Iterator[str]:
    """What the metadata should say, and does not.

    Args:
        said: The metadata.
        version: The one in the archive's name.
        readme: The text that the index is to show; None where it is not known.
    """
    expected = {
        "Name": NAME,
        "Version": version,
        "License-Expression": "Apache-2.0",
        "License-File": "LICENSE",
        "Description-Content-Type": "text/markdown",
    }
    for field, value in expected.items():
        if said.get(field) != value:
            yield f"{field} is {said.get(field)!r}, and should be {value!r}"
    yield from (
        f"{field} is lacking" for field in ("Summary", "Requires-Python", "Requires-Dist") if not said.get(field)
    )
    text = str(said.get_payload())
    if not text.startswith(f"# {NAME}\n") or (readme is not None and text.strip() != readme.strip()):
        yield "its description is not the README"


def wrong_wheel(files: Mapping[str, bytes], version: str) -> Iterator[str]:
    """All that is wrong in a wheel."""
    info = f"tap_mde_kbs-{version}.dist-info"
    yield from wrong_contents(files)
    yield from (
        f"{top} should not be in it" for top in sorted({name.split("/")[0] for name in files} - PACKAGES - {info})
    )
    yield from wrong_metadata(email.message_from_bytes(files.get(f"{info}/METADATA", b"")), version, None)
    commands = set(files.get(f"{info}/entry_points.txt", b"").decode().splitlines())
    yield from (f"the command `{command}` is lacking" for command in sorted(COMMANDS - commands))
    if f"{info}/licenses/LICENSE" not in files:
        yield "the licence is lacking"


def wrong_sdist(files: Mapping[str, bytes], version: str) -> Iterator[str]:
    """All that is wrong in an sdist."""
    top = f"tap_mde_kbs-{version}/"
    inside = {name.removeprefix(top): content for name, content in files.items() if name.startswith(top)}
    yield from (f"{name} should not be in it" for name in sorted(files) if not name.startswith(top))
    yield from wrong_contents(inside)
    tops, known = {name.split("/")[0] for name in inside}, PACKAGES | BESIDES
    yield from (f"{name} should not be in it" for name in sorted(tops - known))
    yield from (f"{name} is lacking" for name in sorted(known - tops))
    said = email.message_from_bytes(inside.get("PKG-INFO", b""))
    yield from wrong_metadata(said, version, inside.get("README.md", b"").decode())


def main() -> int:
    """Check every archive that is named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--version", help="the version that they must have")
    parser.add_argument("archives", nargs="+", type=Path)
    options = parser.parse_args()
    wrong = []
    versions = set()
    for archive in options.archives:
        found = re.fullmatch(r"tap_mde_kbs-([^-]+)(-py3-none-any\.whl|\.tar\.gz)", archive.name)
        if not found:
            wrong.append(f"{archive.name}: no sdist or wheel of {NAME}")
            continue
        version, kind = found.groups()
        versions.add(version)
        check = wrong_wheel if kind.endswith(".whl") else wrong_sdist
        wrong += [f"{archive.name}: {each}" for each in check(files_of(archive), version)]
    if len(versions) > 1 or (options.version and versions != {options.version}):
        wrong.append(f"the version is {' and '.join(sorted(versions))}, and should be {options.version or 'one'}")
    sys.stdout.write("".join(f"{each}\n" for each in wrong) or f"{len(options.archives)} archives, all is well\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
