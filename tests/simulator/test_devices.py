"""One device and how the API shows it."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from mde_simulator import Fleet
from mde_simulator.fleet.devices import NULLABLE, ODD_NAMES, PLATFORMS

FLEET = Fleet(2000, seed=5)
MACHINES = [FLEET.machine(id_) for id_ in FLEET.listed()]
PROPERTIES = {
    *("id", "mergedIntoMachineId", "isPotentialDuplication", "isExcluded", "exclusionReason"),
    *("computerDnsName", "firstSeen", "lastSeen", "osPlatform", "osVersion", "osProcessor"),
    *("osArchitecture", "version", "osBuild", "lastIpAddress", "lastExternalIpAddress"),
    *("agentVersion", "healthStatus", "deviceValue", "rbacGroupId", "rbacGroupName", "riskScore"),
    *("exposureLevel", "isAadJoined", "aadDeviceId", "machineTags", "onboardingStatus"),
    *("managedBy", "managedByStatus", "defenderAvStatus", "ipAddresses", "vmMetadata"),
}


def test_a_machine_has_every_property_of_the_api_and_no_other() -> None:
    assert {frozenset(machine) for machine in MACHINES} == {frozenset(PROPERTIES)}


@pytest.mark.parametrize("name", NULLABLE)
@pytest.mark.parametrize("size", [40, 250])
def test_every_nullable_property_is_null_somewhere_and_not_everywhere(name: str, size: int) -> None:
    fleet = Fleet(size, seed=5)
    values = [fleet.machine(id_)[name] for id_ in fleet.listed()]
    assert None in values
    constant = ("mergedIntoMachineId", "exclusionReason")
    assert name in constant or any(value is not None for value in values)


def test_what_is_never_null_in_the_api_is_never_null() -> None:
    for name in PROPERTIES - set(NULLABLE):
        assert all(machine[name] is not None for machine in MACHINES), name


def test_ids_come_in_every_form() -> None:
    forms = {
        "hex": re.compile(r"[0-9a-f]{40}"),
        "old": re.compile(r"da\d{18}_\d+"),
        "guid": re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"),
    }
    counts = Counter(
        next(name for name, form in forms.items() if form.fullmatch(str(machine["id"]))) for machine in MACHINES
    )
    assert set(counts) == set(forms)
    assert counts["hex"] > 1800


def test_timestamps_have_none_to_seven_decimals() -> None:
    texts = [str(machine["lastSeen"]) for machine in MACHINES if machine["lastSeen"]]
    found = [re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.(\d+))?Z", text) for text in texts]
    assert {len(match[1] or "") for match in found if match} == set(range(8))
    assert all(found)


def test_every_platform_and_every_odd_name_is_there() -> None:
    assert {machine["osPlatform"] for machine in MACHINES} == {row[0] for row in PLATFORMS}
    assert {machine["computerDnsName"] for machine in MACHINES} >= set(ODD_NAMES)


def test_the_group_id_is_a_number_as_in_the_metadata() -> None:
    assert {type(machine["rbacGroupId"]) for machine in MACHINES} == {int}
    without = [machine for machine in MACHINES if machine["rbacGroupId"] == 0]
    assert without
    assert all(machine["rbacGroupName"] is None for machine in without)


def test_addresses_may_be_none_empty_or_without_details() -> None:
    lists = [machine["ipAddresses"] for machine in MACHINES]
    assert [] in lists
    rows = [row for addresses in lists if isinstance(addresses, list) for row in addresses]
    assert any(row["ipAddress"] == "" for row in rows)
    for name in ("macAddress", "type", "operationalStatus"):
        assert {row[name] is None for row in rows} == {True, False}


def test_virtual_machines_say_where_they_are() -> None:
    found = [machine["vmMetadata"] for machine in MACHINES if machine["vmMetadata"]]
    assert found
    for metadata in found:
        assert isinstance(metadata, dict)
        assert set(metadata) == {"vmId", "cloudProvider", "resourceId", "subscriptionId"}


def test_some_devices_were_only_discovered() -> None:
    statuses = Counter(machine["onboardingStatus"] for machine in MACHINES)
    assert set(statuses) == {"Onboarded", "CanBeOnboarded", "Unsupported", "InsufficientInfo"}
    assert statuses["Onboarded"] > 1700
