#!/usr/bin/env python3
"""Print a release's notes: its section of CHANGELOG.md. `.ci/notes.py v0.1.0 > notes.md`.

Lines that CHANGELOG.md wraps are joined, since a code host shows every line end of a release's notes. Ends with 1 where
there is no such section, or no day in its heading.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

CHANGELOG = Path(__file__).parents[1] / "CHANGELOG.md"

OWN_LINE = re.compile(r"[-*#|>]|\d+\. ")
"""What begins a line that is not the end of the one before."""


def section(text: str, version: str) -> str:
    """What the changelog says of a version, without its heading.

    Raises:
        LookupError: Nothing, or it is not dated.
    """
    found = re.search(rf"^## \[{re.escape(version)}\](.*)\n([\s\S]*?)(?=^## |\Z)", text, re.MULTILINE)
    if not found or not found[2].strip():
        msg = f"CHANGELOG.md says nothing of {version}."
        raise LookupError(msg)
    if not re.fullmatch(r" - \d{4}-\d\d-\d\d", found[1]):
        msg = f"The heading of {version} in CHANGELOG.md has no day: `## [{version}] - 2026-12-31`."
        raise LookupError(msg)
    return found[2].strip()


def unwrapped(text: str) -> str:
    """Paragraphs and list items, a line each."""
    lines: list[str] = []
    for line in text.splitlines():
        if lines and lines[-1] and line.strip() and not OWN_LINE.match(line.lstrip()):
            lines[-1] += f" {line.strip()}"
        else:
            lines.append(line.rstrip())
    return "\n".join(lines) + "\n"


def main() -> int:
    """Print the notes of the version, or of the tag, that is named."""
    try:
        notes = section(CHANGELOG.read_text(encoding="utf-8"), sys.argv[1].removeprefix("v"))
    except LookupError as error:
        sys.stderr.write(f"{error.args[0]}\n")
        return 1
    sys.stdout.write(unwrapped(notes))
    return 0


if __name__ == "__main__":
    sys.exit(main())
