"""The calls about machines: a page of their list, and each machine's missing KBs as a source that a sweep asks.

Must not know how the list is walked, or in what order machines are asked.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from tap_mde_kbs import schema
from tap_mde_kbs.api.client import records_of
from tap_mde_kbs.errors import API_REMEDIES, NotFoundError, printable
from tap_mde_kbs.sweep.pool import Answer, Threads

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

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


def machine_page(client: Client, skip: int, top: int, machines_filter: str | None) -> list[dict[str, Any]]:
    """A page of the machine list, as the API has it; empty for a 404, which means that there are no recent machines.

    Args:
        client: Makes the call.
        skip: The position of the first machine.
        top: How many machines at most.
        machines_filter: An OData $filter; None or empty for all machines.

    Raises:
        ApiError: The page can't be had.

    Source: learn.microsoft.com, "List machines API".
    """
    try:
        document = client.get(
            LIST,
            {"$top": top, "$skip": skip, "$filter": machines_filter or None},
            permission=LIST_PERMISSION,
            advice=API_REMEDIES["filter"].advice if machines_filter else None,
        )
    except NotFoundError:
        return []
    return records_of(document, LIST, has_id=True)


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

    def _answer(self, machine_id: str, once: bool = False) -> Answer:
        """Ask for the missing KBs of a machine; called in the threads."""
        records = self._records(machine_id, once)
        checked_at = schema.now()
        rows: dict[str, dict[str, Any]] = {}
        for record in records:
            row = schema.MISSING_KBS.from_wire(record, self._unlisted)
            rows.setdefault(
                row["id"], {"machine_id": machine_id, **row, "first_seen_at": None, "checked_at": checked_at}
            )
        return Answer([*rows.values()], checked_at)

    def _records(self, machine_id: str, once: bool = False) -> list[dict[str, Any]]:
        """A machine's missing KBs as the API has them.

        Source: learn.microsoft.com, "Get missing KBs by device ID".
        """
        path = MISSING_KBS.format(machine_id=quote(machine_id, safe=""))  # an id may hold what a path may not
        return records_of(self._client.get(path, permission=self.permission, tries=1 if once else TRIES), path, has_id=True)


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
