"""What an export's two calls answer, read by hand; their ways and faults are in `e2e/test_export.py`."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from tap_mde_kbs.api.client import Client
from tap_mde_kbs.api.http import GovernedAdapter
from tap_mde_kbs.errors import ShapeError, Stopped
from tap_mde_kbs.export import calls
from tap_mde_kbs.export.calls import FILES, PAGES, Page, export_in, page_in
from tap_mde_kbs.patience import Patience

HOST = "https://api.example.com"
CONFIG = {
    "tenant_id": "a",
    "client_id": "b",
    "client_secret": "secret",
    "api_url": HOST,
    "requests_per_minute": 100,
    "requests_per_hour": 1500,
    "max_parallel_requests": 4,
    "request_timeout_seconds": 60,
    "user_agent": "test",
}


@pytest.fixture
def client() -> Client:
    """A client that makes no call."""
    return Client(CONFIG, logging.getLogger("test"), Patience())


def listed(**document: Any) -> calls.Export:
    """What is read of a list of files."""
    return export_in({"generatedTime": "2026-01-11T11:01:00Z", **document})


def test_files_are_told_apart_by_path_and_place_whatever_their_signatures() -> None:
    links = ["https://a.example/1?sig=x", "https://a.example/2?sig=x", "https://a.example/2?name=b&sig=x"]
    first = listed(exportFiles=[*links, links[0]])
    assert [*first.links.values()] == links
    second = listed(exportFiles=[link.replace("sig=x", "sig=y") for link in links])
    assert second.links.keys() == first.links.keys()


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"exportFiles": "https://a.example/1"},
        {"exportFiles": [1]},
        {"exportFiles": [], "generatedTime": None},
        {"exportFiles": [], "generatedTime": "yesterday"},
        {"exportFiles": [], "generatedTime": "2026-02-30T00:00:00Z"},
    ],
)
def test_a_list_of_another_shape_is_refused(document: dict[str, Any]) -> None:
    with pytest.raises(ShapeError, match="another shape"):
        listed(**document)


@pytest.mark.parametrize(
    "place",
    [
        "https://api.example.com/api/machines/SoftwareVulnerabilitiesByMachine",
        "https://api.securitycenter.windows.com/api/machines/SoftwareVulnerabilitiesByMachine",
        "https://a@elsewhere.example:port/api/other",
        "http://169.254.169.254/",
        "softwarevulnerabilitiesbymachine",
        "",
    ],
)
def test_of_a_next_link_its_query_counts_whatever_host_it_names(place: str) -> None:
    link = f"{place}?pagesize=5&$skiptoken=a%3D"
    assert page_in({"value": [], "@odata.nextLink": link}) == Page([], "pagesize=5&$skiptoken=a%3D")


@pytest.mark.parametrize("link", ["https://api.example.com/api/machines", "https://[::1?$skiptoken=a", 17, {"a": 1}])
def test_a_next_link_without_a_query_is_refused(link: object) -> None:
    """It would lead to the first page again."""
    with pytest.raises(ShapeError, match="its next link has no query"):
        page_in({"value": [], "@odata.nextLink": link})


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
    assert listed(exportFiles=[], generatedTime=text).made_at == as_checked_at


@pytest.mark.parametrize("in_use", [False, True], ids=["before the first call", "after it"])
@pytest.mark.parametrize(("path", "a_minute", "an_hour"), [(FILES, 5, 20), (PAGES, 30, 1000)])
def test_each_call_has_the_quota_that_is_documented_for_it(
    client: Client, path: str, a_minute: int, an_hour: int, *, in_use: bool
) -> None:
    """Whatever its query and its case; and no call of another endpoint counts."""
    if in_use:
        assert client.session
    calls.limit(client)
    url = f"{HOST}{path}?pageSize=1"
    adapter = client.session.get_adapter(url)
    assert isinstance(adapter, GovernedAdapter)
    assert adapter is client.session.get_adapter(url.lower())
    assert adapter is not client.session.get_adapter(f"{HOST}/api/machines")
    governor = adapter.governor
    assert governor is not client.governor
    assert governor.seconds_for(a_minute) < 1
    assert 60 <= governor.seconds_for(a_minute + 1) < 62
    assert governor.seconds_for(an_hour) < 3600 <= governor.seconds_for(an_hour + 1)
    governor.sent()
    assert client.calls == 1


@pytest.mark.parametrize("stopped_first", [False, True])
def test_nobody_waits_for_a_quota_when_the_time_is_over(client: Client, *, stopped_first: bool) -> None:
    if stopped_first:
        client.stop()
    calls.limit(client)
    if not stopped_first:
        client.stop()
    adapter = client.session.get_adapter(f"{HOST}{FILES}")
    assert isinstance(adapter, GovernedAdapter)
    with pytest.raises(Stopped):
        adapter.governor.acquire()
