"""The exports' content: it is the fleet's, with everything that real records have in them."""

from __future__ import annotations

import gzip
import json
from collections import Counter, defaultdict
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest

from mde_simulator import Exports, ExportShape, Fleet
from mde_simulator.exports.exports import EVERY, KEPT
from mde_simulator.fleet.catalogue import patch_tuesday

from .downloads import closing, download, files, links, missed_on, pairs, rows, rows_of, worst

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from .door import Door

    Opened = Callable[..., Door]

DOCUMENTED = {
    *("Id", "DeviceId", "DeviceName", "RbacGroupName", "RbacGroupId", "OSPlatform", "OSVersion", "OSArchitecture"),
    *("SoftwareVendor", "SoftwareName", "SoftwareVersion", "CveId", "CvssScore", "VulnerabilitySeverityLevel"),
    *("RecommendedSecurityUpdate", "RecommendedSecurityUpdateId", "RecommendedSecurityUpdateUrl"),
    *("DiskPaths", "RegistryPaths", "FirstSeenTimestamp", "LastSeenTimestamp", "ExploitabilityLevel"),
    *("RecommendationReference", "SecurityUpdateAvailable", "EndOfSupportStatus", "EndOfSupportDate"),
    *("ProductCategory", "IsOnboarded", "CveBatchTitle", "CveBatchUrl"),
}
"""What Microsoft documents for a record, and what only files have."""


@pytest.fixture
def exported(opened: Opened) -> tuple[Door, list[dict[str, Any]]]:
    """A fleet with days behind it, and all its records."""
    fleet = Fleet(230, seed=1, night=30)
    fleet.remove(fleet.onboarded()[20])
    fleet.hide(fleet.onboarded()[30:31])
    door = opened(fleet).sign_in()
    return door, rows(door)


def test_what_follows_from_the_records_is_the_truth(exported: tuple[Door, list[dict[str, Any]]]) -> None:
    door, found = exported
    truth = door.simulator.exports
    missing = {(id_, kb_id): kb for id_, kbs in truth.missing().items() for kb_id, kb in kbs.items()}
    derived = pairs(found)
    assert derived.keys() == missing.keys()
    for key, pair in derived.items():
        assert (len(pair.cves), frozenset(pair.products)) == (missing[key].cves, missing[key].products)
        assert pair.first_seen == missing[key].first_seen == truth.first_seen(*key)
    assert {row["DeviceId"] for row in found if "DeviceId" in row} == truth.devices()
    assert missed_on(found) == truth.missed_on()
    assert worst(found) == truth.kb_cves()


def test_what_follows_from_the_records_is_what_each_machine_answers(
    exported: tuple[Door, list[dict[str, Any]]],
) -> None:
    door, found = exported
    fleet, devices = door.simulator.fleet, door.simulator.exports.devices()
    derived = pairs(found)
    for machine_id in set(fleet.onboarded()) & devices:
        answered = door.kbs(machine_id).json()["value"]
        assert {row["id"] for row in answered} == {kb_id for id_, kb_id in derived if id_ == machine_id}
        for row in answered:
            pair = derived[machine_id, row["id"]]
            assert (len(pair.cves), pair.products) == (row["cveAddressed"], set(row["productsNames"]))
            assert pair.names == {(row["name"], row["url"])}


def test_some_machines_are_not_in_it_and_some_of_it_are_not_listed(
    exported: tuple[Door, list[dict[str, Any]]],
) -> None:
    door, _ = exported
    fleet, devices = door.simulator.fleet, door.simulator.exports.devices()
    missing = fleet.missing()
    absent = set(fleet.onboarded()) - devices
    assert any(missing[id_] for id_ in absent)
    assert any(not missing[id_] for id_ in absent)
    assert len(absent) < len(fleet.onboarded()) / 8
    gone = devices - set(fleet.listed())
    assert len(gone) >= 2
    discovered = (devices & set(fleet.listed())) - set(fleet.onboarded())
    assert discovered
    assert any(door.simulator.exports.missing()[id_] for id_ in discovered)


def test_what_is_excluded_or_silent_for_over_30_days_is_not_in_it(opened: Opened) -> None:
    fleet = Fleet(60, seed=1, night=10, silent=0, excluded=0)
    door = opened(fleet).sign_in()
    known = sorted(door.simulator.exports.devices() & {id_ for id_, kbs in fleet.missing().items() if kbs})
    excluded, silent, partly = known[:3]
    product = fleet.products(next(iter(fleet.missing()[partly])))[0]
    fleet.silence(silent)
    fleet.pass_days(31)
    fleet.exclude(excluded)
    fleet.forget_software(partly, product)
    door.simulator.exports.generate()
    found = pairs(rows(door))
    assert not {excluded, silent} & door.simulator.exports.devices()
    assert not {excluded, silent} & {id_ for id_, _ in found}
    assert {kb_id for id_, kb_id in found if id_ == partly} == fleet.missing()[partly]
    assert door.simulator.exports.missing()[partly].keys() == fleet.missing()[partly]


