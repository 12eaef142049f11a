"""`--test`: what a run needs, checked one thing after the other, in a handful of calls.

Each check is a line with a mark; the first that fails is followed by what to do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from tap_mde_kbs import schema as schemas
from tap_mde_kbs.errors import TapError, missing_permission, printable
from tap_mde_kbs.export.records import require as require_duckdb
from tap_mde_kbs.progress import duration, export_advice, export_seconds
from tap_mde_kbs.settings import PER_MACHINE
from tap_mde_kbs.streams import LARGEST_PAGE, ONBOARDED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tap_mde_kbs.api.client import Connection
    from tap_mde_kbs.streams import Machines, MissingKbs


class Line(NamedTuple):
    """A check's outcome: None for what can't be told, which fails nothing."""

    ok: bool | None
    text: str

    def marked(self, encoding: str) -> str:
        """The line with its mark, in characters that the terminal has."""
        marks = {True: "✓", False: "✗", None: "?"}
        try:
            "".join(marks.values()).encode(encoding)
        except (UnicodeEncodeError, LookupError):
            marks = {True: "ok  ", False: "FAIL", None: "?   "}
        return f"{marks[self.ok]} {self.text}"


class Doctor:
    """Checks sign-in, permissions and the calls that the tap makes."""

    def __init__(self, connection: Connection, machines: Machines, missing_kbs: MissingKbs) -> None:
        """Take what a run would use."""
        self._connection = connection
        self._machines = machines
        self._missing_kbs = missing_kbs
        self._onboarded: list[str] = []
        self._more = False

    def checks(self) -> Iterator[Line]:
        """Every check's line; the last is the first that failed, its text then says what to do."""
        for check in (self._settings, self._sign_in, self._permissions, self._list, self._kbs, self._estimate):
            try:
                yield check()
            except TapError as error:
                yield Line(ok=False, text=str(error))
                return

    def _settings(self) -> Line:
        if self._missing_kbs.source != PER_MACHINE:
            require_duckdb()
        endpoints = self._connection.endpoints
        return Line(ok=True, text=f"settings: API {endpoints.api_url}, scope {endpoints.token_scope}")

    def _sign_in(self) -> Line:
        sign_in = self._connection.sign_in
        sign_in.token()
        until = f"{sign_in.valid_until:%Y-%m-%d %H:%M:%S} UTC" if sign_in.valid_until else "an unknown time"
        host = urlsplit(sign_in.authority).netloc or sign_in.authority
        return Line(ok=True, text=f"sign-in: {sign_in.method} at {host}, token valid until {until}")

    def _permissions(self) -> Line:
        roles = self._connection.sign_in.roles()
        if roles is None:
            return Line(ok=None, text="permissions: the token does not say which it has")
        for stream in (self._machines, self._missing_kbs):
            if error := missing_permission(stream.permission, roles):
                raise error
        return Line(ok=True, text=f"permissions: {printable(', '.join(sorted(roles)))}")

    def _list(self) -> Line:
        records = self._machines.ask({"skip": 0, "top": LARGEST_PAGE})
        by_id = {str(record["id"]): record for record in records}  # the list may name a machine twice
        machines = [schemas.machine_fields(record, self._machines.unlisted) for record in by_id.values()]
        self._more = len(records) >= LARGEST_PAGE
        self._onboarded = sorted(m["id"] for m in machines if m["onboarding_status"] in ONBOARDED)
        if not machines:
            return Line(
                ok=None,
                text="machines: none listed. Has the application any device group, and the tenant any device?",
            )
        newest = max((machine["last_seen"] or "" for machine in machines), default="") or "never"
        return Line(
            ok=True,
            text=(
                f"machines: {len(machines)}{' or more' if self._more else ''} listed, {len(self._onboarded)} of them "
                f"onboarded, newest last seen {newest}"
            ),
        )

    def _kbs(self) -> Line:
        if self._missing_kbs.source != PER_MACHINE:
            return Line(ok=True, text=f"missing KBs: {self._missing_kbs.export.probe()}")
        if not self._onboarded:
            return Line(ok=None, text="missing KBs: no onboarded machine to ask")
        answered = self._missing_kbs.try_one(self._onboarded)
        if answered is None:
            return Line(ok=None, text="missing KBs: HTTP 404 for the machines tried, as this API answers now and then")
        machine_id, count = answered
        return Line(ok=True, text=f"missing KBs: {count} for machine {printable(machine_id)}")

    def _estimate(self) -> Line:
        count = len(self._onboarded)
        if self._missing_kbs.source != PER_MACHINE:
            more = " for the first page of machines" if self._more else ""
            return Line(ok=True, text=f"an export takes about {duration(export_seconds(count))}{more}")
        seconds = self._connection.governor.seconds_for(count)
        advice = export_advice(count, seconds, more=self._more)
        return Line(ok=True, text=advice or f"a sweep takes {duration(seconds)} by the quota")


def report(doctor: Doctor, write: Callable[[str], None], encoding: str) -> bool:
    """Write every line, and say whether all is well."""
    well = True
    for line in doctor.checks():
        write(line.marked(encoding))
        well = well and line.ok is not False
    return well
