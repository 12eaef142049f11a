"""The sign-in: MSAL against it, tokens, and what is refused."""

from __future__ import annotations

import base64
import json
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msal
import pytest

from mde_simulator import Fleet, Simulator
from mde_simulator.entra.entra import ERRORS
from mde_simulator.entra.identity import BEARER_FORMS, ROLES
from mde_simulator.simulator import AUTH_METHODS

from .door import SCOPE
from .signing import opens, sign_in

if TYPE_CHECKING:
    from collections.abc import Callable

    from .door import Door

    Opened = Callable[..., Door]


def msal_token(door: Door, scope: str = SCOPE, **changes: str) -> dict[str, Any]:
    """Sign in as the tap does."""
    config = door.simulator.config | changes
    application = msal.ConfidentialClientApplication(
        config["client_id"],
        client_credential=config["client_secret"],
        authority=f"{config['authority_url']}/{config['tenant_id']}",
        instance_discovery=False,
        http_client=door.session,
    )
    answer: dict[str, Any] = application.acquire_token_for_client([scope])
    return answer


def claims(token: str) -> dict[str, Any]:
    """What is in a token."""
    part = token.split(".")[1]
    read: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return read


def test_msal_signs_in_and_the_token_opens_the_api(opened: Opened) -> None:
    door = opened()
    answer = msal_token(door)
    assert answer["expires_in"] == 3599
    door.session.headers["Authorization"] = f"Bearer {answer['access_token']}"
    assert door.kbs().status_code == 200
    assert door.simulator.violations == []


def test_a_token_has_the_claims_of_a_recorded_one(opened: Opened) -> None:
    door = opened()
    found = claims(msal_token(door)["access_token"])
    assert found.keys() >= {
        *("aud", "iss", "appid", "app_displayname", "tid", "roles", "tenant_region_scope"),
        *("iat", "nbf", "exp"),
    }
    assert found["aud"] == "https://api.securitycenter.microsoft.com"
    assert found["roles"] == list(ROLES)
    assert found["tid"] == door.simulator.config["tenant_id"]
    assert found["exp"] - found["iat"] == 3599


def test_without_roles_there_is_no_such_claim(opened: Opened) -> None:
    assert "roles" not in claims(msal_token(opened(roles=()))["access_token"])


def test_tokens_are_signed_in_three_parts_and_all_different(opened: Opened) -> None:
    door = opened()
    tokens = {door.token().json()["access_token"] for _ in range(3)}
    assert len(tokens) == 3
    assert all(re.fullmatch(r"[\w-]+\.[\w-]+\.[\w-]+", token) for token in tokens)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"client_secret": "wrong"}, 7000215),
        ({"client_id": "00000000-0000-0000-0000-000000000000"}, 700016),
        ({"scope": "https://api.securitycenter.microsoft.com"}, 1002012),
        ({"scope": "https://api-gov.securitycenter.microsoft.us/.default"}, 500011),
    ],
)
def test_entra_says_why_it_refuses(opened: Opened, changes: dict[str, str], code: int) -> None:
    answer = msal_token(opened(), **changes)
    assert answer["error_codes"] == [code]
    assert answer["error_description"].startswith(f"AADSTS{code}: ")
    for part in ("Trace ID: ", "Correlation ID: ", "Timestamp: "):
        assert part in answer["error_description"]
    assert answer["trace_id"] in answer["error_description"]
    assert answer["correlation_id"] in answer["error_description"]


def test_no_such_tenant_is_said_by_the_discovery_and_by_the_token_endpoint(opened: Opened) -> None:
    door = opened()
    answer = door.token(tenant_id="11111111-1111-1111-1111-111111111111")
    assert (answer.status_code, answer.json()["error_codes"]) == (400, [90002])
    with pytest.raises(ValueError, match="authority"):
        msal_token(door, tenant_id="11111111-1111-1111-1111-111111111111")


@pytest.mark.parametrize(
    ("form", "code"),
    [
        ({"grant_type": "password"}, 70003),
        ({"grant_type": "client_credentials"}, 700016),
    ],
)
def test_a_form_that_lacks_something_is_refused(opened: Opened, form: dict[str, str], code: int) -> None:
    door = opened()
    url = f"{door.simulator.url}/{door.simulator.config['tenant_id']}/oauth2/v2.0/token"
    assert door.session.post(url, data=form, timeout=10).json()["error_codes"] == [code]


def test_a_secret_may_come_in_the_header_or_be_missing(opened: Opened) -> None:
    door = opened()
    config = door.simulator.config
    url = f"{door.simulator.url}/{config['tenant_id']}/oauth2/v2.0/token"
    form = {"grant_type": "client_credentials", "scope": SCOPE}
    good = (config["client_id"], config["client_secret"])
    assert door.session.post(url, data=form, auth=good, timeout=10).status_code == 200
    headers = {"Authorization": "Basic a"}
    codes = [
        door.session.post(url, data=form | more, headers=headers, timeout=10).json()["error_codes"]
        for more in ({}, {"client_id": config["client_id"]})
    ]
    assert codes == [[7000218], [7000218]]
    del headers["Authorization"]
    form |= {"client_id": config["client_id"]}
    assert door.session.post(url, data=form, timeout=10).json()["error_codes"] == [7000218]
    assert door.simulator.violations == []


