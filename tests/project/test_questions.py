"""The queries of docs/ over random tables give what a reader finds who knows the contract and no SQL.

Tables with rows that came twice, sweeps that are not believed or not judged, lists that have not arrived whole,
machines that went silent, rows whose check is lost, and what an earlier version of the tap wrote.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import duckdb
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support import readme
from tests.support.contract import missing_now, present

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from demo.postgres import Postgres

Row = dict[str, Any]
Tables = dict[str, list[Row]]

COLUMNS = {
    "machines": "tenant text, id text, listed_at timestamp, listing bigint, last_seen timestamp",
    "missing_kbs": (
        "tenant text, machine_id text, id text, name text, products_names text, url text, machine_missed_on bigint, "
        "cve_addressed bigint, os_build bigint, first_seen_at timestamp, checked_at timestamp, sweep bigint"
    ),
    "missing_kbs_checks": (
        "tenant text, machine_id text, sweep bigint, checked_at timestamp, outcome text, reason text"
    ),
    "sweeps": (
        "tenant text, sweep bigint, listing bigint, machines_listed bigint, is_believed boolean, is_complete boolean, "
        "source text, began_at timestamp, ended_at timestamp, verdict text, machines_asked bigint, "
        "machines_answered bigint, machines_failed bigint, machines_not_found bigint, machines_not_in_export bigint, "
        "machines_skipped bigint"
    ),
}
TENANTS = ("contoso", "fabrikam")
MACHINES = st.sampled_from("abc")
NUMBERS = st.integers(1, 4)
MOMENTS = st.integers(0, 5).map(lambda hour: f"2026-03-01 0{hour}:00:00")
OUTCOMES = st.sampled_from(["answered", "answered", "answered", "failed", "not_found", "skipped", "not_in_export"])


@st.composite
def tables(draw: st.DrawFn) -> Tables:
    """The tables of one tenant; a row is written again now and then, as append-only targets have it."""
    machines = draw(
        st.lists(
            st.fixed_dictionaries({"id": MACHINES, "listed_at": MOMENTS, "listing": st.none() | NUMBERS}), max_size=6
        )
    )
    sweeps = draw(
        st.lists(
            st.fixed_dictionaries(
                {
                    "sweep": NUMBERS,
                    "listing": NUMBERS,
                    "machines_listed": st.integers(0, 3),
                    "is_believed": st.sampled_from([None, True, True, False]),
                }
            ),
            max_size=4,
        )
    )
    checks: list[Row] = draw(
        st.lists(
            st.fixed_dictionaries(
                {"machine_id": MACHINES, "sweep": NUMBERS, "checked_at": MOMENTS, "outcome": OUTCOMES}
            ),
            max_size=10,
        )
    )
    rows: list[Row] = draw(
        st.lists(
            st.fixed_dictionaries(
                {
                    "machine_id": MACHINES,
                    "id": st.sampled_from(["1", "2"]),
                    "checked_at": MOMENTS,
                    "sweep": st.none() | NUMBERS,
                }
            ),
            max_size=8,
        )
    )
    # Most rows belong to a check.
    for check in checks:
        if check["outcome"] == "answered" and draw(st.booleans()):
            is_old = draw(st.booleans())
            own = {"machine_id": check["machine_id"], "checked_at": check["checked_at"]}
            rows.append({**own, "id": "3", "sweep": None if is_old else check["sweep"]})
    found = {"machines": machines, "missing_kbs": rows, "missing_kbs_checks": checks, "sweeps": sweeps}
    return {table: [*of, *(row for row in of if draw(st.booleans()))] for table, of in found.items()}


class Ask(Protocol):
    """Loads tables of tenants, and asks a query."""

    def __call__(self, of_tenants: Mapping[str, Tables], query: str) -> list[Row]:
        """The rows that it gives."""


def statements(of_tenants: Mapping[str, Tables]) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """The tables made anew, and a row each."""
    for table, columns in COLUMNS.items():
        yield f"DROP TABLE IF EXISTS {table}", ()
        yield f"CREATE TABLE {table} ({columns})", ()
        for tenant, found in of_tenants.items():
            for row in found[table]:
                whole = {"tenant": tenant, **row}
                names, places = ", ".join(whole), ", ".join(["%s"] * len(whole))
                yield f"INSERT INTO {table} ({names}) VALUES ({places})", tuple(whole.values())  # noqa: S608 - ours


@pytest.fixture(params=["DuckDB", "PostgreSQL"])
def ask(request: pytest.FixtureRequest) -> Iterator[Ask]:
    """Each of them, in one transaction that nobody else sees."""
    if request.param == "DuckDB":
        with duckdb.connect() as connection:

            def of_duckdb(of_tenants: Mapping[str, Tables], query: str) -> list[Row]:
                for statement, values in statements(of_tenants):
                    connection.execute(statement.replace("%s", "?"), values)
                answer = connection.sql(query)
                return [dict(zip(answer.columns, row, strict=True)) for row in answer.fetchall()]

            yield of_duckdb
        return
    database: Postgres = request.getfixturevalue("postgres")
    with psycopg.connect(database.url) as server:

        def of_postgres(of_tenants: Mapping[str, Tables], query: str) -> list[Row]:
            with server.cursor(row_factory=psycopg.rows.dict_row) as cursor:
                for statement, values in statements(of_tenants):
                    cursor.execute(statement.encode(), values)
                return cursor.execute(query.encode()).fetchall()

        yield of_postgres


def keys(rows: list[Row]) -> list[tuple[Any, ...]]:
    """What tells rows apart, in order; one that came twice is there twice."""
    found = [(row.get("tenant"), row["machine_id"], row["id"], row["sweep"], str(row["checked_at"])) for row in rows]
    return sorted(found, key=repr)


def truth(tenant: str | None, found: Tables) -> list[Row]:
    """What is missing now in one tenant."""
    return [{"tenant": tenant, "sweep": None, **row} for row in missing_now(found).values()]


FEW = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
"""The same connection serves all of them: each makes its tables anew."""


@FEW
@given(found=tables())
def test_what_is_missing_now(ask: Ask, found: Tables) -> None:
    """Each pair once, and the newest row of it."""
    assert keys(ask({"contoso": found}, readme.sql("missing now"))) == keys(truth(None, found))


@FEW
@given(both=st.tuples(tables(), tables()))
def test_what_is_missing_now_in_several_tenants(ask: Ask, both: tuple[Tables, Tables]) -> None:
    """Machines with the same ids, sweeps of the same second: each tenant has its own."""
    of_tenants = dict(zip(TENANTS, both, strict=True))
    told = [row for tenant, found in of_tenants.items() for row in truth(tenant, found)]
    assert keys(ask(of_tenants, readme.sql("missing now, several tenants"))) == keys(told)


@FEW
@given(found=tables())
def test_who_is_unknown(ask: Ask, found: Tables) -> None:
    """Each machine of the newest list once that gave no answer the last time it was asked, or was not asked at all."""
    newest: dict[str, set[str]] = {}
    for row in sorted(found["missing_kbs_checks"], key=lambda row: row["sweep"]):
        at_once = [each for each in found["missing_kbs_checks"] if each["sweep"] == row["sweep"]]
        newest[row["machine_id"]] = {each["outcome"] for each in at_once if each["machine_id"] == row["machine_id"]}
    listed = [row for row in found["machines"] if row["listing"] is not None]
    told = {row["machine_id"]: row["outcome"] for row in ask({"contoso": found}, readme.sql("unknown machines"))}
    for machine_id in present(listed, found["sweeps"]):
        outcomes = newest.get(machine_id, {"not asked yet"})
        assert told.pop(machine_id, "answered") in outcomes
    assert told == {}


def test_the_newest_sweep_is_told_as_it_ended(ask: Ask) -> None:
    """Though a target that appends has its row from the beginning, too."""
    sweeps: list[Row] = [
        {"sweep": 1, "is_complete": True, "machines_asked": 9, "is_believed": True},
        {"sweep": 2, "is_complete": False, "machines_asked": 0},
        {"sweep": 2, "is_complete": True, "machines_asked": 7, "is_believed": False},
        {"sweep": 2, "is_complete": False, "machines_asked": 3},
    ]
    found: Tables = {"machines": [], "missing_kbs": [], "missing_kbs_checks": [], "sweeps": sweeps}
    [row] = ask({"contoso": found}, readme.sql("newest sweep"))
    assert (row["sweep"], row["is_complete"], row["is_believed"], row["machines_asked"]) == (2, True, False, 7)
    sweeps.append({"sweep": 3, "is_complete": False, "machines_asked": 5})
    [row] = ask({"contoso": found}, readme.sql("newest sweep"))
    assert (row["sweep"], row["machines_asked"]) == (3, 5)
