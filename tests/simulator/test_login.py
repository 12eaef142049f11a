"""The sign-in service when it is down, busy or behind a portal, and how often it was asked."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

import pytest
from msal.exceptions import MsalServiceError

from mde_simulator import Fault
from mde_simulator.faults.fault import DISCOVERY, LOGIN

from .door import SCOPE
from .signing import application, sign_in

if TYPE_CHECKING:
    from collections.abc import Callable

    from .door import Door

    Opened = Callable[..., Door]


def early(door: Door) -> int:
    """How many came before Retry-After had ended."""
    return sum(text.startswith("before the sign-in's Retry-After") for text in door.simulator.violations)


def test_the_whole_service_may_be_down(opened: Opened) -> None:
    door = opened(faults=[Fault("sign_in_down")])
    answer = door.token()
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    assert answer.json()["error"] == "temporarily_unavailable"
    assert answer.json()["error_codes"] == [90033]
    url = f"{door.simulator.url}/{door.simulator.config['tenant_id']}/v2.0/.well-known/openid-configuration"
    assert door.session.get(url, timeout=10).status_code == 503


def test_tokens_alone_or_the_discovery_alone_may_be_down(opened: Opened) -> None:
    secret = opened().simulator.config["client_secret"]
    door = opened(faults=[Fault("sign_in_down", path=LOGIN, times=1)])
    app = application(door, secret)
    with pytest.raises(MsalServiceError, match="503"):
        app.acquire_token_for_client([SCOPE])
    door = opened(faults=[Fault("sign_in_down", path=DISCOVERY, times=1)])
    assert door.token().status_code == 200
    with pytest.raises(MsalServiceError, match="503"):
        application(door, secret)
    assert "access_token" in sign_in(door, secret)


def test_a_sign_in_fault_never_strikes_the_api(opened: Opened) -> None:
    door = opened().sign_in()
    door.simulator.faults.add(Fault("sign_in_html", path="*", times=1), Fault("sign_in_down"))
    assert door.kbs().json()["value"] is not None
    assert door.simulator.journal[-1].fault is None


def test_retry_after_may_be_a_date_or_absent(opened: Opened) -> None:
    down = Fault("sign_in_down", seconds=90, retry_after="date", times=1)
    door = opened(faults=[Fault("sign_in_down", retry_after="absent", times=1), down])
    assert "Retry-After" not in door.token().headers
    until = parsedate_to_datetime(door.token().headers["Retry-After"]).timestamp()
    assert 85 < until - time.time() <= 90
    assert door.simulator.violations == []


def test_the_service_may_throttle_and_coming_early_is_a_violation(opened: Opened) -> None:
    door = opened(faults=[Fault("sign_in_throttled", seconds=1, times=1)])
    answer = door.token()
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "1")
    assert answer.json()["error_codes"] == [90055]
    assert door.token().status_code == 200
    assert early(door) == 1
    time.sleep(1)
    door.token()
    assert early(door) == 1


def test_msal_keeps_away_till_retry_after_has_ended(opened: Opened) -> None:
    door = opened(faults=[Fault("sign_in_throttled", seconds=1, times=1)])
    app = application(door, door.simulator.config["client_secret"])
    answers = [app.acquire_token_for_client([SCOPE]) for _ in range(3)]
    assert all("access_token" not in answer for answer in answers)
    assert len(door.simulator.journal.token_requests) == 1
    time.sleep(1.1)
    assert "access_token" in app.acquire_token_for_client([SCOPE])
    assert door.simulator.violations == []


def test_a_portal_may_show_its_page_instead(opened: Opened) -> None:
    answer = opened(faults=[Fault("sign_in_html")]).token()
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "text/html"
    assert "<html>" in answer.text


def test_tokens_are_counted(opened: Opened) -> None:
    door = opened(faults=[Fault("sign_in", code=7000222, times=2)])
    assert (door.simulator.identity.given, door.simulator.journal.token_requests) == (0, [])
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda _: door.token(), range(5)))
    assert door.simulator.identity.given == 3
    asked = door.simulator.journal.token_requests
    assert sorted(entry.status or 0 for entry in asked) == [200, 200, 200, 401, 401]
    assert {entry.credential for entry in asked if entry.status == 200} == {"client_secret"}
    door.sign_in().kbs()
    assert len(door.simulator.journal.token_requests) == 6
