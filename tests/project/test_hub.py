"""The definition for Meltano Hub: what the code says, and what the hub accepts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT7

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
