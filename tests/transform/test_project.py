"""The dbt project as people meet it: names, descriptions, examples, empty tables, tables that come late."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.transform.advisories import Advisories
from tests.transform.fleets import RandomTenant
from tests.transform.marts import KEYS, assert_true
from tests.transform.truth import Check, Deadline, KbCve, Machine, MissingKb, Sweep, Tenant, Truth
from tests.transform.warehouses import COLUMNS, PROJECT, default_deadlines

if TYPE_CHECKING:
    from pathlib import Path

    from tests.transform.warehouses import Warehouse

MONDAY = datetime(2026, 1, 5, 2)  # noqa: DTZ001 - UTC, as warehouses keep it
DAY = timedelta(days=1)
HOUR = timedelta(hours=1)


def answer(night: int, *kb_ids: str, hours: float = 0, machine_id: str = "m1", outcome: str = "answered") -> Check:
    """What became of a machine in the n-th night; if it answered, with what it names as missing."""
    at = MONDAY + night * DAY + hours * HOUR
    return Check(machine_id, night + 1, at, outcome, frozenset(kb_ids) if outcome == "answered" else None)


def listed(night: int, machine_id: str = "m1", listing: int | None = None) -> Machine:
    """A machine as the n-th night lists it."""
    return Machine(machine_id, MONDAY + night * DAY, last_seen=MONDAY + night * DAY, listing=listing)


def missing(night: int, kb_id: str, machine_id: str = "m1", **columns: Any) -> MissingKb:
    """A row of the n-th night."""
    return MissingKb(machine_id, kb_id, MONDAY + night * DAY, name=f"Update {kb_id}", **columns)


def judged(night: int, is_believed: bool | None, listing: int | None = None, machines: int | None = None) -> Sweep:
    """What the tap thought of the n-th night's sweep."""
    began_at = MONDAY + night * DAY
    return Sweep(
        night + 1,
        began_at=began_at,
        ended_at=None if is_believed is None else began_at + HOUR,
        listing=listing,
        machines_listed=machines,
        is_complete=is_believed is not None,
        is_believed=is_believed,
    )


def schemas_of(warehouse: Warehouse) -> dict[str, dict[str, set[str]]]:
    """The columns of every table and view by schema and name."""
    found: dict[str, dict[str, set[str]]] = {}
    query = "SELECT table_schema, table_name, column_name FROM information_schema.columns"
    for row in warehouse.query(query):
        tables = found.setdefault(row["table_schema"], {})
        tables.setdefault(row["table_name"], set()).add(row["column_name"])
    return found


def test_an_empty_warehouse_passes_every_test(warehouse: Warehouse) -> None:
    """The tap made its tables, and had nothing to write."""
    warehouse.load(Tenant())
    warehouse.build()
    assert_true(warehouse, Truth([Tenant()], default_deadlines()))
    schemas = schemas_of(warehouse)
    assert {*KEYS} - {"int_kb_episodes"} | {"deadlines", "rule_books"} == {*schemas["analytics"]}
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
    """With `kb_cves` and the feeds and without them, in one warehouse: they come when they are first read."""
    fleet = RandomTenant(191, cves=True, advisories=True)
    fleet.pass_nights(30)
    tenant = replace(fleet.tenant(), name="mde")
    without = replace(tenant, kb_cves=None, advisories=Advisories())
    warehouse.load(without)
    warehouse.build_models()
    assert_true(warehouse, Truth([without], default_deadlines()))
    warehouse.load(tenant)
    warehouse.build()
    truth = Truth([tenant], default_deadlines())
    assert_true(warehouse, truth)
    assert {row["deadline_days"] for row in truth.kb_episodes().values()} >= {15, 30, 180}
    queries = re.findall(r"```sql\n(.*?)```", (PROJECT / "README.md").read_text(), re.DOTALL)
    assert {mart for mart in KEYS if any(f"analytics.{mart}" in query for query in queries)} == {*KEYS} - {
        "int_kb_episodes"
    }
    for query in queries:
        assert warehouse.query(query), query


