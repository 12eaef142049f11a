"""Broken strings in a file of JSON, mended so that a strict parser takes it: one of them is not a broken file.

What is mended is text alone: half a surrogate pair, bytes that are no UTF-8, control characters, a backslash that
escapes nothing, a byte order mark before an object. What is cut or no JSON at all is as broken as before. Must not
know DuckDB, or what is in a record.

All of it is seen in exports, the backslashes excepted. It is slow, so only what a parser refused is mended.
"""

from __future__ import annotations

import gzip
import re
from typing import TYPE_CHECKING, BinaryIO, cast

if TYPE_CHECKING:
    from pathlib import Path

PIECE_BYTES = 2**20
LARGEST_OBJECT_BYTES = 2**24
"""DuckDB reads none that is larger."""

MENDED = "%s has text that is none (half a character, say) in %d places: mended."
"""The warning."""

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_REPLACEMENT_BYTES = REPLACEMENT.encode()

_TOKENS = re.compile(
    r"""
      (?P<whole> \\u[dD][89abAB][0-9a-fA-F]{2} \\u[dD][c-fC-F][0-9a-fA-F]{2}
               | \\u(?![dD][89a-fA-F])[0-9a-fA-F]{4}
               | \\["\\/bfnrt] )
    | (?P<half> \\u[dD][89a-fA-F][0-9a-fA-F]{2} )
    | (?P<stray> \\ )
    | (?P<tab> \t )
    | (?P<control> [\x00-\x08\x0b\x0c\x0e-\x1f] )
    | (?P<mark> \ufeff(?=\s*[{\[]) )
    """,
    re.VERBOSE,
)
_MENDED = {"half": REPLACEMENT, "stray": r"\\", "tab": " ", "control": REPLACEMENT, "mark": ""}
"""What each becomes. A tab may stand between strings, where a blank is as good, but not in one."""


def opened(path: Path) -> BinaryIO:
    """A file's content to be read, inflated if its name says that it is gzip."""
    return cast("BinaryIO", gzip.open(path, "rb")) if path.suffix == ".gz" else path.open("rb")


def mend(source: Path, target: Path) -> int:
    """Write a file's content to another, gzipped, with its strings mended; returns how many places were."""
    count, block = 0, b""
    with opened(source) as file, gzip.open(target, "wb", compresslevel=1) as mended:
        while piece := file.read(PIECE_BYTES):
            block += piece
            # No escape and no character has a brace inside.
            end = block.rfind(b"}") + 1 or len(block) * (len(block) > LARGEST_OBJECT_BYTES)
            text, mends = _mended(block[:end])
            mended.write(text)
            count, block = count + mends, block[end:]
        text, mends = _mended(block)
        mended.write(text)
    return count + mends


def _mended(block: bytes) -> tuple[bytes, int]:
    """A part of a file, mended, and in how many places."""
    count = 0

    def replaced(found: re.Match[str]) -> str:
        nonlocal count
        kind = found.lastgroup or ""
        if kind == "whole":
            return found[0]
        count += 1
        return _MENDED[kind]

    text = block.decode(errors="replace")
    count += text.count(REPLACEMENT) - block.count(_REPLACEMENT_BYTES)
    return _TOKENS.sub(replaced, text).encode(), count
