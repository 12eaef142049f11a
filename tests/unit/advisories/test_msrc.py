"""MSRC's documents: each oddity that was recorded, and whatever else a document may be."""

from __future__ import annotations

import json
from copy import deepcopy
from datetime import date
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tap_mde_kbs.advisories import msrc
from tests.support.feeds import document, fix, vulnerability


def read(*vulnerabilities: dict[str, Any], document_id: str = "2026-Jun") -> msrc.Document:
    return msrc.document_in(json.dumps(document(document_id, *vulnerabilities)).encode(), document_id)


def kb(*vulnerabilities: dict[str, Any], document_id: str = "2026-Jun") -> dict[str, Any]:
    """The one update of a document."""
    [row] = read(*vulnerabilities, document_id=document_id).kbs
    return row


def cve(**more: Any) -> dict[str, Any]:
    """The one CVE of a document."""
    [row] = read(vulnerability("CVE-2026-1", fix("5060842"), **more)).cves
    return row


def test_an_update_with_all_that_is_known_of_it() -> None:
    said = read(
        vulnerability("CVE-2026-1", fix("5060842", "5058411; 5058499", ProductID=["11", "16", "99"])),
        vulnerability("CVE-2026-2", fix("5060842", restart="Maybe", SubType="Monthly Rollup", FixedBuild=" 10.0.1\t ")),
    )
    assert said.kbs == [
        {
            "kb_id": "5060842",
            "document_id": "2026-Jun",
            "document_month": "2026-06-01",
            "cves": 2,
            "published_on": "2026-06-09",
            "supersedes": ["5058411", "5058499"],
            "sub_types": ["Monthly Rollup", "Security Update"],
            "product_ids": ["11", "16", "99"],
            "products": ["Microsoft Office 2016 (64-bit edition)", "Windows 11 Version 24H2 for x64-based Systems"],
            "fixed_builds": ["10.0.1", "10.0.26100.4349"],
            "restart_required": "Yes",
            "url": "https://catalog.update.microsoft.com/v7/site/Search.aspx?q=KB5060842",
        }
    ]
    assert said.kb_cves == [
        {"kb_id": "5060842", "cve_id": name, "document_id": "2026-Jun"} for name in ("CVE-2026-1", "CVE-2026-2")
    ]
    assert said.cves[0] == {
        "id": "CVE-2026-1",
        "title": "CVE-2026-1 Elevation of Privilege",
        "severity": "Important",
        "exploited": False,
        "publicly_disclosed": False,
        "cvss_score": 7.8,
        "cvss_vector": "CVSS:3.1/AV:L",
        "published_on": "2026-06-09",
        "revised_on": None,
        "document_id": "2026-Jun",
    }


@pytest.mark.parametrize(
    ("text", "kb_id"),
    [
        ("5060842", "5060842"),
        (" 3114981 ", "3114981"),
        ("KB29166583", "29166583"),
        ("kb 5060842", "5060842"),
        ("123456", "123456"),
        ("12345", None),
        ("123456789", None),
        ("Release Notes", None),
        ("Click to Run", None),
        ("CBL-Mariner Releases", None),
        ("5060842 and 5060843", None),
        ("٥٠٦٠٨٤٢", None),
        ("", None),
        (None, None),
    ],
)
def test_an_update_is_a_number_of_six_to_eight_digits(text: str | None, kb_id: str | None) -> None:
    assert [row["kb_id"] for row in read(vulnerability("CVE-2026-1", fix(text))).kbs] == ([kb_id] if kb_id else [])


@pytest.mark.parametrize("kind", [0, 1, 3, 6])
def test_a_link_or_a_workaround_is_no_update(kind: int) -> None:
    said = read(vulnerability("CVE-2026-1", fix("5060842", kind=kind)))
    assert said == msrc.Document([], [], [])


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        (None, []),
        ("", []),
        ("4489488", ["4489488"]),
        ("4489488; 4495165", ["4489488", "4495165"]),
        ("4088875, 4100480", ["4088875", "4100480"]),
        ("4018309<br><br>4011703", ["4011703", "4018309"]),
        ("4018309\r\n4011703", ["4011703", "4018309"]),
        ("MS16-016, 3124280; MS16-14", ["3124280"]),
        ("KB3124280", ["3124280"]),
        ("5060842, 5060841", ["5060841"]),
        ("123456789 12345", []),
    ],
)
def test_what_an_update_replaces_in_each_form_that_was_seen(text: str | None, numbers: list[str]) -> None:
    """Bulletins are none, nor is the update itself."""
    assert kb(vulnerability("CVE-2026-1", fix("5060842", text)))["supersedes"] == numbers


