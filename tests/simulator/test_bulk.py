"""The API's two calls for whole exports, over the socket."""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from collections import Counter
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import pytest

from mde_simulator import EXPORT as EXPORT_LIMITS
from mde_simulator import EXPORT_JSON, Fleet, Quota

from .downloads import EXPORT, JSON, links, pairs, rows

if TYPE_CHECKING:
    from collections.abc import Callable

    import requests

    from .door import Door

    Opened = Callable[..., Door]


def ask(door: Door, path: str, **params: Any) -> requests.Response:
    """One call, its options by their own names."""
    return door.session.get(f"{door.simulator.url}{path}", params=params, timeout=10)


def walk(door: Door, size: int) -> list[dict[str, Any]]:
    """All records, page by page."""
    found: list[dict[str, Any]] = []
    answer = ask(door, JSON, pageSize=size)
    while True:
        body = answer.json()
        found += body["value"]
        if "@odata.nextLink" not in body:
            return found
        assert len(body["value"]) == size
        answer = door.get(body["@odata.nextLink"])


def broken(door: Door) -> list[str]:
    """The rules that were broken, without where."""
    return [text.partition(":")[0] for text in door.simulator.violations]


def plain(row: dict[str, Any]) -> str:
    """A record without its nulls and the case of its names."""
    return json.dumps({name.lower(): value for name, value in row.items() if value is not None}, sort_keys=True)


# Files


def test_the_list_has_signed_links_and_says_when_the_snapshot_was_made(door: Door) -> None:
    answer = ask(door, EXPORT.lower())
    body = answer.json()
    assert list(body) == ["@odata.context", "exportFiles", "generatedTime"]
    assert body["@odata.context"].endswith("$metadata#microsoft.windowsDefenderATP.api.ExportFilesResponse")
    assert body["generatedTime"] == f"{door.simulator.exports.generated:%Y-%m-%dT%H:%M:%SZ}"
    for link in body["exportFiles"]:
        parts = urlsplit(link)
        assert link.startswith(door.simulator.storage_url)
        assert parts.hostname == "localhost"
        assert parts.path.endswith(".c000.json.gz")
        assert set(parse_qs(parts.query)) == {"sv", "st", "se", "sr", "sp", "sig"}
    assert len(set(body["exportFiles"])) == 3


@pytest.mark.parametrize(("params", "hours"), [({}, 1), ({"sasValidHours": 1}, 1), ({"sasvalidhours": 6}, 6)])
def test_links_are_good_for_the_hours_asked_for(door: Door, params: dict[str, int], hours: int) -> None:
    query = parse_qs(urlsplit(links(door, **params)[0]).query)
    start, end = (
        datetime.strptime(query[name][0], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc) for name in ("st", "se")
    )
    assert end - start == timedelta(hours=hours)


@pytest.mark.parametrize("hours", ["0", "7", "24", "-1", "x", "1.5", ""])
def test_other_hours_are_refused(door: Door, hours: str) -> None:
    assert ask(door, EXPORT, sasValidHours=hours).status_code == 400


# Pages


def test_pages_have_the_records_of_the_files_in_camel_case_with_nulls(door: Door) -> None:
    found = walk(door, 1500)
    from_files = rows(door)
    assert len(found) == len(from_files)
    assert pairs(found) == pairs(from_files)
    names = {name for row in found for name in row}
    assert {"deviceId", "cveId", "osPlatform", "recommendedSecurityUpdateId", "id"} <= names
    assert not names & {"isOnboarded", "cveBatchTitle", "cveBatchUrl"}
    assert all({"cveId", "recommendedSecurityUpdateId", "cvssScore"} <= row.keys() for row in found)
    assert any(row["cveId"] is None for row in found)
    # The same but for that.
    for row in from_files:
        for name in ("IsOnboarded", "CveBatchTitle", "CveBatchUrl"):
            row.pop(name, None)
    assert Counter(map(plain, found)) == Counter(map(plain, from_files))


def test_a_page_that_holds_all_has_no_next_link_and_neither_has_top(door: Door) -> None:
    whole = ask(door, JSON).json()
    assert list(whole) == ["@odata.context", "value"]
    assert whole["@odata.context"].endswith("#Collection(microsoft.windowsDefenderATP.api.AssetVulnerability)")
    exact = ask(door, JSON, pageSize=len(whole["value"])).json()
    assert exact == whole
    top = ask(door, JSON, **{"$top": 5}).json()
    assert (top["value"], list(top)) == (whole["value"][:5], list(whole))


