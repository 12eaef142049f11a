"""Answers out of an export that was read: rows as the stream has them, machine by machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tap_mde_kbs import schema
from tap_mde_kbs.errors import NotInExportError
from tap_mde_kbs.export.loaded import Loaded
from tap_mde_kbs.export.records import Records

if TYPE_CHECKING:
    from collections.abc import Iterator

MADE_AT = "2026-01-01T00:00:00.000000Z"


@pytest.fixture
def loaded() -> Iterator[Loaded]:
    """Three machines: the second lacks nothing."""
    of_microsoft = {"softwareVendor": "microsoft", "softwareName": "windows_10", "cveId": "CVE-1", "cvssScore": 7.5}
    with Records() as records:
        records.add(
            [
                {"deviceId": "a", "recommendedSecurityUpdateId": 100, **of_microsoft},
                {"deviceId": "b", "softwareVendor": "mozilla"},
                {"deviceId": "c", "recommendedSecurityUpdateId": "100", "firstSeenTimestamp": "odd", **of_microsoft},
            ]
        )
        yield Loaded(records, MADE_AT, lambda: None, schema.Unlisted(lambda _: None))


def test_a_row_has_every_column_and_the_exports_time(loaded: Loaded) -> None:
    answer = loaded.result("a")
    assert answer.checked_at == MADE_AT
    assert answer.rows == [
        {
            **dict.fromkeys(schema.MISSING_KBS.schema["properties"]),
            "machine_id": "a",
            "id": "100",
            "products_names": ["windows_10"],
            "machine_missed_on": 2,
            "cve_addressed": 1,
            "checked_at": MADE_AT,
        }
    ]


def test_a_value_that_does_not_fit_is_null(loaded: Loaded) -> None:
    [row] = loaded.result("c").rows
    assert row["first_seen_at"] is None


@pytest.mark.parametrize(
    ("time", "first_seen_at"),
    [
        ("2025-12-01 10:00:00.1234567", "2025-12-01T10:00:00.123456Z"),
        ("2026-01-01T23:59:59Z", "2026-01-01T23:59:59Z"),
        ("2026-01-02T00:00:01Z", None),
        ("9999-12-31T23:59:59Z", None),
        ("0001-01-01T00:00:00Z", None),
        ("", None),
    ],
)
def test_nothing_is_first_seen_before_defender_was_or_after_the_export(time: str, first_seen_at: str | None) -> None:
    """A clock may be wrong by a day."""
    one = {"deviceId": "a", "recommendedSecurityUpdateId": "100", "softwareVendor": "microsoft", "cveId": "CVE-1"}
    with Records() as records:
        records.add([{**one, "firstSeenTimestamp": time}])
        [row] = Loaded(records, MADE_AT, lambda: None, schema.Unlisted(lambda _: None)).result("a").rows
    assert row["first_seen_at"] == first_seen_at


def test_a_machine_with_records_and_no_update_lacks_nothing(loaded: Loaded) -> None:
    assert loaded.result("b").rows == []


def test_machines_that_are_not_there_are_told_from_those_that_lack_nothing(loaded: Loaded) -> None:
    for machine_id in ("0", "aa", "d"):
        with pytest.raises(NotInExportError):
            loaded.result(machine_id)


def test_machines_that_are_not_asked_are_passed_over(loaded: Loaded) -> None:
    with pytest.raises(NotInExportError):
        loaded.result("0")
    assert len(loaded.result("c").rows) == 1


def test_what_else_it_knows(loaded: Loaded) -> None:
    assert loaded.strangers({"a", "d"}) == ["b", "c"]
    [cve] = loaded.kb_cves()
    assert (cve["kb_id"], cve["cve_id"], cve["cvss_score"]) == ("100", "CVE-1", 7.5)
    assert cve["checked_at"] == MADE_AT
