"""This tap beside an ordinary one and the floor: CPU, output and memory. A script, not a timed test.

    python -m tests.benchmarks.compare [--machines 250 1000 5000] [--runs 5]

Each contestant is a process of its own, and so is the simulator (without a quota: it is the work that is
measured, not the waiting). They take turns, and the median of a contestant's runs counts. What starting up
costs, all connections included, is a run with ten machines; what a machine costs is the rest, divided by the
machines. On stdout: tables in Markdown.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import platform
import shlex
import subprocess
import sys
import sysconfig
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

HERE = Path(__file__).parent
SCRIPTS = Path(sysconfig.get_path("scripts"))
CONTESTANTS = {
    "this tap": [str(SCRIPTS / "tap-mde-kbs"), "--config"],
    "ordinary tap": [sys.executable, str(HERE / "ordinary_tap.py"), "--config"],
    "floor": [sys.executable, str(HERE / "floor.py")],
}
UNLIMITED = {"requests_per_minute": 1_000_000, "requests_per_hour": 1_000_000}
PREFIX = "TAP_MDE_KBS_"
MIB = 2**20
FEW = 10
"""Machines of a run that shows what starting up costs: enough for every connection that the tap keeps open."""


@dataclass
class Run:
    """What one run of a contestant cost and wrote."""

    seconds: float
    memory: int
    output: Counter[str] = field(default_factory=Counter)
    pairs: set[int] = field(default_factory=set)

    @property
    def written(self) -> int:
        """Bytes of output."""
        return self.output.total()


@dataclass
class Tenant:
    """A simulated tenant: the settings to reach it, and the variables that every contestant has."""

    config: dict[str, Any]
    environment: dict[str, str]


@contextlib.contextmanager
def tenant(machines: int, *options: str) -> Iterator[Tenant]:
    """A simulator, all of its machines onboarded: so every contestant asks for each of them."""
    command = [str(SCRIPTS / "mde-simulator"), "--no-quota", "--discovered", "0", "--machines", str(machines), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            environment = {}
            for line in process.stdout or ():
                if line.startswith("# ready"):
                    break
                name, _, value = shlex.split(line)[1].partition("=")
                environment[name] = value
            config = {
                name.removeprefix(PREFIX).lower(): value
                for name, value in environment.items()
                if name.startswith(PREFIX)
            }
            trust = {"REQUESTS_CA_BUNDLE": environment["REQUESTS_CA_BUNDLE"]}
            yield Tenant(config, {"PATH": os.environ.get("PATH", os.defpath), **trust})
        finally:
            process.terminate()


def run(contestant: str, tenant: Tenant) -> Run:
    """Run a contestant to its end.

    Raises:
        CalledProcessError: it failed; what it said is on stderr.
    """
    config = tenant.config | (UNLIMITED if contestant == "this tap" else {})
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as said:
        path = Path(folder, "config.json")
        path.write_text(json.dumps(config))
        command = [*CONTESTANTS[contestant], str(path)]
        process = subprocess.Popen(
            command, cwd=folder, env=tenant.environment, stdout=subprocess.PIPE, stderr=said, bufsize=MIB
        )
        output, pairs = _read(process)
        used = wait(process)
        if process.returncode:
            said.seek(0)
            sys.stderr.write(said.read().decode())
            raise subprocess.CalledProcessError(process.returncode, command)
    return Run(used.cpu, used.memory, output, pairs)


class Used(NamedTuple):
    """What a process took: CPU seconds, and bytes of memory at most."""

    cpu: float
    memory: int


def wait(process: subprocess.Popen[bytes]) -> Used:
    """Wait for a process to end; what it took. Its `returncode` is then there."""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    unit = 1 if sys.platform == "darwin" else 1024
    return Used(usage.ru_utime + usage.ru_stime, usage.ru_maxrss * unit)


def _read(process: subprocess.Popen[bytes]) -> tuple[Counter[str], set[int]]:
    """Bytes by kind of message, and a number for each pair of machine and KB.

    Few things are kept: a child's peak memory begins with that of the process that started it.
    """
    output: Counter[str] = Counter()
    pairs: set[int] = set()
    assert process.stdout is not None
    with process.stdout:
        for line in process.stdout:
            kind = line.split(b'"', 4)[3].decode()
            output[kind] += len(line)
            if kind == "RECORD":
                message = json.loads(line)
                if message["stream"] == "missing_kbs":
                    record = message["record"]
                    pairs.add(pair(record.get("machine_id") or record["machineId"], record["id"]))
    return output, pairs


def pair(machine_id: str, kb_id: str) -> int:
    """A number for a machine and a KB that it lacks."""
    return int.from_bytes(hashlib.blake2b(f"{machine_id} {kb_id}".encode(), digest_size=8).digest(), "big")


def compete(machines: int, runs: dict[str, int], latency: float = 0.0) -> dict[str, list[Run]]:
    """Run the contestants in turns against one simulator, each of whose answers takes so many seconds.

    Raises:
        ValueError: they do not tell the same, so there is nothing to compare.
    """
    done: dict[str, list[Run]] = {name: [] for name in CONTESTANTS}
    with tenant(machines, f"--latency={latency}") as there:
        for turn in range(max(runs.values())):
            for name in CONTESTANTS:
                if turn < runs[name]:
                    done[name].append(run(name, there))
                    sys.stderr.write(f"{machines} machines, {name}: {done[name][-1].seconds:.2f} s of CPU\n")
    if len({frozenset(one.pairs) for all_ in done.values() for one in all_}) > 1:
        msg = "The contestants do not list the same missing KBs."
        raise ValueError(msg)
    return done


@dataclass
class Result:
    """The median of a contestant's runs with a number of machines."""

    machines: int
    startup: float
    seconds: float
    memory: int
    output: Counter[str]

    @classmethod
    def of(cls, machines: int, runs: list[Run], startup: float) -> Result:
        """What counts of some runs."""
        return cls(
            machines,
            startup,
            median(run.seconds for run in runs),
            max(run.memory for run in runs),
            runs[-1].output,
        )

    @property
    def slope(self) -> float:
        """Milliseconds of CPU that a machine costs."""
        return 1000 * (self.seconds - self.startup) / max(1, self.machines - FEW)

    @property
    def state_share(self) -> float:
        """STATE's share of the output."""
        return self.output["STATE"] / self.output.total()


