"""The SDK's stream maps and flattening, and what they mean for who is asked."""

from __future__ import annotations

from importlib.metadata import requires
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.test_selection import asked, written
from tests.support.contract import answers_of
from tests.support.singer import Messages, run_tap

if TYPE_CHECKING:
    from pathlib import Path

    from mde_simulator import Simulator
    from tests.conftest import StartSimulator


def mapped(folder: Path, simulator: Simulator, stream_maps: dict[str, Any], **config: Any) -> Messages:
    """A run with stream maps that is to end well."""
    messages = run_tap(folder, simulator, config={"stream_maps": stream_maps, **config})
    assert messages.status == 0, messages.stderr
    return messages


def activated(messages: Messages) -> list[str]:
    """The streams that were activated."""
    return [message["stream"] for message in messages.of("ACTIVATE_VERSION")]


def test_only_machines_that_the_filter_keeps_are_written_and_asked(simulate: StartSimulator, tmp_path: Path) -> None:
    simulator = simulate(40)
    kept = {
        machine_id
        for machine_id in simulator.fleet.listed()
        if simulator.fleet.machine(machine_id)["osPlatform"] == "Windows11"
    }
    assert 0 < len(kept) < 40
    messages = mapped(tmp_path, simulator, {"machines": {"__filter__": "os_platform == 'Windows11'"}})
    assert {record["id"] for record in messages.records("machines")} == kept
    assert set(asked(simulator)) == kept & set(simulator.fleet.assessed())
    assert {record["machine_id"] for record in messages.records("missing_kbs_checks")} == kept
    assert activated(messages) == ["machines", "missing_kbs"]


def test_a_filter_that_keeps_no_machine_asks_nobody_and_deletes_no_kb(simulate: StartSimulator, tmp_path: Path) -> None:
    simulator = simulate(10)
    messages = mapped(tmp_path, simulator, {"machines": {"__filter__": "os_platform == 'BeOS'"}})
    assert asked(simulator) == []
    assert "missing_kbs" not in activated(messages)
    assert messages.of("RECORD") == []


def test_another_filter_begins_a_new_sweep(simulate: StartSimulator, tmp_path: Path) -> None:
    """A cursor used under another filter would call machines checked that nobody asked."""
    simulator = simulate(10)
    first = mapped(tmp_path, simulator, {"machines": {"__filter__": "os_platform != 'x'"}})
    second = mapped(tmp_path, simulator, {"machines": {"__filter__": "os_platform != 'y'"}})
    assert first.sweep["scope"] != second.sweep["scope"]


def test_machines_that_are_not_written_are_asked_all_the_same(simulate: StartSimulator, tmp_path: Path) -> None:
    simulator = simulate(20)
    messages = mapped(tmp_path, simulator, {"machines": None})
    assert written(messages) == {"missing_kbs", "missing_kbs_checks", "sweeps"}
    assert set(asked(simulator)) == set(simulator.fleet.assessed())
    assert activated(messages) == ["missing_kbs"]


def test_kbs_that_are_not_written_still_have_their_checks(simulate: StartSimulator, tmp_path: Path) -> None:
    simulator = simulate(10)
    messages = mapped(tmp_path, simulator, {"missing_kbs": None})
    assert written(messages) == {"machines", "missing_kbs_checks", "sweeps"}
    assert set(asked(simulator)) == set(simulator.fleet.assessed())
    assert activated(messages) == ["machines"]


def test_a_filter_on_kbs_leaves_the_checks_whole(simulate: StartSimulator, tmp_path: Path) -> None:
    """Only the rows are fewer: what a machine lacks is still what it lacks."""
    simulator = simulate(20)
    messages = mapped(tmp_path, simulator, {"missing_kbs": {"__filter__": "(cve_addressed or 0) > 50"}})
    rows = messages.records("missing_kbs")
    assert rows
    assert all((row["cve_addressed"] or 0) > 50 for row in rows)
    found = {
        row["machine_id"]: frozenset(row["missing_kb_ids"])
        for row in messages.records("missing_kbs_checks")
        if row["outcome"] == "answered"
    }
    assert found == answers_of(simulator.fleet)
    assert sum(map(len, found.values())) > len(rows)
    assert activated(messages) == ["machines", "missing_kbs"]


def test_an_alias_names_schema_records_and_activation(simulate: StartSimulator, tmp_path: Path) -> None:
    messages = mapped(
        tmp_path,
        simulate(5),
        {"machines": {"__alias__": "devices"}, "missing_kbs": {"__alias__": "lacking"}},
    )
    assert written(messages) == {"devices", "lacking", "missing_kbs_checks", "sweeps"}
    assert len(messages.of("SCHEMA", "devices")) == 1
    assert activated(messages) == ["devices", "lacking"]
    [version] = {record["version"] for record in messages.of("RECORD", "lacking")}
    assert messages.of("ACTIVATE_VERSION", "lacking")[0]["version"] == version


def test_a_copy_of_a_stream_is_activated_too(simulate: StartSimulator, tmp_path: Path) -> None:
    """`__source__`: the copy must lose what was installed as well."""
    simulator = simulate(10)
    messages = mapped(
        tmp_path, simulator, {"bad_ones": {"__source__": "missing_kbs", "__filter__": "(cve_addressed or 0) > 50"}}
    )
    assert activated(messages) == ["machines", "missing_kbs", "bad_ones"]
    assert 0 < len(messages.records("bad_ones")) < len(messages.records("missing_kbs"))
    assert set(asked(simulator)) == set(simulator.fleet.assessed())


