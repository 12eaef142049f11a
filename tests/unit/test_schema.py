"""The columns, by the contract, and what becomes of values that nobody documented."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator, FormatChecker

from mde_simulator import Fault, Fleet, Simulator
from tap_mde_kbs.schema import MACHINES, MISSING_KBS, MISSING_KBS_CHECKS, SWEEPS, Unlisted, camel_case, date_time
from tests.support.contract import answers_of
from tests.support.singer import Messages, Target, lacking, run_tap

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import StartSimulator

# Every property of the API's machine, the name of its column, and its type.
MACHINE = {
    "id": ("id", "string"),
    "mergedIntoMachineId": ("merged_into_machine_id", "string"),
    "isPotentialDuplication": ("is_potential_duplication", "boolean"),
    "isExcluded": ("is_excluded", "boolean"),
    "exclusionReason": ("exclusion_reason", "string"),
    "computerDnsName": ("computer_dns_name", "string"),
    "firstSeen": ("first_seen", "date-time"),
    "lastSeen": ("last_seen", "date-time"),
    "osPlatform": ("os_platform", "string"),
    "osVersion": ("os_version", "string"),
    "osProcessor": ("os_processor", "string"),
    "osArchitecture": ("os_architecture", "string"),
    "version": ("os_release", "string"),
    "osBuild": ("os_build", "integer"),
    "lastIpAddress": ("last_ip_address", "string"),
    "lastExternalIpAddress": ("last_external_ip_address", "string"),
    "agentVersion": ("agent_version", "string"),
    "healthStatus": ("health_status", "string"),
    "deviceValue": ("device_value", "string"),
    "rbacGroupId": ("rbac_group_id", "integer"),
    "rbacGroupName": ("rbac_group_name", "string"),
    "riskScore": ("risk_score", "string"),
    "exposureLevel": ("exposure_level", "string"),
    "isAadJoined": ("is_aad_joined", "boolean"),
    "aadDeviceId": ("aad_device_id", "string"),
    "machineTags": ("machine_tags", "array of string"),
    "onboardingStatus": ("onboarding_status", "string"),
    "managedBy": ("managed_by", "string"),
    "managedByStatus": ("managed_by_status", "string"),
    "defenderAvStatus": ("defender_av_status", "string"),
    "ipAddresses": ("ip_addresses", "array of object"),
    "vmMetadata": ("vm_metadata", "object"),
}
KB = {
    "id": ("id", "string"),
    "name": ("name", "string"),
    "productsNames": ("products_names", "array of string"),
    "url": ("url", "string"),
    "machineMissedOn": ("machine_missed_on", "integer"),
    "cveAddressed": ("cve_addressed", "integer"),
    "osBuild": ("os_build", "integer"),
}
COLUMNS = {
    "machines": {**dict(MACHINE.values()), "listed_at": "date-time", "listing": "integer"},
    "missing_kbs": {
        "machine_id": "string",
        **dict(KB.values()),
        "first_seen_at": "date-time",
        "checked_at": "date-time",
        "sweep": "integer",
    },
    "missing_kbs_checks": {
        "machine_id": "string",
        "sweep": "integer",
        "checked_at": "date-time",
        "outcome": "string",
        "missing_kbs": "integer",
        "missing_kb_ids": "array of string",
        "reason": "string",
        "last_seen": "date-time",
    },
    "sweeps": {
        "sweep": "integer",
        "source": "string",
        "began_at": "date-time",
        "ended_at": "date-time",
        "listing": "integer",
        "listed_at": "date-time",
        "machines_listed": "integer",
        "machines_asked": "integer",
        "machines_answered": "integer",
        "machines_not_found": "integer",
        "machines_failed": "integer",
        "machines_skipped": "integer",
        "machines_not_in_export": "integer",
        "missing_pairs": "integer",
        "is_complete": "boolean",
        "is_believed": "boolean",
        "verdict": "string",
    },
}
SCHEMAS = {
    "machines": MACHINES.schema,
    "missing_kbs": MISSING_KBS.schema,
    "missing_kbs_checks": MISSING_KBS_CHECKS.schema,
    "sweeps": SWEEPS.schema,
}
KEYS = {
    "machines": ["id"],
    "missing_kbs": ["machine_id", "id"],
    "missing_kbs_checks": ["machine_id", "sweep"],
    "sweeps": ["sweep"],
}


def said(prop: dict[str, Any]) -> str:
    """A property's type in a word or three."""
    kinds = [prop["type"]] if isinstance(prop["type"], str) else prop["type"]
    [kind] = [each for each in kinds if each != "null"]
    if kind == "array":
        return f"array of {said(prop['items'])}"
    return str(prop.get("format", kind))


