"""Nights through target-postgres: what the tables hold is what the tenant knows, row by row."""

from __future__ import annotations

import json
import signal
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from mde_simulator import Fault, Fleet
from mde_simulator.fleet.devices import NULLABLE, ODD_NAMES
from tests.support.contract import answers_of
from tests.support.pipeline import Interrupt
from tests.support.singer import HURRIED, TAP, run_tap
from tests.support.warehouse import Warehouse, assert_right_so_far, pairs, true_machines, true_missing_kbs

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import StartSimulator
    from tests.e2e.conftest import Connect

PAGES = {"page_size": 70}


def assert_true(warehouse: Warehouse, fleet: Fleet) -> None:
    """Both tables, the checks, and what is missing now are as the fleet is today."""
    assert warehouse.missing_kbs() == true_missing_kbs(fleet)
    assert warehouse.machines() == true_machines(fleet)
    assert len({row["listed_at"] for row in warehouse.live("machines")}) == 1
    assert warehouse.missing_now() == pairs(fleet)
    assert_checks_are_true(warehouse, fleet)
    checked_at = {machine_id: check["checked_at"] for machine_id, check in warehouse.last_checks().items()}
    for row in warehouse.live("missing_kbs"):
        assert row["checked_at"] == checked_at[row["machine_id"]]


def assert_checks_are_true(warehouse: Warehouse, fleet: Fleet) -> None:
    """A check for each machine listed today, with what it lacks."""
    missing = answers_of(fleet)
    checks = warehouse.last_checks()
    assert warehouse.outcomes() == {
        machine_id: "answered" if machine_id in missing else "skipped" for machine_id in fleet.listed()
    }
    for machine_id in fleet.listed():
        check, kbs = checks[machine_id], missing.get(machine_id)
        assert check["missing_kbs"] == (None if kbs is None else len(kbs))
        assert check["missing_kb_ids"] is None if kbs is None else set(check["missing_kb_ids"]) == kbs


@pytest.mark.parametrize("hard_delete", [False, True], ids=["soft delete", "hard delete"])
def test_two_nights_later_installed_updates_and_machines_that_left_are_gone(
    simulate: StartSimulator, connect: Connect, *, hard_delete: bool
) -> None:
    """230 machines over pages of 70, six weeks apart, one update rolled back in a third night."""
    simulator = simulate(230, **PAGES)
    fleet = simulator.fleet
    pipeline, warehouse = connect(simulator, target={"hard_delete": hard_delete})
    pipeline.run_whole()
    assert_true(warehouse, fleet)
    before, listed_before = pairs(fleet), set(fleet.listed())

    fleet.pass_days(42)
    pipeline.run_whole()
    installed, left = before - pairs(fleet), listed_before - set(fleet.listed())
    assert installed
    assert left
    assert pairs(fleet) - before, "nothing was published meanwhile"
    assert_true(warehouse, fleet)
    assert warehouse.deleted() == (set() if hard_delete else installed)
    assert left.isdisjoint(warehouse.machines())
    assert left <= set(warehouse.last_checks()), "the history of machines that left is kept"

    came_back = min(pair for pair in installed if pair[0] not in left)
    fleet.uninstall(*came_back)
    pipeline.run_whole()
    assert_true(warehouse, fleet)
    assert warehouse.deleted() == (set() if hard_delete else installed - {came_back})


