"""What people select in a catalog: streams and properties, and who is asked because of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tap_mde_kbs.tap import TapMdeKbs
from tests.support.catalogs import STREAMS, discovered, properties, selecting
from tests.support.contract import answers_of
from tests.support.singer import Messages, Target, lacking, run_tap

if TYPE_CHECKING:
    from pathlib import Path

    from mde_simulator import Simulator
    from tests.conftest import StartSimulator

KEYS = {
    "machines": {"id"},
    "missing_kbs": {"machine_id", "id"},
    "missing_kbs_checks": {"machine_id", "sweep"},
    "sweeps": {"sweep"},
}


def asked(simulator: Simulator) -> list[str]:
    """The machines whose missing KBs were asked for, in the order of the calls."""
    return [entry.machine_id for entry in simulator.journal if entry.machine_id is not None]


def written(messages: Messages) -> set[str]:
    """The streams that any message is about."""
    return {message["stream"] for message in messages.all if "stream" in message}


def test_with_only_machines_selected_nobody_is_asked_for_kbs(simulate: StartSimulator, tmp_path: Path) -> None:
    simulator = simulate(20)
    messages = run_tap(tmp_path, simulator, catalog=selecting("machines"))
    assert messages.status == 0, messages.stderr
    assert asked(simulator) == []
    assert written(messages) == {"machines"}
    assert {record["id"] for record in messages.records("machines")} == set(simulator.fleet.listed())
    assert [message["stream"] for message in messages.of("ACTIVATE_VERSION")] == ["machines"]


def test_missing_kbs_alone_asks_every_onboarded_machine_and_writes_nothing_else(
    simulate: StartSimulator, tmp_path: Path
) -> None:
    simulator = simulate(20)
    messages = run_tap(tmp_path, simulator, catalog=selecting("missing_kbs"))
    assert messages.status == 0, messages.stderr
    assert written(messages) == {"missing_kbs"}
    assert set(asked(simulator)) == set(simulator.fleet.assessed())
    target = Target()
    target.take(messages.all)
    assert target.missing == lacking(answers_of(simulator.fleet))
    assert [message["stream"] for message in messages.of("ACTIVATE_VERSION")] == ["missing_kbs"]


def test_checks_alone_ask_every_machine_and_activate_nothing(simulate: StartSimulator, tmp_path: Path) -> None:
    simulator = simulate(20)
    messages = run_tap(tmp_path, simulator, catalog=selecting("missing_kbs_checks"))
    assert messages.status == 0, messages.stderr
    assert written(messages) == {"missing_kbs_checks"}
    assert messages.of("ACTIVATE_VERSION") == []
    found = {
        row["machine_id"]: frozenset(row["missing_kb_ids"])
        for row in messages.records("missing_kbs_checks")
        if row["outcome"] == "answered"
    }
    assert found == answers_of(simulator.fleet)


def test_every_pair_of_streams_can_be_selected(simulate: StartSimulator, tmp_path: Path) -> None:
    simulator = simulate(5)
    for left_out in STREAMS:
        selected = {*STREAMS} - {left_out}
        messages = run_tap(tmp_path, simulator, catalog=selecting(*selected))
        assert messages.status == 0, messages.stderr
        assert written(messages) == selected
        assert [message["stream"] for message in messages.of("SCHEMA")] == [s for s in STREAMS if s in selected]


@pytest.mark.parametrize("stream", STREAMS)
def test_a_catalog_may_list_one_stream_alone(simulate: StartSimulator, tmp_path: Path, stream: str) -> None:
    """Tools that prune what is not selected hand over such a one."""
    simulator = simulate(10)
    catalog = selecting(stream)
    catalog["streams"] = [entry for entry in catalog["streams"] if entry["tap_stream_id"] == stream]
    messages = run_tap(tmp_path, simulator, catalog=catalog)
    assert messages.status == 0, messages.stderr
    assert written(messages) == {stream}
    assert messages.records(stream)
    assert bool(asked(simulator)) == (stream != "machines")


def test_with_nothing_selected_nothing_is_asked(simulate: StartSimulator, tmp_path: Path) -> None:
    simulator = simulate(5)
    messages = run_tap(tmp_path, simulator, catalog=selecting())
    assert messages.status == 0, messages.stderr
    assert written(messages) == set()
    assert simulator.calls == 0


def test_every_property_but_the_keys_can_be_deselected(simulate: StartSimulator, tmp_path: Path) -> None:
    """All at once: what is left are the keys, and the table still holds the truth."""
    simulator = simulate(40)
    messages = run_tap(tmp_path, simulator, catalog=selecting(*STREAMS, without=set(properties())))
    assert messages.status == 0, messages.stderr
    for stream in STREAMS:
        assert messages.records(stream)
        assert {frozenset(record) for record in messages.records(stream)} == {frozenset(KEYS[stream])}
        [schema] = messages.of("SCHEMA", stream)
        assert set(schema["schema"]["properties"]) == KEYS[stream]
    target = Target()
    target.take(messages.all)
    assert target.missing == lacking(answers_of(simulator.fleet))
    assert {key for (key,) in target.rows["machines"]} == set(simulator.fleet.listed())


@pytest.mark.parametrize("half", [0, 1])
def test_half_of_the_properties_can_be_deselected(simulate: StartSimulator, tmp_path: Path, half: int) -> None:
    """Every other property, so that each is once there without its neighbour, and once not."""
    simulator = simulate(10)
    every = [*properties()]
    without = every[half::2]
    messages = run_tap(tmp_path, simulator, catalog=selecting(*STREAMS, without=without))
    assert messages.status == 0, messages.stderr
    for stream in STREAMS:
        left = KEYS[stream] | {name for of, name in every if of == stream and (of, name) not in without}
        assert {frozenset(record) for record in messages.records(stream)} == {frozenset(left)}


def test_a_deselected_status_still_decides_who_is_asked(simulate: StartSimulator, tmp_path: Path) -> None:
    """The tap needs `onboarding_status` itself, whoever wants it in the table."""
    simulator = simulate(40)
    assert set(simulator.fleet.assessed()) != set(simulator.fleet.listed())
    messages = run_tap(tmp_path, simulator, catalog=selecting(*STREAMS, without={("machines", "onboarding_status")}))
    assert messages.status == 0, messages.stderr
    assert set(asked(simulator)) == set(simulator.fleet.assessed())
    skipped = {row["machine_id"] for row in messages.records("missing_kbs_checks") if row["outcome"] == "skipped"}
    assert skipped == set(simulator.fleet.listed()) - set(simulator.fleet.assessed())


def test_keys_cannot_be_deselected(simulate: StartSimulator, tmp_path: Path) -> None:
    keys = {(stream, key) for stream, names in KEYS.items() for key in names}
    messages = run_tap(tmp_path, simulate(5), catalog=selecting(*STREAMS, without=keys))
    assert messages.status == 0, messages.stderr
    for stream in STREAMS:
        assert all(KEYS[stream] <= set(record) for record in messages.records(stream))


def test_an_object_in_a_machine_can_be_deselected_in_part(simulate: StartSimulator, tmp_path: Path) -> None:
    """`vm_metadata.resource_id` names subscriptions: some do not want it in a warehouse."""
    simulator = simulate(3)
    vm = {"vmId": "v", "cloudProvider": "Azure", "resourceId": "secretive", "subscriptionId": "s"}
    simulator.fleet.change(simulator.fleet.listed()[0], vmMetadata=vm)
    catalog = discovered()
    for item in catalog["streams"][0]["metadata"]:
        if item["breadcrumb"] == ["properties", "vm_metadata", "properties", "resource_id"]:
            item["metadata"]["selected"] = False
    messages = run_tap(tmp_path, simulator, catalog=catalog)
    assert messages.status == 0, messages.stderr
    assert "secretive" not in messages.stdout
    assert {"vm_id": "v", "cloud_provider": "Azure", "subscription_id": "s"} in [
        record["vm_metadata"] for record in messages.records("machines")
    ]


def test_a_property_that_the_catalogs_schema_lacks_is_not_written_and_the_rest_is_the_same(
    simulate: StartSimulator, tmp_path: Path
) -> None:
    """With a schema of its own the SDK makes each row fit, without one it need not: the rows fit already."""
    simulator = simulate(20)
    lacking_some = discovered()
    for entry in lacking_some["streams"]:
        for name in {"machines": ["managed_by", "vm_metadata"], "missing_kbs": ["url"]}.get(entry["tap_stream_id"], []):
            del entry["schema"]["properties"][name]
    pruned, whole = (run_tap(tmp_path, simulator, catalog=catalog) for catalog in (lacking_some, discovered()))
    for stream, gone in (
        ("machines", {"managed_by", "vm_metadata", "listed_at", "listing"}),
        ("missing_kbs", {"url", "checked_at", "sweep"}),
    ):
        wanted = [{name: row[name] for name in row.keys() - gone} for row in whole.records(stream)]
        assert wanted
        assert [
            {name: row[name] for name in row.keys() - {"listed_at", "listing", "checked_at", "sweep"}}
            for row in pruned.records(stream)
        ] == wanted


def test_a_catalog_without_keys_gets_the_streams_own(simulate: StartSimulator, tmp_path: Path) -> None:
    """Else the SDK would load a table without a key, where every night adds to the last."""
    catalog = discovered()
    for entry in catalog["streams"]:
        del entry["key_properties"]
        entry["metadata"] = [item for item in entry["metadata"] if item["breadcrumb"]]
        entry["metadata"].append({"breadcrumb": [], "metadata": {"selected": True}})
    messages = run_tap(tmp_path, simulate(5), catalog=catalog)
    assert messages.status == 0, messages.stderr
    assert {schema["stream"]: schema["key_properties"] for schema in messages.of("SCHEMA")} == {
        "machines": ["id"],
        "missing_kbs": ["machine_id", "id"],
        "missing_kbs_checks": ["machine_id", "sweep"],
        "sweeps": ["sweep"],
    }


def test_a_catalog_as_meltano_edits_it_gives_the_same_rows_and_the_same_state(
    simulate: StartSimulator, tmp_path: Path
) -> None:
    """`metadata: '*'` with a replication method and a key, and a schema of somebody's own: a column as text."""
    simulator = simulate(12)
    plain, edited = discovered(), discovered()
    for entry in edited["streams"]:
        entry |= {"replication_method": "INCREMENTAL", "replication_key": "checked_at"}
        for item in entry["metadata"]:
            if not item["breadcrumb"]:
                item["metadata"] |= {"replication-method": "INCREMENTAL", "replication-key": "checked_at"}
        if entry["tap_stream_id"] == "missing_kbs":
            entry["schema"]["properties"]["cve_addressed"] = {"type": "string"}
    edited["streams"].append({"tap_stream_id": "software", "schema": {"properties": {}}, "metadata": []})
    whole, run = (run_tap(tmp_path, simulator, catalog=catalog) for catalog in (plain, edited))
    assert (run.status, whole.status) == (0, 0), run.stderr
    assert run.stderr.count("sets how") == run.stderr.count("has a stream 'software'") == 1
    for stream in STREAMS:
        keys = TapMdeKbs(config={}, validate_config=False, setup_mapper=False).streams[stream].primary_keys
        ids = [
            [tuple(row[key] for key in keys if key != "sweep") for row in each.records(stream)] for each in (run, whole)
        ]
        assert sorted(ids[0]) == sorted(ids[1])
    assert {type(row["cve_addressed"]) for row in run.records("missing_kbs")} <= {str, type(None)}
    [schema] = run.of("SCHEMA", "missing_kbs")
    assert schema["schema"]["properties"]["cve_addressed"]["type"] == ["null", "string"]
    assert "bookmark_properties" not in schema or not schema["bookmark_properties"]
    for state in run.of("STATE"):
        assert state["value"]["bookmarks"].keys() == whole.of("STATE")[-1]["value"]["bookmarks"].keys()
        assert state["value"]["bookmarks"]["machines"].keys() == {
            "version",
            "listed",
            "listed_short",
            "listing",
            "listed_at",
        }


def test_a_schema_that_rows_would_not_fit_ends_the_run_before_any_row(simulate: StartSimulator, tmp_path: Path) -> None:
    catalog = discovered()
    [entry] = [each for each in catalog["streams"] if each["tap_stream_id"] == "missing_kbs"]
    entry["schema"]["properties"]["name"] = {"type": "integer"}
    messages = run_tap(tmp_path, simulate(3), catalog=catalog)
    assert messages.status == 1
    assert "missing_kbs.name as integer" in messages.last_line
    assert messages.all == []