def test_the_traps_of_real_records_are_in_it(exported: tuple[Door, list[dict[str, Any]]]) -> None:
    _, found = exported
    microsoft = [row for row in found if row["SoftwareVendor"] == "microsoft"]
    assert any("CveId" not in row and "RecommendedSecurityUpdateId" in row for row in microsoft)
    assert any("CveId" in row and "RecommendedSecurityUpdateId" not in row for row in microsoft)
    assert any("DeviceId" not in row for row in microsoft)
    assert any("VulnerabilitySeverityLevel" not in row and "CveId" in row for row in microsoft)
    updates = {row["RecommendedSecurityUpdateId"] for row in found if "RecommendedSecurityUpdateId" in row}
    others = updates - {row["recommendedsecurityupdateid"] for row in closing(found)}
    assert "Upgrade to 23.01" in others
    assert any(text.isdecimal() and text.startswith("50") for text in others)
    twice = Counter(row["Id"] for row in found)
    groups = defaultdict(set)
    for row in found:
        groups[row["Id"]].add(row.get("RbacGroupName"))
    assert any(count == 2 and len(groups[id_]) == 2 for id_, count in twice.items())
    assert {row["RbacGroupId"] for row in found if row.get("RbacGroupName") == "Unassigned"} == {0}
    severities = defaultdict(set)
    for row in closing(found):
        severities[row["cveid"]].add(row.get("vulnerabilityseveritylevel"))
    assert any(len(levels) > 1 for levels in severities.values())
    assert {len(row["FirstSeenTimestamp"]) for row in found if "FirstSeenTimestamp" in row} == {19, 27}


def test_a_files_record_has_every_documented_field_no_null_and_now_and_then_a_stranger(
    exported: tuple[Door, list[dict[str, Any]]],
) -> None:
    _, found = exported
    names = {name for row in found for name in row}
    assert names - DOCUMENTED == {"TmpAssessmentScore"}
    assert names >= DOCUMENTED
    assert all(value is not None for row in found for value in row.values())
    sizes = [len(json.dumps(row)) for row in found if "CveId" in row]
    assert 900 < sum(sizes) / len(sizes) < 1500


def test_a_devices_records_lie_in_several_files_and_between_those_of_others(door: Door) -> None:
    owners = [[row.get("DeviceId", "") for row in file] for file in files(door)]
    where = defaultdict(set)
    for number, ids in enumerate(owners):
        for id_ in ids:
            where[id_].add(number)
    assert any(len(numbers) > 1 for id_, numbers in where.items() if id_)
    spans = [(len(ids) - ids[::-1].index(id_) - ids.index(id_), ids.count(id_)) for ids in owners for id_ in set(ids)]
    assert any(span > count for span, count in spans)


def test_an_update_is_first_seen_missing_when_it_came_out_or_the_device_came() -> None:
    fleet = Fleet(40, seed=1)
    fleet.pass_days(50)
    newcomer = fleet.add(computerDnsName="new")
    old = fleet.listed()[0]
    winter = {kb_id for kb_id in fleet.kbs() if fleet.kb(kb_id)["name"] == "December 2025 Security Updates"}
    for kb_id in winter:
        fleet.uninstall(old, kb_id)
        fleet.uninstall(newcomer, kb_id)
    exports = Exports(fleet, ExportShape())
    exports.generate()
    assert winter
    for kb_id in winter:
        assert exports.first_seen(old, kb_id).date() == patch_tuesday(2025, 12)
        assert exports.first_seen(newcomer, kb_id).date() == fleet.start + timedelta(days=50)
        assert exports.first_seen(newcomer, kb_id) <= fleet.now


# Snapshots


def test_a_snapshot_is_of_the_day_it_was_made_whatever_happens_then(opened: Opened) -> None:
    door = opened(Fleet(60, seed=1)).sign_in()
    fleet, exports = door.simulator.fleet, door.simulator.exports
    before = fleet.missing()
    machine_id = next(id_ for id_, missing in before.items() if missing)
    first, generated = links(door), exports.generated
    fleet.install(machine_id, next(iter(before[machine_id])))
    fleet.change(machine_id, computerDnsName="renamed.contoso.example")
    fleet.pass_days(40)
    assert exports.generated == generated
    found = [row for link in first for row in rows_of(download(door, link))]
    assert {kb_id for id_, kb_id in pairs(found) if id_ == machine_id} == before[machine_id]
    assert all(row.get("DeviceName") != "renamed.contoso.example" for row in found)
    assert exports.generate().generated > generated
    later = rows(door)
    assert {kb_id for id_, kb_id in pairs(later) if id_ == machine_id} == fleet.missing()[machine_id]
    assert any(row.get("DeviceName") == "renamed.contoso.example" for row in later)
    assert [row for link in first for row in rows_of(download(door, link))] == found


