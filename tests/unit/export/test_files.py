"""Files of an export whose links are refused: the same export's are fetched with new ones, another's are not."""

from __future__ import annotations

import gzip
import io
import json
import logging
from itertools import pairwise
from types import SimpleNamespace
from typing import TYPE_CHECKING, TypeVar
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st
from urllib3 import HTTPResponse

from tap_mde_kbs.api.client import Client
from tap_mde_kbs.errors import ApiError, ExpiredLinkError, ShapeError, SupersededError
from tap_mde_kbs.export import download
from tap_mde_kbs.export.calls import Export
from tap_mde_kbs.export.download import Content, Downloader, Lines, shown
from tap_mde_kbs.export.files import RENEWALS, FileReader, Links
from tap_mde_kbs.export.records import Records
from tap_mde_kbs.patience import Patience

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import requests

T = TypeVar("T")

TIME = "2026-01-01T00:00:00.000000Z"
FIRST = Export(TIME, {"/a 0": "https://x/a?first"})


class OldLinksRefused(Downloader):
    """A host that refuses every link of the first list."""

    def __init__(self) -> None:
        super().__init__(1, "test")
        self.refused = 0

    def fetch(self, link: str, path: Path) -> Content:
        if "first" in link:
            self.refused += 1
            raise ExpiredLinkError(link)
        path.write_bytes(gzip.compress(json.dumps({"deviceId": link}).encode()))
        return Content(has_any=True, is_in_lines=True)


class Reader(FileReader):
    """A reader that is given the same list of files each time."""

    def __init__(self, downloader: Downloader, then: Export) -> None:
        log = logging.getLogger("test")
        patience = Patience(file=0)
        super().__init__(Client({}, log, patience), lambda: downloader, log, patience)
        self.then = then

    def newest(self) -> Export:
        return self.then


@pytest.mark.parametrize(
    ("then", "superseded"),
    [
        (Export(TIME, {"/a 0": "https://x/a?second"}), False),
        (Export("2026-01-01T06:00:00.000000Z", {"/a 0": "https://x/a?second"}), True),
        (Export(TIME, {"/b 0": "https://x/b?second"}), True),
    ],
    ids=["the same", "of another time", "with other files"],
)
def test_new_links_are_the_same_exports_or_it_is_another(then: Export, *, superseded: bool) -> None:
    """By its time and by its files."""
    with Records() as records:
        if superseded:
            with pytest.raises(SupersededError) as raised:
                Reader(OldLinksRefused(), then).read(FIRST, records)
            assert raised.value.newer is then
            assert records.machines() == []
        else:
            Reader(OldLinksRefused(), then).read(FIRST, records)
            assert records.machines() == ["https://x/a?second"]


def test_links_that_another_thread_has_renewed_are_not_asked_for_again() -> None:
    """The list of files has a quota of five calls a minute."""
    names = ["/a 0", "/b 0"]
    lists = [Export(TIME, {name: f"https://x{name}?second" for name in names})]
    links = Links(
        Export(TIME, {name: f"https://x{name}?first" for name in names}), lists.pop, logging.getLogger("test")
    )
    refused = {name: links.link(name) for name in names}
    for name in names:
        links.renew(name, refused[name], "expired")
    assert [links.link(name) for name in names] == ["https://x/a 0?second", "https://x/b 0?second"]


def test_links_that_are_refused_list_after_list_end_the_run() -> None:
    lists = iter(Export(TIME, {"/a 0": f"https://x/a?first{number}"}) for number in range(100))

    class Renewed(Reader):
        def newest(self) -> Export:
            return next(lists)

    downloader = OldLinksRefused()
    with Records() as records, pytest.raises(ApiError, match=f"links of {RENEWALS} lists were refused"):
        Renewed(downloader, FIRST).read(FIRST, records)
    assert downloader.refused == RENEWALS + 1


def test_a_signature_is_never_shown() -> None:
    assert shown("https://a.example/b/c.json.gz?se=1&sig=secret") == "a.example/…/c.json.gz"


@pytest.mark.parametrize("link", ["http://a.example/1", "file:///etc/passwd", "https://", "https://user@a.example/1"])
def test_a_link_that_is_not_to_an_https_host_is_not_followed(link: str, tmp_path: Path) -> None:
    with pytest.raises(ShapeError, match="not on an https host"):
        Downloader(1, "test").fetch(link, tmp_path / "file")


@given(text=st.text("a\n", max_size=100), cuts=st.lists(st.integers(0, 100)))
def test_a_line_that_is_too_long_is_seen_wherever_a_piece_ends(text: str, cuts: list[int]) -> None:
    lines, places = Lines(), [0, *sorted(cuts), len(text)]
    with mock.patch.object(download, "LONGEST_LINE_BYTES", 16):
        for start, end in pairwise(places):
            lines.go_on(text[start:end].encode())
    assert lines.are_short == (max(map(len, text.split("\n"))) <= 16)


def test_a_file_that_is_one_long_line_is_read() -> None:
    """DuckDB 1.2 never ends over it when it is told that there are lines."""

    class Stored(Downloader):
        def _get(self, link: str, save: Callable[[requests.Response], T]) -> T:
            body = gzip.compress(
                b"".join(b'{"deviceId": "%d", "x": "%s"}' % (n, b"x" * 10_000) for n in range(3_600)), 1
            )
            return save(SimpleNamespace(raw=HTTPResponse(io.BytesIO(body), preload_content=False), url=link))  # type: ignore[arg-type] # as much of one as is read

    with Records() as records:
        Reader(Stored(60, "test"), FIRST).read(FIRST, records)
        assert len(records.machines()) == 3_600
