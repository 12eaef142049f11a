"""From the API to PostgreSQL: two nights by export through target-postgres, in several ways. A script, no timed test.

    python -m tests.benchmarks.warehouse [--machines 10000] [--nights 2] [--ways NAME ...] [--streams]
    python -m tests.benchmarks.warehouse --machines 100000 --ways default all

The real tap | the real target, into a PostgreSQL that is thrown away; the simulator is a process of its own that wrote
its export's files before. Each way has a schema of its own, and a STATE of its own that is kept from night to night.

No machine installs anything until the first night: with Linux, macOS and phones they lack some 25 updates each. Until
the second a Patch Tuesday has come, and one device in twenty has caught up: about a tenth of the pairs are other ones.
How many is counted in the warehouse. Every way has to end with the same pairs, as many as the sweep says.

With `--grown` the table is filled up before the second night to as many rows as a larger fleet has: what the target's
batches cost there, without the hour that such a fleet takes. With `--streams` the target is given one stream at a time,
out of a file: so many rows a second of its CPU. On stdout: tables in Markdown. It reads /proc, so it needs Linux.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import yaml

from demo.postgres import postgres
from tests.benchmarks.compare import MIB, SCRIPTS, UNLIMITED, tenant, wait
from tests.support import readme

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from demo.postgres import Postgres
    from tests.benchmarks.compare import Tenant, Used

NIGHTS = (("--night=280", "--behind=1"), ("--night=281", "--behind=0.95"))
"""Options of the simulator; day 281 is a Patch Tuesday."""
ALL: dict[str, Any] = yaml.safe_load(readme.block("target-postgres at size"))
LARGE = ALL | {"batch_size_rows": 100_000}
WAYS: dict[str, Mapping[str, Any]] = {
    "default": {},
    **{f"{name}: {str(value).lower()}": {name: value} for name, value in ALL.items()},
    "all": ALL,
    "large": LARGE,
    "large, hard_delete: true": LARGE | {"hard_delete": True},
    "large, add_record_metadata: false": LARGE | {"add_record_metadata": False, "activate_version": False},
    "large, BATCH": LARGE,
}
"""Settings of target-postgres: `all` that docs/targets.md recommends, `large` with batches of 100,000 rows, too.

With BATCH the tap writes files, which are as large as the SDK makes them.
"""
STREAMS = ("machines", "missing_kbs", "missing_kbs_checks", "kb_cves")
GROW = """
    INSERT INTO missing_kbs
    SELECT grown.*
    FROM generate_series(1, {times}) AS numbers (number)
    CROSS JOIN missing_kbs
    CROSS JOIN LATERAL jsonb_populate_record(
        missing_kbs,
        jsonb_build_object('machine_id', machine_id || '-' || number, '_sdc_table_version', 1::bigint << 60)
    ) AS grown
"""
"""Rows of machines that are not listed, and of a version that no other one makes old: they are just there."""
TICKS = os.sysconf("SC_CLK_TCK")
COLUMNS = (
    "night", "target's settings", "seconds", "export read after", "CPU s: tap", "target", "PostgreSQL",
    "rows", "rows a second", "target MiB", "MB in PostgreSQL", "others' cores",
)  # fmt: skip
CHANGED = """
    WITH pairs AS (
        SELECT sweep = (SELECT max(sweep) FROM sweeps) AS is_new, machine_id, unnest(missing_kb_ids) AS id
        FROM missing_kbs_checks
    ),
    both_nights AS (SELECT bool_or(is_new) AS is_new, bool_or(NOT is_new) AS is_old FROM pairs GROUP BY machine_id, id)
    SELECT
        count(*) FILTER (WHERE is_old), count(*) FILTER (WHERE NOT is_old), count(*) FILTER (WHERE NOT is_new)
    FROM both_nights