@pytest.mark.parametrize("stream", SCHEMAS)
class TestTheContract:
    def test_names_types_and_their_order(self, stream: str) -> None:
        found = {name: said(prop) for name, prop in SCHEMAS[stream]["properties"].items()}
        assert found == COLUMNS[stream]
        assert list(found) == list(COLUMNS[stream])

    def test_everything_but_the_keys_may_be_null(self, stream: str) -> None:
        schema = SCHEMAS[stream]
        assert sorted(schema["required"]) == sorted(KEYS[stream])
        for name, prop in schema["properties"].items():
            assert ("null" in prop["type"]) == (name not in KEYS[stream])

    def test_every_column_is_described(self, stream: str) -> None:
        assert all(prop["description"].endswith((".", "…")) for prop in SCHEMAS[stream]["properties"].values())

    def test_names_need_no_quotes_in_any_warehouse(self, stream: str) -> None:
        names = [*SCHEMAS[stream]["properties"], stream]
        for prop in SCHEMAS[stream]["properties"].values():
            inner = prop.get("items", prop)
            names += inner.get("properties", {})
        assert all(re.fullmatch(r"[a-z][a-z0-9_]*", name) for name in names)
        assert "version" not in names  # target-postgres 0.8.1 crashes on ACTIVATE_VERSION for such a column


def test_the_simulator_sends_what_is_read_and_no_more() -> None:
    """A new column needs both."""
    fleet = Fleet(machines=30, seed=1)
    ids = fleet.listed()
    assert {name for each in ids for name in fleet.machine(each)} == set(MACHINE)
    assert {name for each in ids for kb in fleet.missing_kbs(each) for name in kb} == set(KB)


def test_nested_names_are_snake_case_too() -> None:
    properties = MACHINES.schema["properties"]
    assert list(properties["ip_addresses"]["items"]["properties"]) == [
        "ip_address",
        "mac_address",
        "type",
        "operational_status",
    ]
    assert list(properties["vm_metadata"]["properties"]) == [
        "vm_id",
        "cloud_provider",
        "resource_id",
        "subscription_id",
    ]


@pytest.mark.parametrize(
    ("column", "name"),
    [
        ("computer_dns_name", "computerDnsName"),
        ("id", "id"),
        ("is_aad_joined", "isAadJoined"),
        ("os_platform", "osPlatform"),
        ("vm_id", "vmId"),
    ],
)
def test_camel_case(column: str, name: str) -> None:
    assert camel_case(column) == name


class Notes(list[str]):
    """What a person was warned of."""

    @property
    def unlisted(self) -> Unlisted:
        return Unlisted(self.append)


@pytest.mark.parametrize(
    ("given", "written"),
    [
        ("2026-02-27T10:00:00Z", "2026-02-27T10:00:00Z"),
        ("2026-02-27T10:00:00.1Z", "2026-02-27T10:00:00.100000Z"),
        ("2026-02-27T10:00:00.12Z", "2026-02-27T10:00:00.120000Z"),
        ("2026-02-27T10:00:00.123Z", "2026-02-27T10:00:00.123000Z"),
        ("2026-02-27T10:00:00.1234Z", "2026-02-27T10:00:00.123400Z"),
        ("2026-02-27T10:00:00.12345Z", "2026-02-27T10:00:00.123450Z"),
        ("2026-02-27T10:00:00.123456Z", "2026-02-27T10:00:00.123456Z"),
        ("2026-02-27T10:00:00.1234567Z", "2026-02-27T10:00:00.123456Z"),
        ("2026-02-27T10:00:00", "2026-02-27T10:00:00Z"),
        ("2026-02-27T10:00:00.5", "2026-02-27T10:00:00.500000Z"),
        ("2020-11-03 10:13:34.8476880", "2020-11-03T10:13:34.847688Z"),
        ("2026-02-27T10:00:00z", "2026-02-27T10:00:00Z"),
        ("2026-02-27T10:00:00+02:00", "2026-02-27T08:00:00.000000Z"),
        ("2026-02-27T10:00:00.1234567-0530", "2026-02-27T15:30:00.123456Z"),
        ("2026-03-01T00:30:00+01:00", "2026-02-28T23:30:00.000000Z"),
    ],
)
def test_date_times_are_written_in_utc_with_no_more_than_six_decimals(given: str, written: str) -> None:
    """A target reads no seventh decimal, and takes an absent zone for its own."""
    assert date_time(given) == written


