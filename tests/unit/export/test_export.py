"""What an export's answers say, read by hand; its ways and faults are in `e2e/test_export.py`."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING, Any

import pytest

from tap_mde_kbs.api.http import GovernedAdapter
from tap_mde_kbs.errors import ApiError
from tap_mde_kbs.export.download import ExpiredError, Storage, shown
from tap_mde_kbs.export.export import FileSource, ListOfFiles, Page, Pages, Snapshot, SupersededError, moment
from tap_mde_kbs.export.records import Vulnerabilities
from tap_mde_kbs.tap import TapMdeKbs

if TYPE_CHECKING:
    from pathlib import Path

HOST = "https://api.example.com"


@pytest.fixture
def tap() -> TapMdeKbs:
    """A tap that makes no call."""
    config = {"tenant_id": "a", "client_id": "b", "client_secret": "secret", "api_url": HOST}
    return TapMdeKbs(config={**config, "missing_kbs_source": "export"})


def listed(tap: TapMdeKbs, **document: Any) -> Any:
    """What is read of a list of files."""
    return ListOfFiles(tap, tap.connection).read({"generatedTime": "2026-01-11T11:01:00Z", **document}, "/list")


def test_files_are_told_apart_by_path_and_place_whatever_their_signatures(tap: TapMdeKbs) -> None:
    links = ["https://a.example/1?sig=x", "https://a.example/2?sig=x", "https://a.example/2?name=b&sig=x"]
    first = listed(tap, exportFiles=[*links, links[0]])
    assert [*first.links.values()] == links
    second = listed(tap, exportFiles=[link.replace("sig=x", "sig=y") for link in links])
    assert second.links.keys() == first.links.keys()


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"exportFiles": "https://a.example/1"},
        {"exportFiles": [1]},
        {"exportFiles": [], "generatedTime": None},
        {"exportFiles": [], "generatedTime": "yesterday"},
    ],
)
def test_a_list_of_another_shape_is_refused(tap: TapMdeKbs, document: dict[str, Any]) -> None:
    with pytest.raises(ApiError, match="another shape"):
        listed(tap, **document)


@pytest.mark.parametrize(
    "link",
    [
        "http://api.example.com/api/machines/SoftwareVulnerabilitiesByMachine?$skiptoken=a",
        "https://other.example.com/api/machines/SoftwareVulnerabilitiesByMachine?$skiptoken=a",
        "https://api.example.com.evil/api/machines/SoftwareVulnerabilitiesByMachine?$skiptoken=a",
        "https://api.example.com:8443/api/machines/SoftwareVulnerabilitiesByMachine?$skiptoken=a",
        "https://a@api.example.com/api/machines/SoftwareVulnerabilitiesByMachine?$skiptoken=a",
        "https://api.example.com/api/other?$skiptoken=a",
        "https://api.example.com:port/api/machines/SoftwareVulnerabilitiesByMachine",
        17,
    ],
)
def test_a_next_link_leads_to_the_same_call_of_the_same_host(tap: TapMdeKbs, link: object) -> None:
    """The token goes along: anything else is refused."""
    with pytest.raises(ApiError, match="next link is not on"):
        Pages(tap, tap.connection).read({"value": [], "@odata.nextLink": link}, "/page")


def test_the_own_host_is_the_same_with_its_port_and_in_another_case(tap: TapMdeKbs) -> None:
    link = "https://API.example.com:443/api/machines/softwarevulnerabilitiesbymachine?pagesize=5&$skiptoken=a"
    assert Pages(tap, tap.connection).read({"value": [], "@odata.nextLink": link}, "/page") == Page([], link)


@pytest.mark.parametrize(
    ("text", "as_checked_at"),
    [
        ("2021-01-11T11:01:00Z", "2021-01-11T11:01:00.000000Z"),
        ("2021-01-11T11:01:00.5Z", "2021-01-11T11:01:00.500000Z"),
        ("2021-01-11 11:01:00.1234567", "2021-01-11T11:01:00.123456Z"),
        ("2021-01-11T13:01:00+02:00", "2021-01-11T11:01:00.000000Z"),
    ],
)
def test_times_of_exports_compare_as_text(text: str, as_checked_at: str) -> None:
    assert moment(text) == as_checked_at


def test_a_signature_is_never_shown() -> None:
    assert shown("https://a.example/b/c.json.gz?se=1&sig=secret") == "a.example/…/c.json.gz"


class Refusing(Storage):
    """A storage that refuses every link of the first list."""

    def fetch(self, link: str, path: Path) -> bool:
        if "first" in link:
            raise ExpiredError(link)
        path.write_bytes(gzip.compress(b'{"deviceId": "a"}'))
        return True


@pytest.mark.parametrize(
    ("then", "superseded"),
    [
        (Snapshot("2026-01-01T00:00:00.000000Z", {"/a 0": "https://x/a?second"}), False),
        (Snapshot("2026-01-01T06:00:00.000000Z", {"/a 0": "https://x/a?second"}), True),
        (Snapshot("2026-01-01T00:00:00.000000Z", {"/b 0": "https://x/b?second"}), True),
    ],
    ids=["the same", "of another time", "with other files"],
)
def test_new_links_are_the_same_exports_or_it_starts_over(
    tap: TapMdeKbs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, then: Snapshot, *, superseded: bool
) -> None:
    """By its time and by its files."""
    source = FileSource(ListOfFiles(tap, tap.connection), tap.connection, Refusing(1, ""), tap.logger)
    monkeypatch.setattr(source, "latest", lambda: then)
    first = Snapshot("2026-01-01T00:00:00.000000Z", {"/a 0": "https://x/a?first"})
    with Vulnerabilities(tmp_path) as records:
        if superseded:
            with pytest.raises(SupersededError) as raised:
                source.read(first, records, tmp_path)
            assert raised.value.snapshot is then
        else:
            source.read(first, records, tmp_path)
        assert records.devices() == ([] if superseded else ["a"])


@pytest.mark.parametrize(("call", "a_minute", "an_hour"), [(ListOfFiles, 5, 20), (Pages, 30, 1000)])
def test_each_call_has_the_quota_that_is_documented_for_it(
    tap: TapMdeKbs, call: type[ListOfFiles | Pages], a_minute: int, an_hour: int
) -> None:
    """Whatever its query and its case; and no call of another endpoint counts."""
    url = f"{HOST}{call.path}?pageSize=1"
    adapter = tap.connection.session.get_adapter(url)
    assert isinstance(adapter, GovernedAdapter)
    assert adapter is tap.connection.session.get_adapter(url.lower())
    assert adapter is not tap.connection.session.get_adapter(f"{HOST}/api/machines")
    governor = tap.connection.bulk_governors[call.path]
    assert adapter.governor is governor
    assert governor.seconds_for(a_minute) < 1
    assert 60 <= governor.seconds_for(a_minute + 1) < 62
    assert governor.seconds_for(an_hour) < 3600 <= governor.seconds_for(an_hour + 1)