def test_the_older_endpoint_with_a_resource_works_too(opened: Opened) -> None:
    door = opened()
    config = door.simulator.config
    form = {"grant_type": "client_credentials", "resource": "https://api.securitycenter.microsoft.com"}
    form |= {name: config[name] for name in ("client_id", "client_secret")}
    url = f"{door.simulator.url}/{config['tenant_id']}/oauth2/token"
    answer = door.session.post(url, data=form, timeout=10).json()
    assert answer["expires_in"] == "3599"
    door.session.headers["Authorization"] = f"Bearer {answer['access_token']}"
    assert door.kbs().status_code == 200


def test_the_older_scope_and_the_simulators_own_are_taken_by_the_api(opened: Opened) -> None:
    door = opened()
    own = f"{door.simulator.url}/.default"
    for scope in ("https://securitycenter.onmicrosoft.com/windowsatpservice/.default", own):
        assert door.sign_in(scope).kbs().status_code == 200


def test_a_token_for_another_service_is_forbidden(opened: Opened) -> None:
    answer = opened().sign_in("https://graph.microsoft.com/.default").kbs()
    assert answer.status_code == 403
    assert "audience" in answer.json()["error"]["message"]


def test_a_token_dies_at_its_time_and_that_is_no_violation(opened: Opened) -> None:
    door = opened(token_life=1).sign_in()
    assert door.kbs().status_code == 200
    time.sleep(1.05)
    answer = door.kbs()
    assert answer.status_code == 401
    error = answer.json()["error"]
    assert error["code"] == "Unauthorized"
    assert error["message"] == "invalid or expired authorization header"
    assert door.sign_in().kbs().status_code == 200
    assert door.simulator.violations == []


def test_every_code_that_is_documented_can_be_said(opened: Opened) -> None:
    documented = {
        *(7000215, 7000222, 700016, 90002, 700027, 500011, 1002012, 700024, 70021, 700213, 65001),
        *(7000112, 7000229, 53003),
    }
    assert documented <= set(ERRORS)
    identity = opened().simulator.identity
    for code in ERRORS:
        answer = identity.refusal(code, "tenant", "app", "resource")
        body = json.loads(answer.body)
        assert body["error_description"].startswith(f"AADSTS{code}: ")
        assert "{" not in body["error_description"]
        assert answer.status in (400, 401)
        assert body["error_codes"] == [code]


def test_other_paths_and_methods_are_refused(opened: Opened) -> None:
    door = opened()
    assert door.get("/").status_code == 404
    assert door.get("/api").status_code == 404
    tenant = door.simulator.config["tenant_id"]
    assert door.get(f"/{tenant}/oauth2/v2.0/token").status_code == 405
    assert door.get(f"/{tenant}/oauth2/v2.0/authorize").status_code == 404


# What a token looks like


@pytest.mark.parametrize("form", [*BEARER_FORMS])
def test_the_api_takes_a_token_of_any_form(opened: Opened, form: str) -> None:
    door = opened(bearer_form=form)
    token = msal_token(door)["access_token"]
    door.session.headers["Authorization"] = f"Bearer {token}"
    assert door.kbs().status_code == 200
    assert token != msal_token(door)["access_token"]
    if form == "opaque":
        assert "." not in token
    elif form == "no_json":
        with pytest.raises(ValueError, match=r"\w"):
            claims(token)
    else:
        seen = {"jwt": list(ROLES), "no_roles": None, "odd_roles": 7, "text_roles": ROLES[0]}
        assert claims(token).get("roles") == seen[form]


def test_the_form_may_change_and_an_unknown_one_is_refused(opened: Opened) -> None:
    door = opened()
    door.simulator.identity.bearer_form = "opaque"
    assert "." not in door.token().json()["access_token"]
    with pytest.raises(ValueError, match="opaque"):
        Simulator(Fleet(1), bearer_form="nonsense")


@pytest.mark.parametrize("method", AUTH_METHODS)
def test_the_settings_for_every_credential_are_made_by_the_simulator(opened: Opened, method: str) -> None:
    door = opened(managed_identity=True)
    settings = door.simulator.settings_for(method)
    own = {
        "client_secret": {"client_id", "client_secret"},
        "certificate": {"client_id", "certificate_file"},
        "federated_token": {"client_id", "federated_token_file"},
        "managed_identity": set(),
    }[method]
    assert settings.keys() == {"auth_method", "tenant_id", "api_url", "authority_url"} | own
    assert settings["auth_method"] == method
    if method == "certificate":
        pem = Path(settings["certificate_file"]).read_text()
        assert opens(door, sign_in(door, {"private_key": pem, "public_certificate": pem})["access_token"])
    elif method == "federated_token":
        read = Path(settings["federated_token_file"]).read_text().strip
        assert opens(door, sign_in(door, {"client_assertion": read})["access_token"])
    with pytest.raises(ValueError, match="managed_identity"):
        door.simulator.settings_for("password")
