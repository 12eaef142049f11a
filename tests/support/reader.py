"""What a reader of the tables concludes: which machines are present, and which updates are missing now.

By the contract of the tables, in plain Python over the rows of a played target: independent of the documentation's SQL
and of the marts. Knows nothing of a simulator.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.support.singer import Target

Row = dict[str, Any]
ATMOST = 8192
"""Bytes of a STATE."""


def rows(target: Target, stream: str) -> list[Row]:
    """The rows of a table; none if it is not there."""
    return list(target.rows.get(stream, {}).values())


def present(target: Target) -> set[str]:
    """The machines that are there: of the newest believed list that has arrived whole, or a newer one."""
    machines = {row["id"]: row["listing"] for row in rows(target, "machines")}
    sizes: dict[int, int] = {}
    for sweep in rows(target, "sweeps"):
        sizes[sweep["listing"]] = max(sizes.get(sweep["listing"], 0), sweep["machines_listed"])
    arrived = [listing for listing, size in sizes.items() if sum(own >= listing for own in machines.values()) >= size]
    newest = max(arrived, default=0)
    return {machine_id for machine_id, listing in machines.items() if listing >= newest}


def missing_now(target: Target) -> set[tuple[str, str]]:
    """The pairs of machine and update that are missing now."""
    doubted = {sweep["sweep"] for sweep in rows(target, "sweeps") if sweep["is_believed"] is False}
    newest, believed, answered = dict[str, Row](), dict[str, int](), dict[str, set[tuple[int, str]]]()
    for check in sorted(rows(target, "missing_kbs_checks"), key=lambda check: check["sweep"]):
        machine_id = check["machine_id"]
        newest[machine_id] = check
        if check["outcome"] == "answered":
            answered.setdefault(machine_id, set()).add((check["sweep"], check["checked_at"]))
            if check["sweep"] not in doubted:
                believed[machine_id] = check["sweep"]
    there = {machine_id for machine_id in present(target) if newest.get(machine_id, {}).get("outcome") != "skipped"}
    return {
        (row["machine_id"], row["id"])
        for row in rows(target, "missing_kbs")
        if row["machine_id"] in there
        and (row["sweep"], row["checked_at"]) in answered.get(row["machine_id"], ())
        and row["sweep"] >= believed.get(row["machine_id"], 0)
    }


def checks_of(target: Target, sweep: int) -> dict[str, Row]:
    """The checks of a sweep, by machine."""
    return {check["machine_id"]: check for check in rows(target, "missing_kbs_checks") if check["sweep"] == sweep}


def newest_sweep(target: Target) -> Row:
    """The row of the newest sweep."""
    return max(rows(target, "sweeps"), key=lambda sweep: sweep["sweep"])


def assert_sums(target: Target, sweep: Mapping[str, Any]) -> None:
    """The counts of a sweep's row are those of its checks, and its verdict comes when it is complete."""
    checks = checks_of(target, sweep["sweep"])
    for kind in ("answered", "not_found", "failed", "skipped", "not_in_export"):
        found = [check for check in checks.values() if check["outcome"] == kind]
        assert sweep[f"machines_{kind}"] == len(found), (kind, sweep)
        for check in found:
            assert (check["reason"] is not None) == (kind in {"failed", "skipped"}), check
            assert (check["missing_kb_ids"] is None) == (kind != "answered"), check
    assert sweep["machines_asked"] == sum(check["outcome"] != "skipped" for check in checks.values())
    assert sweep["is_complete"] == (sweep["ended_at"] is not None) == (sweep["is_believed"] is not None), sweep
    assert not sweep["is_complete"] or sweep["verdict"], sweep
