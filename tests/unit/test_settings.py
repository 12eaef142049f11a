"""Settings: what belongs together, and where each cloud is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tap_mde_kbs import settings
from tap_mde_kbs.errors import SettingsError

if TYPE_CHECKING:
    from pathlib import Path

TENANT = {"tenant_id": "contoso.example"}
METHODS: dict[str, dict[str, str]] = {
    "client_secret": {"client_id": "app", "client_secret": "hush"},
    "certificate": {"client_id": "app", "certificate_file": "pair.pem"},
    "federated_token": {"client_id": "app", "federated_token_file": "token"},
    "managed_identity": {},
}


def problems(config: dict[str, Any]) -> list[str]:
    try:
        settings.check(config, settings.SCHEMA, {})
    except SettingsError as error:
        return str(error).splitlines()
    return []


@pytest.mark.parametrize(
    ("cloud", "authority_url", "api_url", "token_scope"),
    [
        (
            "commercial",
            "https://login.microsoftonline.com",
            "https://api.securitycenter.microsoft.com",
            "https://api.securitycenter.microsoft.com/.default",
        ),
        (
            "gcc",
            "https://login.microsoftonline.com",
            "https://api-gcc.securitycenter.microsoft.us",
            "https://api-gcc.securitycenter.microsoft.us/.default",
        ),
        (
            "gcc_high",
            "https://login.microsoftonline.us",
            "https://api-gov.securitycenter.microsoft.us",
            "https://api-gov.securitycenter.microsoft.us/.default",
        ),
        (
            "dod",
            "https://login.microsoftonline.us",
            "https://api-gov.securitycenter.microsoft.us",
            "https://api-gov.securitycenter.microsoft.us/.default",
        ),
    ],
)
def test_each_cloud_is_where_microsoft_says(cloud: str, authority_url: str, api_url: str, token_scope: str) -> None:
    assert settings.endpoints({"cloud": cloud}) == settings.Endpoints(authority_url, api_url, token_scope)


def test_without_a_cloud_it_is_the_commercial_one() -> None:
    assert settings.endpoints({}) == settings.CLOUDS["commercial"]


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("api_url", "https://eu.api.security.microsoft.com"),
        ("authority_url", "https://login.example"),
        ("token_scope", "https://securitycenter.onmicrosoft.com/windowsatpservice/.default"),
    ],
)
def test_an_override_replaces_one_thing_and_no_other(setting: str, value: str) -> None:
    found = settings.endpoints({"cloud": "gcc_high", setting: value})
    assert found == settings.Endpoints(**{**vars(settings.CLOUDS["gcc_high"]), setting: value})


def test_a_slash_at_the_end_of_a_url_does_no_harm() -> None:
    assert settings.endpoints({"api_url": "https://api.example/"}).api_url == "https://api.example"


@pytest.mark.parametrize("method", METHODS)
def test_each_credential_needs_its_settings_and_no_others(method: str) -> None:
    assert problems({**TENANT, "auth_method": method, **METHODS[method]}) == []


@pytest.mark.parametrize("method", METHODS)
def test_what_a_credential_misses_is_named(method: str) -> None:
    for name in METHODS[method]:
        config = {**TENANT, "auth_method": method, **METHODS[method]}
        del config[name]
        [told] = problems(config)
        assert told.startswith(f"Missing setting: {name}.")


@pytest.mark.parametrize("method", METHODS)
def test_what_belongs_to_another_credential_is_named_with_the_way_out(method: str) -> None:
    for other, theirs in METHODS.items():
        for name in set(theirs) - set(METHODS[method]) - {"client_id"}:
            [told] = problems({**TENANT, "auth_method": method, **METHODS[method], name: "x"})
            assert told == (
                f"The setting {name} does not belong to auth_method {method}. "
                f"Set auth_method to {other}, or leave {name} out."
            )


def test_a_passphrase_belongs_to_a_certificate_alone() -> None:
    assert problems({**TENANT, **METHODS["client_secret"], "certificate_passphrase": "hush"})
    assert not problems(
        {**TENANT, "auth_method": "certificate", **METHODS["certificate"], "certificate_passphrase": "hush"}
    )


def test_the_token_file_may_be_named_by_the_webhooks_variable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AZURE_FEDERATED_TOKEN_FILE", str(tmp_path / "token"))
    assert problems({**TENANT, "auth_method": "federated_token", "client_id": "app"}) == []


def test_a_managed_identity_may_be_user_assigned() -> None:
    assert problems({**TENANT, "auth_method": "managed_identity", "client_id": "identity"}) == []


def test_the_secret_settings_are_known_as_such() -> None:
    assert set(settings.SECRETS) == {"client_secret", "certificate_passphrase"}


RENAMED = {"timeout": "request_timeout_seconds", "old_secret": "client_secret"}


def read_by_old_names(
    monkeypatch: pytest.MonkeyPatch, config: dict[str, Any], *, with_environment: bool = False
) -> tuple[dict[str, Any], list[str]]:
    """The settings where two have other names now, and what is said."""
    monkeypatch.setattr(settings, "RENAMED", RENAMED)
    said: list[str] = []
    found, unreadable = settings.read(config, settings.SCHEMA, said.append, with_environment=with_environment)
    assert not unreadable
    return found, said


def test_an_old_settings_name_is_still_read_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the setting that it is, and without its value."""
    found, _ = read_by_old_names(monkeypatch, {"timeout": " 30 ", "old_secret": "hush"})
    assert found == {"request_timeout_seconds": 30, "client_secret": "hush"}
    _, [said] = read_by_old_names(monkeypatch, {"old_secret": "hush"})
    assert said == (
        "The setting old_secret (TAP_MDE_KBS_OLD_SECRET in the environment) is called client_secret "
        "(TAP_MDE_KBS_CLIENT_SECRET) now. The old name is still read, but not for ever: change it."
    )