def test_the_semantic_layers_figures_are_the_marts_own(duckdb_warehouse: Warehouse) -> None:
    """Patched share, open and overdue pairs, mean days to install: as dbt parses them, and as the marts say."""
    fleet = RandomTenant(191, cves=True)
    fleet.pass_nights(30)
    duckdb_warehouse.load(replace(fleet.tenant(), name="mde"))
    duckdb_warehouse.build_models()
    manifest: Any = duckdb_warehouse.dbt("parse").result
    metrics = {each.name for each in manifest.metrics.values()}
    assert metrics >= {"patched_share", "open_pairs", "overdue_pairs", "mean_days_to_install"}
    figures = {}
    for model in manifest.semantic_models.values():
        for measure in model.measures:
            function = {"sum": "sum", "average": "avg"}[measure.agg.value]
            query = f"SELECT {function}({measure.expr}) AS figure FROM {model.node_relation.relation_name}"  # noqa: S608 - ours
            [figures[measure.name]] = [row["figure"] for row in duckdb_warehouse.query(query)]
        keys = [entity.expr for entity in model.entities if entity.type.value == "primary"]
        counts = f"SELECT count(*) AS rows, count(DISTINCT {keys[0]}) AS keys FROM {model.node_relation.relation_name}"  # noqa: S608 - ours
        [counted] = duckdb_warehouse.query(counts)
        assert counted["rows"] == counted["keys"] > 0
    [overall] = duckdb_warehouse.query("SELECT * FROM analytics.compliance_by_segment WHERE segment_kind = 'all'")
    [installs] = duckdb_warehouse.query("SELECT * FROM analytics.time_to_install WHERE segment_kind = 'all'")
    assert figures["patched_machines"] / figures["known_machines"] == overall["patched_share"]
    assert (figures["open_pairs"], figures["overdue_pairs"]) == (overall["missing_pairs"], overall["overdue_pairs"])
    assert figures["mean_days_to_install"] == pytest.approx(installs["mean_days"])


def test_the_exposure_names_every_mart_that_the_page_reads() -> None:
    [report] = yaml.safe_load((PROJECT / "models" / "marts" / "_exposures.yml").read_text())["exposures"]
    named = set(re.findall(r"ref\('(\w+)'\)", " ".join(report["depends_on"])))
    sql = " ".join(path.read_text() for path in (PROJECT.parent / "demo" / "sql").glob("*.sql"))
    marts = {path.stem for path in (PROJECT / "models" / "marts").glob("*.sql")}
    assert named == {mart for mart in marts if re.search(rf"(?:FROM|JOIN) {mart}\b", sql)}


def test_a_rule_book_that_there_is_none_of_fails_a_test(duckdb_warehouse: Warehouse) -> None:
    """Else nothing would ever be due."""
    duckdb_warehouse.load(Tenant())
    duckdb_warehouse.build_models(rule_book="bod_22_01")
    done = duckdb_warehouse.dbt("test", "--select", "rule_book_has_rules", rule_book="bod_22_01")
    assert [str(result.status) for result in getattr(done.result, "results", [])] == ["fail"]


def test_where_kev_was_never_read_no_date_is_made_of_not_being_in_it(duckdb_warehouse: Warehouse) -> None:
    """CISA refuses many clouds' addresses: 60 days for what may be 14 or 3 would be a lie."""
    fleet = RandomTenant(191, cves=True, advisories=True)
    fleet.pass_nights(10)
    whole = replace(fleet.tenant(), name="mde")
    dated = "SELECT count(due_at) AS pairs FROM analytics.pair_deadlines WHERE rule_book = 'bod_26_04'"
    counts = []
    for advisories in (replace(whole.advisories, kev=None, ssvc=None), whole.advisories):
        tenant = replace(whole, advisories=advisories)
        duckdb_warehouse.load(tenant)
        duckdb_warehouse.build_models()
        assert_true(duckdb_warehouse, Truth([tenant], default_deadlines()))
        counts += [row["pairs"] for row in duckdb_warehouse.query(dated)]
    assert counts[0] == 0
    assert counts[1] > 0


