"""Managed identities: MSAL gets tokens of both endpoints, and each refuses what the real one refuses."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
import requests

from mde_simulator import Fault, Fleet, Simulator

from .signing import AUDIENCE, managed, opens
from .test_identity import claims

if TYPE_CHECKING:
    from collections.abc import Callable

    from .door import Door

    Opened = Callable[..., Door]

UNKNOWN = "00000000-0000-0000-0000-000000000000"


@pytest.fixture
def host(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Door]:
    """A simulator with managed identities, which the environment leads to."""

    def start(kind: str, **options: object) -> Door:
        door = opened(managed_identity=True, **options)
        for name, value in door.simulator.managed_identity_environment(kind).items():
            monkeypatch.setenv(name, value)
        return door

    return start


def ask(door: Door, path: str, headers: dict[str, str], **query: str) -> requests.Response:
    """Ask an endpoint by hand."""
    assert door.simulator.managed is not None
    return door.session.get(f"{door.simulator.managed.url}{path}", headers=headers, params=query, timeout=10)


def imds(door: Door, headers: dict[str, str] | None = None, **query: str) -> requests.Response:
    """Ask as on a virtual machine, rightly unless told otherwise."""
    right = {"api-version": "2018-02-01", "resource": AUDIENCE}
    return ask(door, "/metadata/identity/oauth2/token", headers or {"Metadata": "true"}, **(right | query))


def app_service(door: Door, header: str | None = None, **query: str) -> requests.Response:
    """Ask as in App Service, rightly unless told otherwise."""
    right = {"api-version": "2019-08-01", "resource": AUDIENCE}
    secret = door.simulator.managed_identity_environment("app_service")["IDENTITY_HEADER"]
    return ask(door, "/msi/token", {"X-IDENTITY-HEADER": secret if header is None else header}, **(right | query))


@pytest.mark.parametrize("kind", ["vm", "app_service"])
def test_msal_gets_a_token_of_either_endpoint_for_either_identity(host: Callable[..., Door], kind: str) -> None:
    door = host(kind)
    assert door.simulator.managed is not None
    apps = set()
    for client_id in (None, door.simulator.managed.client_id):
        answer = managed(door, client_id)
        assert opens(door, answer["access_token"])
        assert 3590 <= answer["expires_in"] <= 3599
        apps.add(claims(answer["access_token"])["appid"])
    assert len(apps) == 2
    assert door.simulator.managed.client_id in apps
    assert [entry.credential for entry in door.simulator.journal.token_requests] == ["managed_identity"] * 2
    assert door.simulator.violations == []


@pytest.mark.parametrize("kind", ["vm", "app_service"])
def test_msal_is_told_of_an_unknown_identity_and_resource(host: Callable[..., Door], kind: str) -> None:
    door = host(kind)
    texts = [
        managed(door, UNKNOWN)["error_description"],
        managed(door, resource="https://nothing.example")["error_description"],
    ]
    if kind == "vm":
        assert texts[0] == "Identity not found"
        assert "AADSTS500011" in texts[1]
    else:
        assert texts[0].startswith("400, No Managed Identity found")
        assert texts[1].startswith("500, ")
    assert door.simulator.identity.given == 0


def test_a_host_may_have_no_identity_of_its_own(host: Callable[..., Door]) -> None:
    door = host("vm")
    assert door.simulator.managed is not None
    door.simulator.managed.system_assigned = False
    answer = imds(door)
    assert (answer.status_code, answer.json()) == (
        400,
        {"error": "invalid_request", "error_description": "Identity not found"},
    )
    assert imds(door, client_id=door.simulator.managed.client_id).status_code == 200
    assert imds(door, object_id=door.simulator.managed.client_id).status_code == 400


def test_the_machine_wants_its_header_and_nobody_in_between(host: Callable[..., Door]) -> None:
    door = host("vm")
    for headers in ({"Metadata": "yes"}, {"X-Nothing": "true"}, {"Metadata": "true", "X-Forwarded-For": "10.0.0.1"}):
        answer = imds(door, headers)
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")
    for name, value in (("api-version", "2017-01-01"), ("resource", "")):
        assert imds(door, None, **{name: value}).status_code == 400
    assert imds(door).status_code == 200


def test_app_service_wants_its_header_with_the_right_value(host: Callable[..., Door]) -> None:
    door = host("app_service")
    for header in ("", "wrong", "é"):
        answer = app_service(door, header.encode().decode("latin-1"))
        assert answer.status_code == 401
        assert answer.json().keys() == {"statusCode", "message", "correlationId"}
    assert app_service(door, None, **{"api-version": "2017-09-01"}).status_code == 400
    assert app_service(door).status_code == 200
    secret = door.simulator.managed_identity_environment("app_service")["IDENTITY_HEADER"]
    assert all(secret not in f"{entry} {entry.headers}" for entry in door.simulator.journal)


def test_other_paths_and_methods_are_refused(host: Callable[..., Door]) -> None:
    door = host("vm")
    assert door.simulator.managed is not None
    assert ask(door, "/metadata/instance", {"Metadata": "true"}).status_code == 404
    answer = door.session.post(f"{door.simulator.managed.url}/msi/token", timeout=10)
    assert answer.status_code == 405


@pytest.mark.parametrize("kind", ["vm", "app_service"])
def test_the_endpoints_meet_the_faults_of_the_sign_in(host: Callable[..., Door], kind: str) -> None:
    door = host(kind, faults=[Fault("sign_in_down", seconds=3, times=1), Fault("sign_in", code=7000112, times=1)])
    asked = imds if kind == "vm" else app_service
    answer = asked(door)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "3")
    assert "AADSTS7000112" in asked(door).text
    assert [text.partition(":")[0] for text in door.simulator.violations] == [
        "before the sign-in's Retry-After had ended"
    ]


def test_a_token_for_the_api_shown_to_the_endpoint_is_a_violation(host: Callable[..., Door]) -> None:
    door = host("vm")
    imds(door, {"Metadata": "true", "Authorization": "Bearer x"})
    imds(door, {"Metadata": "true", "Host": "storage.example"})
    assert [text.partition(":")[0] for text in door.simulator.violations] == [
        "a token to the wrong place",
        "an unknown host in the header Host",
    ]


def test_they_are_there_only_when_asked_for_and_end_with_the_simulator() -> None:
    with Simulator(Fleet(1)) as simulator, pytest.raises(RuntimeError, match="managed_identity=True"):
        simulator.managed_identity_environment("vm")
    before = set(threading.enumerate())
    with Simulator(Fleet(1), managed_identity=True) as simulator:
        url = simulator.managed_identity_environment("vm")["AZURE_POD_IDENTITY_AUTHORITY_HOST"]
        with pytest.raises(ValueError, match="app_service, vm"):
            simulator.managed_identity_environment("arc")
        with requests.Session() as session:
            session.trust_env = False
            assert session.get(url, timeout=5).status_code == 404
    assert set(threading.enumerate()) == before
    with requests.Session() as session:
        session.trust_env = False
        with pytest.raises(requests.ConnectionError):
            session.get(url, timeout=5)
