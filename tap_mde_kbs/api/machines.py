"""The calls about machines: a page of their list, and each machine's missing KBs as a source that a sweep asks.

Must not know how the list is walked, or in what order machines are asked.
"""

from __future__ import annotations

import contextlib
import re
from itertools import chain
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from tap_mde_kbs import schema
from tap_mde_kbs.api.client import entries_of, is_id, records_of, shape_error
from tap_mde_kbs.errors import API_REMEDIES, ApiError, NotFoundError, printable
from tap_mde_kbs.sweep.pool import Answer, Threads

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from tap_mde_kbs.api.client import Client

LIST = "/api/machines"
LIST_PERMISSION = "Machine.Read.All"
LARGEST_PAGE = 10_000
"""The most machines that the API lists at once."""

MISSING_KBS = "/api/machines/{machine_id}/getmissingkbs"
MISSING_KBS_PERMISSION = "Software.Read.All"

TRIES = 3
"""How often a machine is asked in a row: few times, since the sweep asks it again later."""

PROBED = 3
"""How many machines `probe` asks at most."""

FEW = 100
"""So many entries of a page may have no id, whatever their share."""

COUNTS = ("machine_missed_on", "cve_addressed")
"""Columns of a missing KB: where it comes twice, the larger number counts."""

_KB = re.compile(r"^KB\s*(?=\d)", re.IGNORECASE)


def machine_page(
    client: Client, skip: int, top: int, machines_filter: str | None, unlisted: schema.Unlisted
) -> list[dict[str, Any]]:
    """A page of the machine list, as the API has it, entries without an id included: they count in positions.

    Empty for a 404 by the API's own word, which means that there are no recent machines.

    Args:
        client: Makes the call.
        skip: The position of the first machine.
        top: How many machines at most.
        machines_filter: An OData $filter; None or empty for all machines.
        unlisted: Where it is reported that entries have no id; what is no object becomes one without anything.

    Raises:
        ApiError: The page can't be had, or so few of its entries have an id that it is of a wrong host.

    Source: learn.microsoft.com, "List machines API".
    """
    try:
        document = client.get(
            LIST,
            {"$top": top, "$skip": skip, "$filter": machines_filter or None},
            permission=LIST_PERMISSION,
            advice=API_REMEDIES["filter"].advice if machines_filter else None,
        )
    except NotFoundError as error:
        if urlsplit(client.endpoints.api_url).path:  # another path than the API's answers so, too
            raise ApiError(str(error), API_REMEDIES["address"].advice) from None
        return []
    entries = [entry if isinstance(entry, dict) else {} for entry in entries_of(document, LIST)]
    nameless = sum(not is_id(entry.get("id")) for entry in entries)
    if nameless and (2 * nameless > len(entries) > FEW or (nameless == len(entries) and not skip)):
        raise shape_error(document, LIST, f"{nameless} of {len(entries)} entries of `value` have no id")
    if nameless:
        unlisted.note("The machine list", f"has {nameless} entries without an id on a page of {len(entries)}: dropped.")
    return entries


class MachineSource:
    """Asks each machine for its missing KBs: a call for each.

    Args:
        client: Makes the calls.
        unlisted: Where fields that do not fit are reported.
    """

    permission = MISSING_KBS_PERMISSION
    costs_calls = True

    def __init__(self, client: Client, unlisted: schema.Unlisted) -> None:
        self._client = client
        self._unlisted = unlisted

    def check(self) -> None:
        """Do nothing: it needs nothing that is optional."""

    def seconds_for(self, machines: int) -> float:
        """Estimate how long so many machines take, by the quota."""
        return self._client.governor.seconds_for(machines)

    def probe(self, machine_ids: Sequence[str]) -> tuple[bool | None, str]:
        """Ask the first few machines, until one answers."""
        if not machine_ids:
            return None, "no onboarded machine to ask"
        for machine_id in machine_ids[:PROBED]:
            try:
                count = len(self._records(machine_id))
            except NotFoundError:
                continue
            return True, f"{count} for machine {printable(machine_id)}"
        return None, "HTTP 404 for the machines tried, as this API answers now and then"

    def begin(self, is_due: Callable[[str], bool]) -> None:
        """Do nothing: whom to ask is known when all are listed."""

    def close(self) -> None:
        """Do nothing: nothing was begun."""

    @contextlib.contextmanager
    def opened(
        self,
        is_due: Callable[[str], bool],  # noqa: ARG002 - current answers are always due
        idle: Callable[[], None],
    ) -> Iterator[MachineAnswers]:
        """Threads that ask the machines; they end with the context."""
        answers = MachineAnswers(self._answer, self._client.parallel, idle)
        with answers:
            yield answers

    def _answer(self, machine_id: str, once: bool) -> Answer:
        """Ask for the missing KBs of a machine, a few times or once; called in the threads."""
        records = self._records(machine_id, tries=1 if once else TRIES)
        checked_at = schema.now()
        rows: dict[str, dict[str, Any]] = {}
        for record in records:
            row = schema.MISSING_KBS.from_wire(record, self._unlisted)
            row["id"] = kb_id(row["id"])
            if before := rows.get(row["id"]):
                _merge(before, row)
            else:
                rows[row["id"]] = {"machine_id": machine_id, **row, "first_seen_at": None, "checked_at": checked_at}
        return Answer([*rows.values()], checked_at)

    def _records(self, machine_id: str, *, tries: int = TRIES) -> list[dict[str, Any]]:
        """A machine's missing KBs as the API has them.

        Source: learn.microsoft.com, "Get missing KBs by device ID".
        """
        path = MISSING_KBS.format(machine_id=quote(machine_id, safe=""))  # an id may hold what a path may not
        return records_of(self._client.get(path, permission=self.permission, tries=tries), path, has_id=True)


class MachineAnswers(Threads[Answer]):
    """The machines' own answers, each with its own time."""

    made_at: str | None = None
    empty_files = 0

    def kb_cves(self) -> Iterator[dict[str, Any]]:
        """None: a machine's answer names no CVEs."""
        return iter(())

    def strangers(self, listed: Collection[str]) -> list[str]:  # noqa: ARG002 - only listed machines are asked
        """None: only listed machines are asked."""
        return []


def kb_id(value: str) -> str:
    """A KB's number as every stream has it: without blanks around it, and without `KB`."""
    return value if value.isdecimal() else _KB.sub("", value.strip())


def _merge(row: dict[str, Any], other: Mapping[str, Any]) -> None:
    """Add to a KB's row what another entry of the same answer says of it."""
    products = [names for names in (row["products_names"], other["products_names"]) if names is not None]
    for column, value in other.items():
        if row[column] is None:
            row[column] = value
        elif column in COUNTS and value is not None:
            row[column] = max(row[column], value)
    row["products_names"] = [*dict.fromkeys(chain(*products))] if products else None