def test_an_answer_that_was_replaced_after_a_kill_is_forgotten(duckdb_warehouse: Warehouse) -> None:
    """It was asked again in the same sweep, after dbt had seen the first answer; 1 was installed in between."""
    before = Tenant([listed(0)], [answer(0, "1", "2")], [missing(0, "1"), missing(0, "2")])
    duckdb_warehouse.load(before)
    duckdb_warehouse.build_models()
    after = replace(before, checks=[answer(0, "2", hours=3), answer(1, "2")], machines=[listed(1)])
    duckdb_warehouse.load(after)
    duckdb_warehouse.build_models()
    truth = Truth([after], default_deadlines())
    assert {kb_id for _, _, kb_id, _ in truth.kb_episodes()} == {"2"}
    assert_true(duckdb_warehouse, truth)


def test_a_night_of_empty_lists_installs_nothing_once_it_is_not_believed(duckdb_warehouse: Warehouse) -> None:
    """Three such nights: dbt ran before the first had a verdict, and the second is believed."""
    checks = [answer(0, "1"), answer(0, machine_id="m2"), answer(1), answer(1, machine_id="m2")]
    first = Tenant([listed(0), listed(0, "m2")], checks, [missing(0, "1")], sweeps=[judged(0, True), judged(1, None)])
    second = replace(first, sweeps=[judged(0, True), judged(1, False)])
    third = replace(
        second,
        checks=[*checks, answer(2), answer(2, machine_id="m2")],
        sweeps=[*(second.sweeps or ()), judged(2, True)],
    )
    for tenant, status, patched in ((first, "installed", 2), (second, "open", 1), (third, "installed", 2)):
        duckdb_warehouse.load(tenant)
        duckdb_warehouse.build_models()
        truth = Truth([tenant], default_deadlines())
        assert [row["status"] for row in truth.kb_episodes().values()] == [status]
        [*_, last_day] = [row for _, row in sorted(truth.compliance_by_day().items())]
        assert last_day["machines_with_nothing_missing"] == patched
        assert_true(duckdb_warehouse, truth)
    [ended] = truth.kb_episodes().values()
    assert ended["installed_by"] == MONDAY + 2 * DAY


def test_a_verdict_that_turns_when_the_failed_are_asked_again_closes_what_was_left_open(
    duckdb_warehouse: Warehouse,
) -> None:
    """Of m1 dbt had seen 2 in that sweep already, so that the sweep lies behind its watermark."""
    before = Tenant(
        [listed(1)],
        [answer(0, "1"), answer(1, "2")],
        [missing(0, "1"), missing(1, "2")],
        sweeps=[judged(0, True), judged(1, False)],
    )
    duckdb_warehouse.load(before)
    duckdb_warehouse.build_models()
    after = replace(before, sweeps=[judged(0, True), judged(1, True)])
    duckdb_warehouse.load(after)
    duckdb_warehouse.build_models()
    truth = Truth([after], default_deadlines())
    assert [row["status"] for row in truth.kb_episodes().values()] == ["installed", "open"]
    assert_true(duckdb_warehouse, truth)


