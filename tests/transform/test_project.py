"""The dbt project as people meet it: names, descriptions, examples, empty tables, tables that come late."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import yaml

from tests.transform.fleets import RandomTenant
from tests.transform.marts import KEYS, assert_true
from tests.transform.truth import Check, Deadline, KbCve, Machine, MissingKb, Tenant, Truth
from tests.transform.warehouses import COLUMNS, PROJECT, default_deadlines

if TYPE_CHECKING:
    from pathlib import Path

    from tests.transform.warehouses import Warehouse

MONDAY = datetime(2026, 1, 5, 2)  # noqa: DTZ001 - UTC, as warehouses keep it
DAY = timedelta(days=1)
HOUR = timedelta(hours=1)


def answer(night: int, *kb_ids: str, hours: float = 0, machine_id: str = "m1") -> Check:
    """An answer of the n-th night, with what it names as missing."""
    at = MONDAY + night * DAY + hours * HOUR
    return Check(machine_id, night + 1, at, "answered", frozenset(kb_ids))


def listed(night: int, machine_id: str = "m1") -> Machine:
    """A machine as the n-th night lists it."""
    return Machine(machine_id, MONDAY + night * DAY, last_seen=MONDAY + night * DAY)


def missing(night: int, kb_id: str, machine_id: str = "m1", **columns: Any) -> MissingKb:
    """A row of the n-th night."""
    return MissingKb(machine_id, kb_id, MONDAY + night * DAY, name=f"Update {kb_id}", **columns)


def schemas_of(warehouse: Warehouse) -> dict[str, dict[str, set[str]]]:
    """The columns of every table and view by schema and name."""
    found: dict[str, dict[str, set[str]]] = {}
    query = "SELECT table_schema, table_name, column_name FROM information_schema.columns"
    for row in warehouse.query(query):
        tables = found.setdefault(row["table_schema"], {})
        tables.setdefault(row["table_name"], set()).add(row["column_name"])
    return found


def test_an_empty_warehouse_passes_every_test(warehouse: Warehouse) -> None:
    """The tap made its tables, and had nothing to write; unit tests, which need the tables' types, included."""
    warehouse.load(Tenant())
    warehouse.build()
    assert_true(warehouse, Truth([Tenant()], default_deadlines()))
    schemas = schemas_of(warehouse)
    assert {*KEYS} - {"int_kb_episodes"} | {"deadlines"} == {*schemas["analytics"]}
    assert all(name.startswith("stg_") for name in schemas["analytics_staging"])
    assert all(name.startswith("int_") for name in schemas["analytics_intermediate"])
    assert not {*COLUMNS} & {table for schema, tables in schemas.items() if schema != "mde" for table in tables}
    assert_described(schemas)


def assert_described(schemas: dict[str, dict[str, set[str]]]) -> None:
    """Every model, seed and column there is has a description, and nothing else has."""
    described: dict[str, set[str]] = {}
    for path in [path for part in ("models", "macros", "seeds") for path in (PROJECT / part).rglob("*.yml")]:
        content = yaml.safe_load(path.read_text())
        for kind in ("models", "seeds", "macros"):
            for each in content.get(kind, []):
                assert each["description"]
                assert all(part["description"] for part in [*each.get("columns", []), *each.get("arguments", [])])
                described[each["name"]] = {column["name"] for column in each.get("columns", [])}
    for schema in ("analytics", "analytics_staging", "analytics_intermediate"):
        for name, columns in schemas[schema].items():
            assert described.pop(name) == columns, name
    macros = {name for path in PROJECT.glob("macros/*.sql") for name in re.findall(r"macro (\w+)\(", path.read_text())}
    assert {*described} == {name for name in macros if "__" not in name}


def test_a_whole_warehouse_passes_every_test_and_the_readmes_questions_have_answers(warehouse: Warehouse) -> None:
    """With `kb_cves` and without it, in one warehouse: it comes with the first export."""
    fleet = RandomTenant(37, cves=True)
    fleet.pass_nights(30)
    tenant = fleet.tenant()
    without = replace(tenant, kb_cves=None)
    warehouse.load(without)
    warehouse.build_models()
    assert_true(warehouse, Truth([without], default_deadlines()))
    warehouse.load(tenant)
    warehouse.build("--exclude-resource-type=unit_test")
    truth = Truth([tenant], default_deadlines())
    assert_true(warehouse, truth)
    assert {row["deadline_days"] for row in truth.kb_episodes().values()} >= {15, 30, 180}
    queries = re.findall(r"```sql\n(.*?)```", (PROJECT / "README.md").read_text(), re.DOTALL)
    assert {mart for mart in KEYS if any(f"analytics.{mart}" in query for query in queries)} == {*KEYS} - {
        "int_kb_episodes"
    }
    for query in queries:
        assert warehouse.query(query), query