@pytest.mark.parametrize("given", ["0001-01-01T00:00:00Z", "0001-01-01T00:00:00+01:00", "0001-01-01T00:00:00.0000000Z"])
def test_the_first_day_of_the_year_1_is_no_moment(given: str) -> None:
    """It stands where there is none: as a moment it would be the longest silence of all."""
    notes = Notes()
    assert MACHINES.from_wire({"id": "a", "lastSeen": given}, notes.unlisted)["last_seen"] is None
    assert notes == []


@pytest.mark.parametrize(
    "given",
    [
        "",
        "yesterday",
        "2026-02-30T10:00:00Z",
        "2026-13-01T00:00:00Z",
        "2026-02-27",
        "2026-02-27T25:00:00Z",
        "2026-02-27T10:00:00+99:00",
        "2026-02-27T10:00:00.\u0661Z",
        "9999-12-31T23:59:59-01:00",
        1767225600,
    ],
)
def test_what_is_no_date_time_becomes_null_with_a_warning(given: object) -> None:
    notes = Notes()
    record = MACHINES.from_wire({"id": "a", "lastSeen": given}, notes.unlisted)
    assert record["last_seen"] is None
    assert notes == ["machine.lastSeen had a value of another type than documented: null instead."]


@pytest.mark.parametrize(
    ("field", "given", "column", "written"),
    [
        ("rbacGroupId", "7", "rbac_group_id", 7),
        ("rbacGroupId", 7, "rbac_group_id", 7),
        ("rbacGroupId", 7.0, "rbac_group_id", 7),
        ("rbacGroupId", "0", "rbac_group_id", 0),
        ("osBuild", "19045", "os_build", 19045),
        ("osBuild", 2**62, "os_build", 2**62),
        ("osBuild", "10.0.22631.4317", "os_build", 22631),
        ("osBuild", "19045.5", "os_build", 19045),
        ("version", "22H2", "os_release", "22H2"),
        ("version", 11, "os_release", "11"),
        ("osVersion", 10.5, "os_version", "10.5"),
        ("isAadJoined", "True", "is_aad_joined", True),
        ("isAadJoined", "false", "is_aad_joined", False),
        ("machineTags", ["a", None, 7], "machine_tags", ["a", "7"]),
        ("machineTags", [], "machine_tags", []),
        ("ipAddresses", [None, {"ipAddress": ""}], "ip_addresses", None),
    ],
)
def test_what_can_be_read_is_read_without_a_warning(field: str, given: object, column: str, written: object) -> None:
    notes = Notes()
    record = MACHINES.from_wire({"id": "a", field: given}, notes.unlisted)
    if field == "ipAddresses":
        written = [{"ip_address": "", "mac_address": None, "type": None, "operational_status": None}]
    assert record[column] == written
    assert type(record[column]) is type(written)
    assert notes == []