@pytest.mark.parametrize(
    ("said", "worst"),
    [
        ([], None),
        ([""], None),
        (["No"], "No"),
        (["No", "Maybe"], "Maybe"),
        (["yes ", "No"], "Yes"),
        (["Perhaps"], None),
    ],
)
def test_whether_it_restarts_is_the_worst_of_what_is_said(said: list[str], worst: str | None) -> None:
    fixes = [fix("5060842", restart=each) for each in said] or [fix("5060842", restart=None)]
    assert kb(vulnerability("CVE-2026-1", *fixes))["restart_required"] == worst


@pytest.mark.parametrize(
    ("histories", "published_on"),
    [
        ([[("1.0", "2026-06-09")]], "2026-06-09"),
        ([[("1.0", "2026-06-09")], [("1.0", "2026-06-20")], [("1.0", "2026-06-20")]], "2026-06-09"),
        ([[("1.0", "2026-06-20")], [("1.0", "2026-06-20T23:59:59Z")], [("1.0", "2026-06-02")]], "2026-06-20"),
        ([[("2.0", "2026-06-30"), ("1.0", "2026-06-09")]], None),
        ([[("2.0", "2026-06-12"), ("1.0", "2026-06-09")]], "2026-06-09"),
        ([[("1.1", "2026-06-30"), ("1.0", "2026-06-09")]], "2026-06-09"),
        ([[("2.0", "2026-06-30"), ("1.0", "2026-06-09")], [("1.0", "2026-06-18")]], "2026-06-18"),
        ([[]], None),
        ([[("1.0", "0001-01-01T00:00:00")]], None),
        ([[("1.0", "soon"), ("1.0", "2026-06-09")]], "2026-06-09"),
    ],
)
def test_when_it_was_published_is_patch_tuesday_or_the_day_of_most(
    histories: list[list[tuple[str, str]]], published_on: str | None
) -> None:
    """Not of CVEs that were revised so late that the update may have come then."""
    entries = [
        vulnerability(f"CVE-2026-{number}", fix("5060842"), revisions=revisions)
        for number, revisions in enumerate(histories)
    ]
    assert kb(*entries)["published_on"] == published_on


def test_an_advisory_is_a_fix_but_no_cve() -> None:
    said = read(vulnerability("ADV990001", fix("5039339")), vulnerability("CVE-2026-1", fix("5060842")))
    assert [(row["kb_id"], row["cves"], row["published_on"]) for row in said.kbs] == [
        ("5039339", 0, None),
        ("5060842", 1, "2026-06-09"),
    ]
    assert [row["cve_id"] for row in said.kb_cves] == ["ADV990001", "CVE-2026-1"]
    assert [row["id"] for row in said.cves] == ["CVE-2026-1"]


@pytest.mark.parametrize(
    ("threats", "severity", "exploited", "disclosed"),
    [
        ([], None, None, None),
        ([(1, "DOS:N/A")], None, None, None),
        ([(1, "Publicly Disclosed:Yes;Exploited:No;Latest Software Release:More Likely")], None, False, True),
        ([(1, "Publicly Disclosed:No;Exploited:Yes")], None, True, False),
        ([(1, "Exploited:Yes"), (1, "Exploited:No")], None, True, None),
        ([(3, "Moderate"), (3, "Critical"), (0, "Critical")], "Critical", None, None),
        ([(3, "Low"), (3, "None"), (3, "Unheard of")], "Low", None, None),
    ],
)
def test_what_is_not_said_is_not_known(
    threats: list[tuple[int, str]], severity: str | None, exploited: bool | None, disclosed: bool | None
) -> None:
    row = cve(threats=threats)
    assert (row["severity"], row["exploited"], row["publicly_disclosed"]) == (severity, exploited, disclosed)


def test_the_highest_score_comes_with_its_vector() -> None:
    row = cve(scores=[(5.5, "low"), (9.8, "high"), (7.0, "middle")])
    assert (row["cvss_score"], row["cvss_vector"]) == (9.8, "high")
    assert cve(scores=[])["cvss_score"] is None


def test_of_the_same_cve_twice_in_a_document_there_is_one_row() -> None:
    said = read(
        vulnerability("CVE-2026-1", fix("5060842"), threats=[(3, "Low")]),
        vulnerability("CVE-2026-1", fix("5060843"), threats=[(3, "Critical")], revisions=[("2.0", "2026-06-10")]),
    )
    assert [(row["id"], row["severity"], row["revised_on"]) for row in said.cves] == [
        ("CVE-2026-1", "Critical", "2026-06-10")
    ]