@pytest.mark.parametrize("hard_delete", [False, True], ids=["soft delete", "hard delete"])
def test_a_sweep_in_parts_deletes_nothing_before_its_last_and_is_right_after_each(
    simulate: StartSimulator, connect: Connect, *, hard_delete: bool
) -> None:
    """Out of time, killed with its target, ended with a machine that failed, and healed: one sweep, six weeks later."""
    simulator = simulate(Fleet(60, seed=1, discovered=0), latency=0.15)
    fleet = simulator.fleet
    pipeline, warehouse = connect(simulator, target={"hard_delete": hard_delete}, patience=replace(HURRIED, state=0.1))
    pipeline.run_whole()
    before = pairs(fleet)
    fleet.pass_days(42)
    installed = before - pairs(fleet)
    ill = fleet.assessed()[-1]
    assert installed

    def assert_right_and_nothing_deleted() -> None:
        assert_right_so_far(warehouse, before, fleet)
        assert installed <= set(warehouse.missing_kbs())
        assert warehouse.deleted() == set()

    first_sweep = warehouse.newest_sweep()
    pipeline.config = {"time_limit_minutes": 0.03, "max_parallel_requests": 1}
    for _ in range(20):  # a busy machine may need that long to start
        pipeline.run_whole()
        if warehouse.newest_sweep() > first_sweep:
            break
    second_sweep = warehouse.newest_sweep()
    assert_right_and_nothing_deleted()

    pipeline.config = {}
    simulator.tenant.latency = 0.6  # a busy target takes long to pass a STATE on
    # With progress in the STATE that is passed on, the whole machine list is loaded.
    assert pipeline.run(Interrupt(signal.SIGKILL, "both", calls=8, progress=True)).interrupted
    assert_right_and_nothing_deleted()

    simulator.tenant.latency = 0.0
    simulator.faults.add(Fault("500", machine=ill))
    pipeline.run_whole()
    assert warehouse.outcomes()[ill] == "failed"
    assert_right_and_nothing_deleted()

    simulator.faults.clear()
    assert set(pipeline.run_whole().asked) == {ill}
    assert warehouse.newest_sweep() == second_sweep
    assert_true(warehouse, fleet)
    assert warehouse.deleted() == (set() if hard_delete else installed)


@pytest.mark.every_python
def test_the_second_night_is_right_under_every_python(simulate: StartSimulator, connect: Connect) -> None:
    """Two nights, small."""
    simulator = simulate(30)
    pipeline, warehouse = connect(simulator)
    pipeline.run_whole()
    before = pairs(simulator.fleet)
    simulator.fleet.pass_days(30)
    pipeline.run_whole()
    assert_true(warehouse, simulator.fleet)
    assert warehouse.deleted() == before - pairs(simulator.fleet) != set()


def test_names_in_any_script_arrive_as_they_are(simulate: StartSimulator, connect: Connect) -> None:
    """Emoji, right to left, combining marks, quotes, a backslash; in tags and in updates' names too."""
    simulator = simulate(60)
    fleet = simulator.fleet
    machine_id = next(machine_id for machine_id, kbs in answers_of(fleet).items() if kbs)
    kb_id = min(answers_of(fleet)[machine_id])
    fleet.change(machine_id, machineTags=["🏭 Werk 2", 'a, "b"', "{c}", "NULL", "", "\t", "back\\slash"])
    fleet.change_kb(kb_id, name="更新プログラム 🎉", productsNames=["مكتب", "o'ffice", "a,b", "NULL", ""])
    pipeline, warehouse = connect(simulator)
    pipeline.run_whole()
    assert set(ODD_NAMES) <= {row["computer_dns_name"] for row in warehouse.machines().values()}
    assert_true(warehouse, fleet)


def test_what_no_warehouse_can_store_is_replaced_and_nothing_else(simulate: StartSimulator, connect: Connect) -> None:
    """NUL and half a surrogate pair, which PostgreSQL and UTF-8 refuse."""
    simulator = simulate(8)
    machine_id = simulator.fleet.assessed()[0]
    simulator.fleet.change(machine_id, computerDnsName="a\0b")
    answer = r'{"value": [{"id": "1", "name": "half \ud83d a pair", "url": "whole \ud83c\udf89 pair, \u0000"}]}'
    simulator.faults.add(Fault("garbage", machine=machine_id, text=answer))
    pipeline, warehouse = connect(simulator)
    pipeline.run_whole()
    assert warehouse.machines()[machine_id]["computer_dns_name"] == "a\N{REPLACEMENT CHARACTER}b"
    row = warehouse.missing_kbs()[machine_id, "1"]
    assert row["name"] == "half \N{REPLACEMENT CHARACTER} a pair"
    assert row["url"] == "whole 🎉 pair, \N{REPLACEMENT CHARACTER}"


