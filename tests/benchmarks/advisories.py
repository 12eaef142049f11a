"""What reading MSRC's documents costs: one of the largest that there are, in a process of its own.

    python -m tests.benchmarks.advisories

Prints the document's size, the seconds of CPU that parsing takes, by the tap and by `json` alone, and how much memory
the process grew by meanwhile.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tap_mde_kbs.advisories import msrc
from tests.support.feeds import document, fix, vulnerability

CVES = 1_500
NOTE = "<p>" + 150 * "What might be said of a vulnerability, and is not read. " + "</p>"
ID = "2026-Jun"


def largest() -> bytes:
    """A document of some 15 MB, as MSRC's largest are: most of it is prose."""
    entries = [
        vulnerability(
            f"CVE-2026-{number}",
            *(fix(str(5_060_000 + (number + each) % 40), ProductID=[str(11_000 + each)]) for each in range(5)),
            Notes=[{"Title": "Description", "Type": 2, "Ordinal": "0", "Value": NOTE}],
        )
        for number in range(CVES)
    ]
    return json.dumps(document(ID, *entries)).encode()


def most_memory() -> int:
    """KiB that this process has had at most; Linux alone says so (getrusage counts the parent's as well)."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1])


def measure(way: str, path: str) -> None:
    """Parse a file in one way, and print what it cost."""
    content = Path(path).read_bytes()
    before, began = most_memory(), time.process_time()
    parsed = msrc.document_in(content, ID) if way == "tap" else json.loads(content)
    seconds, grown = time.process_time() - began, most_memory() - before
    assert parsed
    print(f"{way:5} {len(content) / 1e6:5.1f} MB {seconds:6.2f} s {grown / 1024:6.0f} MiB")  # noqa: T201 - the result


if __name__ == "__main__":
    if len(sys.argv) > 1:
        measure(*sys.argv[1:])
    else:
        with tempfile.NamedTemporaryFile() as file:
            file.write(largest())
            file.flush()
            for each in ("tap", "json"):
                subprocess.run([sys.executable, "-m", "tests.benchmarks.advisories", each, file.name], check=True)