def test_an_update_of_a_silent_machine_goes_on_as_the_same_episode_when_it_is_back(
    duckdb_warehouse: Warehouse,
) -> None:
    """In between it is neither open nor overdue nor installed."""
    away = Tenant(
        [listed(40)],
        [answer(0, "1"), *(replace(answer(night, outcome="skipped"), reason="silent") for night in range(31, 41))],
        [missing(0, "1", cve_addressed=30)],
        sweeps=[judged(night, True) for night in (0, *range(31, 41))],
    )
    back = replace(away, checks=[*away.checks, answer(41, "1")], sweeps=[*(away.sweeps or ()), judged(41, True)])
    for tenant, status, overdue in ((away, "not_assessed", 0), (back, "open", 1)):
        duckdb_warehouse.load(tenant)
        duckdb_warehouse.build_models()
        truth = Truth([tenant], default_deadlines())
        assert [row["status"] for row in truth.kb_episodes().values()] == [status]
        assert len(truth.overdue_pairs()) == overdue
        assert_true(duckdb_warehouse, truth)
    assert [row["missed_checks"] for row in truth.kb_episodes().values()] == [2]


def test_nobody_leaves_by_a_list_that_is_short_or_on_its_way(duckdb_warehouse: Warehouse) -> None:
    """The second night's list was held back; of the third's, which was believed, one row of two is not loaded yet."""
    machines = [listed(0, "m1", 10), listed(0, "m2", 10), listed(0, "m3", 10)]
    sweeps = [judged(0, True, 10, 3)]
    held_back = Tenant([listed(1, "m1", 20), *machines[1:]], sweeps=[*sweeps, judged(1, True, 10, 3)])
    on_its_way = Tenant([listed(2, "m1", 30), *machines[1:]], sweeps=[*sweeps, judged(2, True, 30, 2)])
    whole = Tenant([listed(2, "m1", 30), listed(2, "m2", 30), machines[2]], sweeps=[*sweeps, judged(2, True, 30, 2)])
    for tenant, staying in ((held_back, 3), (on_its_way, 3), (whole, 2)):
        duckdb_warehouse.load(tenant)
        duckdb_warehouse.build_models()
        truth = Truth([tenant], default_deadlines())
        assert len(truth.machine_compliance()) == staying
        assert_true(duckdb_warehouse, truth)


def test_a_tenant_that_was_never_loaded_is_left_out_until_it_is(warehouse: Warehouse) -> None:
    """Of the second the target was killed before it had made its last table; the third's secret is wrong."""
    fleets = [RandomTenant(number, cves=False) for number in (7, 8, 9)]
    for fleet in fleets:
        fleet.pass_nights(3)
    loaded, begun, never = (fleet.tenant() for fleet in fleets)
    begun = replace(begun, checks=[], missing_kbs=[], kb_cves=None, sweeps=[])
    warehouse.load(loaded, begun)
    warehouse.run(f"DROP TABLE {begun.name}.missing_kbs_checks")
    schemas = [each.name for each in (begun, loaded, never)]
    warehouse.build_models(mde_schema=schemas)
    assert_true(warehouse, Truth([loaded, begun], default_deadlines()))
    warehouse.load(never)
    warehouse.build_models(mde_schema=schemas)
    assert_true(warehouse, Truth([loaded, begun, never], default_deadlines()))


def test_the_models_of_an_earlier_version_are_gone_on_with(warehouse: Warehouse) -> None:
    """They knew no tenants and no sweeps, and kept the year 1; what an export told is kept."""
    seen = MONDAY - 9 * DAY
    before = Tenant(
        [listed(0)],
        [answer(0, "1", "2")],
        [missing(0, "1", first_seen_at=seen), missing(0, "2")],
    )
    warehouse.load(before)
    warehouse.build_models()
    kept = "analytics_intermediate.int_machine_kbs"
    warehouse.run(
        *(f"DROP TABLE analytics_intermediate.{table} CASCADE" for table in ("int_known_sweeps", "int_sweeps")),
        "ALTER TABLE analytics_intermediate.int_kb_episodes DROP COLUMN tenant",
        "ALTER TABLE analytics_intermediate.int_kb_episodes DROP COLUMN last_missed_in",
        "ALTER TABLE analytics_intermediate.int_kb_episodes DROP COLUMN episode_number",
        f"ALTER TABLE {kept} DROP COLUMN tenant",
        f"UPDATE {kept} SET first_seen_at = TIMESTAMP '0001-01-01' WHERE kb_id = '2'",  # noqa: S608 - as above
    )
    after = replace(
        before,
        checks=[*before.checks, answer(1, "1")],
        missing_kbs=[missing(1, "1", sweep=2), missing(0, "2")],
        machines=[listed(1, listing=10)],
        sweeps=[judged(1, True, 10, 1)],
    )
    warehouse.load(after)
    warehouse.build_models()
    assert_true(warehouse, Truth([after], default_deadlines(), {("mde", "m1", "1"): seen}))


