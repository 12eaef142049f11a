"""Catalogs as people and Meltano edit them: what the tap makes of each edit, or says to it."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from tap_mde_kbs import catalogs
from tap_mde_kbs.errors import FileError
from tap_mde_kbs.schema import plain
from tap_mde_kbs.streams import STREAMS

TABLES = {stream.name: stream.table for stream in STREAMS}
OWN = TABLES["machines"].schema


def entry(**more: Any) -> dict[str, Any]:
    return {"tap_stream_id": "machines", "schema": deepcopy(OWN), "metadata": [], **more}


def kept(*entries: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The entry of `machines`, and what was warned of."""
    said: list[str] = []
    tables = {name: table for name, table in TABLES.items() if name != "kb_cves"}
    catalog = catalogs.kept({"streams": [*entries]}, tables, TABLES, lambda text, *args: said.append(text % args))
    return {each["tap_stream_id"]: each for each in catalog["streams"]}, said


def overridden(name: str, prop: object) -> dict[str, Any]:
    """`machines` with another schema of one column; None: without it."""
    edited = entry()
    properties = edited["schema"]["properties"]
    if prop is None:
        del properties[name]
    else:
        properties[name] = prop
    return edited


def test_what_discovery_gives_stays_as_it_is() -> None:
    found, said = kept(entry())
    assert found["machines"]["schema"] == OWN
    assert said == []


@pytest.mark.parametrize(
    "edit",
    [
        {"replication_method": "INCREMENTAL", "replication_key": "last_seen"},
        {"replication_method": "LOG_BASED"},
        {"replication_key": "no_such_column"},
        {"metadata": [{"breadcrumb": [], "metadata": {"replication-method": "INCREMENTAL"}}]},
        {"metadata": [{"breadcrumb": [], "metadata": {"forced-replication-method": "odd"}}]},
        {"metadata": [{"breadcrumb": [], "metadata": {"replication-key": "last_seen", "selected": True}}]},
    ],
)
def test_how_a_stream_is_replicated_is_not_for_a_catalog_to_say(edit: dict[str, Any]) -> None:
    found, said = kept(entry(**edit), entry(tap_stream_id="missing_kbs", schema={}, **edit))
    for each in found.values():
        assert each["replication_method"] == "FULL_TABLE"
        assert "replication_key" not in each
        roots = [item["metadata"] for item in each["metadata"] if not item["breadcrumb"]]
        assert not any(name in root for root in roots for name in catalogs.REPLICATION)
    [line] = said
    assert "machines, missing_kbs" in line


def test_the_usual_words_for_the_whole_table_are_no_reason_to_speak() -> None:
    root = {"breadcrumb": [], "metadata": {"forced-replication-method": "FULL_TABLE", "valid-replication-keys": []}}
    assert kept(entry(replication_method="FULL_TABLE", replication_key=None, metadata=[root]))[1] == []


def test_the_key_is_the_streams_own_and_always_selected() -> None:
    metadata = [
        {"breadcrumb": [], "metadata": {"table-key-properties": ["computer_dns_name"], "view-key-properties": ["x"]}},
        {"breadcrumb": ["properties", "id"], "metadata": {"inclusion": "unsupported", "selected": False}},
    ]
    found, said = kept(entry(key_properties=["computer_dns_name"], metadata=metadata))
    assert found["machines"]["key_properties"] == ["id"]
    root, key = found["machines"]["metadata"]
    assert root["metadata"] == {"table-key-properties": ["id"]}
    assert key["metadata"] == {"inclusion": "automatic"}
    assert len(said) == 1
    assert kept(overridden("id", None))[0]["machines"]["schema"]["properties"]["id"] == OWN["properties"]["id"]


def test_a_stream_that_there_is_none_of_is_left_out_and_one_that_may_be_without_a_word() -> None:
    found, said = kept(entry(), entry(tap_stream_id="software", schema={}), entry(tap_stream_id="kb_cves", schema={}))
    assert [*found] == ["machines"]
    assert said == ["The catalog has a stream 'software', which there is none of here: left out."]


