"""A warehouse of each kind: one for the session, so that dbt parses the project once, and empty for every test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.transform.warehouses import OnDuckDb, OnPostgres, Warehouse

if TYPE_CHECKING:
    from demo.postgres import Postgres


@pytest.fixture(scope="session")
def _postgres_warehouse(_server: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    return OnPostgres(tmp_path_factory.mktemp("dbt"), _server)


@pytest.fixture(scope="session")
def _duckdb_warehouse(tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    return OnDuckDb(tmp_path_factory.mktemp("dbt"))


@pytest.fixture
def duckdb_warehouse(_duckdb_warehouse: Warehouse) -> Warehouse:
    """An empty DuckDB, for what no database decides."""
    _duckdb_warehouse.clear()
    return _duckdb_warehouse


@pytest.fixture(params=[pytest.param("postgres", marks=pytest.mark.long), "duckdb"])
def warehouse(request: pytest.FixtureRequest) -> Warehouse:
    """An empty PostgreSQL, and an empty DuckDB; the SQL is nearly the same, the longer one is for `make test-all`."""
    found: Warehouse = request.getfixturevalue(f"_{request.param}_warehouse")
    found.clear()
    return found
