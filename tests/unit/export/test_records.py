"""Records of an export, grouped: written by hand, so that every oddity of a record can be."""

from __future__ import annotations

import gzip
import json
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tap_mde_kbs.errors import SettingsError
from tap_mde_kbs.export.records import (
    COLUMNS,
    KbCve,
    MalformedError,
    MissingKb,
    Vulnerabilities,
    require,
    spellings,
)

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
def records(tmp_path: Path) -> Iterator[Vulnerabilities]:
    """No record yet."""
    (tmp_path / "database").mkdir()
    with Vulnerabilities(tmp_path / "database") as found:
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


def test_an_update_is_missing_once_however_many_records_say_so(records: Vulnerabilities, file: Path) -> None:
    """Distinct CVEs and products; the earliest of the times; name and link from wherever they are."""
    link = {"recommendedSecurityUpdateUrl": "https://example.com/1", "recommendedSecurityUpdate": "March 2026"}
    text = lines(
        record("b", "100", "CVE-1", firstSeenTimestamp="2026-01-03 10:00:00.1234567"),
        record("b", "100", "CVE-1", firstSeenTimestamp="2026-01-02T10:00:00Z", rbacGroupName="another"),
        record("b", "100", "CVE-2", softwareName="edge", **link),
        record("a", "100", "CVE-1"),
    )
    assert records.load(write(file, text)) == 4
    assert list(records.missing()) == [
        ("a", [MissingKb("100", None, None, ["windows_10"], 1, None)]),
        (
            "b",
            [
                MissingKb(
                    "100", "March 2026", "https://example.com/1", ["edge", "windows_10"], 2, "2026-01-02T10:00:00Z"
                )
            ],
        ),
    ]
    assert records.missed_on() == {"100": 2}


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
    records: Vulnerabilities, file: Path, other: dict[str, Any]
) -> None:
    records.load(write(file, lines(other)))
    assert list(records.missing()) == [("a", [])]
    assert records.devices() == ["a"]
    assert records.missed_on() == {}
    assert list(records.kb_cves()) == []


def test_a_record_without_a_machine_is_nobodys(records: Vulnerabilities, file: Path) -> None:
    records.load(write(file, lines(record("", "100", "CVE-1"), record("a", "100", "CVE-1"))))
    assert records.missed_on() == {"100": 1}


def test_the_number_of_an_update_may_be_a_number(records: Vulnerabilities, file: Path) -> None:
    one = record("a", None, "CVE-1", recommendedSecurityUpdateId=100, cvssScore="7.8")
    records.load(write(file, lines(one)))
    assert [kb.id for _, kbs in records.missing() for kb in kbs] == ["100"]
    assert [cve.cvss_score for cve in records.kb_cves()] == [7.8]


def test_a_cve_is_as_bad_as_on_the_worst_of_machines(records: Vulnerabilities, file: Path) -> None:
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
    )
    records.load(write(file, text))
    assert list(records.kb_cves()) == [
        KbCve("100", "CVE-1", "Critical", 9.1, "ExploitIsInKit"),
        KbCve("100", "CVE-2", "Unheard", None, "ExploitIsPublic"),
        KbCve("100", "CVE-3", None, 0.0, "NoExploit"),
    ]


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
def test_every_way_to_write_the_same_is_read(records: Vulnerabilities, file: Path, text: str) -> None:
    assert records.load(write(file, text)) == 2
    assert [(device, [kb.id for kb in kbs]) for device, kbs in records.missing()] == [("a", ["100"]), ("b", ["100"])]


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
def test_of_a_malformed_file_nothing_is_taken(records: Vulnerabilities, file: Path, text: str) -> None:
    with pytest.raises(MalformedError):
        records.load(write(file, text))
    assert records.devices() == []
    records.load(write(file, lines(record("a", "100", "CVE-1"))))
    assert records.devices() == ["a"]


def test_a_property_that_the_beginning_leaves_out_is_spelled_like_the_rest() -> None:
    """Files leave out what is null: the first megabyte may have no CVSS score."""
    [names] = spellings(b'{"DeviceId": "a", "Cveid": "CVE-1"}')
    assert names == {
        **{name: name[0].upper() + name[1:] for name in COLUMNS},
        "cveId": "Cveid",
    }
    [names] = spellings(b'{"deviceId" : "a"}')
    assert names == {name: name for name in COLUMNS}


def test_machines_come_in_order_from_the_one_asked_for(records: Vulnerabilities, file: Path) -> None:
    records.load(write(file, lines(*(record(device, "100", "CVE-1") for device in "dbca"))))
    assert [device for device, _ in records.missing()] == ["a", "b", "c", "d"]
    assert [device for device, _ in records.missing("bb")] == ["c", "d"]
    assert [device for device, _ in records.missing("c")] == ["c", "d"]
    assert list(records.missing("e")) == []


def test_without_duckdb_a_line_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "duckdb", None)
    with pytest.raises(SettingsError, match=r"tap-mde-kbs\[export\]"):
        require()
