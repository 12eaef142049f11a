"""The advisory feeds, by the real command and real sockets: what is written, what a feed can't spoil, what goes on."""

from __future__ import annotations

import gzip
import json
import subprocess
import threading
import time
from typing import TYPE_CHECKING, Any

import duckdb
import pytest

from mde_simulator import Fleet, Simulator
from tap_mde_kbs.patience import Patience
from tests.support import readme
from tests.support.catalogs import FEED_STREAMS, feeds_alone
from tests.support.feeds import EPSS, KEV, MSRC, Feeds, catalogue, document, fix, scores, vulnerability
from tests.support.singer import HURRIED, TAP, Messages, clean_environ, run_command, run_tap

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from http.server import BaseHTTPRequestHandler
    from pathlib import Path

    from tests.conftest import StartSimulator

SETTINGS = {"tenant_id": "contoso.example", "client_id": "nobody", "client_secret": "nothing"}
QUICK = Patience(**{**vars(HURRIED), "feed": 3.0})

MAY = document(
    "2026-May", vulnerability("CVE-2026-10", fix("5058411"), revisions=[("1.0", "2026-05-12")]), released="2026-05-13"
)
JUNE = document(
    "2026-Jun", vulnerability("CVE-2026-1", fix("5060842", "5058411")), vulnerability("CVE-2026-2", fix("5060842"))
)
EARLY = document("2026-Jul", released="2026-07-02T00:00:00")
CATALOGUE = catalogue("CVE-2026-1", "CVE-2025-9")
SCORES = scores("CVE-2026-1,0.5,0.99", "CVE-2026-2,0.05,0.5")


@pytest.fixture
def feeds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Feeds]:
    """The three hosts, with two months, a catalogue and scores."""
    with Feeds(tmp_path_factory.mktemp("feeds")) as served:
        served.serve(MAY, JUNE, kev=CATALOGUE, epss=SCORES)
        yield served


def read(folder: Path, feeds: Feeds, state: dict[str, Any] | None = None, **config: Any) -> Messages:
    """A run over the feeds alone: nobody is signed in, and no machine asked."""
    messages = run_tap(
        folder,
        config={**SETTINGS, **feeds.config, **config},
        catalog=feeds_alone(),
        state=state,
        environ=feeds.environment,
        patience=QUICK,
    )
    assert messages.status == 0, messages.stderr
    return messages


def state_of(messages: Messages) -> dict[str, Any]:
    state: dict[str, Any] = messages.of("STATE")[-1]["value"]
    return state


def bookmark(messages: Messages, name: str) -> dict[str, Any]:
    found: dict[str, Any] = state_of(messages)["bookmarks"][name]
    return found


def warnings(messages: Messages) -> list[str]:
    return [line.rpartition(" | ")[2].strip() for line in messages.stderr.splitlines() if " WARNING " in line]


