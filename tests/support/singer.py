"""The real command line, run on a real socket, its messages by kind; and a target that is played."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from tap_mde_kbs.patience import Patience
from tests.support.contract import missing_now
from tests.support.launch import SCRIPTS, TAP_MDE_KBS, launch

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from mde_simulator import Simulator
    from tests.support.launch import Attributes

TAP = SCRIPTS / TAP_MDE_KBS.name
BOOKMARKS = {"machines", "missing_kbs", "missing_kbs_checks", "msrc_kbs", "kev", "epss"}
"""Whatever is selected, every STATE has these, since Meltano merges states."""

UNLIMITED = {"requests_per_minute": 1_000_000, "requests_per_hour": 1_000_000}
"""For simulators without a quota: no test waits for one that it does not test."""

HURRIED = Patience(retry=0.01, sign_in=0.06, machine=0.03, file=0.05)
"""A tap that asks again at once. MSAL answers some of its sign-ins out of a cache, as it fails for five seconds."""


@dataclass
class Output:
    """What a command wrote, and how it ended."""

    stdout: str
    stderr: str
    status: int

    @property
    def last_line(self) -> str:
        """The last line of stderr, without time and level: what a person reads first."""
        return self.stderr.strip().splitlines()[-1].rpartition(" | ")[2]


@dataclass
class Messages(Output):
    """What a run wrote, message by message."""

    all: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Read every line of stdout: anything that is not Singer fails right here."""
        self.all = [json.loads(line) for line in self.stdout.splitlines()]

    def of(self, kind: str, stream: str | None = None) -> list[dict[str, Any]]:
        """The messages of a kind, of one stream or of all."""
        return [message for message in self.all if message["type"] == kind and stream in {None, message.get("stream")}]

    def records(self, stream: str) -> list[dict[str, Any]]:
        """The records of a stream, in the order written."""
        return [message["record"] for message in self.of("RECORD", stream)]

    @property
    def state(self) -> dict[str, Any]:
        """The last STATE; empty if there was none."""
        states = self.of("STATE")
        return states[-1]["value"] if states else {}

    @property
    def sweep(self) -> dict[str, Any]:
        """The bookmark of the sweep in the last STATE."""
        return dict(self.state["bookmarks"]["missing_kbs"]["sweep"])


def clean_environ(folder: Path) -> dict[str, str]:
    """An environment with nothing of the developer's but PATH."""
    return {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(folder)}


def trust(simulator: Simulator) -> dict[str, str]:
    """The variable that makes clients trust a simulator."""
    return {"REQUESTS_CA_BUNDLE": simulator.environment["REQUESTS_CA_BUNDLE"]}


def tap_attributes(patience: Patience | None) -> Attributes:
    """What is set in a tap before it runs, so that it waits as long as this says; None: as long as it does."""
    return {"tap_mde_kbs.tap:TapMdeKbs.patience": asdict(patience)} if patience else {}


def run_command(
    folder: Path,
    *options: str,
    environ: Mapping[str, str] | None = None,
    patience: Patience | None = None,
    attributes: Attributes | None = None,
    memory: int | None = None,
    afresh: bool = False,
    timeout: float = 120,
) -> Output:
    """Run `tap-mde-kbs` with these options to its end, whatever it prints.

    Args:
        folder: where it runs.
        options: all of them.
        environ: variables over a clean environment.
        patience: how long it waits before it asks again; None: as long as it does.
        attributes: what is set besides before it runs.
        memory: bytes of address space that it gets at most.
        afresh: start the installed command in a Python of its own.
        timeout: seconds until the test fails.
    """
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        process = launch(
            TAP_MDE_KBS,
            options,
            folder=folder,
            environ={**clean_environ(folder), **(environ or {})},
            stdout=stdout,
            stderr=stderr,
            attributes={**tap_attributes(patience), **(attributes or {})},
            memory=memory,
            afresh=afresh,
        )
        try:
            status = process.wait(timeout)
        finally:
            process.kill()
            process.wait()
        for file in (stdout, stderr):
            file.seek(0)
        return Output(stdout.read().decode(), stderr.read().decode(), status)