def test_a_filter_on_a_copy_of_machines_decides_nothing(simulate: StartSimulator, tmp_path: Path) -> None:
    """Only the stream's own map decides who is asked."""
    simulator = simulate(20)
    messages = mapped(
        tmp_path, simulator, {"some": {"__source__": "machines", "__filter__": "os_platform == 'Windows11'"}}
    )
    assert set(asked(simulator)) == set(simulator.fleet.assessed())
    assert len(messages.records("some")) < len(messages.records("machines")) == 20


def test_other_keys_can_be_chosen(simulate: StartSimulator, tmp_path: Path) -> None:
    """Several tenants in one table: the tenant belongs to the key."""
    messages = mapped(
        tmp_path,
        simulate(5),
        {
            "missing_kbs": {
                "tenant": "config['tenant']",
                "__key_properties__": ["tenant", "machine_id", "id"],
            }
        },
        stream_map_config={"tenant": "contoso"},
    )
    [schema] = messages.of("SCHEMA", "missing_kbs")
    assert schema["key_properties"] == ["tenant", "machine_id", "id"]
    assert {record["tenant"] for record in messages.records("missing_kbs")} == {"contoso"}


def test_computed_renamed_and_removed_properties(simulate: StartSimulator, tmp_path: Path) -> None:
    messages = mapped(
        tmp_path,
        simulate(5),
        {"machines": {"name_hash": "md5(computer_dns_name or '')", "platform": "os_platform", "os_platform": None}},
    )
    for record in messages.records("machines"):
        assert len(record["name_hash"]) == 32
        assert record["platform"]
        assert "os_platform" not in record
    [schema] = messages.of("SCHEMA", "machines")
    assert {"name_hash", "platform"} <= set(schema["schema"]["properties"])
    assert "os_platform" not in schema["schema"]["properties"]


def test_else_null_in_a_stream_leaves_only_what_is_named(simulate: StartSimulator, tmp_path: Path) -> None:
    messages = mapped(tmp_path, simulate(5), {"machines": {"id": "id", "os_platform": "os_platform", "__else__": None}})
    assert {frozenset(record) for record in messages.records("machines")} == {frozenset({"id", "os_platform"})}


def test_else_null_for_streams_leaves_only_those_named(simulate: StartSimulator, tmp_path: Path) -> None:
    simulator = simulate(10)
    messages = mapped(tmp_path, simulator, {"missing_kbs": {}, "__else__": None})
    assert written(messages) == {"missing_kbs"}
    assert set(asked(simulator)) == set(simulator.fleet.assessed())
    assert activated(messages) == ["missing_kbs"]


def test_flattening_makes_columns_of_the_nested_object(simulate: StartSimulator, tmp_path: Path) -> None:
    simulator = simulate(3)
    vm = {"vmId": "v", "cloudProvider": "Azure", "resourceId": "r", "subscriptionId": "s"}
    machine_id = simulator.fleet.listed()[0]
    simulator.fleet.change(machine_id, vmMetadata=vm)
    messages = mapped(tmp_path, simulator, {}, flattening_enabled=True, flattening_max_depth=1)
    [schema] = messages.of("SCHEMA", "machines")
    columns = {"vm_metadata__vm_id", "vm_metadata__cloud_provider"}
    assert columns <= set(schema["schema"]["properties"])
    assert "vm_metadata" not in schema["schema"]["properties"]
    [record] = [record for record in messages.records("machines") if record["id"] == machine_id]
    assert record["vm_metadata__vm_id"] == "v"
    assert not isinstance(record["ip_addresses"], dict)


@pytest.mark.parametrize("config", [{}, {"flattening_enabled": False}, {"flattening_enabled": True}])
def test_without_a_depth_nothing_is_flattened(simulate: StartSimulator, tmp_path: Path, config: dict[str, Any]) -> None:
    messages = run_tap(tmp_path, simulate(3), config={"flattening_max_depth": 0, **config})
    assert messages.status == 0, messages.stderr
    [schema] = messages.of("SCHEMA", "machines")
    assert "vm_metadata" in schema["schema"]["properties"]


def test_faker_is_an_extra_and_not_installed_with_the_tap() -> None:
    """The SDK puts `fake` into stream maps wherever the package is installed; so by default it is not."""
    needed = requires("tap-mde-kbs") or []
    assert [
        each for each in needed if "faker" in each.lower() and "extra == 'faker'" not in each.replace('"', "'")
    ] == []
    assert any("faker" in each.lower() for each in needed)


def test_where_faker_is_installed_a_map_may_use_it(simulate: StartSimulator, tmp_path: Path) -> None:
    maps = {"machines": {"computer_dns_name": "fake.hostname()"}}
    simulator = simulate(3)
    once, again = (mapped(tmp_path, simulator, maps, faker_config={"seed": 1}).records("machines") for _ in range(2))
    assert [record["computer_dns_name"] for record in once] == [record["computer_dns_name"] for record in again]
    real = {simulator.fleet.machine(machine_id)["computerDnsName"] for machine_id in simulator.fleet.listed()}
    assert real.isdisjoint(record["computer_dns_name"] for record in once)