"""
"""How many pairs the first night had, how many are new in the second, and how many are gone."""


@dataclass
class Cost:
    """What a night took, one way.

    Attributes:
        seconds: From the start to the target's end.
        tap: CPU seconds of the tap.
        target: Of the target.
        server: Of PostgreSQL.
        others: Cores that had other work meanwhile.
        memory: The target's, at most.
        reading: Seconds until the export was read.
        rows: RECORDs of each stream.
        size: Bytes of the schema's tables, indexes included.
    """

    seconds: float = 0.0
    tap: float = 0.0
    target: float = 0.0
    server: float = 0.0
    others: float = 0.0
    memory: int = 0
    reading: float = 0.0
    rows: Counter[str] = field(default_factory=Counter)
    size: int = 0

    @property
    def rate(self) -> float:
        """Rows a second, from when the export was read."""
        return self.rows.total() / max(0.1, self.seconds - self.reading)


@dataclass
class Way:
    """A pipeline into a schema of its own, whose STATE is kept."""

    name: str
    folder: Path
    database: Postgres

    def __post_init__(self) -> None:
        self.folder.mkdir()
        self.schema = re.sub(r"\W+", "_", self.name.lower())
        self.state = self.folder / "state.json"
        self.state.write_text("{}")

    @property
    def in_batches(self) -> bool:
        """Whether the tap writes files."""
        return self.name.endswith("BATCH")

    def write(self, name: str, document: Mapping[str, Any]) -> str:
        """Write a file of settings."""
        path = self.folder / name
        path.write_text(json.dumps(document))
        return str(path)

    def tap(self, there: Tenant) -> list[str]:
        """The tap's command."""
        config = {**there.config, **UNLIMITED, "missing_kbs_source": "export"}
        if self.in_batches:
            files = self.folder / "batches"
            files.mkdir(exist_ok=True)
            encoding = {"format": "jsonl", "compression": "gzip"}
            config["batch_config"] = {"encoding": encoding, "storage": {"root": files.as_uri()}}
        path = self.write("tap.json", config)
        return [str(SCRIPTS / "tap-mde-kbs"), "--config", path, "--state", str(self.state)]

    def target(self, schema: str = "") -> list[str]:
        """The target's command."""
        place = {"host": self.database.host, "port": self.database.port, "database": self.database.database}
        who = {"user": self.database.user, "password": "", "default_target_schema": schema or self.schema}
        path = self.write("target.json", {**place, **who, **WAYS[self.name]})
        return [str(SCRIPTS / "target-postgres"), "--config", path]

    def night(self, there: Tenant) -> Cost:
        """Load once, from the STATE that the target passed on last."""
        log = self.folder / "tap.log"
        with clocked(self.database) as cost, log.open("wb") as said:
            tap = subprocess.Popen(
                self.tap(there), cwd=self.folder, env=there.environment, stdout=subprocess.PIPE, stderr=said
            )
            assert tap.stdout is not None
            with tap.stdout:
                target = self.start(tap.stdout)
            target_used, tap_used = ended(target, self.folder / "target.log"), ended(tap, log)
        cost.target, cost.tap, cost.memory = target_used.cpu, tap_used.cpu, target_used.memory
        cost.others = max(0.0, cost.others - (cost.target + cost.tap + cost.server) / cost.seconds)
        cost.reading = reading(log)
        cost.rows = counted(self.folder / "target.log")
        (states,) = (self.folder / "states.jsonl").read_text().splitlines()[-1:]
        self.state.write_text(states)
        [(cost.size,)] = self.query(
            "SELECT sum(pg_total_relation_size(oid))::bigint FROM pg_class "
            "WHERE relkind = 'r' AND relnamespace = current_schema()::regnamespace"
        )
        return cost

    def start(self, source: Any, schema: str = "") -> subprocess.Popen[bytes]:
        """The target, which reads from a file or a pipe."""
        with (self.folder / "states.jsonl").open("wb") as states, (self.folder / "target.log").open("wb") as said:
            return subprocess.Popen(self.target(schema), cwd=self.folder, stdin=source, stdout=states, stderr=said)

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Rows of the schema."""
        with psycopg.connect(self.database.url, options=f"-c search_path={self.schema}") as connection:
            return connection.execute(sql.encode()).fetchall()

    def grow(self, rows: int) -> None:
        """Fill up `missing_kbs` to so many rows, or some more."""
        [(there,)] = self.query("SELECT count(*) FROM missing_kbs")
        with psycopg.connect(self.database.url, options=f"-c search_path={self.schema}") as connection:
            connection.execute(GROW.format(times=max(0, rows - 1) // there).encode())
            connection.execute("ANALYZE missing_kbs")

    def pairs(self) -> tuple[int, str]:
        """How many pairs are missing now, as a reader asks, and a sum of them.

        Raises:
            ValueError: They are not as many as the sweep says.
        """
        now = readme.sql("missing now").strip().rstrip(";")
        [(count, digest)] = self.query(
            f"SELECT count(*), sum(hashtextextended(machine_id || ' ' || id, 0)) FROM ({now}) AS now"  # noqa: S608 - ours
        )
        [(said,)] = self.query("SELECT missing_pairs FROM sweeps ORDER BY sweep DESC, ended_at DESC NULLS LAST LIMIT 1")
        if count != said:
            msg = f"{self.name}: {count} pairs in the warehouse, {said} in the sweep."
            raise ValueError(msg)
        return count, str(digest)

    def alone(self, stream: str, source: Path) -> Cost:
        """Load one stream, out of a file, into a schema that is removed again."""
        with clocked(self.database) as cost, source.open("rb") as lines:
            used = ended(self.start(lines, "alone"), self.folder / "target.log")
        with psycopg.connect(self.database.url) as connection:
            connection.execute("DROP SCHEMA alone CASCADE")
        cost.target = used.cpu
        cost.rows = Counter({stream: counted(self.folder / "target.log")[stream]})
        return cost


@contextlib.contextmanager
def clocked(database: Postgres) -> Iterator[Cost]:
    """What passes in a block: seconds, CPU of the server, and cores that were busy, whoever with."""
    cost = Cost()
    began, server, all_ = time.monotonic(), server_cpu(database), busy()
    yield cost
    cost.seconds = time.monotonic() - began
    cost.server = server_cpu(database) - server
    cost.others = (busy() - all_) / cost.seconds


def ended(process: subprocess.Popen[bytes], log: Path) -> Used:
    """Wait for a process; what it used.

    Raises:
        CalledProcessError: It failed; what it said is on stderr.
    """
    used = wait(process)
    if process.returncode:
        sys.stderr.write(log.read_text()[-3000:])
        raise subprocess.CalledProcessError(process.returncode, process.args)
    return used


def server_cpu(database: Postgres) -> float:
    """CPU seconds of PostgreSQL and of those of its processes that have ended."""
    with psycopg.connect(database.url, autocommit=True) as connection:
        pid = connection.info.backend_pid
        others = "SELECT FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        while connection.execute(others).fetchall():
            time.sleep(0.1)
        time.sleep(0.3)  # from their leave to their end
        parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]
    times = Path(f"/proc/{parent}/stat").read_text().rpartition(")")[2].split()[11:15]
    return sum(map(int, times)) / TICKS


def busy() -> float:
    """CPU seconds that the cores have worked, for anybody."""
    user, nice, system, _, _, *more = map(int, Path("/proc/stat").read_text().split("\n")[0].split()[1:9])
    return (user + nice + system + sum(more)) / TICKS


def reading(log: Path) -> float:
    """Seconds from the tap's first line to that which says that the export was read."""
    lines = log.read_text().splitlines()
    first, read = (re.search(r"(\d+):(\d+):(\d+),(\d+)", line) for line in (
        lines[0], next(line for line in lines if "records read in" in line)
    ))  # fmt: skip
    assert first
    assert read
    moments = [
        3600 * int(hour) + 60 * int(minute) + int(second) + int(thousandth) / 1000
        for hour, minute, second, thousandth in (first.groups(), read.groups())
    ]
    return (moments[1] - moments[0]) % 86_400


