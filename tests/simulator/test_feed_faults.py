"""What the advisory feeds do wrong, one fault at a time."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING, Any

import pytest
import requests

from mde_simulator import Fleet, Simulator
from mde_simulator.faults.fault import Fault
from mde_simulator.feeds.feeds import NAMES

from .test_feeds import Public, fixes

if TYPE_CHECKING:
    from collections.abc import Iterator

KEV = "/sites/default/files/feeds/known_exploited_vulnerabilities.json"


@pytest.fixture
def public() -> Iterator[Public]:
    """The hosts."""
    with Simulator(Fleet(5, seed=3, night=21), advisory_feeds=NAMES, epss_rows=50) as simulator:
        yield Public(simulator)


def with_fault(public: Public, **fault: Any) -> Public:
    """From now on that one alone."""
    public.simulator.faults.clear()
    public.simulator.faults.add(Fault(**fault))
    return public


def test_another_month_is_served(public: Public) -> None:
    found = with_fault(public, kind="msrc_other_month").document("2026-Jan")
    assert found["DocumentTracking"]["Identification"]["ID"]["Value"] == "2025-Dec"


def test_a_month_leaves_the_index_and_is_served_at_its_url(public: Public) -> None:
    before = [entry["ID"] for entry in public.index()]
    with_fault(public, kind="msrc_gone", text="2026-Jan")
    assert [entry["ID"] for entry in public.index()] == [id_ for id_ in before if id_ != "2026-Jan"]
    assert fixes(public.document("2026-Jan"))


def test_documents_without_kbs_with_one_cve_or_with_another_restart(public: Public) -> None:
    whole = public.document("2026-Jan")
    assert not fixes(with_fault(public, kind="msrc_early").document("2026-Jan"))
    assert len(with_fault(public, kind="msrc_shrunken").document("2026-Jan")["Vulnerability"]) == 1
    changed = with_fault(public, kind="msrc_same_date").document("2026-Jan")
    assert changed["DocumentTracking"] == whole["DocumentTracking"]
    assert changed["Vulnerability"] != whole["Vulnerability"]


def test_dates_go_back(public: Public) -> None:
    before = {entry["ID"]: entry["CurrentReleaseDate"] for entry in public.index()}
    after = {entry["ID"]: entry["CurrentReleaseDate"] for entry in with_fault(public, kind="msrc_date_back").index()}
    assert all(after[id_] < released for id_, released in before.items())


def test_an_old_document_names_a_new_update(public: Public) -> None:
    newest = public.simulator.fleet.updates()[-1].id
    assert newest not in {kb_id for kb_id, _, _ in fixes(public.document("2025-Sep"))}
    found = with_fault(public, kind="msrc_old_names_new").document("2025-Sep")
    assert newest in {kb_id for kb_id, _, _ in fixes(found)}


def test_catalogues_that_do_not_add_up_or_are_short(public: Public) -> None:
    whole = public.kev()
    assert with_fault(public, kind="kev_count").kev()["count"] == whole["count"] + 1
    retracted = with_fault(public, kind="kev_retraction").kev()
    assert retracted["vulnerabilities"] == whole["vulnerabilities"][1:]
    assert retracted["count"] == whole["count"] - 1
    half = with_fault(public, kind="kev_half").kev()
    assert half["count"] == len(half["vulnerabilities"]) == whole["count"] // 2
    assert half["dateReleased"] > whole["dateReleased"]


def test_scores_come_late_or_are_old_or_written_otherwise(public: Public) -> None:
    today = public.simulator.feeds.score_date()
    path = f"/epss_scores-{today}.csv.gz"
    late = with_fault(public, kind="epss_late")
    assert str(today) not in late.get("/epss_scores-current.csv.gz").headers["Location"]
    assert late.get(path).status_code == 404
    assert str(today) not in gzip.decompress(with_fault(public, kind="epss_older_day").get(path).content).decode()
    plain = with_fault(public, kind="epss_not_gzip").get(path).content
    assert plain.startswith(b"#model_version:")
    old = gzip.decompress(with_fault(public, kind="epss_old_header").get(path).content)
    assert b"+0000\n" in old.splitlines(keepends=True)[0]
    assert gzip.decompress(with_fault(public, kind="epss_no_header").get(path).content).startswith(
        b"cve,epss,percentile\n"
    )
    assert gzip.decompress(with_fault(public, kind="epss_no_percentile").get(path).content).startswith(b"cve,epss\n")


@pytest.mark.parametrize("path", ["/cvrf/v3.0/updates", KEV, "/epss_scores-2026-01-26.csv.gz"])
def test_faults_of_any_feed(public: Public, path: str) -> None:
    assert with_fault(public, kind="feed_forbidden").get(path).status_code == 403
    assert "vulnerabilities" in with_fault(public, kind="feed_shape").get(path).json()["value"]
    assert with_fault(public, kind="html", path=path).get(path).headers["Content-Type"] == "text/html"
    with pytest.raises(requests.RequestException):
        with_fault(public, kind="cut", path=path).get(path)
    with pytest.raises(requests.RequestException):
        with_fault(public, kind="reset", path=path).get(path)
    assert with_fault(public, kind="500", path=path).get(path).status_code == 500


def test_they_do_not_strike_the_api(public: Public) -> None:
    public.simulator.faults.add(Fault("feed_forbidden"), Fault("feed_shape"))
    answer = public.session.get(f"{public.simulator.url}/api/machines", timeout=10)
    assert answer.status_code == 401
    assert json.loads(answer.content)["error"]["code"] == "Unauthorized"
