"""The export source at size: how long, how much memory, and what the time goes into. A script, not a timed test.

    python -m tests.benchmarks.export [--machines 100000] [--records 200] [--files 8] [--width 1000] [--noise 0]
    python -m tests.benchmarks.export --machines 15000 --noise 120 --behind --night 150

The second one's files compress ten to one, and its machines install nothing: they lack some 25 updates each.

The whole is the real command, with the simulator in a process of its own that wrote its files before. The parts are
then done by themselves, one after the other, on the same files: so they add up to more than the whole, where fetching
and reading overlap. The floor is what nobody can do without: DuckDB inflating and parsing every record. On stdout:
tables in Markdown.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import zlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb

from tap_mde_kbs.export.calls import newest_export
from tap_mde_kbs.export.download import GZIP, Downloader
from tap_mde_kbs.export.records import THREADS, Records, names_in, spellings
from tap_mde_kbs.tap import TapMdeKbs
from tests.benchmarks.compare import MIB, SCRIPTS, UNLIMITED, tenant, wait

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.benchmarks.compare import Tenant


@dataclass
class Whole:
    """A run of the real command."""

    seconds: float
    cpu: float
    memory: int
    records: Counter[str] = field(default_factory=Counter)


def run(there: Tenant) -> Whole:
    """Run the tap to its end, its output read and counted.

    Raises:
        CalledProcessError: It failed; what it said is on stderr.
    """
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "config.json")
        config.write_text(json.dumps({**there.config, **UNLIMITED, "missing_kbs_source": "export"}))
        command = [str(SCRIPTS / "tap-mde-kbs"), "--config", str(config)]
        began = time.monotonic()
        process = subprocess.Popen(command, cwd=folder, env=there.environment, stdout=subprocess.PIPE, bufsize=MIB)
        assert process.stdout is not None
        records: Counter[str] = Counter()
        with process.stdout:
            for line in process.stdout:
                kind, stream = line[:80].split(b'"')[3:8:4]
                if kind == b"RECORD":
                    records[stream.decode()] += 1
        used = wait(process)
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, command)
    return Whole(time.monotonic() - began, used.cpu, used.memory, records)


def parts(there: Tenant) -> tuple[dict[str, float], int]:
    """Seconds of each part by itself, and how many records there are."""
    seconds: dict[str, float] = {}
    os.environ.update(there.environment)
    tap = TapMdeKbs(config={**there.config, **UNLIMITED, "missing_kbs_source": "export"})

    def clocked(part: str, work: Callable[[], object]) -> None:
        began = time.monotonic()
        work()
        seconds[part] = time.monotonic() - began

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        links = [*newest_export(tap.client).links.values()]
        paths = [folder / f"{number}.json.gz" for number in range(len(links))]
        downloader = Downloader(60, "benchmark")
        clocked("download, checked", lambda: [downloader.fetch(*pair) for pair in zip(links, paths, strict=True)])
        clocked("inflate, by zlib", lambda: [*map(inflate, paths)])
        clocked("floor: inflate and parse", lambda: [*map(parse, paths)])
        with Records() as records:
            clocked("inflate, parse, group, store", lambda: [*map(records.load, paths)])
            clocked("group the rest", lambda: ([*records.kb_cves()], sum(1 for _ in records.missing())))
            return seconds, records.count


def inflate(path: Path) -> bool:
    """Inflate a file, to nowhere; whether that ended well."""
    inflater = zlib.decompressobj(GZIP)
    with path.open("rb") as file:
        while piece := file.read(MIB):
            inflater.decompress(piece)
    return inflater.eof


def parse(path: Path) -> list[int]:
    """Count the values of every property that is read, by DuckDB."""
    [names] = spellings(names_in(path, MIB))
    types = ", ".join(f"'{name}': 'VARCHAR'" for name in names.values())
    counts = ", ".join(f'count("{name}")' for name in names.values())
    with duckdb.connect(config={"threads": THREADS}) as database:
        [found] = database.execute(
            f"SELECT {counts} FROM read_json(?, format = 'newline_delimited', columns = {{{types}}})",  # noqa: S608 - names out of a file of our own
            [str(path)],
        ).fetchall()
    return [*found]


def tables(whole: Whole, seconds: dict[str, float], count: int, machines: int) -> list[str]:
    """What was measured, in Markdown."""
    floor = seconds["floor: inflate and parse"]
    written = ", ".join(f"{number:,} {stream}" for stream, number in whole.records.items())
    read = seconds["inflate, parse, group, store"] + seconds["group the rest"]
    summary = (
        f"{machines:,} machines, {count:,} records: {whole.seconds:.0f} s, {whole.cpu:.0f} CPU s, "
        f"{whole.memory / MIB:.0f} MiB, {count / whole.seconds:,.0f} records a second, "
        f"{whole.seconds / floor:.1f} times the floor. Written: {written}."
    )
    lines = [
        summary,
        "",
        "| part | seconds by itself | of the whole |",
        "|---|---:|---:|",
        *(f"| {part} | {took:.1f} | {took / whole.seconds:.0%} |" for part, took in seconds.items()),
        f"| list, write, start (the rest) | {whole.seconds - read:.1f} | {1 - read / whole.seconds:.0%} |",
    ]
    return [*lines, "", f"Python {platform.python_version()}, DuckDB {duckdb.__version__}, {os.cpu_count()} cores."]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("machines", 100_000), ("records", 200), ("files", 8), ("width", 1000)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--noise", type=int, default=0)
    parser.add_argument("--night", type=int, default=0)
    parser.add_argument("--behind", action="store_true")
    given = parser.parse_args(arguments)
    options = [f"--export-{name}={getattr(given, name)}" for name in ("records", "files", "width", "noise")]
    options += ["--export-now", f"--night={given.night}", f"--behind={int(given.behind)}"]
    with tenant(given.machines, *options) as there:
        whole = run(there)
        seconds, count = parts(there)
    sys.stdout.write("\n".join(tables(whole, seconds, count, given.machines)) + "\n")


if __name__ == "__main__":
    main()