def counted(log: Path) -> Counter[str]:
    """RECORDs of each stream, by the target's own metrics."""
    metrics = (json.loads(found) for found in re.findall(r"METRIC: (\{.*\})", log.read_text()))
    rows: Counter[str] = Counter()
    for metric in metrics:
        if metric["metric"] == "record_count":
            rows[metric["tags"]["stream"]] += metric["value"]
    return rows


def by_stream(there: Tenant, way: Way, others: Sequence[Way]) -> Iterator[str]:
    """How fast the target takes each stream by itself, in several ways."""
    others = [other for other in others if not other.in_batches]
    yield f"| rows a CPU second | rows | {' | '.join(other.name for other in others)} |"
    yield f"|---|---:|{'---:|' * len(others)}"
    whole = way.folder / "tap.jsonl"
    with whole.open("wb") as lines, (way.folder / "tap.log").open("wb") as said:
        tap = subprocess.Popen(way.tap(there), cwd=way.folder, env=there.environment, stdout=lines, stderr=said)
        ended(tap, way.folder / "tap.log")
    for stream in STREAMS:
        part, mark = way.folder / f"{stream}.jsonl", f'"stream":"{stream}"'.encode()
        with whole.open("rb") as lines, part.open("wb") as kept:
            kept.writelines(line for line in lines if mark in line[:80])
        costs = [other.alone(stream, part) for other in others]
        rates = [f"{cost.rows.total() / cost.target:,.0f}" for cost in costs]
        yield f"| `{stream}` | {costs[0].rows.total():,} | {' | '.join(rates)} |"