def test_an_answer_that_was_replaced_after_a_kill_is_forgotten(warehouse: Warehouse) -> None:
    """It was asked again in the same sweep, after dbt had seen the first answer; 1 was installed in between."""
    before = Tenant([listed(0)], [answer(0, "1", "2")], [missing(0, "1"), missing(0, "2")])
    warehouse.load(before)
    warehouse.build_models()
    after = replace(before, checks=[answer(0, "2", hours=3), answer(1, "2")], machines=[listed(1)])
    warehouse.load(after)
    warehouse.build_models()
    truth = Truth([after], default_deadlines())
    assert {kb_id for _, kb_id, _ in truth.kb_episodes()} == {"2"}
    assert_true(warehouse, truth)


def test_what_a_target_deletes_is_kept(warehouse: Warehouse) -> None:
    """With hard deletes the rows of installed updates and of machines that left are gone; the checks are not."""
    before = Tenant(
        [listed(0, "m1"), listed(0, "m2")],
        [answer(0, "1"), answer(0, "1", machine_id="m2")],
        [missing(0, "1", cve_addressed=30), missing(0, "1", "m2", cve_addressed=40)],
        [KbCve("1", "CVE-2026-1", "High", 8.8, "ExploitIsPublic")],
    )
    warehouse.load(before)
    warehouse.build_models()
    after = Tenant([listed(1, "m1")], [*before.checks, answer(1)], [], [])
    warehouse.load(after)
    for full_refresh in ([], ["--full-refresh"]):
        warehouse.build_models(*full_refresh)
        kept = replace(after, missing_kbs=before.missing_kbs, kb_cves=before.kb_cves)
        truth = Truth([kept], default_deadlines())
        assert [row["status"] for row in truth.kb_episodes().values()] == ["installed", "machine_left"]
        assert_true(warehouse, truth)


def test_freshness_tells_a_tap_that_stopped(warehouse: Warehouse) -> None:
    """By the data's own times, whatever columns the target adds."""
    now = datetime.now(timezone.utc).replace(tzinfo=None)
    for age, status in ((HOUR, "pass"), (2 * DAY, "warn"), (4 * DAY, "error")):
        at = now - age
        warehouse.load(Tenant([Machine("m1", at)], [Check("m1", 1, at, "failed")]))
        done = warehouse.dbt("source", "freshness")
        assert {result.node.name: str(result.status) for result in getattr(done.result, "results", [])} == {
            "machines": status,
            "missing_kbs_checks": status,
        }


def test_it_is_a_package_with_deadlines_of_the_projects_own(duckdb_warehouse: Warehouse, tmp_path: Path) -> None:
    """As the README says: another raw schema, another seed."""
    root = tmp_path / "root"
    (root / "seeds").mkdir(parents=True)
    package, project = re.findall(r"```yaml\n(.*?)```", (PROJECT / "README.md").read_text(), re.DOTALL)
    assert yaml.safe_load(package)["packages"][0]["subdirectory"] == PROJECT.name
    (root / "packages.yml").write_text(yaml.safe_dump({"packages": [{"local": str(PROJECT)}]}))
    (root / "dbt_project.yml").write_text(f"name: of_my_own\nversion: 1.0.0\nprofile: tap_mde_kbs\n{project}")
    (root / "seeds" / "deadlines.csv").write_text(
        "deadline_id,min_cve_addressed,min_severity,rbac_group_name,machine_tag,days\n"
        "all,0,Low,,,4\nvip,,,,VIP,3\nservers,,,Servers,,2\nboth,,,Servers,VIP,1\n"
    )
    warehouse = duckdb_warehouse
    machines = [
        listed(0, "m1"),
        replace(listed(0, "m2"), machine_tags=("lab", "VIP")),
        replace(listed(0, "m3"), rbac_group_name="Servers", machine_tags=("lab",)),
        replace(listed(0, "m4"), rbac_group_name="Servers", machine_tags=("VIP",)),
    ]
    tenant = Tenant(
        machines,
        [answer(0, "1", machine_id=machine.id) for machine in machines],
        [missing(0, "1", machine.id, cve_addressed=0) for machine in machines],
    )
    warehouse.load(tenant, schema="defender")
    assert warehouse.dbt("deps", project=root).success
    warehouse.build(project=root)
    deadlines = [
        Deadline(4, min_cve_addressed=0, min_severity="Low"),
        Deadline(3, machine_tag="VIP"),
        Deadline(2, rbac_group_name="Servers"),
        Deadline(1, rbac_group_name="Servers", machine_tag="VIP"),
    ]
    truth = Truth([tenant], deadlines)
    assert [row["deadline_days"] for row in truth.kb_episodes().values()] == [4, 3, 2, 1]
    assert_true(warehouse, truth)