def tables(results: dict[int, dict[str, Result]], startup: dict[str, float]) -> Iterator[str]:
    """The results in Markdown."""
    started = ", ".join(f"{name} {seconds:.2f}" for name, seconds in startup.items())
    yield f"CPU seconds to start, sign in, and ask for {FEW} machines: {started}."
    yield ""
    yield "| machines | | CPU s | ms a machine | times the floor | RECORD | SCHEMA | STATE | STATE share | memory MiB |"
    yield "|---:|---|---:|---:|---:|---:|---:|---:|---:|---:|"
    for machines, of in results.items():
        for name, result in of.items():
            output = result.output
            yield (
                f"| {machines:,} | {name} | {result.seconds:.2f} | {result.slope:.2f} | "
                f"{result.slope / of['floor'].slope:.2f} | {size(output['RECORD'])} | {size(output['SCHEMA'])} | "
                f"{size(output['STATE'])} | {100 * result.state_share:.3g} % | {result.memory / MIB:.0f} |"
            )
    yield ""
    yield "| machines | CPU of the ordinary tap ÷ this tap's | without starting up | this tap ÷ floor, a machine |"
    yield "|---:|---:|---:|---:|"
    for machines, of in results.items():
        ours, ordinary, floor = of["this tap"], of["ordinary tap"], of["floor"]
        yield (
            f"| {machines:,} | {ordinary.seconds / ours.seconds:.1f} | {ordinary.slope / ours.slope:.1f} | "
            f"{ours.slope / floor.slope:.2f} |"
        )
    yield ""
    yield f"CPython {platform.python_version()}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}."


def size(count: int) -> str:
    """Bytes as a person says them."""
    for unit, many in (("MB", 10**6), ("kB", 10**3)):
        if count >= many:
            return f"{count / many:.1f} {unit}"
    return f"{count} B" if count else "-"


def main(arguments: Sequence[str] | None = None) -> None:
    """Compare, and print the tables."""
    parser = argparse.ArgumentParser(description="This tap beside an ordinary one and the floor.")
    parser.add_argument("--machines", type=int, nargs="+", default=[250, 1000, 5000], metavar="N")
    parser.add_argument("--runs", type=int, default=5, help="of each contestant and size")
    parser.add_argument(
        "--ordinary-once-from",
        type=int,
        default=5000,
        metavar="N",
        help="machines from which the ordinary tap runs once: its work grows with their square",
    )
    parser.add_argument("--latency", type=float, default=0.0, metavar="SECONDS", help="of every answer")
    options = parser.parse_args(arguments)
    everyone = dict.fromkeys(CONTESTANTS, options.runs)
    startup = {name: median(run.seconds for run in runs) for name, runs in compete(FEW, everyone).items()}
    results = {}
    for machines in options.machines:
        once = {"ordinary tap": 1} if machines >= options.ordinary_once_from else {}
        done = compete(machines, everyone | once, options.latency)
        results[machines] = {name: Result.of(machines, runs, startup[name]) for name, runs in done.items()}
    sys.stdout.write("".join(f"{line}\n" for line in tables(results, startup)))


if __name__ == "__main__":
    main()