@pytest.mark.parametrize("size", ["0", "200001", "-5", "many"])
def test_other_page_sizes_are_refused(door: Door, size: str) -> None:
    assert ask(door, JSON, pageSize=size).status_code == 400
    assert ask(door, JSON, pageSize=200_000).status_code == 200


def test_a_next_link_stays_with_its_snapshot(door: Door) -> None:
    fleet, exports = door.simulator.fleet, door.simulator.exports
    all_of_it = walk(door, 50_000)
    first = ask(door, JSON, pageSize=2000).json()
    fleet.pass_days(40)
    exports.generate()
    second = door.get(first["@odata.nextLink"]).json()
    assert first["value"] + second["value"] == all_of_it[:4000]
    assert walk(door, 50_000) != all_of_it


def test_a_token_that_was_made_up_or_is_of_a_snapshot_long_gone_is_refused(door: Door) -> None:
    link = ask(door, JSON, pageSize=10).json()["@odata.nextLink"]
    token = parse_qs(urlsplit(link).query)["$skiptoken"][0]
    position = urlsafe_b64encode(json.dumps({"ExportDefinition": {"TimePath": "x"}, "LineStoppedAt": 5}).encode())
    other = "A" if token[0] != "A" else "B"
    for made_up in ("", "5", "!", token[:-6], other + token[1:], "x" * 500, position.decode(), "ü"):
        assert ask(door, JSON, **{"$skiptoken": made_up}).status_code == 400
    assert ask(door, JSON, **{"$skiptoken": token}).status_code == 200
    for _ in range(4):
        door.simulator.exports.generate()
    assert ask(door, JSON, **{"$skiptoken": token}).status_code == 400


# The rules


@pytest.mark.parametrize("path", [EXPORT, JSON])
def test_both_need_a_permission_of_their_own_and_a_token(opened: Opened, path: str) -> None:
    door = opened(roles=("Machine.Read.All", "Software.Read.All")).sign_in()
    answer = ask(door, path)
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "Forbidden")
    assert answer.json()["error"]["message"] == (
        "Missing application roles. API required roles: Vulnerability.Read.All, "
        "application roles: Machine.Read.All, Software.Read.All."
    )
    assert door.simulator.violations == []
    del door.session.headers["Authorization"]
    assert ask(door, path).status_code == 401


@pytest.mark.parametrize("path", [EXPORT, JSON])
def test_other_methods_are_not_allowed_and_unknown_options_are_violations(opened: Opened, path: str) -> None:
    door = opened().sign_in()
    assert door.session.post(f"{door.simulator.url}{path}", timeout=10).status_code == 405
    assert ask(door, path, nonsense=1).status_code == 200
    assert broken(door) == ["an unknown query option 'nonsense'"]
    assert ask(door, f"{path}/getmissingkbs").status_code == 404


def test_each_of_them_has_a_quota_of_its_own(opened: Opened) -> None:
    door = opened(quota=Quota(), export_quota=Quota(EXPORT_LIMITS), export_json_quota=Quota(EXPORT_JSON)).sign_in()
    assert [ask(door, EXPORT).status_code for _ in range(5)] == [200] * 5
    refused = ask(door, EXPORT.upper().replace("API", "api"))
    assert refused.status_code == 429
    assert 50 < int(refused.headers["Retry-After"]) <= 60
    assert "5 per 00:01:00 and 20 per 01:00:00" in refused.json()["error"]["message"]
    assert [ask(door, JSON, pageSize=1).status_code for _ in range(31)] == [200] * 30 + [429]
    assert door.get("/api/machines", top=1).status_code == 200
    assert broken(door) == ["over the quota"] * 2


def test_without_a_quota_there_is_none(opened: Opened) -> None:
    door = opened(Fleet(3, seed=1)).sign_in()
    assert {ask(door, path).status_code for path in (EXPORT, JSON) for _ in range(35)} == {200}


def test_they_are_calls_of_the_api_about_no_machine(door: Door) -> None:
    ask(door, EXPORT)
    ask(door, JSON, pageSize=1)
    assert [(entry.is_api, entry.is_storage, entry.machine_id) for entry in door.simulator.journal[-2:]] == [
        (True, False, None)
    ] * 2