def run_tap(
    folder: Path,
    simulator: Simulator | None = None,
    *options: str,
    config: Mapping[str, Any] | None = None,
    state: Mapping[str, Any] | None = None,
    catalog: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
    **more: Any,
) -> Messages:
    """Run `tap-mde-kbs` for its messages.

    Args:
        folder: an empty one, where config, state and catalog are put and the command runs.
        simulator: whose settings are the start of the config, and whose certificate is trusted.
        options: further options.
        config: settings over those; None removes one. Without a simulator, all of them.
        state: for --state.
        catalog: for --catalog.
        environ: variables over a clean environment.
        more: as `run_command` takes them: patience, attributes, memory, afresh, timeout.
    """
    command = [*options]
    settings = {**simulator.config, **UNLIMITED} if simulator else {}
    settings = {name: value for name, value in {**settings, **(config or {})}.items() if value is not None}
    for option, document in (("config", settings or None), ("state", state), ("catalog", catalog)):
        if document is not None:
            (folder / f"{option}.json").write_text(json.dumps(document))
            command += [f"--{option}", str(folder / f"{option}.json")]
    done = run_command(folder, *command, environ={**(trust(simulator) if simulator else {}), **(environ or {})}, **more)
    return Messages(done.stdout, done.stderr, done.status)


class Target:
    """A target that is played: what would the warehouse hold? Rows by key; ACTIVATE_VERSION deletes older ones."""

    def __init__(self) -> None:
        self.keys: dict[str, list[str]] = {}
        self.rows: dict[str, dict[tuple[Any, ...], dict[str, Any]]] = {}
        self.versions: dict[str, dict[tuple[Any, ...], int]] = {}
        self.state: dict[str, Any] = {}

    def take(self, messages: Iterable[Mapping[str, Any]]) -> None:
        """Load messages, as a target does that never fails."""
        for message in messages:
            match message["type"]:
                case "SCHEMA":
                    self.keys[message["stream"]] = message["key_properties"]
                    self.rows.setdefault(message["stream"], {})
                    self.versions.setdefault(message["stream"], {})
                case "RECORD":
                    stream, record = message["stream"], message["record"]
                    key = tuple(record[name] for name in self.keys[stream])
                    self.rows[stream][key] = record
                    self.versions[stream][key] = message.get("version", 0)
                case "ACTIVATE_VERSION":
                    stream = message["stream"]
                    older = [key for key, version in self.versions[stream].items() if version < message["version"]]
                    for key in older:
                        del self.rows[stream][key], self.versions[stream][key]
                case "STATE":
                    self.state = message["value"]

    @property
    def missing(self) -> dict[str, frozenset[str]]:
        """The missing KBs of each machine that the table names."""
        found: dict[str, set[str]] = {}
        for machine_id, kb_id in self.rows.get("missing_kbs", {}):
            found.setdefault(machine_id, set()).add(kb_id)
        return {machine_id: frozenset(kbs) for machine_id, kbs in found.items()}

    @property
    def missing_now(self) -> dict[str, frozenset[str]]:
        """What a reader takes for missing, of each machine that lacks something."""
        found: dict[str, set[str]] = {}
        tables = ("machines", "missing_kbs", "missing_kbs_checks", "sweeps")
        for machine_id, kb_id in missing_now({table: [*self.rows.get(table, {}).values()] for table in tables}):
            found.setdefault(machine_id, set()).add(kb_id)
        return {machine_id: frozenset(kbs) for machine_id, kbs in found.items()}


def named(digests: list[str]) -> int:
    """How many machines a list of STATE names: six letters each, in one string."""
    return sum(len(digest.removeprefix("~")) // 6 for digest in digests)


def half_a_day_passes(state: dict[str, Any]) -> None:
    """What was fresh is so no longer; the fleet stays as it is."""
    sweep = state["bookmarks"]["missing_kbs"]["sweep"]
    began_at = datetime.fromisoformat(sweep["began_at"].replace("Z", "+00:00")) - timedelta(hours=13)
    sweep["began_at"] = f"{began_at:%Y-%m-%dT%H:%M:%S.%fZ}"


def lacking(missing: Mapping[str, frozenset[str]]) -> dict[str, frozenset[str]]:
    """Only the machines that lack something, as a table of missing KBs knows them."""
    return {machine_id: kbs for machine_id, kbs in missing.items() if kbs}
