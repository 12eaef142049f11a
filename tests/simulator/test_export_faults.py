"""Faults of the exports: late, cut, broken and strange files, and links that lead nowhere good."""

from __future__ import annotations

import gzip
import json
import types
import zlib
from typing import TYPE_CHECKING, Any

import pytest
import requests
import urllib3

from mde_simulator import ExportShape, Fault, Fleet
from mde_simulator.faults import files as export_files

from .downloads import EXPORT, JSON, download, links, pairs, rows, rows_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from .door import Door

    Opened = Callable[..., Door]
    Faulty = Callable[..., Door]

FILE = "/tvm-export/*"


@pytest.fixture
def faulty(opened: Opened) -> Callable[..., Door]:
    """A small export with one fault."""

    def open_faulty(kind: str, **options: Any) -> Door:
        door = opened(Fleet(12, seed=1), faults=[Fault(kind, **options)], export_shape=ExportShape(files=2))
        return door.sign_in()

    return open_faulty


def content(door: Door, link: str) -> bytes:
    """What is in the file as it would be without the fault."""
    struck = list(door.simulator.faults)
    door.simulator.faults.clear()
    body = download(door, link).content
    door.simulator.faults.add(*struck)
    return gzip.decompress(body)


def begun(door: Door, path: str) -> requests.Response:
    """An answer that is not read yet."""
    link = links(door)[0] if path == FILE else f"{door.simulator.url}{path}"
    if path == FILE:
        door.session.headers.pop("Authorization")
    return door.session.get(link, timeout=10, stream=True)


def test_a_file_is_late_twice_or_as_often_as_is_said(faulty: Faulty) -> None:
    for options, late in (({}, 2), ({"times": 3, "each": True}, 3)):
        door = faulty("export_late", **options)
        for link in links(door):
            answers = [download(door, link) for _ in range(late + 1)]
            assert [answer.status_code for answer in answers] == [404] * late + [200]
            assert b"<Code>BlobNotFound</Code>" in answers[0].content
        assert [entry.fault for entry in door.simulator.journal.downloads][:2] == ["export_late"] * 2


def test_a_file_is_not_there_yet_for_seconds_after_the_list(faulty: Faulty, monkeypatch: pytest.MonkeyPatch) -> None:
    door = faulty("export_not_yet", seconds=30)
    link, passed = links(door)[0], 0.0
    listed = door.simulator.journal[-1].at
    clock = types.SimpleNamespace(monotonic=lambda: listed + passed)
    monkeypatch.setattr(export_files, "time", clock)
    statuses = []
    for step in (1.0, 28.0, 2.0):
        passed += step
        statuses.append(download(door, link).status_code)
    assert statuses == [404, 404, 200]


def test_a_file_is_empty_or_a_gzip_of_nothing(faulty: Faulty) -> None:
    for kind, inflated in (("export_empty", None), ("export_nothing", b"")):
        door = faulty(kind, times=1)
        answer = download(door, links(door)[0])
        assert answer.status_code == 200
        assert answer.headers["Content-Length"] == str(len(answer.content))
        assert (gzip.decompress(answer.content) if answer.content else None) == inflated
        assert rows_of(download(door, links(door)[0]))


def test_a_signature_ends_early_and_storage_is_down(faulty: Faulty) -> None:
    for kind, status, text in (
        ("export_expired", 403, b"Signature not valid in the specified time frame"),
        ("export_storage_down", 503, b"<Code>ServerBusy</Code>"),
    ):
        door = faulty(kind, after=1, times=1)
        one, two = links(door)
        answers = [download(door, link) for link in (one, two, two)]
        assert [answer.status_code for answer in answers] == [200, status, 200]
        assert text in answers[1].content


@pytest.mark.parametrize("kind", ["export_cut", "cut"])
def test_a_file_is_shorter_than_its_length_says(faulty: Faulty, kind: str) -> None:
    door = faulty(kind, path=FILE)
    with pytest.raises(urllib3.exceptions.ProtocolError, match="IncompleteRead"):
        download(door, links(door)[0])


def test_a_file_has_the_length_it_says_and_is_half_of_a_gzip(faulty: Faulty) -> None:
    door = faulty("export_truncated")
    answer = download(door, links(door)[0])
    assert answer.headers["Content-Length"] == str(len(answer.content))
    with pytest.raises(EOFError):
        gzip.decompress(answer.content)
    whole = content(door, links(door)[0])
    inflated = zlib.decompressobj(wbits=31).decompress(answer.content)
    assert whole.startswith(inflated)
    assert len(inflated) > len(whole) / 10


