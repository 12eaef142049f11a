"""What a reader of a played target's tables concludes, by the contract; and whether its sweeps' rows add up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.support import contract

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
    """The machines that have not left."""
    return contract.present(rows(target, "machines"), rows(target, "sweeps"))


def missing_now(target: Target) -> set[tuple[str, str]]:
    """The pairs of machine and update that are missing now."""
    tables = ("machines", "missing_kbs", "missing_kbs_checks", "sweeps")
    return set(contract.missing_now({stream: rows(target, stream) for stream in tables}))


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