@pytest.mark.parametrize("verdicts", [(None, False), (False, True)], ids=["comes", "turns"])
def test_a_build_that_broke_off_after_the_history_does_no_harm(
    duckdb_warehouse: Warehouse, verdicts: tuple[bool | None, bool]
) -> None:
    """What it knew of the second sweep was not written down; then there is another verdict."""
    before = Tenant([listed(0)], [answer(0, "1")], [missing(0, "1")], sweeps=[judged(0, True)])
    duckdb_warehouse.load(before)
    duckdb_warehouse.build_models()
    first, second = verdicts
    broken_off = replace(before, checks=[answer(0, "1"), answer(1, "2")], sweeps=[judged(0, True), judged(1, first)])
    duckdb_warehouse.load(broken_off)
    duckdb_warehouse.build_models("--select", "+int_kb_episodes")
    after = replace(broken_off, sweeps=[judged(0, True), judged(1, second)])
    duckdb_warehouse.load(after)
    duckdb_warehouse.build_models()
    assert_true(duckdb_warehouse, Truth([after], default_deadlines()))


def test_a_newest_sweep_with_few_answers_or_without_an_end_is_a_warning(duckdb_warehouse: Warehouse) -> None:
    """Of the newest of each tenant, not of those before; one that broke off has asked those that answered, no more."""
    night = replace(judged(0, True), machines_asked=100, machines_answered=94)
    for machines_answered, is_complete, status in ((94, True, "warn"), (95, True, "pass"), (100, False, "warn")):
        newest = replace(
            judged(1, True), machines_asked=100, machines_answered=machines_answered, is_complete=is_complete
        )
        duckdb_warehouse.load(Tenant(sweeps=[night, newest]))
        duckdb_warehouse.build_models()
        done = duckdb_warehouse.dbt("test", "--select", "newest_sweep_covers_the_fleet")
        assert [str(result.status) for result in getattr(done.result, "results", [])] == [status]


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
    """By the end of the newest complete sweep, whatever columns the target adds."""
    now = datetime.now(timezone.utc).replace(tzinfo=None)
    for age, status in ((HOUR, "pass"), (2 * DAY, "warn"), (4 * DAY, "error")):
        ended = Sweep(1, ended_at=now - age, is_complete=True)
        warehouse.load(Tenant(sweeps=[ended, Sweep(2, ended_at=now, is_complete=False)]))
        done = warehouse.dbt("source", "freshness")
        assert {result.node.name: str(result.status) for result in getattr(done.result, "results", [])} == {
            "sweeps": status
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
        name="defender",
    )
    warehouse.load(tenant)
    assert warehouse.dbt("deps", project=root).success
    warehouse.build(project=root)
    deadlines = [
        Deadline(4, min_cve_addressed=0, min_severity="Low", deadline_id="all"),
        Deadline(3, machine_tag="VIP", deadline_id="vip"),
        Deadline(2, rbac_group_name="Servers", deadline_id="servers"),
        Deadline(1, rbac_group_name="Servers", machine_tag="VIP", deadline_id="both"),
    ]
    truth = Truth([tenant], deadlines)
    assert [row["deadline_days"] for row in truth.kb_episodes().values()] == [4, 3, 2, 1]
    assert_true(warehouse, truth)