def test_the_checksum_of_a_file_is_wrong(faulty: Faulty) -> None:
    door = faulty("export_corrupt")
    link = links(door)[0]
    body = download(door, link).content
    with pytest.raises(gzip.BadGzipFile, match="CRC"):
        gzip.decompress(body)
    # Whoever does not look at it sees nothing wrong.
    assert zlib.decompressobj(wbits=-15).decompress(body[10:]) == content(door, link)


@pytest.mark.parametrize(("text", "line"), [("", b'{"DeviceId": "half a reco'), ("[1, 2]", b"[1, 2]")])
def test_a_line_in_the_middle_is_not_what_it_should_be(faulty: Faulty, text: str, line: bytes) -> None:
    door = faulty("export_malformed", text=text)
    link = links(door)[0]
    lines = gzip.decompress(download(door, link).content).splitlines()
    position = lines.index(line)
    assert 0 < position < len(lines) - 1
    assert lines[:position] + lines[position + 1 :] == content(door, link).splitlines()


def test_objects_span_lines(faulty: Faulty) -> None:
    door = faulty("export_multiline")
    link = links(door)[0]
    text, decoder, objects = gzip.decompress(download(door, link).content).decode(), json.JSONDecoder(), []
    position = 0
    while position < len(text):
        found, position = decoder.raw_decode(text, position)
        objects.append(found)
        position += 1
    assert objects == [json.loads(line) for line in content(door, link).splitlines()]
    assert text.count("\n") > 10 * len(objects)


def test_a_file_is_in_camel_case(faulty: Faulty) -> None:
    door = faulty("export_camel")
    found = rows(door)
    assert all("softwareName" in row and "SoftwareName" not in row for row in found)
    assert any(row["cveId"] is None for row in found)
    door.simulator.faults.clear()
    assert pairs(found) == pairs(rows(door))


def test_the_second_half_of_a_file_is_in_camel_case(faulty: Faulty) -> None:
    door = faulty("export_mixed")
    found = rows_of(download(door, links(door)[0]))
    half = len(found) // 2
    assert all("SoftwareName" in row for row in found[:half])
    assert all("softwareName" in row and "SoftwareName" not in row for row in found[half:])
    mixed = rows(door)
    door.simulator.faults.clear()
    assert pairs(mixed) == pairs(rows(door))


def test_a_byte_order_mark_begins_the_file(faulty: Faulty) -> None:
    door = faulty("export_bom")
    link = links(door)[0]
    assert gzip.decompress(download(door, link).content) == b"\xef\xbb\xbf" + content(door, link)


@pytest.mark.parametrize(
    ("kind", "text", "bad"),
    [
        ("export_surrogate", "", b"\\ud800"),
        ("export_not_utf8", "", b"\xff\xfe"),
        ("export_surrogate", "CveId", b"\\ud800"),
    ],
)
def test_one_string_of_a_record_is_broken_and_no_missing_update_follows_from_it(
    faulty: Faulty, kind: str, text: str, bad: bytes
) -> None:
    door = faulty(kind, text=text)
    link = links(door)[0]
    broken = gzip.decompress(download(door, link).content).splitlines()
    right = content(door, link).splitlines()
    changed = [number for number, line in enumerate(broken) if line != right[number]]
    assert len(changed) == 1
    assert bad in broken[changed[0]]
    with pytest.raises(UnicodeError):
        json.dumps(json.loads(broken[changed[0]]), ensure_ascii=False).encode()
    before, after = json.loads(right[changed[0]]), json.loads(broken[changed[0]].decode("utf-8", "replace"))
    assert {name for name in before if before[name] != after[name]} == {text or "DiskPaths"}
    assert before["SoftwareVendor"] != "microsoft"


def test_ids_of_updates_are_written_oddly_and_some_are_none(faulty: Faulty) -> None:
    door = faulty("export_odd_ids")
    found = rows(door)
    ids = {row["RecommendedSecurityUpdateId"] for row in found if "RecommendedSecurityUpdateId" in row}
    assert {"--", "N/A", "Release Notes"} <= ids
    assert any(id_.startswith("KB") for id_ in ids)
    assert any(id_ != id_.strip() for id_ in ids)
    mended = []
    for row in found:
        id_ = row.get("RecommendedSecurityUpdateId", "").strip().removeprefix("KB")
        mended.append(row | {"RecommendedSecurityUpdateId": id_ if id_.isdecimal() else None})
    door.simulator.faults.clear()
    assert pairs(mended) == pairs(rows(door))


def test_nobody_knows_when_an_update_was_first_seen_missing(faulty: Faulty) -> None:
    door = faulty("export_no_first_seen")
    found = rows(door)
    assert {row["FirstSeenTimestamp"] for row in found} == {"", "0001-01-01 00:00:00.0000000"}
    door.simulator.faults.clear()
    assert len(found) == len(rows(door))