class TestWhatIsWritten:
    def test_every_row_of_every_table(self, feeds: Feeds, tmp_path: Path) -> None:
        messages = read(tmp_path, feeds)
        assert {(row["kb_id"], row["document_id"], row["cves"]) for row in messages.records("msrc_kbs")} == {
            ("5058411", "2026-May", 1),
            ("5060842", "2026-Jun", 2),
        }
        assert {(row["kb_id"], row["cve_id"]) for row in messages.records("msrc_kb_cves")} == {
            ("5058411", "CVE-2026-10"),
            ("5060842", "CVE-2026-1"),
            ("5060842", "CVE-2026-2"),
        }
        assert {row["id"] for row in messages.records("msrc_cves")} == {"CVE-2026-10", "CVE-2026-1", "CVE-2026-2"}
        assert {row["cve_id"] for row in messages.records("kev")} == {"CVE-2026-1", "CVE-2025-9"}
        assert [row["cve_id"] for row in messages.records("epss")] == ["CVE-2026-1"]
        assert warnings(messages) == []
        assert {message["stream"] for message in messages.of("ACTIVATE_VERSION")} == {"kev", "epss"}
        for stream in FEED_STREAMS:
            [schema] = messages.of("SCHEMA", stream)
            assert all(row.keys() == schema["schema"]["properties"].keys() for row in messages.records(stream))
            assert all(row["read_at"] for row in messages.records(stream))

    def test_no_token_no_cookie_and_one_request_at_a_time(self, feeds: Feeds, tmp_path: Path) -> None:
        def with_a_cookie(handler: BaseHTTPRequestHandler) -> None:
            body = json.dumps(CATALOGUE).encode()
            handler.send_response(200)
            handler.send_header("Set-Cookie", "a=b; Path=/")
            handler.send_header("Content-Length", str(len(body)))
            handler.end_headers()
            handler.wfile.write(body)

        feeds.bodies[f"{MSRC}/updates"], updates = with_a_cookie, feeds.bodies[f"{MSRC}/updates"]
        read(tmp_path, feeds, user_agent="acme/1")
        feeds.bodies[f"{MSRC}/updates"] = updates
        read(tmp_path, feeds, user_agent="acme/1")
        for headers in feeds.headers:
            assert headers["User-Agent"] == "acme/1"
            assert not {"Authorization", "Cookie"} & headers.keys()
        assert feeds.most == 1

    def test_the_second_run_asks_for_a_handful_and_writes_nothing(self, feeds: Feeds, tmp_path: Path) -> None:
        older = [
            document(
                f"2026-{month}", vulnerability(f"CVE-2026-9{number}", fix(f"505000{number}")), released="2026-05-01"
            )
            for number, month in enumerate(("Jan", "Feb", "Mar", "Apr"))
        ]
        feeds.serve(*older, MAY, JUNE, kev=CATALOGUE, epss=SCORES)
        first = read(tmp_path, feeds)
        asked = len(feeds.asked)
        second = read(tmp_path, feeds, state_of(first))
        assert feeds.asked[asked:] == [f"{MSRC}/updates", *(f"{MSRC}/cvrf/2026-{m}" for m in ("Jun", "May")), KEV, EPSS]
        assert [second.records(stream) for stream in FEED_STREAMS] == [[]] * 5
        assert second.of("ACTIVATE_VERSION") == []
        assert state_of(second) == state_of(first)

    def test_what_changed_is_written_and_no_more(self, feeds: Feeds, tmp_path: Path) -> None:
        first = read(tmp_path, feeds)
        more = vulnerability("CVE-2026-3", fix("5060842"))
        changed = document("2026-Jun", *JUNE["Vulnerability"], more, released="2026-06-10T07:00:00")  # the same date
        feeds.serve(MAY, changed, kev=catalogue("CVE-2026-1", released="2026-06-13T00:00:00Z"), epss=SCORES)
        second = read(tmp_path, feeds, state_of(first), max_shrink_percent=60)
        assert {row["document_id"] for row in second.records("msrc_kbs")} == {"2026-Jun"}
        assert [row["cve_id"] for row in second.records("kev")] == ["CVE-2026-1"]
        [activated] = second.of("ACTIVATE_VERSION")
        [before] = [message["version"] for message in first.of("ACTIVATE_VERSION") if message["stream"] == "kev"]
        assert (activated["stream"], activated["version"] > before) == ("kev", True)
        assert second.records("epss") == []

    def test_feeds_that_are_off_have_no_stream_and_are_not_called(self, feeds: Feeds, tmp_path: Path) -> None:
        messages = read(tmp_path, feeds, advisory_feeds=["kev"])
        assert {message["stream"] for message in messages.of("SCHEMA")} == {"kev"}
        assert feeds.asked == [KEV]
        assert "stream 'epss'" not in messages.stderr

    def test_a_folder_and_files_serve_where_there_is_no_network(self, tmp_path: Path) -> None:
        mirror = tmp_path / "mirror"
        mirror.mkdir()
        index = {
            "value": [{"ID": each, "CurrentReleaseDate": "2026-06-10T07:00:00Z"} for each in ("2026-May", "2026-Jun")]
        }
        for name, content in (("updates", index), ("2026-May", MAY), ("2026-Jun", JUNE), ("kev", CATALOGUE)):
            (mirror / f"{name}.json").write_text(json.dumps(content))
        (mirror / "scores.csv.gz").write_bytes(gzip.compress(SCORES))
        places = {
            "msrc_url": str(mirror), "kev_url": str(mirror / "kev.json"), "epss_url": str(mirror / "scores.csv.gz")
        }  # fmt: skip
        config = {**SETTINGS, "advisory_feeds": ["msrc", "kev", "epss"], **places}
        messages = run_tap(tmp_path, config=config, catalog=feeds_alone())
        assert messages.status == 0, messages.stderr
        assert [len(messages.records(stream)) for stream in FEED_STREAMS] == [2, 3, 3, 2, 1]
        (mirror / "kev.json").unlink()
        (mirror / "2026-May.json").unlink()
        again = run_tap(tmp_path, config=config, catalog=feeds_alone())
        assert again.status == 0
        assert [line.partition(":")[0] for line in warnings(again)] == ["msrc", "kev"]
        assert all("can't be read: No such file" in line and "_url" in line for line in warnings(again))

    def test_by_the_sql_of_the_docs_an_update_has_one_month(self, feeds: Feeds, tmp_path: Path) -> None:
        """That of the document in which it closes most CVEs, as it was read last; KB5060842 is named by May, too."""
        may = document("2026-May", *MAY["Vulnerability"], vulnerability("CVE-2026-11", fix("5060842", "5058411")))
        feeds.serve(may, JUNE)
        first = read(tmp_path, feeds)
        feeds.serve(MAY, JUNE)
        rows = [
            *first.records("msrc_kbs"),
            *read(tmp_path, feeds, state_of(first), max_shrink_percent=100).records("msrc_kbs"),
        ]
        (tmp_path / "rows.json").write_text(json.dumps(rows))
        with duckdb.connect() as connection:
            connection.execute("CREATE TABLE msrc_kbs AS SELECT * FROM read_json(?)", [str(tmp_path / "rows.json")])
            found = connection.execute(readme.sql("the month of an update")).fetchall()
        assert {(kb_id, document_id) for kb_id, document_id, *_ in found} == {
            ("5060842", "2026-Jun"),
            ("5058411", "2026-May"),
        }
        assert len(found) == 2

    def test_without_emission_no_row_bears_a_version(self, feeds: Feeds, tmp_path: Path) -> None:
        messages = read(tmp_path, feeds, emit_activate_version_messages=False)
        assert messages.of("ACTIVATE_VERSION") == []
        assert not any("version" in message for message in messages.of("RECORD"))


