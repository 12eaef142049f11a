"""A world that moved on: what is not documented, in answers that are well-formed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from mde_simulator import Fault

if TYPE_CHECKING:
    from collections.abc import Callable

    from .door import Door

    Opened = Callable[..., Door]


def listed(door: Door) -> list[dict[str, Any]]:
    """The entries of the first page of the machine list."""
    value: list[dict[str, Any]] = door.get("/api/machines").json()["value"]
    return value


@pytest.mark.parametrize(("text", "name"), [("", "assetOwner"), ("ring", "ring")])
def test_entries_have_a_field_more(opened: Opened, text: str, name: str) -> None:
    door = opened(faults=[Fault("new_field", text=text)]).sign_in()
    assert all(entry[name] == (entry["computerDnsName"] or entry["id"]) for entry in listed(door))


def test_a_field_is_of_another_type(opened: Opened) -> None:
    door = opened(faults=[Fault("new_type")]).sign_in()
    assert all(isinstance(entry["agentVersion"], dict) for entry in listed(door))


def test_an_enumeration_has_a_word_more(opened: Opened) -> None:
    door = opened(faults=[Fault("new_word")]).sign_in()
    assert {entry["healthStatus"] for entry in listed(door)} == {"Quarantined"}