def test_a_file_may_stay_empty_while_the_others_do_not(faulty: Faulty) -> None:
    door = faulty("export_nothing", path="/tvm-export/*part-00001*")
    one, two = links(door)
    for _ in range(3):
        assert rows_of(download(door, one))
        assert rows_of(download(door, two)) == []


def test_a_snapshot_is_made_between_two_lists_or_two_pages(faulty: Faulty) -> None:
    door = faulty("export_new", after=1)
    first, second, third = (links(door)[0].partition("?")[0] for _ in range(3))
    assert first != second == third
    assert len(door.simulator.exports.snapshots) == 2
    door = faulty("export_new", path=JSON, after=1)
    before = door.simulator.exports.latest
    link = door.get(f"{JSON}?pageSize=5").json()["@odata.nextLink"]
    assert door.get(link).status_code == 200
    assert door.simulator.exports.latest is not before


def test_a_next_link_leads_to_another_host_and_whoever_follows_is_told_off(faulty: Faulty) -> None:
    door = faulty("foreign_skiptoken_link", times=1)
    link = door.get(f"{JSON}?pageSize=5").json()["@odata.nextLink"]
    assert link.startswith("https://localhost:")
    door.get(link)
    assert any("a link to another host that was followed" in text for text in door.simulator.violations)
    assert door.get(f"{JSON}?pageSize=5").json()["@odata.nextLink"].startswith(door.simulator.url)
    door = faulty("foreign_skiptoken_link", text="https://evil.example/")
    assert door.get(f"{JSON}?pageSize=5").json()["@odata.nextLink"] == "https://evil.example/"


def test_pages_without_a_record_have_links_to_more_for_ever(faulty: Faulty) -> None:
    door = faulty("endless_pages")
    page = door.get(f"{JSON}?pageSize=5").json()
    met = set()
    for _ in range(5):
        assert page["value"] == []
        met.add(page["@odata.nextLink"])
        page = door.get(page["@odata.nextLink"]).json()
    assert len(met) == 5


def test_next_links_lead_to_the_same_page_again_and_again(faulty: Faulty) -> None:
    door = faulty("endless_skiptoken", after=1)
    link = door.get(f"{JSON}?pageSize=5").json()["@odata.nextLink"]
    pages = []
    for _ in range(3):
        page = door.get(link).json()
        pages.append(page["value"])
        link = page["@odata.nextLink"]
    assert pages[0] == pages[1] == pages[2]
    assert door.simulator.violations == []
    door = faulty("endless_skiptoken")
    page = door.get(f"{JSON}?pageSize=5").json()
    assert door.get(page["@odata.nextLink"]).json()["value"] == page["value"]


# What may happen to any request may happen to these


@pytest.mark.parametrize("path", [EXPORT, JSON, FILE])
@pytest.mark.parametrize(
    ("kind", "options", "status"),
    [
        ("500", {}, 500),
        ("503", {}, 503),
        ("html", {}, 200),
        ("throttled", {}, 429),
        ("redirect", {}, 302),
        ("slow", {"seconds": 0.01}, 200),
    ],
)
def test_general_faults_strike_by_their_path(
    faulty: Faulty, path: str, kind: str, options: dict[str, Any], status: int
) -> None:
    door = faulty(kind, path=path, times=1, **options)
    answer = download(door, links(door)[0]) if path == FILE else door.get(path)
    assert answer.status_code == status
    entry = door.simulator.journal[-1]
    assert (entry.fault, entry.is_storage) == (kind, path == FILE)


@pytest.mark.parametrize("path", [EXPORT, JSON, FILE])
def test_connections_are_reset_and_bodies_never_end(faulty: Faulty, path: str) -> None:
    with pytest.raises(requests.exceptions.ConnectionError), begun(faulty("reset", path=path, times=1), path):
        pass
    with begun(faulty("endless", path=path), path) as answer:
        assert len(answer.raw.read(2_000_000, decode_content=False)) == 2_000_000


def test_a_file_drips(faulty: Faulty) -> None:
    with begun(faulty("drip", path=FILE, seconds=0.001), FILE) as answer:
        assert answer.raw.read(20, decode_content=False)[:2] == b"\x1f\x8b"


def test_faults_of_the_api_and_of_the_sign_in_leave_files_alone(faulty: Faulty) -> None:
    door = faulty("500", after=1)
    door.simulator.faults.add(Fault("sign_in_down"))
    assert all(download(door, link).ok for link in links(door))


def test_whoever_comes_back_to_storage_before_its_retry_after_is_told_off(faulty: Faulty) -> None:
    door = faulty("throttled", path=FILE, seconds=30, times=1)
    link = links(door)[0]
    assert download(door, link).headers["Retry-After"] == "30"
    download(door, link)
    assert "before Retry-After had ended" in door.simulator.violations[0]