@pytest.mark.parametrize(
    ("field", "given"),
    [
        ("osBuild", "new"),
        ("osBuild", True),
        ("osBuild", 1.5),
        ("osBuild", 2**63),
        ("osBuild", [1]),
        ("osBuild", float("inf")),
        ("isExcluded", 1),
        ("isExcluded", "perhaps"),
        ("computerDnsName", {"a": 1}),
        ("computerDnsName", ["a"]),
        ("machineTags", "a"),
        ("machineTags", {"a": 1}),
        ("ipAddresses", "10.0.0.1"),
        ("vmMetadata", "vm"),
        ("vmMetadata", []),
        ("lastSeen", {"at": 1}),
    ],
)
def test_a_value_of_a_wrong_type_becomes_null_with_one_warning(field: str, given: object) -> None:
    notes = Notes()
    unlisted = notes.unlisted
    for _ in range(3):
        record = MACHINES.from_wire({"id": "a", field: given}, unlisted)
        assert record[MACHINE[field][0]] is None
    assert notes == [f"machine.{field} had a value of another type than documented: null instead."]


def test_a_field_nobody_listed_is_dropped_with_one_warning_at_every_level() -> None:
    notes = Notes()
    unlisted = notes.unlisted
    stranger = {
        "id": "a",
        "@odata.type": "no warning for these",
        "newOne": 1,
        "ipAddresses": [{"ipAddress": "::1", "speed": 1}, {"speed": 2}],
        "vmMetadata": {"vmId": "v", "region": "x"},
    }
    for _ in range(3):
        record = MACHINES.from_wire(stranger, unlisted)
    assert set(record) == {column for column, _ in MACHINE.values()}
    assert [note.partition(" ")[0] for note in notes] == [
        "machine.newOne",
        "machine.ipAddresses.speed",
        "machine.vmMetadata.region",
    ]


def test_a_warning_of_a_strange_name_is_one_line_that_a_terminal_can_show() -> None:
    notes = Notes()
    MACHINES.from_wire({"id": "a", "evil\x1b[31m\nname" + "x" * 500: 1}, notes.unlisted)
    assert len(notes[0]) < 200
    assert notes[0].isprintable()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.parametrize(
    ("fields", "names", "schema", "more"),
    [
        (MACHINES.from_wire, MACHINE, MACHINES.schema, {}),
        (MISSING_KBS.from_wire, KB, MISSING_KBS.schema, {"machine_id": "m"}),
    ],
    ids=["machine", "kb"],
)
@given(data=st.data())
def test_whatever_the_api_sends_what_is_written_fits_the_schema(
    data: st.DataObject, fields: Callable[..., Any], names: dict[str, Any], schema: dict[str, Any], more: dict[str, Any]
) -> None:
    record = data.draw(st.dictionaries(st.sampled_from([*names, "stranger"]), JSON))
    written = fields({**record, "id": "a"}, Notes().unlisted)
    assert set(written) == {column for column, _ in names.values()}
    Draft202012Validator(schema).validate({**written, **more})
    json.dumps(written, ensure_ascii=False, allow_nan=False).encode()


# --- over the wire


def ran(folder: Path, simulator: Simulator) -> Messages:
    messages = run_tap(folder, simulator)
    assert messages.status == 0, messages.stderr
    return messages


def answering(machine_id: str, *records: object) -> Fault:
    """One machine's answer, whatever it holds."""
    return Fault("garbage", machine=machine_id, text=json.dumps({"@odata.context": "x", "value": records}))


def check_against_its_schema(messages: Messages) -> None:
    """As a target does: each record by the SCHEMA that came before it."""
    checkers = {
        message["stream"]: Draft202012Validator(message["schema"], format_checker=FormatChecker())
        for message in messages.of("SCHEMA")
    }
    for message in messages.of("RECORD"):
        checkers[message["stream"]].validate(message["record"])
        assert set(message["record"]) == set(COLUMNS[message["stream"]])


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> tuple[Messages, Fleet]:
    """A run over machines with a null in every field that may be, odd names, strangers, and values of wrong types."""
    fleet = Fleet(machines=60, seed=1, extra_fields={"brandNew": {"a": [1]}, "@odata.etag": "x"})
    first, second, third = fleet.listed()[:3]
    fleet.change(first, **{name: None for name in MACHINE if name != "id"})
    fleet.change(
        second,
        osBuild="19045",
        rbacGroupId="12",
        isAadJoined={"no": "boolean"},
        lastSeen="2026-01-01T00:00:00.1234567Z",
        ipAddresses=[{"ipAddress": "::1", "unheardOf": 1}],
        machineTags=["\U0001f4bb", "ك\u202eabc", "a\x00b", "tab\tand\nline"],
        computerDnsName="\U0001f469\u200d\U0001f4bb nul\x00",
    )
    fleet.change(third, vmMetadata={"vmId": "v", "unheardOf": 2}, machineTags="not a list")
    with Simulator(fleet) as simulator:
        return ran(tmp_path_factory.mktemp("odd"), simulator), fleet