def test_null_in_every_nullable_field_is_null_in_the_table(simulate: StartSimulator, connect: Connect) -> None:
    """Every field of a machine but its id, and of an update but its id, each once and all at once."""
    simulator = simulate(40)
    fleet = simulator.fleet
    empty = fleet.assessed()[0]
    names = set(fleet.machine(empty)) - {"id", "onboardingStatus"}
    fleet.change(empty, **dict.fromkeys(names))
    for machine_id, name in zip(fleet.assessed()[1:], sorted(names), strict=False):
        fleet.change(machine_id, **{name: None})
    kb_ids = sorted({kb_id for _, kb_id in pairs(fleet)})
    fields = ("name", "productsNames", "url", "machineMissedOn", "cveAddressed", "osBuild")
    fleet.change_kb(kb_ids[0], **dict.fromkeys(fields))
    for kb_id, name in zip(kb_ids[1:], fields, strict=False):
        fleet.change_kb(kb_id, **{name: None})
    assert set(NULLABLE) <= names
    pipeline, warehouse = connect(simulator)
    pipeline.run_whole()
    assert_true(warehouse, fleet)
    nulls = {column for column, value in warehouse.machines()[empty].items() if value is None}
    assert nulls == set(warehouse.machines()[empty]) - {"id", "onboarding_status"}


def test_a_field_that_is_left_out_is_null(simulate: StartSimulator, tmp_path: Path) -> None:
    """The simulator always sends every field; an answer by hand does not."""
    simulator = simulate(6)
    fleet = simulator.fleet
    machine_id = next(machine_id for machine_id, kbs in answers_of(fleet).items() if kbs)
    simulator.faults.add(Fault("garbage", machine=machine_id, text='{"value": [{"id": "5030000"}]}'))
    records = run_tap(tmp_path, simulator).records("missing_kbs")
    [row] = [record for record in records if record["machine_id"] == machine_id]
    assert {name for name, value in row.items() if value is not None} == {"machine_id", "id", "checked_at", "sweep"}


def test_a_field_nobody_knows_is_dropped_with_one_warning(simulate: StartSimulator, connect: Connect) -> None:
    """In each of 40 machines and in an update; the second run loads as well as the first."""
    simulator = simulate(Fleet(40, seed=1, extra_fields={"unheardOf": {"deeply": ["nested", 1]}}))
    fleet = simulator.fleet
    fleet.change_kb(next(iter(pairs(fleet)))[1], neverSeen=1.5)
    pipeline, warehouse = connect(simulator)
    log = pipeline.run_whole().log
    assert [log.count(name) for name in ("machine.unheardOf", "missing KB.neverSeen")] == [1, 1]
    pipeline.run_whole()
    assert warehouse.machines() == true_machines(fleet)
    assert {key: row["name"] for key, row in warehouse.missing_kbs().items()} == {
        (machine_id, str(kb["id"])): kb["name"]
        for machine_id in fleet.assessed()
        for kb in fleet.missing_kbs(machine_id)
    }


@pytest.mark.parametrize("stream", ["missing_kbs", "missing_kbs_checks", "machines"])
def test_any_one_stream_alone_loads(simulate: StartSimulator, connect: Connect, stream: str) -> None:
    """The child without its parent, the checks without either, and nobody asked for machines alone."""
    simulator = simulate(40)
    fleet = simulator.fleet
    pipeline, warehouse = connect(simulator, catalog=selecting(stream))
    done = pipeline.run_whole()
    tables = warehouse.query(
        f"SELECT table_name FROM information_schema.tables WHERE table_schema = '{warehouse.schema}'"  # noqa: S608 - ours
    )
    assert tables == [{"table_name": stream}]
    assert bool(done.asked) == (stream != "machines")
    if stream == "missing_kbs":
        fleet.pass_days(40)
        pipeline.run_whole()
        assert warehouse.missing_kbs() == true_missing_kbs(fleet)
        assert warehouse.deleted()
    elif stream == "machines":
        assert warehouse.machines() == true_machines(fleet)
    else:
        assert_checks_are_true(warehouse, fleet)


def selecting(stream: str) -> dict[str, Any]:
    """The catalog with this stream selected and no other."""
    found = subprocess.run([str(TAP), "--discover"], capture_output=True, text=True, check=True, cwd=TAP.parent)
    catalog: dict[str, Any] = json.loads(found.stdout)
    for entry in catalog["streams"]:
        [of_stream] = [item["metadata"] for item in entry["metadata"] if not item["breadcrumb"]]
        of_stream["selected"] = entry["tap_stream_id"] == stream
    return catalog
