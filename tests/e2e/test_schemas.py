"""The form of SCHEMA messages, on which many targets are picky, and RECORDs that are as their SCHEMA says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tap_mde_kbs.schema import plain
from tests.support import readme
from tests.support.catalogs import discovered
from tests.support.singer import run_tap

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import StartSimulator

FLAT = yaml.safe_load(readme.block("flattening"))
MAPS = {"machines": {"tenant": "'contoso'", "name_hash": "md5(computer_dns_name or '')", "vm": "vm_metadata"}}


def parts(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A schema, and those of its properties and items, at every level."""
    yield schema
    for inner in [*schema.get("properties", {}).values(), *([schema["items"]] if "items" in schema else [])]:
        yield from parts(inner)


def assert_readable(schema: dict[str, Any]) -> None:
    """No draft is named, null comes first, one type is no list, and every type is a plain one."""
    for part in parts(schema):
        kinds = part["type"]
        assert isinstance(kinds, str) or (len(kinds) == 2 and kinds[0] == "null"), part
        assert part.keys() <= {
            "type",
            "properties",
            "items",
            "format",
            "required",
            "description",
            "additionalProperties",
        }


@pytest.mark.parametrize("source", ["per_machine", "export"])
def test_discovery_and_schema_messages_have_the_same_types(
    simulate: StartSimulator, tmp_path: Path, source: str
) -> None:
    """Without a catalog, and with the one that discovery gives."""
    found = discovered(source)
    simulator = simulate(12)  # of fewer an export has an empty file, which is looked at for a minute
    for catalog in (None, found):
        messages = run_tap(tmp_path, simulator, config={"missing_kbs_source": source}, catalog=catalog)
        assert messages.status == 0, messages.stderr
        announced = {message["stream"]: message["schema"] for message in messages.of("SCHEMA")}
        assert announced == {stream["tap_stream_id"]: stream["schema"] for stream in found["streams"]}
        for schema in announced.values():
            assert_readable(schema)


def test_a_catalog_of_an_earlier_version_and_stream_maps_change_nothing_of_that(
    simulate: StartSimulator, tmp_path: Path
) -> None:
    """The SDK's own types go the other way round, with a list for one; so did ours once."""
    earlier = discovered()
    for stream in earlier["streams"]:
        stream["schema"]["$schema"] = "https://json-schema.org/draft/2020-12/schema"
        for part in parts(stream["schema"]):
            part["type"] = [part["type"]] if isinstance(part["type"], str) else part["type"][::-1]
    config = {"stream_maps": MAPS, **FLAT}
    messages = run_tap(tmp_path, simulate(3), config=config, catalog=earlier)
    assert messages.status == 0, messages.stderr
    for message in messages.of("SCHEMA"):
        assert_readable(message["schema"])
    columns = messages.of("SCHEMA", "machines")[0]["schema"]["properties"]
    assert columns["id"]["type"] == "string"
    assert columns["tenant"]["type"] == ["null", "string"]
    assert columns["vm__vm_id"]["type"] == ["null", "string"]


def test_a_type_that_is_the_name_of_a_property_is_left_alone() -> None:
    """`ip_addresses` has one."""
    schema = {"type": ["object"], "properties": {"type": {"type": ["string", "null"]}, "items": {"type": ["integer"]}}}
    assert plain(schema) == {
        "type": "object",
        "properties": {"type": {"type": ["null", "string"]}, "items": {"type": "integer"}},
    }


@pytest.mark.parametrize("maps", [{}, MAPS, {"machines": {"id": "id", "vm": "vm_metadata", "__else__": None}}])
def test_a_flattened_record_has_the_columns_of_its_schema_and_no_other(
    simulate: StartSimulator, tmp_path: Path, maps: dict[str, Any]
) -> None:
    """Where a machine is not in a cloud, too: the columns of the object are null, and none has its name.

    All in one order: there are targets that write by position.
    """
    simulator = simulate(8)
    in_cloud = simulator.fleet.listed()[0]
    simulator.fleet.change(in_cloud, vmMetadata={"vmId": "v", "cloudProvider": "Azure"})
    for machine_id in simulator.fleet.listed()[1:]:
        simulator.fleet.change(machine_id, vmMetadata=None)
    messages = run_tap(tmp_path, simulator, config={"stream_maps": maps, **FLAT})
    assert messages.status == 0, messages.stderr
    columns = {message["stream"]: [*message["schema"]["properties"]] for message in messages.of("SCHEMA")}
    assert not any(name.startswith("vm") and name.count("__") == 0 for name in columns["machines"])
    for message in messages.of("RECORD"):
        assert list(message["record"]) == columns[message["stream"]]
    vm = {name for name in columns["machines"] if name.endswith("__vm_id")}
    for record in messages.records("machines"):
        assert {record[name] for name in vm} == {"v" if record["id"] == in_cloud else None}


def test_without_flattening_a_machine_that_is_in_no_cloud_has_no_object(
    simulate: StartSimulator, tmp_path: Path
) -> None:
    """Null in a warehouse that keeps objects: `vm_metadata IS NULL` is what it says."""
    simulator = simulate(3)
    for machine_id in simulator.fleet.listed():
        simulator.fleet.change(machine_id, vmMetadata=None)
    records = run_tap(tmp_path, simulator).records("machines")
    assert [record["vm_metadata"] for record in records] == [None] * 3


@pytest.mark.parametrize("source", ["per_machine", "export"])
def test_without_activation_no_record_of_any_stream_has_a_version(
    simulate: StartSimulator, tmp_path: Path, source: str
) -> None:
    """A target that swaps versions would wait for ever for one to be activated."""
    off = {**yaml.safe_load(readme.block("targets that swap versions")), "missing_kbs_source": source}
    messages = run_tap(tmp_path, simulate(12), config=off)
    assert messages.status == 0, messages.stderr
    assert {message["stream"] for message in messages.of("RECORD")} == {
        message["stream"] for message in messages.of("SCHEMA")
    }
    assert not any("version" in message for message in messages.of("RECORD"))
    assert messages.of("ACTIVATE_VERSION") == []
