"""`make test-live`: the doctor, a sweep of five machines, an export's first file, and a report without their data.

Not collected by pytest: it needs a tenant. It makes some fifteen calls, keeps to the quota, and writes to no target:
what the tap would write stays in memory.
"""

from __future__ import annotations

import gzip
import io
import json
import logging
import sys
import tempfile
from contextlib import contextmanager, redirect_stdout
from datetime import datetime, timezone
from functools import partial
from importlib.metadata import version
from itertools import islice, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from jsonschema import Draft202012Validator
from typing_extensions import override

from tap_mde_kbs import schema, settings
from tap_mde_kbs.api.machines import LARGEST_PAGE
from tap_mde_kbs.doctor import Doctor
from tap_mde_kbs.errors import SettingsError, printable
from tap_mde_kbs.export import calls
from tap_mde_kbs.export.download import Downloader
from tap_mde_kbs.sweep.machine_list import entries_with_ids
from tap_mde_kbs.tap import TapMdeKbs
from tests.live.shapes import Look

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tap_mde_kbs.api.client import Client

REPORT = "live-report.md"
MACHINES = 5
RECORDS = 100_000
"""Of the export's first file at most."""

OF_THE_TENANT = (
    *("tenant_id", "client_id", "auth_method", "client_secret", "certificate_file", "certificate_passphrase"),
    *("federated_token_file", "cloud", "api_url", "authority_url", "token_scope", "user_agent"),
    *("request_timeout_seconds", "requests_per_minute", "requests_per_hour"),
)
"""The settings that are taken from the environment. Others could have rows written somewhere, or hide some."""

CHECKS = ("settings", "sign-in", "permissions", "machines", "missing KBs", "how long a sweep takes")
"""What the doctor looks at, in its order; it ends with the first that fails."""

HOW = (
    "make test-live needs a tenant: set TAP_MDE_KBS_TENANT_ID, TAP_MDE_KBS_CLIENT_ID and a credential, for example "
    "TAP_MDE_KBS_CLIENT_SECRET, in the environment or in .env (see .env.example). Nothing was looked at."
)


