"""The advisory feeds: what recorded answers have is in them, and they agree with the fleet and with the exports."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import threading
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

import pytest
import requests

from mde_simulator import Fleet, Simulator
from mde_simulator.feeds.feeds import NAMES
from mde_simulator.fleet.catalogue import patch_tuesday

if TYPE_CHECKING:
    from collections.abc import Iterator

DAY = timedelta(days=1)
AGENT = "tests of the simulator"


class Public:
    """A client of the three hosts."""

    def __init__(self, simulator: Simulator) -> None:
        self.simulator = simulator
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.verify = simulator.ca_file
        self.session.headers.update({"User-Agent": AGENT, "Accept": "application/json"})

    def get(self, path: str, **headers: str | None) -> requests.Response:
        url = f"{self.simulator.feeds.url}{path}"
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.session.get(url, headers=named, timeout=10, allow_redirects=False)

    def document(self, document_id: str) -> Any:
        return self.get(f"/cvrf/v3.0/cvrf/{document_id}").json()

    def index(self) -> Any:
        return self.get("/cvrf/v3.0/updates").json()["value"]

    def documents(self) -> dict[str, Any]:
        return {entry["ID"]: self.document(entry["ID"]) for entry in self.index()}

    def kev(self) -> Any:
        return self.get("/sites/default/files/feeds/known_exploited_vulnerabilities.json").json()

    def scores(self) -> list[list[str]]:
        current = self.get("/epss_scores-current.csv.gz")
        assert current.status_code == 302
        body = self.get(current.headers["Location"]).content
        return [*csv.reader(io.StringIO(gzip.decompress(body).decode()))]


@pytest.fixture
def public() -> Iterator[Public]:
    """The hosts, three weeks after the first day."""
    with Simulator(Fleet(60, seed=3, night=21), advisory_feeds=NAMES, epss_rows=3_000) as simulator:
        yield Public(simulator)


def fixes(document: Any) -> list[tuple[str, str, dict[str, Any]]]:
    """KB number, CVE and remediation of each fix, read by hand."""
    return [
        (found.group(1), entry["CVE"], remediation)
        for entry in document["Vulnerability"]
        for remediation in entry["Remediations"]
        if remediation["Type"] == 2
        and (found := re.fullmatch(r"(?:KB)?(\d{6,8})", remediation.get("Description", {}).get("Value", "")))
    ]


def test_without_feeds_there_is_no_host_and_no_setting() -> None:
    with Simulator(Fleet(1)) as simulator:
        assert simulator.feeds.url == ""
        assert not [name for name in simulator.config if "feed" in name or "msrc" in name]
    with pytest.raises(ValueError, match="There are no feeds nvd"):
        Simulator(Fleet(1), advisory_feeds=["nvd"])


def test_settings_name_the_feeds_and_their_hosts(public: Public) -> None:
    simulator = public.simulator
    assert simulator.config["advisory_feeds"] == ["msrc", "kev", "epss"]
    assert simulator.environment["TAP_MDE_KBS_ADVISORY_FEEDS"] == "msrc,kev,epss"
    assert simulator.environment["TAP_MDE_KBS_MSRC_URL"] == f"{simulator.feeds.url}/cvrf/v3.0"
    assert {name for name in simulator.config if name.endswith("_url")} >= {"msrc_url", "kev_url", "epss_url"}


def test_every_published_update_is_in_its_months_document_with_the_cves_that_the_export_names(public: Public) -> None:
    simulator = public.simulator
    documents = public.documents()
    closed: dict[str, set[str]] = {}
    for document in documents.values():
        for kb_id, cve_id, _ in fixes(document):
            if cve_id.startswith("CVE"):
                closed.setdefault(kb_id, set()).add(cve_id)
    assert closed == simulator.feeds.closes()
    assert closed.keys() == {*simulator.fleet.kbs()}
    exported: dict[str, set[str]] = {}
    for kb_id, cve_id in simulator.exports.kb_cves():
        exported.setdefault(kb_id, set()).add(cve_id)
    assert exported
    assert all(cves <= closed[kb_id] for kb_id, cves in exported.items())
    for kb in simulator.fleet.updates():
        assert len({cve_id for id_, cve_id, _ in fixes(documents[f"{kb.published:%Y-%b}"]) if id_ == kb.id}) == kb.cves
        assert kb.name in {None, documents[f"{kb.published:%Y-%b}"]["DocumentTitle"]["Value"]}


def test_what_recorded_documents_have_is_in_them(public: Public) -> None:
    """An update in two documents, spellings, predecessors left out or several, entries without a KB, an advisory."""
    documents = public.documents()
    ids = [*documents]
    assert ids == sorted(ids)
    assert {"1999-Sep", "2015-FEB"} <= {*ids}
    assert not any(fixes(documents[id_]) for id_ in ("1999-Sep", "2012-Mar", "2015-FEB"))
    every = [fix for document in documents.values() for fix in fixes(document)]
    in_documents = {
        (kb_id, id_) for id_, document in documents.items() for kb_id, cve, _ in fixes(document) if "CVE" in cve
    }
    assert len({kb_id for kb_id, _ in in_documents}) < len(in_documents)
    assert any(cve_id == "ADV990001" for _, cve_id, _ in every)
    said = [remediation.get("Supercedence", "") for _, _, remediation in every]
    assert {bool(text) for text in said} == {True, False}
    assert any(re.search(r"\d\D+\d", text) for text in said)
    restarts = {remediation.get("RestartRequired", {}).get("Value") for _, _, remediation in every}
    assert {"Yes", "Maybe", "No"} <= restarts
    kinds = {remediation["SubType"] for _, _, remediation in every}
    assert {"Security Update", "Cumulative Update", "ServicingStackUpdate"} <= kinds
    assert any("otpatch" in kind.lower() for kind in kinds)
    entries = [entry for document in documents.values() for entry in document["Vulnerability"]]
    assert {entry["ReleaseDate"] for entry in entries} == {"0001-01-01T00:00:00"}
    assert any([revision["Number"] for revision in entry["RevisionHistory"]] == ["2.0", "1.0"] for entry in entries)
    dates = [document["DocumentTracking"]["CurrentReleaseDate"] for document in documents.values()]
    assert {text.endswith("Z") for text in dates} == {True, False}


def test_predecessors_are_of_the_same_product_and_older(public: Public) -> None:
    simulator = public.simulator
    kbs = {kb.id: kb for kb in simulator.fleet.updates()}
    supersedes = simulator.feeds.supersedes()
    assert any(supersedes.values())
    for newer, olders in supersedes.items():
        for older in olders:
            assert kbs[older].product == kbs[newer].product
            assert kbs[older].published <= kbs[newer].published


def test_an_update_out_of_band_has_cves_of_its_own_that_came_that_day() -> None:
    fleet = Fleet(1, seed=3, night=400)
    late = [kb for kb in fleet.updates() if kb.is_out_of_band]
    assert late
    with Simulator(fleet, advisory_feeds=NAMES, epss_rows=0) as simulator:
        published = simulator.feeds.documents.published()
        own = simulator.feeds.kb_documents()[late[0].id, f"{late[0].published:%Y-%b}"]
        assert {published[cve_id] for cve_id in own} == {late[0].published}
        assert late[0].published != patch_tuesday(late[0].published.year, late[0].published.month)


def test_some_servers_take_hotpatches_instead_of_the_months_update() -> None:
    fleet = Fleet(600, seed=3, night=60)
    hotpatches = {kb.id for kb in fleet.updates() if kb.is_hotpatch}
    months = {kb.published.month for kb in fleet.updates() if kb.is_hotpatch}
    assert not months & {1, 4, 7, 10}
    missing = [kbs & hotpatches for kbs in fleet.lacking().values() if kbs & hotpatches]
    assert missing
    twins = {kb.id for kb in fleet.updates() if kb.product == "windows_server_2025" and kb.published.month in months
             and not kb.is_hotpatch and not kb.is_out_of_band}  # fmt: skip
    assert all(not (kbs & twins) for kbs in fleet.lacking().values() if kbs & hotpatches)


def test_the_new_month_is_there_early_without_a_kb_and_filled_on_patch_tuesday(public: Public) -> None:
    """February of 2026 has it on the 10th."""
    fleet = public.simulator.fleet
    fleet.pass_days((date(2026, 2, 7) - fleet.start).days - fleet.day)
    early = public.document("2026-Feb")
    assert early["DocumentTitle"]["Value"] == "February 2026 Early Security Updates"
    assert not fixes(early)
    fleet.pass_days(3)
    assert fixes(public.document("2026-Feb"))


def test_documents_are_released_again_and_what_closes_what_stays(public: Public) -> None:
    before = {entry["ID"]: entry["CurrentReleaseDate"] for entry in public.index()}
    fixed = {(kb_id, cve_id) for kb_id, cve_id, _ in fixes(public.document("2025-Nov"))}
    public.simulator.fleet.pass_days(12)
    after = {entry["ID"]: entry["CurrentReleaseDate"] for entry in public.index()}
    assert any(after[id_] != released for id_, released in before.items())
    assert fixed <= {(kb_id, cve_id) for kb_id, cve_id, _ in fixes(public.document("2025-Nov"))}


def test_kev_grows_over_the_weeks_newest_first_and_its_count_fits(public: Public) -> None:
    before = public.kev()
    public.simulator.fleet.pass_days(60)
    after = public.kev()
    assert before["count"] == len(before["vulnerabilities"]) < after["count"] == len(after["vulnerabilities"])
    days = [entry["dateAdded"] for entry in after["vulnerabilities"]]
    assert days == sorted(days, reverse=True)
    assert all(date.fromisoformat(day).weekday() < 5 for day in days[: after["count"] - before["count"]])
    assert {entry["forensicTriage"] for entry in after["vulnerabilities"]} == {"Yes", "No"}
    assert {entry["knownRansomwareCampaignUse"] for entry in after["vulnerabilities"]} == {"Known", "Unknown"}
    known = {entry["cveID"]: date.fromisoformat(entry["dateAdded"]) for entry in after["vulnerabilities"]}
    assert known == public.simulator.feeds.known_exploited()
    assert public.simulator.feeds.attacked() & known.keys()


def test_scores_are_of_the_day_and_change(public: Public) -> None:
    rows = public.scores()
    assert rows[0][0].startswith("#model_version:")
    assert rows[0][1] == f"score_date:{public.simulator.feeds.score_date()}T12:55:00Z"
    assert rows[1] == ["cve", "epss", "percentile"]
    assert len(rows) >= 3_000
    scores = {row[0]: float(row[1]) for row in rows[2:]}
    assert scores == public.simulator.feeds.today_scores()
    assert 0 < sum(score >= 0.1 for score in scores.values()) < len(scores) / 2
    public.simulator.fleet.pass_days(1)
    assert {row[0]: float(row[1]) for row in public.scores()[2:]} != scores


def test_kev_is_not_sent_again_when_it_was_not_modified(public: Public) -> None:
    path = "/sites/default/files/feeds/known_exploited_vulnerabilities.json"
    first = public.get(path)
    again = public.get(path, If_Modified_Since=first.headers["Last-Modified"])
    assert (again.status_code, again.content) == (304, b"")
    assert public.get(path, If_None_Match=first.headers["ETag"]).status_code == 200
    assert public.get(path, If_Modified_Since="yesterday").status_code == 200


def test_msrc_answers_in_xml_unless_json_is_asked_for_and_knows_no_filter_on_dates(public: Public) -> None:
    assert public.get("/cvrf/v3.0/cvrf/2026-Jan", Accept=None).content.startswith(b"<?xml")
    assert public.get("/cvrf/v3.0/cvrf/2031-Jan").status_code == 404
    assert public.get("/cvrf/v3.0/updates?$filter=CurrentReleaseDate gt 2026-01-01").status_code == 500
    assert public.get("/sites/other.json").status_code == 404
    assert public.get("/epss_scores-2031-01-01.csv.gz").status_code == 404
    assert public.simulator.violations == []


def test_a_token_a_cookie_and_a_default_user_agent_are_violations(public: Public) -> None:
    path = "/sites/default/files/feeds/known_exploited_vulnerabilities.json"
    public.get(path, Authorization="Bearer x", Cookie="a=b")
    assert public.get(path, User_Agent="python-requests/2.32").status_code == 403
    public.session.post(f"{public.simulator.feeds.url}{path}", timeout=10)
    said = " ".join(public.simulator.violations)
    assert all(what in said for what in ("authorization", "cookie", "a user agent that nobody set", "not GET"))


def test_two_requests_at_once_are_a_violation(public: Public) -> None:
    """Each waits for a document that is being written."""
    start = threading.Barrier(6)

    def ask() -> None:
        client = Public(public.simulator)
        start.wait()
        client.document("2026-Jan")

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert any("two requests to feeds at once" in violation for violation in public.simulator.violations)


def test_requests_to_feeds_are_no_calls_of_the_api(public: Public) -> None:
    public.documents()
    public.kev()
    public.scores()
    journal = public.simulator.journal
    assert {entry.feed for entry in journal.feed_requests} == {"msrc", "kev", "epss"}
    assert (journal.calls, journal.token_requests, journal.downloads) == (0, [], [])
    assert json.dumps([entry.path for entry in journal])