def run(
    machines: int, nights: int, ways: Sequence[str], *options: str, streams: bool = False, grown: int = 0
) -> Iterator[str]:
    """Load some nights in some ways, and tell what it cost, line by line.

    Raises:
        ValueError: The ways do not end with the same pairs.
    """
    with tempfile.TemporaryDirectory() as name, postgres() as database:
        pipelines = [Way(way, Path(name, str(number)), database) for number, way in enumerate(ways)]
        yield f"| {' | '.join(COLUMNS)} |"
        yield f"|---:|---|{'---:|' * (len(COLUMNS) - 2)}"
        for night, of_night in enumerate(NIGHTS[:nights], 1):
            with tenant(machines, "--silent=0", "--excluded=0", "--export-now", *of_night, *options) as there:
                for way in pipelines:
                    cost = way.night(there)
                    yield (
                        f"| {night} | {way.name} | {cost.seconds:.0f} | {cost.reading:.0f} | {cost.tap:.0f} | "
                        f"{cost.target:.0f} | {cost.server:.0f} | {cost.rows.total():,} | {cost.rate:,.0f} | "
                        f"{cost.memory / MIB:.0f} | {cost.size / 1e6:,.0f} | {cost.others:.1f} |"
                    )
                if len({way.pairs() for way in pipelines}) != 1:
                    msg = "The ways do not end with the same pairs."
                    raise ValueError(msg)
                if streams and night == 1:
                    parts = [*by_stream(there, Way("default", Path(name, "streams"), database), pipelines)]
                for way in pipelines if grown and night == 1 else ():
                    way.grow(grown)
        yield ""
        yield f"Pairs missing now: {pipelines[0].pairs()[0]:,}, in every way."
        if nights > 1:
            [(before, new, gone)] = pipelines[0].query(CHANGED)
            changed = (new + gone) / before
            yield f"Of {before:,} pairs {gone:,} are gone, and {new:,} are new: {changed:.1%} changed."
        yield from ["", *parts] if streams else []
        [(version,)] = pipelines[0].query("SHOW server_version")
    yield ""
    yield f"Python {platform.python_version()}, PostgreSQL {version}, {os.cpu_count()} cores."


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--machines", type=int, default=10_000)
    parser.add_argument("--nights", type=int, default=len(NIGHTS), choices=(1, len(NIGHTS)))
    parser.add_argument("--ways", nargs="+", default=[*WAYS], choices=WAYS, metavar="NAME", help=", ".join(WAYS))
    parser.add_argument("--streams", action="store_true", help="also how fast the target takes each stream by itself")
    parser.add_argument("--grown", type=int, default=0, metavar="ROWS", help="in `missing_kbs` before the second night")
    parser.add_argument("--width", type=int, default=0, help="of an export's record; 0: 600 bytes, with what is read")
    parser.add_argument("--noise", type=int, default=0, help="120: the files compress ten to one")
    given = parser.parse_args(arguments)
    shape = ["--export-files=8", f"--export-width={given.width}", f"--export-noise={given.noise}"]
    for line in run(given.machines, given.nights, given.ways, *shape, streams=given.streams, grown=given.grown):
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