def test_entries_without_what_is_usual_are_read() -> None:
    said = read(
        {"Title": {}, "Remediations": [fix("5060840")]},
        {"CVE": "CVE-2026-1"},
        {"CVE": "CVE-2026-2", "Remediations": [{"Type": 2}, {"Description": {"Value": "5060841"}}, {}]},
        {"CVE": "CVE-2026-3", "Remediations": [{"Type": 2, "Description": {"Value": "5060842"}}], "Threats": [{}]},
    )
    assert [row["kb_id"] for row in said.kbs] == ["5060842"]
    assert said.cves[0]["title"] is None


def test_names_of_cves_are_one_in_whatever_case_and_numbers_may_be_numbers() -> None:
    update = {**fix("KB\u00a05060842"), "Type": 2}
    said = read(
        vulnerability("CVE-2026-1", update),
        vulnerability(" cve-2026-1", {**update, "Description": {"Value": 5060842}}),
    )
    assert [(row["kb_id"], row["cve_id"]) for row in said.kb_cves] == [("5060842", "CVE-2026-1")]


def test_files_that_windows_saved_are_read() -> None:
    content = b"\xef\xbb\xbf" + json.dumps(document("2026-Jun")).encode()
    assert msrc.document_in(content, "2026-Jun").kbs == []
    assert msrc.index_in(b'\xef\xbb\xbf{"value": [{"ID": "2026-Jun"}]}') == {"2026-Jun": "-"}


def test_a_date_of_the_index_is_one_short_word_since_state_has_it_in_a_line() -> None:
    index = {"value": [{"ID": "2026-Jun", "CurrentReleaseDate": "2026-06-10 07:00:00" + "0" * 9000}]}
    [said] = msrc.index_in(json.dumps(index).encode()).values()
    assert said.startswith("2026-06-1007:00:00")
    assert len(said) <= msrc.LONGEST_MOMENT


@pytest.mark.parametrize(
    ("document_id", "month"),
    [("2026-Jun", date(2026, 6, 1)), ("2018-FEB", date(2018, 2, 1)), ("2017-May-B", date(2017, 5, 1)), ("June", None),
     ("2026-Foo", None), ("0000-Jan", None), ("2026-Jun B", None), ("2026-Jun/../x", None)],
)  # fmt: skip
def test_a_document_is_of_the_month_in_its_id(document_id: str, month: date | None) -> None:
    assert msrc.month_of(document_id) == month


def test_patch_tuesday_is_the_second() -> None:
    assert [msrc.patch_tuesday(date(2026, month, 1)).day for month in (1, 6, 9, 12)] == [13, 9, 8, 8]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"<html>",
        b"\xff\xfe",
        b'{"value": null}',
        json.dumps(document("2026-May")).encode(),
        json.dumps({**document("2026-Jun"), "Vulnerability": None}).encode(),
        json.dumps({**document("2026-Jun"), "Vulnerability": [{"CVE": 7}]}).encode(),
        b"[" * 100_000,
    ],
)
def test_what_is_no_such_document_is_refused(content: bytes) -> None:
    with pytest.raises((ValueError, RecursionError)):
        msrc.document_in(content, "2026-Jun")


@pytest.mark.parametrize("content", [b"", b"{}", b'{"value": []}', b'{"value": [{"ID": "June"}]}', b'{"value": [7]}'])
def test_what_is_no_index_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        msrc.index_in(content)


GOOD = json.dumps(
    document("2026-Jun", vulnerability("CVE-2026-1", fix("5060842", "5058411")), vulnerability("ADV1", fix("5060843")))
).encode()
ODD = st.sampled_from([None, True, -1, 1e308, "", "\u0000", [], {}, [None], {"Value": None}, "2026-02-30", "9" * 400])


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_spoilt_document_is_read_or_refused_and_nothing_else(data: st.DataObject) -> None:
    """Any value anywhere replaced, or bytes cut and changed."""
    spoilt: Any = json.loads(GOOD)
    for _ in range(data.draw(st.integers(0, 3))):
        at = spoilt
        while isinstance(at, (dict, list)) and at:
            key = data.draw(st.sampled_from(sorted(at) if isinstance(at, dict) else range(len(at))))
            if not isinstance(at[key], (dict, list)) or not at[key] or data.draw(st.booleans()):
                at[key] = deepcopy(data.draw(ODD))
                break
            at = at[key]
    content = bytearray(json.dumps(spoilt).encode())
    for _ in range(data.draw(st.integers(0, 2))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    try:
        said = msrc.document_in(bytes(content), "2026-Jun")
    except (ValueError, RecursionError):
        return
    assert len(said.digest) == 8
    assert {row["kb_id"] for row in said.kb_cves} == {row["kb_id"] for row in said.kbs}