def test_an_old_variables_name_is_still_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Also in a `.env`; what is given by today's name counts."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("TAP_MDE_KBS_TIMEOUT=30\n")
    found, [said] = read_by_old_names(monkeypatch, {}, with_environment=True)
    assert found == {"request_timeout_seconds": 30}
    assert said.startswith("The setting timeout (TAP_MDE_KBS_TIMEOUT in the environment)")
    found, _ = read_by_old_names(monkeypatch, {"request_timeout_seconds": 20}, with_environment=True)
    assert found == {"request_timeout_seconds": 20}


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("TAP_MDE_KBS_CLOUDD", "Did you mean TAP_MDE_KBS_CLOUD?"),
        ("TAP_MDE_KBS_SECRET", "Did you mean TAP_MDE_KBS_CLIENT_SECRET?"),
        ("tap_mde_kbs_cloud", "Did you mean TAP_MDE_KBS_CLOUD?"),
        ("TAP_MDE_KBS_FOO", "`tap-mde-kbs --about` lists the settings."),
    ],
)
def test_a_variable_of_no_setting_is_named(monkeypatch: pytest.MonkeyPatch, name: str, advice: str) -> None:
    """And its value is not."""
    monkeypatch.setenv(name, "hush")
    found, said = read_by_old_names(monkeypatch, {}, with_environment=True)
    assert found == {}
    assert said == [f"The environment variable {name} is of no setting, and ignored. {advice}"]


@pytest.mark.parametrize("name", ["TAP_MDE_KBS_LOGLEVEL", "TAP_MDE_KBS__SELECT", "TAP_MDE_KBSX", "TAP_MDE_KBS_CLOUD"])
def test_a_variable_of_meltano_or_the_sdk_is_not(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "dod")
    assert read_by_old_names(monkeypatch, {}, with_environment=True)[1] == []


def test_without_the_environment_no_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAP_MDE_KBS_CLOUDD", "dod")
    assert read_by_old_names(monkeypatch, {})[1] == []


def test_what_is_renamed_is_a_setting_by_its_new_name_alone() -> None:
    known = settings.SCHEMA["properties"]
    assert set(settings.RENAMED.values()) <= set(known)
    assert not set(settings.RENAMED) & set(known)