class LiveTap(TapMdeKbs):
    """The tap, on five machines, with a look at what the API sends."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__(config=dict(config))
        self.machines = Look("machine")
        self.kbs = Look("missing KB")
        self._page: list[dict[str, Any]] | None = None
        self._chosen: list[dict[str, Any]] | None = None
        ask = self.client.get

        def get(path: str, *arguments: Any, **options: Any) -> Any:
            document = ask(path, *arguments, **options)
            if path.lower().endswith("/getmissingkbs") and isinstance(document, dict):
                records = document.get("value")
                self.kbs.take(records if isinstance(records, list) else [records])
            return document

        self.client.get = get  # type: ignore[method-assign] # a look at what passes

    @override
    def _machine_page(self, skip: int, top: int) -> list[dict[str, Any]]:
        """The first page, asked for once; for a run five machines of it."""
        if self._page is None:
            self._page = super()._machine_page(0, LARGEST_PAGE)
            self.machines.take(self._page)
        page = self._page if self._chosen is None else self._chosen
        return page[skip : skip + top]

    def doctor(self) -> Iterator[tuple[str, bool | None, str]]:
        """The name of each check, its outcome, and its text, which has data in it."""
        doctor = Doctor(self.client, self.source, self._machine_page, self.runner.assessed, self.unlisted)
        for name, line in zip(CHECKS, doctor.checks(), strict=False):
            yield name, line.ok, line.text

    def choose(self) -> None:
        """Choose the machines to sweep over: such as a run asks, of as many platforms as there are."""
        rows = [schema.MACHINES.from_wire(entry, self.unlisted) for _, entry in entries_with_ids(self._page or ())]
        listed = self.runner.assessed.listed(rows, datetime.now(timezone.utc))
        asked = {machine.id for machine in listed if machine.skip is None}
        of_platform: dict[str, list[dict[str, Any]]] = {}
        for machine_id, entry in entries_with_ids(self._page or ()):
            if machine_id in asked:
                of_platform.setdefault(str(entry.get("osPlatform")), []).append(entry)
        turns = zip_longest(*(entries[:MACHINES] for entries in of_platform.values()))
        self._chosen = [entry for turn in turns for entry in turn if entry][:MACHINES]

    def sweep(self) -> list[dict[str, Any]]:
        """Sweep over them, and give the messages instead of writing them."""
        written = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
        with redirect_stdout(written):
            self.run()
        return [json.loads(line) for line in written.buffer.getvalue().splitlines()]


def misfits(messages: Sequence[Mapping[str, Any]]) -> list[str]:
    """The columns whose values do not fit their SCHEMA, by name."""
    validators = {
        message["stream"]: Draft202012Validator(message["schema"])
        for message in messages
        if message["type"] == "SCHEMA"
    }
    found = {
        f"{message['stream']}.{error.absolute_path[0] if error.absolute_path else ''}"
        for message in messages
        if message["type"] == "RECORD"
        for error in validators[message["stream"]].iter_errors(message["record"])
    }
    return sorted(found)


def first_file(client: Client, user_agent: str) -> Look:
    """Look at the first file of the newest export."""
    look = Look("record of the export")
    calls.limit(client)
    export = calls.newest_export(client)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "first.json.gz"
        if Downloader(client.timeout, user_agent).fetch(next(iter(export.links.values())), path).has_any:
            with gzip.open(path, "rt", encoding="utf-8-sig", errors="replace") as lines:
                look.take(_records(islice(lines, RECORDS), look))
    return look


def _records(lines: Iterator[str], look: Look) -> Iterator[Any]:
    for line in lines:
        try:
            yield json.loads(line)
        except ValueError:
            look.strange["a line of the file that is no JSON"] += 1


class Report:
    """What is written, line by line: names, types and counts, and nothing of the tenant's."""

    def __init__(self) -> None:
        self.lines = ["# What a real tenant looks like", ""]
        self.looks: list[Look] = []
        self.faults: list[str] = []

    @contextmanager
    def part(self, what: str) -> Iterator[None]:
        """A part of the look, without the tap's log, which names machines.

        What ends it is noted in the report by its kind, and said on the terminal; the other parts go on.
        """
        logging.disable(logging.CRITICAL)
        try:
            yield
        except Exception as error:  # noqa: BLE001 - odd answers are what is looked for
            self.faults.append(f"{what}: {type(error).__name__}")
            click.echo(f"{what}: {printable(error)}", err=True)
        finally:
            logging.disable(logging.NOTSET)

    def doctor(self, tap: LiveTap) -> bool:
        """The doctor's checks; whether all is well."""
        self.lines += ["## Doctor", ""]
        well = True
        for name, ok, text in tap.doctor():
            self.lines.append(f"- {'ok' if ok else 'not told' if ok is None else 'FAILED'}: {name}")
            if ok is False:
                well = False
                self.faults.append(f"the doctor: {name}")
                click.echo(text, err=True)
        self.looks.append(tap.machines)
        return well

    def sweep(self, tap: LiveTap) -> None:
        """A sweep of a few machines."""
        tap.choose()
        messages = tap.sweep()
        self.looks.append(tap.kbs)
        records = [message for message in messages if message["type"] == "RECORD"]
        checks = [message["record"] for message in records if message["stream"] == "missing_kbs_checks"]
        outcomes = {outcome: sum(check["outcome"] == outcome for check in checks) for outcome in OUTCOMES}
        said = ", ".join(f"{number} {outcome}" for outcome, number in outcomes.items() if number)
        self.lines += ["", "## Sweep", "", f"- {len(checks)} machines: {said or 'none'}; {len(records)} RECORDs"]
        self.faults += [f"the sweep: {column} does not fit its SCHEMA" for column in misfits(messages)]

    def shapes(self) -> None:
        """What was seen, and where it is other than believed."""
        private = frozenset[str]().union(*(look.private for look in self.looks))
        self.lines += ["", "## Seen", ""]
        for look in self.looks:
            self.lines.append(f"- {look.what}: {look.records} looked at")
            self.lines += [f"    - {text}" for text in look.known_forms()]
            if words := ", ".join(look.known_words()):
                self.lines.append(f"    - documented words seen: {words}")
            if look.records and (absent := look.never_seen()):
                self.lines.append(f"    - never seen: {', '.join(f'`{path}`' for path in absent)}")
        self.drift = [line for look in self.looks for line in look.drift(private)]
        self.lines += ["", "## Other than believed", "", *(f"- {line}" for line in self.drift or ["nothing"])]
        self.lines += ["", "## Not looked at, or wrong", "", *(f"- {line}" for line in self.faults or ["nothing"]), ""]


OUTCOMES = ("answered", "not_found", "failed", "skipped")


def main() -> int:
    """Look at the tenant that the environment names; 0 if all is as believed, 1 if not, 2 without settings."""
    try:
        given, unreadable = settings.read({}, settings.SCHEMA, partial(click.echo, err=True), with_environment=True)
        config = {name: given[name] for name in OF_THE_TENANT if name in given}
        settings.check(config, settings.SCHEMA, unreadable)
        tap = LiveTap(config)
    except SettingsError as error:
        click.echo(f"{error}\n{HOW}", err=True)
        return 2
    report = Report()
    report.lines += [f"tap-mde-kbs {version(settings.PACKAGE)}, cloud {tap.config['cloud']}", ""]
    with report.part("the sweep"):
        if report.doctor(tap):
            report.sweep(tap)
    with report.part("the export"):
        report.looks.append(first_file(tap.client, tap.config["user_agent"]))
    report.shapes()
    text = "\n".join(report.lines)
    Path(REPORT).write_text(text, encoding="utf-8")
    click.echo(text)
    if not (report.drift or report.faults):
        click.echo("All is as believed.")
        return 0
    click.echo(f"Not all is as believed: read {REPORT}, which has no data of the tenant's, and open an issue with it.")
    return 1


if __name__ == "__main__":
    sys.exit(main())
