"""Records of an export, grouped: written by hand, so that every oddity of a record can be."""

from __future__ import annotations

import gzip
import json
import sys
import tempfile
import tempfile
from typing import TYPE_CHECKING, Any

import pytest

from tap_mde_kbs import schema
from tap_mde_kbs import schema
from tap_mde_kbs.errors import MalformedFileError, SettingsError, TapError
from tap_mde_kbs.export import records as module
from tap_mde_kbs.export.records import PROPERTIES, Records, require_duckdb, spellings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def record(device: str, kb: str | None, cve: str | None, **others: Any) -> dict[str, Any]:
    """A record as a JSON answer spells it; what is None is left out, as files do."""
    fields = {
        "deviceId": device,
        "recommendedSecurityUpdateId": kb,
        "cveId": cve,
        "softwareVendor": "microsoft",
        "softwareName": "windows_10",
        "osPlatform": "Windows10",
        **others,
    }
    return {name: value for name, value in fields.items() if value is not None}


def pascal(fields: dict[str, Any]) -> dict[str, Any]:
    """The same as files spell it."""
    return {name[0].upper() + name[1:]: value for name, value in fields.items()}


@pytest.fixture
def records() -> Iterator[Records]:
    """No record yet."""
    with Records() as found:
        yield found


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where a file of an export may be."""
    return tmp_path / "part-0.json.gz"


def write(file: Path, text: str) -> Path:
    """A gzip file."""
    file.write_bytes(gzip.compress(text.encode()))
    return file


def lines(*found: dict[str, Any]) -> str:
    """One object a line."""
    return "".join(json.dumps(pascal(one)) + "\n" for one in found)


def missed(records: Records, column: str) -> list[tuple[str, Any]]:
    """A column of every missing update, each with its machine."""
    return [(machine_id, kb[column]) for machine_id, kbs in records.missing() for kb in kbs]


def missed(records: Records, column: str) -> list[tuple[str, Any]]:
    """A column of every missing update, each with its machine."""
    return [(machine_id, kb[column]) for machine_id, kbs in records.missing() for kb in kbs]


def test_an_update_is_missing_once_however_many_records_say_so(records: Records, file: Path) -> None:
    """Distinct CVEs and products; the earliest of the times; name and link from wherever they are."""
    link = {"recommendedSecurityUpdateUrl": "https://example.com/1", "recommendedSecurityUpdate": "March 2026"}
    text = lines(
        record("b", "100", "CVE-1", firstSeenTimestamp="2026-01-03 10:00:00.1234567"),
        record("b", "100", "CVE-1", firstSeenTimestamp="2026-01-02T10:00:00Z", rbacGroupName="another"),
        record("b", "100", "CVE-2", softwareName="edge", **link),
        record("a", "100", "CVE-1"),
    )
    records.load(write(file, text))
    assert records.count == 4
    a = {"machine_id": "a", "id": "100", "name": None, "url": None, "first_seen_at": None}
    b = {
        "machine_id": "b",
        "id": "100",
        "name": "March 2026",
        "url": "https://example.com/1",
        "first_seen_at": "2026-01-02T10:00:00Z",
    }
    assert list(records.missing()) == [
        ("a", [{**a, "products_names": ["windows_10"], "machine_missed_on": 2, "cve_addressed": 1}]),
        ("b", [{**b, "products_names": ["edge", "windows_10"], "machine_missed_on": 2, "cve_addressed": 2}]),
    ]


def test_products_without_a_name_are_left_out(records: Records, file: Path) -> None:
    unnamed = lines(record("a", "100", "CVE-1", softwareName=""), record("a", "100", "CVE-2", softwareName=None))
    records.load(write(file, unnamed))
    assert missed(records, "products_names") == [("a", [])]


@pytest.mark.parametrize(
    "other",
    [
        record("a", None, "CVE-1"),
        record("a", "", "CVE-1"),
        record("a", "100", None),
        record("a", "100", "CVE-1", softwareVendor="mozilla"),
        record("a", "100", "CVE-1", softwareVendor=None),
    ],
    ids=["no update", "an empty one", "no CVE", "another vendor", "no vendor"],
)
def test_what_is_no_missing_update_still_says_that_the_machine_is_there(
    records: Records, file: Path, other: dict[str, Any]
) -> None:
    records.load(write(file, lines(other)))
    assert list(records.missing()) == [("a", [])]
    assert records.machines() == ["a"]
    assert list(records.kb_cves()) == []


def test_a_record_without_a_machine_is_nobodys(records: Records, file: Path) -> None:
    records.load(write(file, lines(record("", "100", "CVE-1"), record("a", "100", "CVE-1"))))
    assert missed(records, "machine_missed_on") == [("a", 1)]


def test_the_number_of_an_update_may_be_a_number(records: Records, file: Path) -> None:
    one = record("a", None, "CVE-1", recommendedSecurityUpdateId=100, cvssScore="7.8")
    records.load(write(file, lines(one)))
    assert missed(records, "id") == [("a", "100")]
    assert [cve["cvss_score"] for cve in records.kb_cves()] == [7.8]


def test_a_cve_is_as_bad_as_on_the_worst_of_machines(records: Records, file: Path) -> None:
    """Each by its own worst; words that nobody knows are no worse than the least, and none is none."""

    def known(severity: str | None, score: float | None, level: str | None, cve: str = "CVE-1") -> dict[str, Any]:
        levels = {"vulnerabilitySeverityLevel": severity, "cvssScore": score, "exploitabilityLevel": level}
        return record("a", "100", cve, **levels)

    text = lines(
        known("Low", 9.1, "ExploitIsInKit"),
        known("Critical", 4.0, "NoExploit"),
        known("Unheard", None, "ExploitIsVerified"),
        known("Unheard", None, None, "CVE-2"),
        known(None, None, "ExploitIsPublic", "CVE-2"),
        known(None, 0, "NoExploit", "CVE-3"),
        known("", None, "", "CVE-3"),
        record("a", "100", "CVE-3", cvssScore="NaN"),
        record("b", "100", "CVE-3", cvssScore="high"),
    )
    records.load(write(file, text))
    assert [tuple(cve.values()) for cve in records.kb_cves()] == [
        ("100", "CVE-1", "Critical", 9.1, "ExploitIsInKit"),
        ("100", "CVE-2", "Unheard", None, "ExploitIsPublic"),
        ("100", "CVE-3", None, 0.0, "NoExploit"),
    ]
    assert [*next(records.kb_cves())] == [*schema.KB_CVES.schema["properties"]]


@pytest.mark.parametrize(
    "text",
    [
        lines(record("a", "100", "CVE-1"), record("b", "100", "CVE-1")),
        lines(record("a", "100", "CVE-1"), record("b", "100", "CVE-1")).replace("\n", ""),
        lines(record("a", "100", "CVE-1"), record("b", "100", "CVE-1")).replace("\n", "\r\n"),
        json.dumps(pascal(record("a", "100", "CVE-1")), indent=2) + json.dumps(pascal(record("b", "100", "CVE-1"))),
        json.dumps(record("a", "100", "CVE-1")) + json.dumps(record("b", "100", "CVE-1")),
        json.dumps(pascal(record("a", "100", "CVE-1"))) + json.dumps(record("b", "100", "CVE-1")),
        json.dumps([pascal(record("a", "100", "CVE-1")), pascal(record("b", "100", "CVE-1"))]),
        json.dumps({name.upper(): value for name, value in record("a", "100", "CVE-1").items()})
        + json.dumps({name.upper(): value for name, value in record("b", "100", "CVE-1").items()}),
    ],
    ids=["lines", "no lines", "CRLF", "spanning lines", "camelCase", "both cases", "an array", "upper case"],
)
def test_every_way_to_write_the_same_is_read(records: Records, file: Path, text: str) -> None:
    records.load(write(file, text))
    assert records.count == 2
    assert missed(records, "id") == [("a", "100"), ("b", "100")]


@pytest.mark.parametrize(
    "text",
    [
        '{"DeviceId": "a"}\n{"DeviceId": "b", "Cve\n',
        '{"DeviceId": "a"}\n17\n',
        '{"DeviceId": "a"}\nnot JSON\n',
        '{"Device": "a"}\n',
        "<html></html>",
        '{"value": []}',
    ],
    ids=["cut", "a number", "a word", "another property", "a page", "an answer"],
)
def test_of_a_malformed_file_nothing_is_taken(records: Records, file: Path, text: str) -> None:
    with pytest.raises(MalformedFileError):
        records.load(write(file, text))
    assert records.machines() == []
    records.load(write(file, lines(record("a", "100", "CVE-1"))))
    assert records.machines() == ["a"]


def test_a_property_that_the_beginning_leaves_out_is_spelled_like_the_rest() -> None:
    """Files leave out what is null: the first megabyte may have no CVSS score."""
    [names] = spellings(b'{"DeviceId": "a", "Cveid": "CVE-1"}')
    assert names == {
        **{name: name[0].upper() + name[1:] for name in PROPERTIES},
        "cveId": "Cveid",
    }
    [names] = spellings(b'{"deviceId" : "a"}')
    assert names == {name: name for name in PROPERTIES}


def test_machines_come_in_order_from_the_one_asked_for(records: Records, file: Path) -> None:
    records.load(write(file, lines(*(record(device, "100", "CVE-1") for device in "dbca"))))
    assert [device for device, _ in records.missing()] == ["a", "b", "c", "d"]
    assert [device for device, _ in records.missing("bb")] == ["c", "d"]
    assert [device for device, _ in records.missing("c")] == ["c", "d"]
    assert list(records.missing("e")) == []


def test_without_duckdb_a_line_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "duckdb", None)
    with pytest.raises(SettingsError, match=r"tap-mde-kbs\[export\]"):
        require_duckdb()


def test_a_full_disk_is_told_with_what_to_do(monkeypatch: pytest.MonkeyPatch, file: Path, tmp_path: Path) -> None:
    """DuckDB may take so little that it can't even hold one file's records; nothing is left behind."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(module, "MEMORY", "1MB")
    write(file, lines(*(record(f"{number:040}", "100", "CVE-1") for number in range(20_000))))
    with pytest.raises(TapError, match="Free some disk there, or name another folder in TMPDIR"), Records() as records:
        records.load(file)
    assert [*tmp_path.iterdir()] == [file]