@pytest.mark.parametrize(
    ("name", "prop"),
    [
        ("os_build", {"type": ["null", "number"]}),
        ("os_build", {"type": ["integer", "string", "null"]}),
        ("os_build", {}),
        ("os_platform", {"type": ["string", "null"], "description": "other words"}),
        ("last_seen", {"type": ["string", "null"]}),
        ("vm_metadata", {"type": ["object", "null"], "properties": {"vm_id": {"type": ["string", "null"]}}}),
        ("vm_metadata", {"type": ["object", "null"]}),
        ("machine_tags", {"type": ["array", "null"]}),
        ("os_build", None),
        ("new_column", {"type": ["string", "null"]}),
    ],
)
def test_a_schema_that_is_no_narrower_is_announced_as_it_is_asked_for(name: str, prop: dict[str, Any] | None) -> None:
    found, said = kept(overridden(name, prop))
    announced = found["machines"]["schema"]["properties"]
    assert announced.get(name) == (prop if prop is None else plain(prop))
    assert said == []
    assert catalogs.columns_as_text(OWN, found["machines"]["schema"]) == frozenset()


@pytest.mark.parametrize(("name", "text"), [("os_build", "7"), ("is_excluded", "true"), ("machine_tags", '["ä"]')])
def test_a_column_may_be_asked_for_as_text(name: str, text: str) -> None:
    """Nullable all the same, where rows may be null."""
    schema = kept(overridden(name, {"type": "string"}))[0]["machines"]["schema"]
    assert schema["properties"][name] == {"type": ["null", "string"]}
    assert catalogs.columns_as_text(OWN, schema) == {name}
    value: Any = {"os_build": 7, "is_excluded": True, "machine_tags": ["ä"]}[name]
    assert catalogs.as_text(value) == text
    assert catalogs.as_text(None) is None


@pytest.mark.parametrize(
    ("name", "prop"),
    [
        ("os_platform", {"type": "integer"}),
        ("os_platform", {"type": ["string", "null"], "format": "date-time"}),
        ("os_platform", {"type": ["string", "null"], "enum": ["Windows11"]}),
        ("os_platform", {"type": ["string", "null"], "maxLength": 3}),
        ("os_platform", {"anyOf": [{"type": "string"}]}),
        ("last_seen", {"type": ["string", "null"], "format": "date"}),
        ("is_excluded", {"type": ["integer", "null"]}),
        ("machine_tags", {"type": ["object", "null"]}),
        ("machine_tags", {"type": ["array", "null"], "items": {"type": "integer"}}),
        ("vm_metadata", {"type": ["object", "null"], "properties": {"vm_id": {"type": ["integer", "null"]}}}),
        ("vm_metadata", {"type": ["object", "null"], "properties": {"vm_id": {"type": "string"}}}),
        ("vm_metadata", {"type": ["object", "null"], "additionalProperties": False}),
        ("os_platform", "string"),
        ("os_platform", {"type": 5}),
        ("os_platform", {"type": []}),
        ("os_platform", {"type": [["x"]]}),
        ("os_platform", {"type": "text"}),
    ],
)
def test_a_schema_that_rows_would_not_fit_is_refused_by_name(name: str, prop: object) -> None:
    with pytest.raises(FileError, match=rf"The catalog's schema asks for machines\.{name} as .*would not fit"):
        kept(overridden(name, prop))


def test_what_restricts_nothing_is_a_note_of_somebodys_and_left_out() -> None:
    """And a format is the same in capitals."""
    noted = {"type": ["null", "string"], "x-pii": True, "nullable": True, "format": "DATE-TIME"}
    schema = kept(overridden("last_seen", noted))[0]["machines"]["schema"]
    assert schema["properties"]["last_seen"] == {"type": ["null", "string"], "format": "date-time"}


@pytest.mark.parametrize("required", [True, 5, "id", ["os_build"]])
def test_what_is_required_beyond_the_key_is_refused(required: object) -> None:
    edited = entry()
    edited["schema"]["required"] = required
    with pytest.raises(FileError, match=r"The catalog's schema requires machines\."):
        kept(edited)


def test_a_stream_is_of_objects_whatever_its_schema_says() -> None:
    edited = entry(key_properties=5)
    edited["schema"] |= {"type": "array", "additionalProperties": False}
    assert kept(edited)[0]["machines"]["schema"] == OWN


@pytest.mark.parametrize(
    ("said", "selected"), [("false", False), ("no", False), ("Yes", True), (True, True), (None, None)]
)
def test_selected_may_be_said_in_words(said: object, selected: bool | None) -> None:
    found, _ = kept(entry(metadata=[{"breadcrumb": [], "metadata": {"selected": said}}]))
    assert found["machines"]["metadata"][0]["metadata"].get("selected") is selected


@pytest.mark.parametrize("said", ["perhaps", 7, [], {}])
def test_selected_that_is_neither_is_named(said: object) -> None:
    with pytest.raises(FileError, match="`selected` of machines"):
        kept(entry(metadata=[{"breadcrumb": ["properties", "os_build"], "metadata": {"selected": said}}]))
