"""What strangers rely on: the settings and columns of the last release, in `released.json`.

`python -m tests.support.released` writes it, when a release is made; a test looks whether all of it is still there.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support import readme

if TYPE_CHECKING:
    from collections.abc import Mapping

RELEASED = Path(__file__).with_name("released.json")


def settings() -> list[str]:
    """The names of all settings."""
    return sorted(readme.about()["settings"]["properties"])


def streams() -> dict[str, dict[str, str]]:
    """The type of every column by stream; of a key it says so."""
    return {
        name: {
            column: readme.kind(prop) + (", key" if column in stream["key_properties"] else "")
            for column, prop in stream["schema"]["properties"].items()
        }
        for name, stream in readme.catalog().items()
    }


def gone(old: Mapping[str, str], new: Mapping[str, str]) -> dict[str, str]:
    """What is not there any more, or is another thing."""
    return {name: said for name, said in old.items() if new.get(name) != said}


if __name__ == "__main__":
    RELEASED.write_text(json.dumps({"settings": settings(), "streams": streams()}, indent=1) + "\n")