def test_every_record_fits_the_schema_that_the_target_was_given(odd: tuple[Messages, Fleet]) -> None:
    messages, _ = odd
    check_against_its_schema(messages)


def test_every_machine_is_written_as_the_tenant_has_it(odd: tuple[Messages, Fleet]) -> None:
    """Field by field, for machines with nothing odd about them and for those with nulls."""
    messages, fleet = odd
    written = {record["id"]: record for record in messages.records("machines")}
    assert set(written) == set(fleet.listed())
    plain = [column for column, kind in MACHINE.values() if kind in {"string", "boolean"}]
    for machine_id in fleet.listed()[3:]:
        served = fleet.machine(machine_id)
        found = written[machine_id]
        assert {column: served.get(name) for name, (column, _) in MACHINE.items() if column in plain} == {
            column: found[column] for column in plain
        }
        assert found["rbac_group_id"] == int(str(served["rbacGroupId"]))
        assert found["machine_tags"] == served["machineTags"]
        addresses: Any = served["ipAddresses"]
        assert [
            [each["ip_address"], each["mac_address"], each["type"], each["operational_status"]]
            for each in found["ip_addresses"]
        ] == [[each["ipAddress"], each["macAddress"], each["type"], each["operationalStatus"]] for each in addresses]
        assert (found["vm_metadata"] is None) == (served["vmMetadata"] is None)


def test_what_is_odd_costs_one_warning_each_and_never_a_machine(odd: tuple[Messages, Fleet]) -> None:
    messages, fleet = odd
    for name in ("machine.brandNew", "machine.ipAddresses.unheardOf", "machine.vmMetadata.unheardOf"):
        assert messages.stderr.count(f"{name} is not a field this version knows") == 1
    for name in ("machine.isAadJoined", "machine.machineTags"):
        assert messages.stderr.count(f"{name} had a value of another type than documented") == 1
    assert "odata" not in messages.stderr
    first, second, third = (
        next(record for record in messages.records("machines") if record["id"] == machine_id)
        for machine_id in fleet.listed()[:3]
    )
    assert {column for column, value in first.items() if value is not None} == {"id", "listed_at", "listing"}
    assert (second["os_build"], second["rbac_group_id"], second["is_aad_joined"]) == (19045, 12, None)
    assert second["last_seen"] == "2026-01-01T00:00:00.123456Z"
    assert third["machine_tags"] is None
    assert third["vm_metadata"]["vm_id"] == "v"


def test_text_arrives_as_it_is_but_for_what_no_warehouse_stores(odd: tuple[Messages, Fleet]) -> None:
    messages, fleet = odd
    second = next(r for r in messages.records("machines") if r["id"] == fleet.listed()[1])
    assert second["computer_dns_name"] == "\U0001f469\u200d\U0001f4bb nul�"
    assert second["machine_tags"] == ["\U0001f4bb", "ك\u202eabc", "a�b", "tab\tand\nline"]
    names = {record["computer_dns_name"] for record in messages.records("machines")}
    assert {"📱 Zoë's iPhone 🎉", "东京-笔记本-01", "جهاز المدير"} <= names


def test_half_of_a_surrogate_pair_does_not_stop_the_run(simulate: StartSimulator, tmp_path: Path) -> None:
    """JSON can say it, UTF-8 cannot."""
    simulator = simulate(1)
    [machine_id] = simulator.fleet.listed()
    simulator.faults.add(answering(machine_id, {"id": "1", "name": "half \ud83d", "url": "\udc00"}))
    messages = ran(tmp_path, simulator)
    [row] = messages.records("missing_kbs")
    assert (row["name"], row["url"]) == ("half �", "�")


