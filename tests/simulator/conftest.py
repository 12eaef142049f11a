"""Fixtures of the simulator's own tests."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from mde_simulator import Fleet, Simulator

from .door import Door

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def opened() -> Iterator[Callable[..., Door]]:
    """Open a simulator with these options; the door to it is not signed in yet."""
    with ExitStack() as stack:

        def open_door(fleet: Fleet | None = None, **options: Any) -> Door:
            simulator = Simulator(fleet or Fleet(40, seed=1), **options)
            return stack.enter_context(Door(simulator))

        yield open_door


@pytest.fixture
def door(opened: Callable[..., Door]) -> Iterator[Door]:
    """Forty machines, signed in; no violation is left behind."""
    door = opened().sign_in()
    yield door
    assert door.simulator.violations == []