class TestDocuments:
    def test_a_month_that_leaves_the_index_is_asked_for_by_its_url(self, feeds: Feeds, tmp_path: Path) -> None:
        """As 2026-Jun left it for ten hours, after 2026-Jul had come early."""
        feeds.serve(MAY, JUNE, EARLY)
        first = read(tmp_path, feeds)
        changed = document("2026-Jun", *JUNE["Vulnerability"], vulnerability("CVE-2026-3", fix("5060842")))
        feeds.serve(MAY, changed, EARLY)
        feeds.serve(MAY, EARLY)
        second = read(tmp_path, feeds, state_of(first))
        assert {row["document_id"] for row in second.records("msrc_kbs")} == {"2026-Jun"}
        assert warnings(second) == []
        feeds.serve(MAY, changed, EARLY)
        third = read(tmp_path, feeds, state_of(second))
        assert third.records("msrc_kbs") == []
        words = [line.split(" ") for line in bookmark(third, "msrc_kbs")["documents"]]
        assert {word[0]: word[1] for word in words}["2026-Jun"] == "2026-06-10T07:00:00Z"

    def test_a_month_that_there_is_none_of_is_no_fault(self, feeds: Feeds, tmp_path: Path) -> None:
        """Of the last three, April has no document here."""
        messages = read(tmp_path, feeds)
        assert f"{MSRC}/cvrf/2026-Apr" in feeds.asked
        assert warnings(messages) == []

    def test_a_date_that_went_back_is_read_and_writes_nothing(self, feeds: Feeds, tmp_path: Path) -> None:
        first = read(tmp_path, feeds)
        feeds.serve(MAY, {**JUNE, "DocumentTracking": document("2026-Jun", released="2026-06-02")["DocumentTracking"]})
        second = read(tmp_path, feeds, state_of(first))
        assert second.records("msrc_kbs") == []
        assert any(line.startswith("2026-Jun 2026-06-02Z ") for line in bookmark(second, "msrc_kbs")["documents"])

    @pytest.mark.parametrize("other", [MAY, document("2026-Jun-B"), {"value": []}, {**JUNE, "Vulnerability": None}])
    def test_another_document_is_refused_and_not_marked_as_read(
        self, feeds: Feeds, tmp_path: Path, other: dict[str, Any]
    ) -> None:
        first = read(tmp_path, feeds)
        feeds.bodies[f"{MSRC}/cvrf/2026-Jun"] = json.dumps(other).encode()
        second = read(tmp_path, feeds, state_of(first))
        assert [second.records(stream) for stream in FEED_STREAMS] == [[]] * 5
        assert bookmark(second, "msrc_kbs") == bookmark(first, "msrc_kbs")
        [line] = warnings(second)
        assert "2026-Jun" in line
        assert "127.0.0.1" in line

    def test_one_that_shrank_is_held_back_once(self, feeds: Feeds, tmp_path: Path) -> None:
        whole = document("2026-Jun", *(vulnerability(f"CVE-2026-{number}", fix("5060842")) for number in range(40)))
        feeds.serve(MAY, whole)
        first = read(tmp_path, feeds)
        feeds.serve(MAY, document("2026-Jun", whole["Vulnerability"][0], released="2026-06-11"))
        second = read(tmp_path, feeds, state_of(first))
        assert second.records("msrc_kbs") == []
        assert "with 1 fixes, 40 last time" in warnings(second)[0]
        [held] = bookmark(second, "msrc_kbs")["held"]
        assert held.split(" ")[0] == "2026-Jun"
        third = read(tmp_path, feeds, state_of(second))
        assert [row["cves"] for row in third.records("msrc_kbs")] == [1]
        assert warnings(third) == []
        assert bookmark(third, "msrc_kbs")["held"] == []

    def test_months_and_streams_that_are_asked_for_decide_what_is_read(self, feeds: Feeds, tmp_path: Path) -> None:
        first = read(tmp_path, feeds, msrc_months=1)
        assert {row["document_id"] for row in first.records("msrc_kbs")} == {"2026-Jun"}
        second = read(tmp_path, feeds, state_of(first), msrc_months=2)
        assert {row["document_id"] for row in second.records("msrc_kbs")} == {"2026-May", "2026-Jun"}

    def test_a_month_far_ahead_makes_no_other_too_old(self, feeds: Feeds, tmp_path: Path) -> None:
        """In the index it is a document that is broken, in STATE it is dropped."""
        first = read(tmp_path, feeds)
        known = bookmark(first, "msrc_kbs")
        spoilt = {**known, "documents": ["9999-Dec - aaaaaaaa 5", *known["documents"]]}
        assert bookmark(read(tmp_path, feeds, {"bookmarks": {"msrc_kbs": spoilt}}), "msrc_kbs") == known
        feeds.serve(MAY, JUNE, document("2206-Jun"))
        del feeds.bodies[f"{MSRC}/cvrf/2206-Jun"]
        second = read(tmp_path, feeds)
        assert {row["document_id"] for row in second.records("msrc_kbs")} == {"2026-May", "2026-Jun"}
        assert "HTTP 404" in warnings(second)[0]

    def test_many_documents_each_in_a_normal_time_are_all_read(self, feeds: Feeds, tmp_path: Path) -> None:
        """Together they take longer than a feed may beyond that: a healthy first run would be cut short."""

        def slowly(handler: BaseHTTPRequestHandler) -> None:
            time.sleep(0.14)
            body = json.dumps(document(handler.path.rpartition("/")[2])).encode()
            handler.send_response(200)
            handler.send_header("Content-Length", str(len(body)))
            handler.end_headers()
            handler.wfile.write(body)

        months = [f"{year}-{name}" for year in (2024, 2025) for name in ("Jan", "Feb", "Mar", "Apr", "May", "Jun")]
        months = [*months, *(f"{year}-{name}" for year in (2023, 2024, 2025) for name in ("Jul", "Aug", "Sep", "Oct"))]
        feeds.serve(*(document(month) for month in months))
        for month in months:
            feeds.bodies[f"{MSRC}/cvrf/{month}"] = slowly
        patience = Patience(**{**vars(HURRIED), "feed": 3.0})  # 24 documents take 3.4 s
        config = {**SETTINGS, **feeds.config, "advisory_feeds": ["msrc"]}
        messages = run_tap(tmp_path, config=config, catalog=feeds_alone(), environ=feeds.environment, patience=patience)
        assert warnings(messages) == []
        assert len(bookmark(messages, "msrc_kbs")["documents"]) == len(months)

    def test_sixty_months_have_room_in_state(self, feeds: Feeds, tmp_path: Path) -> None:
        names = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
        documents = [
            document(f"{year}-{name}", vulnerability("CVE-2026-1", fix("5060842")))
            for year in range(2020, 2027)
            for name in names
        ]
        feeds.serve(*documents)
        first = read(tmp_path, feeds)
        assert len(bookmark(first, "msrc_kbs")["documents"]) == 60
        assert all(len(json.dumps(message)) < 8192 for message in first.of("STATE"))
        assert len({row["document_id"] for row in first.records("msrc_kbs")}) == 60

    def test_a_run_that_is_killed_goes_on_after_the_last_document_that_was_out(
        self, feeds: Feeds, tmp_path: Path
    ) -> None:
        held = threading.Event()

        def slowly(handler: BaseHTTPRequestHandler) -> None:
            held.wait(20)
            handler.close_connection = True

        feeds.bodies[f"{MSRC}/cvrf/2026-May"], whole = slowly, feeds.bodies[f"{MSRC}/cvrf/2026-May"]
        (tmp_path / "config.json").write_text(json.dumps({**SETTINGS, **feeds.config}))
        (tmp_path / "catalog.json").write_text(json.dumps(feeds_alone()))
        options = ["--config", str(tmp_path / "config.json"), "--catalog", str(tmp_path / "catalog.json")]
        with (
            (tmp_path / "out").open("wb") as out,
            subprocess.Popen(
                [str(TAP), *options],
                stdout=out,
                stderr=subprocess.DEVNULL,
                env={**clean_environ(tmp_path), **feeds.environment},
            ) as process,
        ):
            deadline = time.monotonic() + 60
            while f"{MSRC}/cvrf/2026-May" not in feeds.asked and time.monotonic() < deadline:
                time.sleep(0.02)
            time.sleep(0.2)
            process.kill()
        held.set()
        messages = [json.loads(line) for line in (tmp_path / "out").read_text().splitlines()]
        state = [message["value"] for message in messages if message["type"] == "STATE"][-1]
        assert [line.split(" ")[0] for line in state["bookmarks"]["msrc_kbs"]["documents"]] == ["2026-Jun"]
        feeds.bodies[f"{MSRC}/cvrf/2026-May"] = whole
        second = read(tmp_path, feeds, state)
        assert {row["document_id"] for row in second.records("msrc_kbs")} == {"2026-May"}


