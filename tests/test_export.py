"""What an export's answers say, read by hand; its ways and faults are in `e2e/test_export.py`."""

from __future__ import annotations

from typing import Any

import pytest

from tap_mde_kbs.errors import ApiError
from tap_mde_kbs.export import ListOfFiles, Page, Pages, moment
from tap_mde_kbs.storage import shown
from tap_mde_kbs.tap import TapMdeKbs

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
