"""The definition for Meltano Hub: what the code says, and what the hub accepts."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT7

from tap_mde_kbs import settings
from tap_mde_kbs.errors import SettingsError
from tests.support import hub

SCHEMAS = Path(__file__).parents[1] / "support" / "hub_schemas"


@pytest.fixture(scope="module")
def validator() -> Draft7Validator:
    """The hub's own rules, put together as its `plugin_schema_validate.py` does."""
    contents = [json.loads(path.read_text()) for path in SCHEMAS.rglob("*.schema.json")]
    resources = [(each["$id"], Resource.from_contents(each, default_specification=DRAFT7)) for each in contents]
    [extractors] = [each for each in contents if each["$id"] == "extractors.schema.json"]
    return Draft7Validator(extractors, registry=Registry().with_resources(resources))


@pytest.fixture
def definition() -> dict[str, Any]:
    """The file as the hub reads it."""
    return dict(yaml.safe_load(hub.DEFINITION.read_text()))


def test_the_file_says_what_the_code_says() -> None:
    """After a change of the code: `python -m tests.support.hub`."""
    assert hub.DEFINITION.read_text() == hub.rendered()


def test_the_hub_accepts_it(validator: Draft7Validator, definition: dict[str, Any]) -> None:
    """Every rule of its schemas; and a label, which its pages show."""
    assert [error.message for error in validator.iter_errors(definition)] == []
    assert definition["label"]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"name": None}, "None is not of type 'string'"),
        ({"settings": [{"name": "tenant_id", "type": "string"}]}, "'type' was unexpected"),
        ({"settings": [{"name": "tenant_id", "kind": "number"}]}, "'number' is not one of"),
        ({"capabilities": ["everything"]}, "'everything' is not one of"),
        ({"version": "0.1.0"}, "'version' was unexpected"),
    ],
)
def test_the_rules_are_in_force(
    validator: Draft7Validator, definition: dict[str, Any], change: dict[str, Any], complaint: str
) -> None:
    """A definition that the hub refuses is refused here."""
    assert any(complaint in error.message for error in validator.iter_errors(definition | change))


def test_it_needs_no_setting_that_it_does_not_define(definition: dict[str, Any]) -> None:
    names = {each["name"] for each in definition["settings"]}
    assert {name for group in definition["settings_group_validation"] for name in group} <= names


def passes(values: dict[str, str]) -> bool:
    """Whether the tap takes these settings and no others."""
    try:
        settings.check(values, settings.SCHEMA, {})
    except SettingsError:
        return False
    return True


def test_each_group_of_settings_is_enough_and_nothing_in_it_is_too_much(
    definition: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the tap's own check; every way to sign in has one. A federated token's file is as Azure's variable says."""
    monkeypatch.setenv(settings.FEDERATED_TOKEN_VARIABLE, "token")
    ways = {
        group: method
        for group in map(frozenset, definition["settings_group_validation"])
        for method in settings.CREDENTIAL_SETTINGS
        if (method == settings.DEFAULT_CREDENTIAL) == ("auth_method" not in group)
        and set(settings.CREDENTIAL_SETTINGS[method][0]) == group - {"tenant_id", "auth_method"}
    }
    assert set(ways.values()) == set(settings.CREDENTIAL_SETTINGS)
    assert len(ways) == len(definition["settings_group_validation"])
    for group, method in ways.items():
        values = {name: method if name == "auth_method" else "some" for name in group}
        assert passes(values), group
        for name in group - {"auth_method"}:
            assert not passes({other: value for other, value in values.items() if other != name}), (group, name)


def test_with_an_address_it_says_whose_it_is_and_where(validator: Draft7Validator) -> None:
    """Until then it says that it is not published; mkdocs.yml is the one place."""
    assert hub.published({}) == {"variant": "unpublished"}
    site = {"repo_url": "https://github.com/Contoso/tap-mde-kbs/", "site_url": "https://docs.contoso.example/"}
    told = hub.definition(site)
    assert {name: told[name] for name in ("variant", "repo", "pip_url", "docs")} == {
        "variant": "contoso",
        "repo": "https://github.com/Contoso/tap-mde-kbs",
        "pip_url": "tap-mde-kbs",
        "docs": "https://docs.contoso.example/",
    }
    assert hub.published({"repo_url": site["repo_url"]})["docs"] == "https://github.com/Contoso/tap-mde-kbs#readme"
    assert [error.message for error in validator.iter_errors(told)] == []


def test_the_logo_is_what_the_hub_asks_for(definition: dict[str, Any]) -> None:
    """An SVG without text and without a ground, that fetches nothing, by the name that the definition gives."""
    text = hub.LOGO.read_text()
    assert set(re.findall(r"<(\w+)", text)) <= {"svg", "g", "path"}
    assert "href" not in text
    assert "url(" not in text
    assert re.search(r' viewBox="0 0 (\d+) \1"', text)
    assert definition["logo_url"].removeprefix("/assets/logos/extractors/") == "mde-kbs.svg"
    assert f"static{definition['logo_url']}" in hub.DEFINITION.read_text()


def test_people_find_it_by_what_they_look_for(definition: dict[str, Any]) -> None:
    """Words in the hub's manner: small, sorted, each once; its own `meltano_sdk` and `api` among them."""
    words = definition["keywords"]
    assert words == sorted({word.lower() for word in words})
    assert {"api", "meltano_sdk", "microsoft defender", "patch management"} <= set(words)
