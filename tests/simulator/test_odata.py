"""OData query options."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mde_simulator.defender.odata import Filter, ODataError, Options, moment

if TYPE_CHECKING:
    from mde_simulator.fleet.catalogue import Record

MACHINE: Record = {
    "id": "a1",
    "computerDnsName": "Zoë's iPhone",
    "version": "22H2",
    "lastSeen": "2026-01-05T10:20:30.1234567Z",
    "healthStatus": "Active",
    "osPlatform": "Windows11",
    "onboardingStatus": "Onboarded",
    "riskScore": None,
    "rbacGroupId": 12,
    "machineTags": ["VIP", "o'clock"],
    "aadDeviceId": "80fe8ff8-2624-418e-9591-41f0491218f9",
    "osBuild": 22631,
}


@pytest.mark.parametrize(
    "text",
    [
        "healthStatus eq 'Active'",
        "healthstatus eq 'Active'",
        "healthStatus ne 'Inactive'",
        "'Active' eq healthStatus",
        "not (healthStatus eq 'Inactive')",
        "not startswith(osPlatform,'Linux')",
        "startswith(osPlatform, 'Windows') and endswith(osPlatform,'11')",
        "contains(computerDnsName,'ë''s')",
        "contains(computerDnsName,'iPhone') eq true",
        "osPlatform eq 'x' or osPlatform eq 'Windows11' and riskScore eq null",
        "(osPlatform eq 'x' or osPlatform eq 'Windows11') and riskScore eq null",
        "riskScore ne 'High'",
        "machineTags/any(t: t eq 'VIP')",
        "machineTags/any(tag: startswith(tag,'o'''))",
        "lastSeen gt 2026-01-05",
        "lastSeen gt 2026-01-05T10:20:30Z",
        "lastSeen eq 2026-01-05T10:20:30.1234567Z",
        "lastSeen lt 2026-01-05T11:20:31+01:00",
        "lastSeen ge 2026-01-01T00:00:00.0000000Z and lastSeen le 2026-02-01",
        "rbacGroupId eq 12",
        "rbacGroupId gt 2",
        "aadDeviceId eq 80fe8ff8-2624-418e-9591-41f0491218f9",
        "version eq '22H2'",
        "  id   eq   'a1'  ",
    ],
)
def test_a_filter_holds(text: str) -> None:
    assert Filter(text).matches(MACHINE)


@pytest.mark.parametrize(
    "text",
    [
        "healthStatus eq 'active'",
        "riskScore gt 'A'",
        "osPlatform eq 'x' and osPlatform eq 'Windows11' or riskScore ne null",
        "machineTags/any(t: t eq 'vip')",
        "contains(riskScore,'x')",
        "startswith(osPlatform,'Windows') eq false",
        "lastSeen lt 2026-01-05",
        "rbacGroupId eq 1",
        "not (id eq 'a1')",
    ],
)
def test_a_filter_does_not_hold(text: str) -> None:
    assert not Filter(text).matches(MACHINE)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "healthStatus",
        "healthStatus eq",
        "healthStatus eq Active",
        "healthStatus = 'Active'",
        "healthStatus like 'A'",
        "healthStatus eq 'Active",
        "healthStatus eq 'Active' and",
        "healthStatus eq 'Active' id eq 'b'",
        "(healthStatus eq 'Active'",
        "nonsense eq 1",
        "osBuild gt 5",
        "lastSeen gt 'yesterday'",
        "lastSeen gt 2026-13-45",
        "healthStatus eq 5",
        "machineTags eq 'VIP'",
        "machineTags/all(t: t eq 'VIP')",
        "t eq 'VIP'",
        "startswith(osPlatform)",
        "and",
        "(" * 5000,
    ],
)
def test_a_bad_filter_is_refused(text: str) -> None:
    with pytest.raises(ODataError, match=r"\w"):
        Filter(text)


def test_a_filter_bears_values_of_any_type() -> None:
    for value in (None, 5, "text", ["x"]):
        strange: Record = dict.fromkeys(MACHINE, value)
        for text in ("lastSeen gt 2026-01-01", "id gt 'a'", "rbacGroupId lt 7"):
            assert Filter(text).matches(strange) in (True, False)


def test_a_group_id_is_compared_as_a_number_whether_it_is_text_or_not() -> None:
    holds = Filter("rbacGroupId eq 12").matches
    assert holds({"rbacGroupId": "12"})
    assert holds({"rbacGroupId": 12})


def test_a_time_has_any_number_of_decimals() -> None:
    assert moment("2026-01-05T10:20:30.1Z") == moment("2026-01-05T10:20:30.1000000Z")
    assert moment("2026-01-05") == moment("2026-01-05T00:00:00")


@pytest.mark.parametrize(
    "query",
    [
        [("$top", "many")],
        [("$top", "-1")],
        [("$skip", "")],
        [("$skip", "1.5")],
        [("$top", "1"), ("$TOP", "2")],
        [("$expand", "x")],
        [("$orderby", "id sideways")],
    ],
)
def test_bad_options_are_refused(query: list[tuple[str, str]]) -> None:
    with pytest.raises(ODataError):
        Options.read(query)


def test_options_are_read_and_strangers_named() -> None:
    options = Options.read([("$top", "5"), ("$skip", "7"), ("$count", "true"), ("pageSize", "3"), ("foo", "bar")])
    assert (options.top, options.skip, options.count, options.page_size) == (5, 7, True, 3)
    assert options.unknown == ["foo"]


def test_records_are_sorted_and_projected() -> None:
    records: list[Record] = [{"id": "b", "osBuild": 9}, {"id": "a", "osBuild": 10}, {"id": "c", "osBuild": None}]
    options = Options.read([("$orderby", "osbuild desc,id"), ("$select", "ID")])
    options.sort(records)
    assert [options.project(record) for record in records] == [{"id": "a"}, {"id": "b"}, {"id": "c"}]