def test_asking_makes_no_snapshot_and_six_hours_do() -> None:
    now = 1_700_000_000.7
    exports = Exports(Fleet(5, seed=1), ExportShape(), lambda: now)
    first = exports.generate()
    assert first.generated_time == "2023-11-14T22:13:20Z"
    now += EVERY - 1
    assert exports.current() is first
    now += 1
    second = exports.current()
    assert second.generated - first.generated == timedelta(seconds=EVERY)
    assert exports.current() is second is exports.latest


def test_each_snapshot_is_later_than_the_one_before() -> None:
    now = 1_700_000_000.0
    exports = Exports(Fleet(5, seed=1), ExportShape(), lambda: now)
    times = [exports.generate().generated for _ in range(3)]
    assert times == sorted(set(times))
    at = datetime(2026, 2, 1, 3, 4, 5, 999, tzinfo=timezone.utc)
    assert exports.generate(at).generated_time == "2026-02-01T03:04:05Z"
    with pytest.raises(ValueError, match="later than the one before"):
        exports.generate(at)


def test_old_snapshots_go_with_their_files(tmp_path: Path) -> None:
    exports = Exports(Fleet(5, seed=1), ExportShape(files=1))
    exports.start(tmp_path)
    first = exports.latest
    first.file(0)
    for _ in range(KEPT):
        assert len(list(tmp_path.iterdir())) == 1
        exports.generate()
    assert (list(tmp_path.iterdir()), exports.find(first.path)) == ([], None)


# Files


def test_files_are_the_same_bytes_each_time_and_gone_with_the_simulator(opened: Opened) -> None:
    at = datetime(2030, 1, 1, tzinfo=timezone.utc)
    bodies = []
    for _ in range(2):
        door = opened(Fleet(60, seed=1)).sign_in()
        door.simulator.exports.generate(at)
        bodies.append([download(door, link).content for link in links(door)])
        path = door.simulator.exports.latest.file(0)
        door.simulator.stop()
        assert not path.exists()
    assert bodies[0] == bodies[1]


def test_an_export_has_as_many_files_and_records_as_are_asked_for(opened: Opened) -> None:
    door = opened(Fleet(60, seed=1), export_shape=ExportShape(records=300, files=7)).sign_in()
    by_file = files(door)
    assert len(by_file) == 7
    counts = Counter(row.get("DeviceId") for file in by_file for row in file)
    own = {id_ for id_, count in counts.items() if count >= 300}
    assert len(own) > 0.8 * len(counts)
    assert {id_ for id_, count in counts.items() if 300 <= count <= 301}
    assert (
        pairs(row for file in by_file for row in file).keys() == pairs(rows(opened(Fleet(60, seed=1)).sign_in())).keys()
    )


def test_narrow_records_say_the_same_of_missing_updates(opened: Opened) -> None:
    sizes, derived = [], []
    for width in (0, 1000, 2000):
        door = opened(Fleet(60, seed=1), export_shape=ExportShape(width=width)).sign_in()
        found = rows(door)
        sizes.append(sum(len(json.dumps(row)) for row in found) / len(found))
        derived.append(pairs(found))
    assert derived[0] == derived[1] == derived[2]
    assert sizes == sorted(sizes)
    assert [round(size / 1000) for size in sizes] == [1, 1, 2]


def test_noise_makes_files_compress_ten_to_one_and_changes_nothing_else(opened: Opened) -> None:
    without, noisy = (
        opened(Fleet(300, seed=1), export_shape=ExportShape(records=100, files=1, noise=noise)).sign_in()
        for noise in (0, 120)
    )
    packed = download(noisy, links(noisy)[0]).content
    assert 8 < len(gzip.decompress(packed)) / len(packed) < 12
    assert packed == download(noisy, links(noisy)[0]).content
    paths = [row["RegistryPaths"][0] for row in rows(noisy)]
    assert len(set(paths)) == len(paths)
    others = ("RegistryPaths", "DiskPaths", "LastSeenTimestamp")
    plain_rows, noisy_rows = (
        [{name: value for name, value in row.items() if name not in others} for row in rows(door)]
        for door in (without, noisy)
    )
    assert plain_rows == noisy_rows


def test_a_fleet_without_machines_has_an_export_of_nothing(opened: Opened) -> None:
    door = opened(Fleet(0)).sign_in()
    assert files(door) == [[], [], []]
    assert door.simulator.exports.devices() == frozenset()


@pytest.mark.parametrize("wrong", [{"files": 0}, {"records": -1}, {"noise": -1}])
def test_impossible_shapes_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="one file at least"):
        ExportShape(**wrong)