def test_the_same_kb_twice_in_one_answer_is_one_row(simulate: StartSimulator, tmp_path: Path) -> None:
    simulator = simulate(1)
    [machine_id] = simulator.fleet.listed()
    twice = {"id": "500", "name": "once"}
    simulator.faults.add(answering(machine_id, twice, {"id": "501"}, {**twice, "name": "again"}, {"id": 500}))
    messages = ran(tmp_path, simulator)
    assert [row["id"] for row in messages.records("missing_kbs")] == ["500", "501"]
    [check] = messages.records("missing_kbs_checks")
    assert (check["missing_kbs"], check["missing_kb_ids"]) == (2, ["500", "501"])


def test_kbs_with_nothing_but_an_id_and_with_values_of_other_types(simulate: StartSimulator, tmp_path: Path) -> None:
    simulator = simulate(1)
    [machine_id] = simulator.fleet.listed()
    nothing = {"id": "1", **{name: None for name in KB if name != "id"}}
    other = {"id": 4540673, "osBuild": "new", "productsNames": "edge", "cveAddressed": "97", "new": 1}
    simulator.faults.add(answering(machine_id, {"id": "0"}, nothing, other))
    messages = ran(tmp_path, simulator)
    check_against_its_schema(messages)
    rows = {row["id"]: row for row in messages.records("missing_kbs")}
    for kb_id in ("0", "1"):
        assert {name for name, value in rows[kb_id].items() if value is not None} == {
            "machine_id",
            "id",
            "checked_at",
            "sweep",
        }
    assert rows["4540673"]["cve_addressed"] == 97
    assert rows["4540673"]["os_build"] is None
    assert rows["4540673"]["products_names"] is None
    for name in ("osBuild", "productsNames"):
        assert messages.stderr.count(f"missing KB.{name} had a value of another type") == 1
    assert messages.stderr.count("missing KB.new is not a field") == 1


def test_kbs_are_written_as_the_tenant_has_them(simulate: StartSimulator, tmp_path: Path) -> None:
    simulator = simulate(20)
    messages = ran(tmp_path, simulator)
    written = {(row["machine_id"], row["id"]): row for row in messages.records("missing_kbs")}
    count = 0
    for machine_id in simulator.fleet.assessed():
        for served in simulator.fleet.missing_kbs(machine_id):
            row = written[machine_id, str(served["id"])]
            build = served["osBuild"]
            if isinstance(build, str) and "." in build:
                build = int(build.split(".")[2])
            expected = {**{name: served.get(name) for name in KB}, "osBuild": build}
            assert {name: row[column] for name, (column, _) in KB.items()} == expected
            assert row["first_seen_at"] is None
            count += 1
    assert count == len(written) > 0


def test_a_machine_that_is_listed_twice_is_one_row_and_asked_once(simulate: StartSimulator, tmp_path: Path) -> None:
    fleet = Fleet(machines=30, seed=1, duplicates=0.2)
    assert len(fleet.listing()) > len(fleet.listed())
    simulator = simulate(fleet, page_size=7)
    messages = ran(tmp_path, simulator)
    ids = [record["id"] for record in messages.records("machines")]
    assert len(ids) == len(set(ids))
    assert set(ids) == set(fleet.listed())
    asked = [entry.machine_id for entry in simulator.journal if entry.machine_id]
    assert len(asked) == len(set(asked)) == len(fleet.assessed())


def test_ids_of_any_form_can_be_asked_about(simulate: StartSimulator, tmp_path: Path) -> None:
    """They are a segment of the URL's path."""
    fleet = Fleet(machines=1, seed=1)
    ids = ["a/b", "a b", "ä?x=1#y", "100%", "'quoted'", "a+b&c", "%2F", "..%2f"]
    for machine_id in ids:
        fleet.add(id=machine_id, onboardingStatus="Onboarded")
    simulator = simulate(fleet)
    target = Target()
    target.take(ran(tmp_path, simulator).all)
    assert target.missing == lacking(answers_of(fleet))
    assert {entry.machine_id for entry in simulator.journal} >= set(ids)
