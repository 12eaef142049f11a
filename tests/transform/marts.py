"""The marts as a warehouse holds them, beside the truth."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.transform.truth import Row, Rows, Truth
    from tests.transform.warehouses import Warehouse

KEYS = {
    "int_kb_episodes": ("tenant", "machine_id", "kb_id", "first_missed_at"),
    "kb_episodes": ("tenant", "machine_id", "kb_id", "first_missed_at"),
    "kbs_missing": ("kb_id",),
    "machine_compliance": ("tenant", "machine_id"),
    "compliance_by_segment": ("segment_kind", "segment"),
    "overdue_pairs": ("tenant", "machine_id", "kb_id"),
    "time_to_install": ("segment_kind", "segment"),
    "compliance_by_day": ("day",),
    "coverage_gaps": ("tenant", "machine_id"),
    "sweep_log": ("tenant", "sweep"),
    "kbs": ("kb_id",),
    "pair_deadlines": ("tenant", "machine_id", "kb_id", "rule_book"),
    "updates_to_install": ("tenant", "machine_id", "kb_id"),
}
"""Each mart's grain, and that of the model of the history."""


def assert_true(warehouse: Warehouse, truth: Truth) -> None:
    """Every row and every column that the truth has is there, and no row more."""
    for mart, keys in KEYS.items():
        rows: Rows = getattr(truth, mart)()
        columns = {column for row in rows.values() for column in row}
        place = "analytics_intermediate" if mart.startswith("int_") else "analytics"
        found_rows = warehouse.query(f"SELECT * FROM {place}.{mart}")  # noqa: S608 - names of ours
        found = {
            tuple(row[column] for column in keys): {column: row[column] for column in columns} for row in found_rows
        }
        wrong = [difference for key, row in rows.items() if (difference := _difference(key, found.get(key), row))]
        assert not wrong, f"{mart}: {len(wrong)} of {len(rows)} rows differ, such as {wrong[:3]}"
        assert found.keys() == rows.keys(), mart
        assert len(found_rows) == len(rows), mart


def _difference(key: tuple[Any, ...], found: Row | None, row: Row) -> str:
    """What is wrong with a row, if anything is."""
    if found is None:
        return f"{key} is not there"
    wrong = [f"{name} {found[name]} instead of {value}" for name, value in row.items() if not _same(found[name], value)]
    return f"{key}: {', '.join(wrong)}" if wrong else ""


def _same(found: Any, value: Any) -> bool:
    """Databases and Python differ in the last digits of a fraction."""
    return (
        math.isclose(found, value, abs_tol=1e-6) if isinstance(found, float) and value is not None else found == value
    )
