"""What was done by hand, with the day: so that a past day can still be asked. Knows no machine."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from mde_simulator.fleet.catalogue import Record

T = TypeVar("T")
History = list[tuple[int, T]]
"""Entries with their days, oldest first."""


def until(history: History[T] | None, day: int) -> list[T]:
    """What was entered up to and with `day`."""
    return [entry for when, entry in history or () if when <= day]


@dataclass
class Ledger:
    """Entries by machine, and by update where it is about one."""

    _changes: dict[str, History[Record]] = field(default_factory=dict)
    _kb_changes: dict[str, Record] = field(default_factory=dict)
    _installs: dict[str, History[tuple[str, bool]]] = field(default_factory=dict)
    _shown: dict[str, History[bool]] = field(default_factory=dict)
    _forgotten: dict[str, History[str]] = field(default_factory=dict)

    # Entries

    def change(self, machine_id: str, day: int, fields: Record) -> None:
        """Properties of the machine are these from that day on."""
        self._changes.setdefault(machine_id, []).append((day, fields))

    def change_kb(self, kb_id: str, fields: Record) -> None:
        """Properties of the update are these, as it is served."""
        self._kb_changes.setdefault(kb_id, {}).update(fields)

    def install(self, machine_id: str, day: int, kb_id: str, *, installed: bool) -> None:
        """The machine has the update from that day on, or misses it."""
        self._installs.setdefault(machine_id, []).append((day, (kb_id, installed)))

    def show(self, machine_id: str, day: int, *, shown: bool) -> None:
        """The application may see the machine from that day on, or not."""
        self._shown.setdefault(machine_id, []).append((day, shown))

    def forget(self, machine_id: str, day: int, product: str) -> None:
        """Nothing is known of a product there from that day on."""
        self._forgotten.setdefault(machine_id, []).append((day, product))

    # What follows from them

    def changes(self, machine_id: str, day: int) -> Record:
        """The properties that are others on `day`; a copy."""
        if machine_id not in self._changes:  # Most are as they were made, and many are asked.
            return {}
        changed: Record = {}
        for fields in until(self._changes[machine_id], day):
            changed |= fields
        return deepcopy(changed)

    def kb_changes(self, kb_id: str) -> Record:
        """The properties of an update that are others; a copy."""
        return deepcopy(self._kb_changes.get(kb_id, {}))

    def installs(self, machine_id: str, day: int) -> dict[str, bool]:
        """Which updates the machine has or misses on `day`, whatever it would by itself."""
        return dict(until(self._installs.get(machine_id), day))

    def is_shown(self, machine_id: str, day: int) -> bool:
        """Whether the application may see the machine on `day`."""
        return until(self._shown.get(machine_id), day)[-1:] != [False]

    def hidden_since(self, machine_id: str) -> int | None:
        """The day from which it may not be seen, if it may not now."""
        when, shown = self._shown.get(machine_id, [(0, True)])[-1]
        return None if shown else when

    def forgotten(self, machine_id: str, day: int) -> list[str]:
        """The products of which nothing is known there on `day`."""
        return until(self._forgotten.get(machine_id), day)
