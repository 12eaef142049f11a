"""What a reader may conclude from the tables, in plain Python: no SQL, and none of the tap.

A row is a mapping from column to value; a table may hold a row twice, or rows of a version of the tap that had no
`sweep` and no `listing`.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from mde_simulator import Fleet

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Row = dict[str, Any]
Key = tuple[str, str]


def plain(machines: int = 20) -> Fleet:
    """A fleet in which nobody is silent, excluded, or only discovered, and nobody comes twice."""
    return Fleet(machines, seed=3, discovered=0, excluded=0, silent=0, duplicates=0)


def answers_of(fleet: Fleet) -> dict[str, frozenset[str]]:
    """What each machine lacks that is to be asked today: of the others nobody knows."""
    missing = fleet.missing()
    return {machine_id: missing[machine_id] for machine_id in fleet.assessed()}


def present(machines: Iterable[Mapping[str, Any]], sweeps: Iterable[Mapping[str, Any]]) -> set[str]:
    """The machines that have not left: those of the newest list that was believed and has arrived whole, or newer."""
    machines = [*machines]
    listing_of: dict[str, int] = {}
    for row in machines:
        if row.get("listing") is not None:
            listing_of[row["id"]] = max(row["listing"], listing_of.get(row["id"], 0))
    size_of: dict[int, int] = defaultdict(int)
    for row in sweeps:
        size_of[row["listing"]] = max(size_of[row["listing"]], row["machines_listed"])
    whole = [
        listing
        for listing, size in size_of.items()
        if sum(listing <= of_machine for of_machine in listing_of.values()) >= size
    ]
    newest = max(whole, default=0)
    there = {machine_id for machine_id, listing in listing_of.items() if listing >= newest}
    if not newest:  # all that is whole is the last list of a version that had no listings
        old = [row for row in machines if row.get("listing") is None]
        last = max((row["listed_at"] for row in old), default=None)
        there |= {row["id"] for row in old if row["listed_at"] == last}
    return there


def missing_now(tables: Mapping[str, Iterable[Mapping[str, Any]]]) -> dict[Key, Row]:
    """The rows of what is missing now, by machine and update.

    A row counts if it is of an answer that is not older than the machine's newest in a sweep that is believed or not
    judged yet; so does one of a later sweep whose check is lost or not written yet, since it was seen.

    Args:
        tables: machines, missing_kbs, missing_kbs_checks, and sweeps.
    """
    unbelieved = {row["sweep"] for row in tables["sweeps"] if row["is_believed"] is False}
    checks: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in tables["missing_kbs_checks"]:
        checks[row["machine_id"]].append(row)
    there = present(tables["machines"], tables["sweeps"])
    found: dict[Key, Row] = {}
    for row in tables["missing_kbs"]:
        machine_id, sweep = row["machine_id"], row.get("sweep")
        ours = checks[machine_id]
        if machine_id not in there or not ours:
            continue
        newest = max(check["sweep"] for check in ours)
        if any(check["outcome"] == "skipped" for check in ours if check["sweep"] == newest):
            continue
        answers = [check for check in ours if check["outcome"] == "answered"]
        settled = max((check["sweep"] for check in answers if check["sweep"] not in unbelieved), default=0)
        is_answer = any(
            check["checked_at"] == row["checked_at"] and check["sweep"] >= settled and sweep in {None, check["sweep"]}
            for check in answers
        )
        if is_answer or (sweep is not None and sweep > settled):
            key = machine_id, row["id"]
            if key not in found or _age(row) > _age(found[key]):
                found[key] = {**row}
    return found


def _age(row: Mapping[str, Any]) -> tuple[int, Any]:
    return row.get("sweep") or 0, row["checked_at"]
