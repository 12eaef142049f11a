"""A warehouse of each kind for every test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.transform.warehouses import OnDuckDb, OnPostgres, Warehouse

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(params=[OnPostgres, OnDuckDb], ids=["postgres", "duckdb"])
def warehouse(request: pytest.FixtureRequest, tmp_path: Path) -> Warehouse:
    """An empty one."""
    if request.param is OnPostgres:
        return OnPostgres(tmp_path, request.getfixturevalue("postgres"))
    return OnDuckDb(tmp_path)