def raw(content: bytes, length: int | None = None, **headers: str) -> Callable[[BaseHTTPRequestHandler], None]:
    """An answer as it is told, then the end of the connection."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(content) if length is None else length))
        handler.end_headers()
        handler.wfile.write(content)
        handler.close_connection = True

    return answer


def endless(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    while True:
        handler.wfile.write(b" " * 2**20)


def dripping(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "100000")
    handler.end_headers()
    while True:
        handler.wfile.write(b" ")
        time.sleep(0.1)


def silent(handler: BaseHTTPRequestHandler) -> None:
    time.sleep(30)
    handler.close_connection = True


def redirected(location: str) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(302)
        handler.send_header("Location", location)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


def hung_up(handler: BaseHTTPRequestHandler) -> None:
    handler.close_connection = True
    handler.connection.close()


SPOILT: dict[str, Any] = {
    "refused": 403,
    "gone": 404,
    "down": 500,
    "throttled": 429,
    "HTML": b"<html><body>Sign in</body></html>",
    "empty": b"",
    "another shape": b'{"value": 7, "vulnerabilities": null}',
    "a list": b"[]",
    "no UTF-8": b"\xff\xfe\x00{",
    "deep": b"[" * 1_000_000,
    "cut": raw(b'{"value": [', 4000),
    "a gzip that is cut": gzip.compress(b"x" * 10_000)[:30],
    "a bomb": raw(gzip.compress(b" " * 200 * 2**20, 9)),
    "a bomb in transit": raw(gzip.compress(b" " * 200 * 2**20, 9), Content_Encoding="gzip"),
    "endless": endless,
    "dripping": dripping,
    "silent": silent,
    "hung up": hung_up,
    "another host": redirected("https://127.0.0.1:1/elsewhere"),
    "no TLS": redirected("http://127.0.0.1/"),
    "a circle": redirected("?"),
    "304": 304,
}


class TestWhatAFeedCanNotSpoil:
    @pytest.mark.parametrize(
        "how",
        [
            pytest.param(each, marks=() if each in {"HTML", "refused", "cut", "304"} else pytest.mark.long)
            for each in SPOILT
        ],
    )
    def test_whatever_a_feed_does_the_missing_kbs_are_there_and_nothing_of_it_is(
        self, feeds: Feeds, tmp_path: Path, simulate: StartSimulator, how: str
    ) -> None:
        """One warning a feed, exit status 0, its bookmark as it was; of MSRC's its index is spoilt, or a document."""
        simulator = simulate(3)
        environ = feeds.trusting(simulator)
        state = state_of(read(tmp_path, feeds))
        for path in (f"{MSRC}/updates", KEV, EPSS):
            feeds.bodies[path] = SPOILT[how]
        messages = run_tap(
            tmp_path, simulator, config=feeds.config, state=state, environ=environ, patience=QUICK, memory=2**31
        )
        assert messages.status == 0, messages.stderr
        assert len(messages.records("missing_kbs_checks")) == len(simulator.fleet.listed())
        assert {message["stream"] for message in messages.of("ACTIVATE_VERSION")} == {"machines", "missing_kbs"}
        assert [messages.records(stream) for stream in FEED_STREAMS] == [[]] * 5
        for name in ("msrc_kbs", "kev", "epss"):
            assert bookmark(messages, name) == state["bookmarks"][name]
        said = warnings(messages)
        assert sorted(line.partition(":")[0] for line in said) == ["epss", "kev", "msrc"]
        for line in said:
            assert "127.0.0.1" in line
            assert "missing KBs are not affected" in line
            assert "defect" not in line
        assert "Traceback" not in messages.stderr

    @pytest.mark.long
    def test_one_document_that_is_odd_costs_the_others_nothing(self, feeds: Feeds, tmp_path: Path) -> None:
        feeds.bodies[f"{MSRC}/cvrf/2026-Jun"] = b"<html>"
        messages = read(tmp_path, feeds)
        assert {row["document_id"] for row in messages.records("msrc_kbs")} == {"2026-May"}
        assert len(warnings(messages)) == 1
        assert len(messages.records("kev")) == 2

    def test_a_host_that_is_not_there_is_asked_for_nothing_else(self, feeds: Feeds, tmp_path: Path) -> None:
        messages = read(tmp_path, feeds, msrc_url="https://127.0.0.1:1/cvrf", kev_url="https://feed.invalid/kev.json")
        assert [line.partition(":")[0] for line in warnings(messages)] == ["msrc", "kev"]
        assert "refused" in warnings(messages)[0]
        assert "could not be resolved" in warnings(messages)[1]
        assert len(messages.records("epss")) == 1

    @pytest.mark.parametrize(
        ("kev", "said"),
        [
            (catalogue("CVE-2026-1", count=5, released="2026-06-13T00:00:00Z"), "whose count says 5"),
            (catalogue(released="2026-06-13T00:00:00Z"), "lists only 0 entries"),
        ],
    )
    def test_a_catalogue_that_does_not_add_up_deletes_nothing(
        self, feeds: Feeds, tmp_path: Path, kev: dict[str, Any], said: str
    ) -> None:
        first = read(tmp_path, feeds)
        feeds.serve(kev=kev)
        for _ in range(2):
            first = read(tmp_path, feeds, state_of(first))
            assert said in warnings(first)[0]
            assert first.records("kev") == first.of("ACTIVATE_VERSION") == []

    def test_a_catalogue_that_shrank_is_believed_the_second_time(self, feeds: Feeds, tmp_path: Path) -> None:
        feeds.serve(kev=catalogue(*(f"CVE-2026-{number}" for number in range(40))))
        first = read(tmp_path, feeds)
        feeds.serve(kev=catalogue("CVE-2026-1", "CVE-2026-2", released="2026-06-13T00:00:00Z"))
        second = read(tmp_path, feeds, state_of(first))
        assert second.records("kev") == []
        assert bookmark(second, "kev")["short_lists"] == [2]
        third = read(tmp_path, feeds, state_of(second))
        assert len(third.records("kev")) == 2
        assert [message["stream"] for message in third.of("ACTIVATE_VERSION")] == ["kev"]

    def test_what_was_not_modified_is_not_sent_again(self, feeds: Feeds, tmp_path: Path) -> None:
        def conditional(handler: BaseHTTPRequestHandler) -> None:
            is_known = handler.headers.get("If-Modified-Since") == "Fri, 12 Jun 2026 17:46:43 GMT"
            body = b"" if is_known else json.dumps(CATALOGUE).encode()
            handler.send_response(304 if is_known else 200)
            handler.send_header("Last-Modified", "Fri, 12 Jun 2026 17:46:43 GMT")
            handler.send_header("Content-Length", str(len(body)))
            handler.end_headers()
            handler.wfile.write(body)

        feeds.bodies[KEV] = conditional
        first = read(tmp_path, feeds)
        second = read(tmp_path, feeds, state_of(first))
        assert len(first.records("kev")) == 2
        assert second.records("kev") == []
        assert "kev: not modified" in second.stderr
        assert state_of(second) == state_of(first)

    def test_scores_of_an_earlier_day_are_no_news(self, feeds: Feeds, tmp_path: Path) -> None:
        first = read(tmp_path, feeds)
        for day, count in (("2026-06-11", 0), ("2026-06-13", 1)):
            feeds.serve(epss=scores("CVE-2026-1,0.6,0.99", day=day))
            assert len(read(tmp_path, feeds, state_of(first)).records("epss")) == count

    def test_a_day_far_ahead_does_not_keep_later_scores_out(self, feeds: Feeds, tmp_path: Path) -> None:
        """Nor does a STATE that somebody spoilt."""
        feeds.serve(epss=scores("CVE-2026-1,0.6,0.99", day="9206-06-12"))
        first = read(tmp_path, feeds)
        assert read(tmp_path, feeds, state_of(first)).records("epss") == []
        feeds.serve(epss=SCORES)
        spoilt = {"bookmarks": {"epss": {"score_date": "tomorrow"}}}
        for state in (state_of(first), spoilt):
            again = read(tmp_path, feeds, state)
            assert [row["score_date"] for row in again.records("epss")] == ["2026-06-12"]

    def test_a_last_modified_that_is_no_date_is_not_kept(self, feeds: Feeds, tmp_path: Path) -> None:
        def odd(handler: BaseHTTPRequestHandler) -> None:
            body = json.dumps(CATALOGUE).encode()
            handler.send_response(200)
            handler.send_header("Last-Modified", "x" * 9000)
            handler.send_header("Content-Length", str(len(body)))
            handler.end_headers()
            handler.wfile.write(body)

        feeds.bodies[KEV] = odd
        first = read(tmp_path, feeds)
        assert bookmark(first, "kev")["last_modified"] is None
        spoilt = {"bookmarks": {"kev": {"last_modified": "a\nb"}}}
        assert len(read(tmp_path, feeds, spoilt).records("kev")) == 2

    def test_scores_lie_behind_a_redirect_on_the_same_host(self, feeds: Feeds, tmp_path: Path) -> None:
        """The name that it leads to says the day, which older files say nowhere else."""
        feeds.bodies["/epss_scores-2021-09-01.csv.gz"] = gzip.compress(scores("CVE-2026-1,0.6,0.9", day=""))
        feeds.bodies[EPSS] = redirected("/epss_scores-2021-09-01.csv.gz")
        messages = read(tmp_path, feeds)
        assert [row["score_date"] for row in messages.records("epss")] == ["2021-09-01"]
        feeds.bodies[EPSS] = redirected("/epss_scores-2021-09-02.csv.gz")  # today's is late
        assert "HTTP 404" in warnings(read(tmp_path, feeds, state_of(messages)))[0]


