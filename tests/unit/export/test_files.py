"""Files of an export whose links are refused: the same export's are fetched with new ones, another's are not."""

from __future__ import annotations

import gzip
import json
import logging
from typing import TYPE_CHECKING

import pytest

from tap_mde_kbs.api.client import Client
from tap_mde_kbs.errors import ApiError, ExpiredLinkError, ShapeError, SupersededError
from tap_mde_kbs.export.calls import Export
from tap_mde_kbs.export.download import Downloader, shown
from tap_mde_kbs.export.files import RENEWALS, FileReader, Links
from tap_mde_kbs.export.records import Records
from tap_mde_kbs.patience import Patience

if TYPE_CHECKING:
    from pathlib import Path

TIME = "2026-01-01T00:00:00.000000Z"
FIRST = Export(TIME, {"/a 0": "https://x/a?first"})


class OldLinksRefused(Downloader):
    """A host that refuses every link of the first list."""

    def __init__(self) -> None:
        super().__init__(1, "test")
        self.refused = 0

    def fetch(self, link: str, path: Path) -> bool:
        if "first" in link:
            self.refused += 1
            raise ExpiredLinkError(link)
        path.write_bytes(gzip.compress(json.dumps({"deviceId": link}).encode()))
        return True


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
