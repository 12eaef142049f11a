"""Which fault a request meets, by rule, or by chance with a seed. What it does then is its kind's affair."""

from __future__ import annotations

import threading
from collections import Counter
from typing import TYPE_CHECKING

from mde_simulator.dice import dice
from mde_simulator.faults.fault import KINDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from mde_simulator.faults.fault import Fault


class Faults:
    """The faults of a tenant, to be changed at any time; the first that strikes is it.

    Chance does not depend on how threads take turns: it is drawn from the seed, the fault, the
    path, and how often that path was asked.
    """

    def __init__(self, faults: Iterable[Fault] = (), seed: int = 0) -> None:
        self.seed = seed
        self._lock = threading.Lock()
        self._faults: list[Fault] = []
        self._seen: Counter[tuple[int, str]] = Counter()
        self._matched: Counter[tuple[int, str]] = Counter()
        self._struck: Counter[tuple[int, str]] = Counter()
        self._offset = 0
        self.add(*faults)

    def __iter__(self) -> Iterator[Fault]:
        return iter(list(self._faults))

    def add(self, *faults: Fault) -> None:
        """From now on these too."""
        with self._lock:
            self._faults.extend(faults)

    def clear(self) -> None:
        """From now on all is well."""
        with self._lock:
            self._offset += len(self._faults)
            self._faults.clear()

    def strike(self, method: str, path: str, machine_id: str | None = None, *, walking: bool = False) -> Fault | None:
        """The fault that this request meets, counted as met.

        Args:
            method: The request's.
            path: Decoded, without the query.
            machine_id: The machine it is about.
            walking: Whether it asks for a further page of a list.
        """
        with self._lock:
            for number, fault in enumerate(self._faults, self._offset):
                if KINDS[fault.kind].walking and not walking:
                    continue
                if fault.concerns(method, path, machine_id) and self._strikes(number, fault, path):
                    return fault
        return None

    def _strikes(self, number: int, fault: Fault, path: str) -> bool:
        kind = KINDS[fault.kind]
        each = fault.each or kind.each
        key = (number, path if each else "")
        times = kind.times if fault.times is None else fault.times
        self._seen[number, path] += 1
        draw = 0 if each else self._seen[number, path]
        if fault.chance < 1 and dice(self.seed, number, path, draw).random() >= fault.chance:
            return False
        self._matched[key] += 1
        if self._matched[key] <= fault.after:
            return False
        if times is not None and self._struck[key] >= times:
            return False
        self._struck[key] += 1
        return True
