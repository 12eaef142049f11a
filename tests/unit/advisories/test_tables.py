"""KEV and EPSS: whole tables, in each form that was recorded."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tap_mde_kbs.advisories import epss, kev
from tests.support.feeds import catalogue, scores


def entry(**fields: Any) -> dict[str, Any]:
    """A catalogue's one row, of an entry with these fields."""
    said = catalogue("CVE-2026-1")
    said["vulnerabilities"][0] |= fields
    [row] = kev.catalogue_in(json.dumps(said).encode()).rows
    return row


def test_an_entry_of_the_catalogue() -> None:
    assert entry() == {
        "cve_id": "CVE-2026-1",
        "vendor": "Microsoft",
        "product": "Windows",
        "name": "CVE-2026-1 in Windows",
        "required_action": "Apply updates.",
        "added_on": "2026-06-11",
        "due_on": "2026-07-02",
        "ransomware": None,
        "forensic_triage": None,
        "released_at": "2026-06-12T17:46:43.601900Z",
    }


@pytest.mark.parametrize(
    ("fields", "column", "value"),
    [
        ({"knownRansomwareCampaignUse": "Known"}, "ransomware", True),
        ({"knownRansomwareCampaignUse": "Unknown"}, "ransomware", None),
        ({"forensicTriage": "Yes"}, "forensic_triage", True),
        ({"forensicTriage": "No"}, "forensic_triage", False),
        ({"forensicTriage": "Perhaps"}, "forensic_triage", None),
        ({"dueDate": ""}, "due_on", None),
        ({"dateAdded": "2026-02-30"}, "added_on", None),
        ({"vendorProject": " "}, "vendor", None),
        ({"cveID": " cve-2026-2 "}, "cve_id", "CVE-2026-2"),
    ],
)
def test_what_is_not_said_is_not_known(fields: dict[str, Any], column: str, value: object) -> None:
    assert entry(**fields)[column] == value


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b"<html>",
        json.dumps(catalogue("CVE-2026-1", count=2)).encode(),
        json.dumps(catalogue("CVE-2026-1", released="soon")).encode(),
        json.dumps(catalogue("CVE-2026-1", released="0001-01-01T00:00:00Z")).encode(),
        json.dumps(catalogue("CVE-2026-1", released="9999-12-31T23:59:59-14:00")).encode(),
        json.dumps(catalogue(" ")).encode(),
        json.dumps(catalogue("CVE-2026-1", vulnerabilities=[{}], count=1)).encode(),
    ],
)
def test_what_is_no_catalogue_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        kev.catalogue_in(content)


def test_of_an_entry_that_comes_twice_the_newest_counts() -> None:
    said = catalogue("CVE-2026-1", "CVE-2026-1")
    said["vulnerabilities"][1]["dueDate"] = "2020-01-01"
    assert [row["due_on"] for row in kev.catalogue_in(json.dumps(said).encode()).rows] == ["2026-07-02"]


@pytest.mark.parametrize(
    ("content", "name", "day", "percentile", "model"),
    [
        (scores("CVE-1,0.5,0.9"), "current", "2026-06-12", 0.9, "v2026.06.15"),
        (b"#model_version:v2022.01.01,score_date:2022-02-04T00:00:00+0000\ncve,epss,percentile\nCVE-1,0.5,0.9\n",
         "epss_scores-2022-02-04.csv.gz", "2022-02-04", 0.9, "v2022.01.01"),
        (b"cve,epss,percentile\r\nCVE-1,0.5,0.9\r\n", "epss_scores-2021-09-01.csv.gz", "2021-09-01", 0.9, None),
        (b"cve,epss\nCVE-1,0.5\n", "epss_scores-2021-04-14.csv.gz", "2021-04-14", None, None),
        (b"\xef\xbb\xbfcve,epss\ncve-1,5e-1\n\n", "2021-04-14", "2021-04-14", None, None),
        (b'"cve","epss","percentile"\r\n"CVE-1","0.5","0.9"\r\n', "2021-09-01", "2021-09-01", 0.9, None),
    ],
)  # fmt: skip
def test_scores_in_each_form(content: bytes, name: str, day: str, percentile: float | None, model: str | None) -> None:
    assert epss.scores_in(content, name, 0.1) == epss.Scores(
        day,
        [{"cve_id": "CVE-1", "epss": 0.5, "percentile": percentile, "score_date": day, "model_version": model}],
    )


def test_lower_scores_are_left_out() -> None:
    found = epss.scores_in(scores("CVE-1,0.09999,0.9", "CVE-2,0.1,0.9", "CVE-3,1,1"), "", 0.1)
    assert [row["cve_id"] for row in found.rows] == ["CVE-2", "CVE-3"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<html>",
        b"\x1f\x8bodd",
        scores("CVE-1,0.5,0.9", day=""),
        scores(),
        scores("CVE-1,0.5"),
        scores("CVE-1,nan,0.9"),
        scores("CVE-1,1.5,0.9"),
        scores(",0.5,0.9"),
        scores('"CVE-1,0.5,0.9' + "x" * 200_000),
        scores("CVE-1,0.5,0.9", columns="cve,score,percentile"),
        scores("CVE-1,0.5,0.9", day="2026-02-30"),
    ],
)
def test_what_are_no_scores_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        epss.scores_in(content, "current", 0.1)


@pytest.mark.parametrize("content", [scores("CVE-1,mallory,0.9"), scores("CVE-1,0.5,0.9", day="2026-02-30")])
def test_what_is_said_of_odd_scores_quotes_nothing_of_them(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"^(a score|scores of a day) that is none$"):
        epss.scores_in(content, "current", 0.1)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_spoilt_files_are_read_or_refused_and_nothing_else(data: st.DataObject) -> None:
    good = data.draw(st.sampled_from([json.dumps(catalogue("CVE-2026-1")).encode(), scores("CVE-1,0.5,0.9")]))
    content = bytearray(good)
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    del content[data.draw(st.integers(1, len(content))) :]
    for read in (kev.catalogue_in, lambda given: epss.scores_in(given, "current", 0.1)):
        try:
            read(bytes(content))
        except (ValueError, RecursionError):
            continue
