"""How many records of an export's files the simulator writes in a second: a script, not a test.

python tests/simulator/measure_exports.py [machines] [records of each] [width] [files]
"""

from __future__ import annotations

import gzip
import sys
import tempfile
import time
from pathlib import Path

from mde_simulator import Exports, ExportShape, Fleet


def main(machines: int = 5_000, records: int = 200, width: int = 1_000, files: int = 8) -> None:
    """Write, count, print."""
    fleet = Fleet(machines, seed=1)
    with tempfile.TemporaryDirectory() as folder:
        exports = Exports(fleet, ExportShape(records, files, width))
        exports.start(Path(folder))
        begun = time.monotonic()
        exports.latest.picture.take()
        looked = time.monotonic()
        exports.build()
        written = time.monotonic()
        count = size = packed = 0
        for path in Path(folder).iterdir():
            packed += path.stat().st_size
            with gzip.open(path) as file:
                for line in file:
                    count, size = count + 1, size + len(line)
    sys.stdout.write(
        f"{count:,} records of {size / count:.0f} bytes, {packed / 1e6:.0f} MB of gzip: "
        f"{count / (written - looked):,.0f} records a second, after {looked - begun:.1f} s of looking at the fleet\n"
    )


if __name__ == "__main__":
    main(*(int(text) for text in sys.argv[1:]))
