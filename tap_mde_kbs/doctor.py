"""`--test`: what a run needs, checked one thing after the other, in a handful of calls.

Each check is a line with a mark; the first that fails is followed by what to do.
"""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from tap_mde_kbs import schema
from tap_mde_kbs.api.machines import LARGEST_PAGE, LIST_PERMISSION
from tap_mde_kbs.errors import TapError, missing_permission, printable
from tap_mde_kbs.progress import duration, export_advice
from tap_mde_kbs.sweep.machine_list import ONBOARDED, entries_with_ids

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from tap_mde_kbs.api.client import Client
    from tap_mde_kbs.sweep.machine_list import Assessed
    from tap_mde_kbs.sweep.pool import Source


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
    """Checks settings, sign-in, permissions and the calls that a run makes.

    Args:
        client: Makes the calls.
        source: Where a run would have the missing KBs from.
        machine_page: Asks for so many machines from a position on.
        assessed: Which machines a run would ask.
        unlisted: Where fields that no schema lists are reported.
    """

    def __init__(
        self,
        client: Client,
        source: Source,
        machine_page: Callable[[int, int], list[dict[str, Any]]],
        assessed: Assessed,
        unlisted: schema.Unlisted,
    ) -> None:
        self._client = client
        self._source = source
        self._machine_page = machine_page
        self._assessed = assessed
        self._unlisted = unlisted
        self._asked: list[str] = []
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
        self._source.check()
        endpoints = self._client.endpoints
        return Line(ok=True, text=f"settings: API {endpoints.api_url}, scope {endpoints.token_scope}")

    def _sign_in(self) -> Line:
        sign_in = self._client.sign_in
        sign_in.token()
        until = f"{sign_in.valid_until:%Y-%m-%d %H:%M:%S} UTC" if sign_in.valid_until else "an unknown time"
        host = urlsplit(sign_in.authority).netloc or sign_in.authority
        return Line(ok=True, text=f"sign-in: {sign_in.method} at {host}, token valid until {until}")

    def _permissions(self) -> Line:
        roles = self._client.sign_in.roles()
        if roles is None:
            return Line(ok=None, text="permissions: the token does not say which it has")
        for needed in (LIST_PERMISSION, self._source.permission):
            if error := missing_permission(needed, roles):
                raise error
        return Line(ok=True, text=f"permissions: {printable(', '.join(sorted(roles)))}")

    def _list(self) -> Line:
        records = self._machine_page(0, LARGEST_PAGE)
        by_id = dict(entries_with_ids(records))  # the list may name a machine twice
        machines = [schema.MACHINES.from_wire(record, self._unlisted) for record in by_id.values()]
        self._more = len(records) >= LARGEST_PAGE
        listed = self._assessed.listed(machines, datetime.now(timezone.utc))
        self._asked = sorted(machine.id for machine in listed if machine.skip is None)
        onboarded = sum(machine["onboarding_status"] in ONBOARDED for machine in machines)
        skipped = Counter(machine.skip for machine in listed if machine.skip not in {None, "not_onboarded"})
        not_asked = "".join(f", {count} {reason}" for reason, count in sorted(skipped.items()))
        if not machines:
            return Line(
                ok=None,
                text="machines: none listed. Has the application any device group, and the tenant any device?",
            )
        newest = max((machine["last_seen"] or "" for machine in machines), default="") or "never"
        return Line(
            ok=True,
            text=(
                f"machines: {len(machines)}{' or more' if self._more else ''} listed, {onboarded} of them "
                f"onboarded{not_asked}, newest last seen {newest}"
            ),
        )

    def _kbs(self) -> Line:
        ok, text = self._source.probe(self._asked)
        return Line(ok=ok, text=f"missing KBs: {text}")

    def _estimate(self) -> Line:
        count = len(self._asked)
        seconds = self._source.seconds_for(count)
        if not self._source.costs_calls:
            more = " for the first page of machines" if self._more else ""
            return Line(ok=True, text=f"an export takes about {duration(seconds)}{more}")
        advice = export_advice(count, seconds, more=self._more)
        return Line(ok=True, text=advice or f"a sweep takes {duration(seconds)} by the quota")


def report(lines: Iterable[Line], write: Callable[[str], None], encoding: str) -> bool:
    """Write every line, and say whether all is well."""
    well = True
    for line in lines:
        write(line.marked(encoding))
        well = well and line.ok is not False
    return well
