"""The storage host: signed links, Azure's headers and errors, and no place for a token."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from mde_simulator import Fleet, Simulator

from .downloads import download, links, rows_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from .door import Door

    Opened = Callable[..., Door]


def test_it_is_another_host_that_the_same_authority_vouches_for(door: Door) -> None:
    storage, api = urlsplit(door.simulator.storage_url), urlsplit(door.simulator.url)
    assert (storage.scheme, storage.hostname, api.hostname) == ("https", "localhost", "127.0.0.1")
    assert storage.port != api.port
    assert download(door, links(door)[0]).ok


def test_a_file_comes_with_azures_headers_and_its_length_and_is_the_gzip_itself(door: Door) -> None:
    link = links(door)[0]
    answer = download(door, link, **{"Accept-Encoding": "gzip, deflate"})
    assert answer.headers["Content-Length"] == str(len(answer.content))
    assert not {"Transfer-Encoding", "Content-Encoding", "OData-Version"} & set(answer.headers)
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert answer.headers["x-ms-blob-type"] == "BlockBlob"
    lines = gzip.decompress(answer.content).splitlines()
    assert all(isinstance(json.loads(line), dict) for line in lines)
    again = download(door, link)
    assert (again.headers["ETag"], again.content) == (answer.headers["ETag"], answer.content)
    assert download(door, links(door)[1]).headers["ETag"] != answer.headers["ETag"]
    head = download(door, link, "HEAD")
    assert (head.headers["Content-Length"], head.content) == (answer.headers["Content-Length"], b"")


def test_a_link_is_good_to_its_end_alone(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    door = opened().sign_in()
    exports = door.simulator.exports
    now = exports.clock()
    monkeypatch.setattr(exports, "clock", lambda: now)
    one, two = links(door)[0], links(door, sasValidHours=2)[0]
    now += 3598
    assert download(door, one).ok
    now += 2
    late = download(door, one)
    assert late.status_code == 403
    text = late.content.decode("utf-8-sig")
    assert "<Code>AuthenticationFailed</Code>" in text
    assert "Signature not valid in the specified time frame" in text
    assert late.headers["Content-Type"] == "application/xml"
    assert rows_of(download(door, two))
    assert download(door, links(door)[0]).ok
    assert door.simulator.violations == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("sig=", "sig=A"),
        ("&sig=", "&gis="),
        ("sp=r", "sp=rw"),
        ("se=2", "se=3"),
        ("part-00000", "part-00001"),
        ("?", "?x=1&"),
    ],
)
def test_a_link_that_was_tampered_with_is_refused(door: Door, old: str, new: str) -> None:
    answer = download(door, links(door)[0].replace(old, new, 1))
    assert answer.status_code == 403
    assert b"Signature not valid" in answer.content
    assert download(door, f"{door.simulator.storage_url}/tvm-export/nothing").status_code == 403


def test_a_link_of_another_simulator_and_another_method_are_refused(door: Door) -> None:
    link = links(door)[0]
    assert download(door, link, "PUT").status_code == 405
    with Simulator(Fleet(3)) as other:
        foreign = link.replace(door.simulator.storage_url, other.storage_url)
        door_to_other = type(door)(other)
        assert download(door_to_other, foreign).status_code == 403


def test_a_file_of_a_snapshot_long_gone_is_not_found(door: Door) -> None:
    link = links(door)[0]
    for _ in range(4):
        door.simulator.exports.generate()
    answer = download(door, link)
    assert (answer.status_code, answer.headers["x-ms-error-code"]) == (404, "BlobNotFound")


def test_a_token_that_is_sent_there_is_a_violation(opened: Opened) -> None:
    door = opened().sign_in()
    link = links(door)[0]
    assert download(door, link).ok
    assert door.simulator.violations == []
    for token in (str(door.session.headers["Authorization"]), "Basic abc"):
        assert not download(door, link, Authorization=token).ok
    assert [text.partition(":")[0] for text in door.simulator.violations] == ["a token to the wrong place"] * 2


def test_downloads_are_in_the_journal_and_are_no_calls_of_the_api(door: Door) -> None:
    link = links(door)[0]
    calls = door.simulator.calls
    download(door, link)
    download(door, f"{door.simulator.storage_url}/api/machines")
    download(door, f"{door.simulator.storage_url}/tenant/oauth2/v2.0/token")
    entries = door.simulator.journal.downloads
    assert [(entry.is_api, entry.is_storage, entry.status) for entry in entries] == [
        (False, True, 200),
        (False, True, 403),
        (False, True, 403),
    ]
    assert entries[0].path == urlsplit(link).path
    assert door.simulator.calls == calls
    assert len(door.simulator.journal.token_requests) == 1