class TestBesideTheSweep:
    @pytest.mark.parametrize("source", ["per_machine", "export", pytest.param("export_json", marks=pytest.mark.long)])
    def test_the_sweeps_rows_and_state_are_the_same_with_feeds_and_without(
        self, feeds: Feeds, tmp_path: Path, source: str
    ) -> None:
        """And a feed is called only when the last of them is out."""
        runs = []
        for config in ({}, feeds.config):
            with Simulator(Fleet(machines=12, seed=3)) as simulator:
                messages = run_tap(
                    tmp_path,
                    simulator,
                    config={**config, "missing_kbs_source": source},
                    environ=feeds.trusting(simulator),
                )
                assert messages.status == 0, messages.stderr
                runs.append(messages)
        plain, both = runs
        moments = {"checked_at", "sweep", "listed_at", "listing", "began_at", "ended_at", "first_seen_at"}
        for stream in ("machines", "missing_kbs", "missing_kbs_checks", "sweeps", "kb_cves"):
            rows = [
                sorted(
                    json.dumps({name: value for name, value in row.items() if name not in moments}, sort_keys=True)
                    for row in run.records(stream)
                )
                for run in (plain, both)
            ]
            assert rows[0] == rows[1]
        kinds = [(message["type"], message.get("stream")) for message in both.all]
        first = min(number for number, kind in enumerate(kinds) if kind[0] == "RECORD" and kind[1] in FEED_STREAMS)
        assert not any(kind[1] and kind[1] not in FEED_STREAMS for kind in kinds[first:])
        last = max(number for number, (kind, stream) in enumerate(kinds[:first]) if stream and kind != "SCHEMA")
        assert "STATE" in {kind for kind, _ in kinds[last:first]}
        own = {"listing": 0, "listed_at": 0, "ended_at": 0}
        counts = [{**bookmark(run, "missing_kbs")["sweep"]["counts"], **own} for run in (plain, both)]
        assert counts[0] == counts[1]

    def test_a_run_over_feeds_alone_leaves_the_sweep_as_it_is(self, feeds: Feeds, tmp_path: Path) -> None:
        sweep = {"version": 7, "scope": "a", "after": "m1", "deferred": [], "failed": [], "asked_all": False}
        state = {"bookmarks": {"missing_kbs": {"sweep": {**sweep, "complete": False, "counts": {"answered": 3}}}}}
        messages = read(tmp_path, feeds, state)
        kept = bookmark(messages, "missing_kbs")["sweep"]
        assert {name: kept[name] for name in sweep} == sweep
        assert kept["counts"]["answered"] == 3

    def test_the_doctor_has_a_line_for_each_that_fails_nothing(
        self, feeds: Feeds, tmp_path: Path, simulate: StartSimulator
    ) -> None:
        simulator = simulate(3)
        feeds.bodies[KEV] = 403
        config = tmp_path / "config.json"
        config.write_text(json.dumps({**simulator.config, **feeds.config}))
        done = run_command(tmp_path, "--config", str(config), "--test", environ=feeds.trusting(simulator))
        assert done.status == 0, done.stderr
        advice = "Set kev_url to a mirror or a file, or take the feed out of advisory_feeds."
        assert done.stdout.splitlines()[-3:] == [
            "✓ msrc: 2 documents, newest 2026-Jun",
            f"? kev: HTTP 403 from 127.0.0.1; missing KBs are not affected. {advice}",
            "✓ epss: 1 scores of 0.1 or more, of 2026-06-12",
        ]

    @pytest.mark.parametrize(
        ("name", "value", "said"),
        [
            ("advisory_feeds", ["msrc", "nvd"], "one of msrc, kev, epss"),
            ("kev_url", "http://mirror.example/kev.json", "an https:// URL"),
            ("epss_url", "file:///srv/epss.csv", "the path of a file without file:"),
            ("msrc_months", 0, "minimum 1"),
            ("epss_min", 2, "maximum 1"),
        ],
    )
    def test_a_setting_that_makes_no_sense_is_named(self, tmp_path: Path, name: str, value: object, said: str) -> None:
        messages = run_tap(tmp_path, config={**SETTINGS, name: value})
        assert messages.status == 1
        assert f"setting {name}" in messages.last_line
        assert said in messages.last_line

    def test_a_list_of_feeds_may_come_from_the_environment(self, feeds: Feeds, tmp_path: Path) -> None:
        environ = {f"TAP_MDE_KBS_{name.upper()}": str(value) for name, value in {**SETTINGS, **feeds.config}.items()}
        environ["TAP_MDE_KBS_ADVISORY_FEEDS"] = "kev, epss"
        messages = run_tap(
            tmp_path, None, "--config=ENV", catalog=feeds_alone(), environ={**environ, **feeds.environment}
        )
        assert messages.status == 0, messages.stderr
        assert [len(messages.records(stream)) for stream in FEED_STREAMS] == [0, 0, 0, 2, 1]
