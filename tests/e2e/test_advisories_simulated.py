"""The advisory feeds of a whole fleet, week after week: every row by the simulator's truth, and what its faults do."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from mde_simulator import Fleet
from mde_simulator.faults.fault import Fault
from mde_simulator.feeds.feeds import NAMES
from mde_simulator.feeds.public import is_exploited
from tap_mde_kbs.patience import Patience
from tests.support.catalogs import FEED_STREAMS, feeds_alone
from tests.support.contract import answers_of
from tests.support.singer import HURRIED, Messages, run_tap, trust

if TYPE_CHECKING:
    from pathlib import Path

    from mde_simulator import Simulator
    from tests.conftest import StartSimulator

LEAST = 0.1
"""What `epss_min` is by default."""
QUICK = Patience(**{**vars(HURRIED), "feed": 3.0})


@pytest.fixture
def simulator(simulate: StartSimulator) -> Simulator:
    """A small fleet three weeks after its first day, with all three feeds."""
    return simulate(Fleet(25, seed=3, night=21), advisory_feeds=NAMES, epss_rows=2_000)


def run(folder: Path, simulator: Simulator, state: dict[str, Any] | None = None, **options: Any) -> Messages:
    """A run that ends well."""
    messages = run_tap(
        folder, config=simulator.config, state=state, environ=trust(simulator), patience=QUICK, **options
    )
    assert messages.status == 0, messages.stderr
    return messages


def warnings(messages: Messages) -> list[str]:
    """What was said of feeds."""
    lines = [line.rpartition(" | ")[2] for line in messages.stderr.splitlines() if "WARNING" in line]
    return [line for line in lines if line.partition(":")[0] in NAMES]


def assert_true(messages: Messages, simulator: Simulator) -> None:
    """Every row of a first run is what the simulator knows."""
    feeds, fleet = simulator.feeds, simulator.fleet
    kbs = {(row["kb_id"], row["document_id"]): row for row in messages.records("msrc_kbs")}
    truth = feeds.kb_documents()
    assert {key: row["cves"] for key, row in kbs.items() if row["cves"]} == {
        key: len(cves) for key, cves in truth.items()
    }
    published = {kb.id: kb.published for kb in fleet.updates()}
    supersedes = feeds.supersedes()
    for (kb_id, document_id), row in kbs.items():
        if kb_id not in published:  # servicing stacks, which an advisory lists
            assert row["sub_types"] == ["ServicingStackUpdate"]
            continue
        assert row["supersedes"] == sorted(supersedes[kb_id])
        if f"{published[kb_id]:%Y-%b}" == document_id:
            assert row["published_on"] == str(published[kb_id])
    closed = {(row["kb_id"], row["cve_id"]) for row in messages.records("msrc_kb_cves") if row["cve_id"] != "ADV990001"}
    assert closed == {(kb_id, cve_id) for kb_id, cves in feeds.closes().items() for cve_id in cves}
    cves = {row["id"]: row for row in messages.records("msrc_cves")}
    assert cves.keys() == {cve_id for _, cve_id in closed}
    assert {cve_id for cve_id, row in cves.items() if row["exploited"]} == {each for each in cves if is_exploited(each)}
    kev = {row["cve_id"]: row["added_on"] for row in messages.records("kev")}
    assert kev == {cve_id: str(day) for cve_id, day in feeds.known_exploited().items()}
    scores = {row["cve_id"]: row["epss"] for row in messages.records("epss")}
    assert scores == {cve_id: score for cve_id, score in feeds.today_scores().items() if score >= LEAST}
    assert {row["score_date"] for row in messages.records("epss")} == {str(feeds.score_date())}


def test_every_row_is_what_the_simulator_knows(simulator: Simulator, tmp_path: Path) -> None:
    """And what is missing on the machines is explained by it: each missing update has its row."""
    messages = run(tmp_path, simulator)
    assert_true(messages, simulator)
    missing = {row["id"] for row in messages.records("missing_kbs")}
    assert missing
    assert missing <= {row["kb_id"] for row in messages.records("msrc_kbs")}
    assert warnings(messages) == []


def about_updates(simulator: Simulator) -> dict[str, list[Any]]:
    """By document, its entries that have been scored, which are those that an update closes."""
    documents = simulator.feeds.documents
    found = {id_: documents.document(id_) or {} for id_ in documents.months()}
    return {id_: [entry for entry in each["Vulnerability"] if entry["Threats"]] for id_, each in found.items()}


def test_week_after_week_only_what_changed_is_written(simulator: Simulator, tmp_path: Path) -> None:
    """Documents are released again for Azure Linux alone; a month comes early, and is filled on its Tuesday."""
    state = run(tmp_path, simulator, catalog=feeds_alone()).state
    for _ in range(3):
        before, known = simulator.feeds.kb_documents(), about_updates(simulator)
        asked = len(simulator.journal.feed_requests)
        simulator.fleet.pass_days(7)
        messages = run(tmp_path, simulator, state, catalog=feeds_alone())
        state = messages.state
        written = {(row["kb_id"], row["document_id"]) for row in messages.records("msrc_kbs")}
        news = {key for key, cves in simulator.feeds.kb_documents().items() if before.get(key) != cves}
        assert news <= written
        now = about_updates(simulator)
        assert {document_id for _, document_id in written} <= {id_ for id_ in now if now[id_] != known.get(id_)}
        assert len(simulator.journal.feed_requests) - asked <= len(simulator.feeds.documents.months()) + 5
        assert {row["cve_id"] for row in messages.records("kev")} in (set(), {*simulator.feeds.known_exploited()})
        assert {row["score_date"] for row in messages.records("epss")} == {str(simulator.feeds.score_date())}
    assert warnings(messages) == []


SPOILT = {
    "msrc": ["msrc_other_month", "html:path=/cvrf/*", "endless:path=/cvrf/*", "bomb:path=/cvrf/*", "reset:path=/cvrf/*",
             "nested:path=/cvrf/*", "500:path=/cvrf/*", "drip:path=/cvrf/*,seconds=0.5"],
    "kev": ["kev_count", "cut:path=/sites/*", "garbage:path=/sites/*", "redirect:path=/sites/*,text=https://example.org/"],
    "epss": ["html:path=/epss*", "garbage:path=/epss_scores-2*", "503:path=/epss*"],
}  # fmt: skip
QUICKLY = {"msrc_other_month", "kev_count", "html:path=/epss*"}


@pytest.mark.parametrize(
    ("feed", "fault"),
    [
        pytest.param(feed, fault, marks=() if fault in QUICKLY else pytest.mark.long)
        for feed, faults in SPOILT.items()
        for fault in faults
    ],
)
def test_a_fault_of_a_feed_is_one_warning_and_costs_nothing_else(
    simulator: Simulator, tmp_path: Path, feed: str, fault: str
) -> None:
    simulator.faults.add(Fault.parse(fault))
    messages = run(tmp_path, simulator)
    said = warnings(messages)
    assert [line.partition(":")[0] for line in said] == [feed], messages.stderr
    assert "127.0.0.1" in said[0]
    assert "missing KBs are not affected" in said[0]
    found = {(row["machine_id"], row["id"]) for row in messages.records("missing_kbs")}
    assert found == {(machine_id, kb_id) for machine_id, kbs in answers_of(simulator.fleet).items() for kb_id in kbs}
    for other, stream in (("msrc", "msrc_kbs"), ("kev", "kev"), ("epss", "epss")):
        assert bool(messages.records(stream)) == (other != feed)


def test_what_recorded_days_had_changes_no_row(simulator: Simulator, tmp_path: Path) -> None:
    """Four days as they were recorded: a month that the index loses, and has again; a date that went back."""
    state = run(tmp_path, simulator, catalog=feeds_alone()).state
    for fault in ("msrc_gone", "", "msrc_date_back", "msrc_gone:text=2025-Dec"):
        simulator.faults.clear()
        if fault:
            simulator.faults.add(Fault.parse(fault))
        messages = run(tmp_path, simulator, state, catalog=feeds_alone())
        assert [messages.records(stream) for stream in FEED_STREAMS] == [[]] * 5
        assert warnings(messages) == []
        documents = messages.state["bookmarks"]["msrc_kbs"]["documents"]
        assert {line.split()[0] for line in documents} >= {*simulator.feeds.documents.months()}
        state = messages.state


def test_the_same_date_over_another_content_is_read_where_it_is_new(simulator: Simulator, tmp_path: Path) -> None:
    """The two newest documents are read whatever their date says."""
    state = run(tmp_path, simulator, catalog=feeds_alone()).state
    simulator.faults.add(Fault("msrc_same_date", text="No"))
    messages = run(tmp_path, simulator, state, catalog=feeds_alone())
    written = {row["document_id"] for row in messages.records("msrc_kbs")}
    months = [*simulator.feeds.documents.months()]
    assert written
    assert written <= {*months[-2:]}
    assert {row["restart_required"] for row in messages.records("msrc_kbs")} <= {"No", None}


@pytest.mark.parametrize(("fault", "feed"), [("msrc_shrunken", "msrc"), ("kev_half", "kev")])
def test_what_shrank_is_held_back_once(simulator: Simulator, tmp_path: Path, fault: str, feed: str) -> None:
    state = run(tmp_path, simulator, catalog=feeds_alone()).state
    simulator.faults.add(Fault(fault))
    stream = "msrc_kbs" if feed == "msrc" else "kev"
    held = run(tmp_path, simulator, state, catalog=feeds_alone())
    assert held.records(stream) == []
    assert [line.partition(":")[0] for line in warnings(held)] == [feed]
    believed = run(tmp_path, simulator, held.state, catalog=feeds_alone())
    assert believed.records(stream)


def test_an_entry_that_cisa_takes_back_is_gone_with_the_next_version(simulator: Simulator, tmp_path: Path) -> None:
    first = run(tmp_path, simulator, catalog=feeds_alone())
    simulator.faults.add(Fault("kev_retraction"))
    second = run(tmp_path, simulator, first.state, catalog=feeds_alone())
    gone = {row["cve_id"] for row in first.records("kev")} - {row["cve_id"] for row in second.records("kev")}
    assert len(gone) == 1
    versions = [message["version"] for message in second.of("ACTIVATE_VERSION", "kev")]
    assert versions
    assert versions[-1] > max(message["version"] for message in first.of("ACTIVATE_VERSION", "kev"))


@pytest.mark.parametrize(
    "fault", ["epss_late", "epss_not_gzip", "epss_old_header", "epss_no_header", "epss_no_percentile"]
)
def test_scores_are_read_however_they_are_written(simulator: Simulator, tmp_path: Path, fault: str) -> None:
    simulator.faults.add(Fault(fault))
    messages = run(tmp_path, simulator, catalog=feeds_alone())
    day = simulator.feeds.score_date() - timedelta(days=fault == "epss_late")
    assert {row["score_date"] for row in messages.records("epss")} == {str(day)}
    scores = {cve_id: score for cve_id, score in simulator.feeds.epss.scores(day).items() if score >= LEAST}
    assert {row["cve_id"]: row["epss"] for row in messages.records("epss")} == scores
    assert warnings(messages) == []


def test_scores_of_an_older_day_are_no_news(simulator: Simulator, tmp_path: Path) -> None:
    state = run(tmp_path, simulator, catalog=feeds_alone()).state
    simulator.faults.add(Fault("epss_older_day"))
    messages = run(tmp_path, simulator, state, catalog=feeds_alone())
    assert messages.records("epss") == []
    assert messages.state["bookmarks"]["epss"] == state["bookmarks"]["epss"]
