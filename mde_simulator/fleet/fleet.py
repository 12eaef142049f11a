"""The fleet: which machines a tenant has, and which updates each of them misses, on any day.

State only: it knows no HTTP. The same for the same seed; time passes by `pass_days`, and every
past day can still be asked, so that a test knows the truth. What is done by hand (`install`,
`remove`, `change`, …) happens on the present day. Safe to use while a server answers from it.
"""

from __future__ import annotations

import threading
from collections import Counter
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import KW_ONLY, dataclass, field, replace
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING
from weakref import WeakSet

from mde_simulator.dice import dice
from mde_simulator.fleet.catalogue import Catalogue, Record, Update
from mde_simulator.fleet.devices import BY_HAND, EXCLUSION_REASONS, SNAPSHOT, Device, Shares, make_device
from mde_simulator.fleet.ledger import Ledger
from mde_simulator.fleet.picture import Kb, Picture, as_served, look
from mde_simulator.fleet.truth import Truth

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

START = date(2026, 1, 5)
ARRIVALS = 0.001
"""New machines a day for each machine of the first day."""
DUPLICATE_DISTANCE = 25
"""A duplicate is served again about 25 places after the first."""


@dataclass(eq=False)
class Fleet:
    """A tenant's machines.

    Args:
        machines: How many are listed on day 0 (distinct ids), the discovered ones among them.
        seed: Another seed, another fleet.
        night: The day to begin on, the same as passing that many days.
        start: The date of day 0.
        discovered: The share of devices that were only discovered, not onboarded.
        excluded: The share of devices that people excluded; Defender shows no vulnerabilities of theirs.
        silent: The share of devices that have been silent from the start, for up to 60 days. More fall
            silent as time passes; after 30 days Defender shows no vulnerabilities of theirs.
        behind: The share of devices that install nothing, more than do so anyway; after 150 nights such a
            device lacks some 25 updates.
        duplicates: The share of machines whose id comes twice in the listing.
        extra_fields: Properties nobody documented, added to every machine.
    """

    machines: int = 250
    seed: int = 0
    _: KW_ONLY
    night: int = 0
    start: date = START
    discovered: float = 0.1
    excluded: float = 0.025
    silent: float = 0.03
    behind: float = 0.0
    duplicates: float = 0.01
    extra_fields: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.machines < 0 or self.night < 0:
            msg = "A fleet has no fewer than 0 machines, and begins on day 0 or later."
            raise ValueError(msg)
        self.day = self.night
        self.version = 0
        self._lock = threading.RLock()
        self._catalogue = Catalogue(self.seed, self.start)
        self._ledger = Ledger()
        self._truth = Truth(self.start, self._catalogue, self._ledger)
        self._arrived_until = 0
        self._arrival_phase = dice(self.seed, "arrivals").random()
        self._shares = Shares(self.discovered, self.excluded, self.silent, self.behind)
        self._devices = [make_device(self.seed, index, 0, self._shares) for index in range(self.machines)]
        self._added: list[Device] = []
        self._by_id = {device.id: device for device in self._devices}
        self._repeated: set[str] = set()
        self._order = 0
        self._cache: dict[tuple[object, ...], object] = {}
        self._pictures: WeakSet[Picture] = WeakSet()
        self._arrive()

    # Time

    @property
    def now(self) -> datetime:
        """The simulated time of the present day's run."""
        return self._truth.now(self.day)

    def pass_days(self, days: int = 1) -> None:
        """Let time pass: updates are published and installed, machines come, fall silent, leave."""
        if days < 0:
            msg = "Time passes forwards only."
            raise ValueError(msg)
        with self._changing():
            self.day += days
            self._arrive()

    pass_nights = pass_days

    def _arrive(self) -> None:
        while self._arrived_until < self.day:
            self._arrived_until += 1
            wanted = int(self.machines * ARRIVALS * self._arrived_until + self._arrival_phase)
            for index in range(len(self._devices), self.machines + wanted):
                device = make_device(self.seed, index, self._arrived_until, self._shares)
                self._devices.append(device)
                self._by_id[device.id] = device

    # What is there

    def listed(self, day: int | None = None) -> tuple[str, ...]:
        """The ids of the machines that the API lists, each once, in its order."""
        day = self._day(day)
        with self._lock:
            key = ("listed", self.version, day)
            if key not in self._cache:
                self._cache[key] = tuple(
                    device.id for device in (*self._devices, *self._added) if self._truth.is_listed(device, day)
                )
            found = self._cache[key]
            return found if isinstance(found, tuple) else ()

    def onboarded(self, day: int | None = None) -> tuple[str, ...]:
        """The listed machines that are onboarded; a null status counts as onboarded."""
        day = self._day(day)
        with self._lock:
            return tuple(id_ for id_ in self.listed(day) if self._truth.is_onboarded(self._by_id[id_], day))

    def listing(self) -> list[str]:
        """The ids as the list serves them: some twice, and in another order after `shuffle`."""
        with self._lock:
            ids = list(self.listed())
            if self._order:
                dice(self.seed, "order", self._order).shuffle(ids)
            return self._with_duplicates(ids)

    def machine(self, machine_id: str) -> Record:
        """A machine as the API shows it today, a copy.

        Raises:
            KeyError: It is not listed.
        """
        with self._lock:
            device = self._by_id[machine_id]
            if not self._truth.is_listed(device, self.day):
                raise KeyError(machine_id)
            return deepcopy(dict(self.extra_fields)) | self._truth.record(device, self.day)

    def is_listed(self, machine_id: str) -> bool:
        """Whether the API knows this id today."""
        with self._lock:
            device = self._by_id.get(machine_id)
            return device is not None and self._truth.is_listed(device, self.day)

    def not_assessed(self, day: int | None = None) -> dict[str, str]:
        """Why Defender knows nothing, or soon will not, of some listed machines.

        Returns:
            For each of them "not_onboarded", "excluded" or "silent", the first that is true. Silent is
            who reported last more than 30 days before the machine that reported last of all. What was
            known of it is shown until 30 whole days have passed, so for a day it may still be.
        """
        day = self._day(day)
        with self._lock:
            seen = {id_: self.last_seen(id_, day) for id_ in self.listed(day)}
            newest = max((moment for moment in seen.values() if moment is not None), default=None)
            reasons = {}
            for id_, moment in seen.items():
                if not self._truth.is_onboarded(self._by_id[id_], day):
                    reasons[id_] = "not_onboarded"
                elif self._truth.is_excluded(self._by_id[id_], day):
                    reasons[id_] = "excluded"
                elif moment is not None and newest is not None and newest - moment > timedelta(days=SNAPSHOT):
                    reasons[id_] = "silent"
            return reasons

    def assessed(self, day: int | None = None) -> tuple[str, ...]:
        """The listed machines that are not in `not_assessed`: whose answers say something."""
        day = self._day(day)
        with self._lock:
            unknown = self.not_assessed(day)
            return tuple(id_ for id_ in self.listed(day) if id_ not in unknown)

    def last_seen(self, machine_id: str, day: int | None = None) -> datetime | None:
        """When a machine reported last, as it is listed; None: the list does not say."""
        day = self._day(day)
        with self._lock:
            return self._truth.last_seen(self._by_id[machine_id], day)

    def missing(self, day: int | None = None) -> dict[str, frozenset[str]]:
        """What Defender knows each listed and onboarded machine to miss, today or on a past day.

        Of a machine that is excluded, or silent for over 30 days, it knows nothing: an empty set. What
        such a machine lacks nevertheless is in `lacking`.
        """
        day = self._day(day)
        with self._lock:
            return {
                id_: frozenset(update.id for update in self._truth.known(self._by_id[id_], day))
                for id_ in self.onboarded(day)
            }

    def lacking(self, day: int | None = None) -> dict[str, frozenset[str]]:
        """What each onboarded machine that is there really lacks.

        Whether or not Defender knows, or lists the machine: it may be hidden, or silent for too long.
        """
        day = self._day(day)
        with self._lock:
            return {
                device.id: frozenset(update.id for update in self._truth.lacking(device, day))
                for device in (*self._devices, *self._added)
                if device.joined <= day < device.left and self._truth.is_onboarded(device, day)
            }

    def missing_kbs(self, machine_id: str) -> list[Record]:
        """The rows that `getmissingkbs` serves today; none for a machine that is not assessed.

        Raises:
            KeyError: The machine is not listed.
        """
        with self._lock:
            if not self.is_listed(machine_id):
                raise KeyError(machine_id)
            missed_on = self.missed_on()
            return [
                self._truth.row(update, missed_on[update.id])
                for update in self._truth.known(self._by_id[machine_id], self.day)
            ]

    def kb(self, kb_id: str) -> Record:
        """An update that is published by today, as a row of a response.

        Raises:
            KeyError: There is no such update yet.
        """
        with self._lock:
            return self._truth.row(self._update(kb_id), self.missed_on()[kb_id])

    def kbs(self, day: int | None = None) -> tuple[str, ...]:
        """The updates published by then, oldest first."""
        day = self._day(day)
        with self._lock:
            return tuple(update.id for update in self._catalogue.published(day))

    def updates(self, day: int | None = None) -> list[Kb]:
        """The updates published by then as they are served, oldest first."""
        day = self._day(day)
        with self._lock:
            return [as_served(update, self._truth) for update in self._catalogue.published(day)]

    def missed_on(self) -> Counter[str]:
        """On how many machines each update is missing today."""
        with self._lock:
            key = ("missed_on", self.version)
            if key not in self._cache:
                self._cache[key] = Counter(
                    update.id for id_ in self.onboarded() for update in self._truth.known(self._by_id[id_], self.day)
                )
            found = self._cache[key]
            return found if isinstance(found, Counter) else Counter()

    def products(self, kb_id: str) -> tuple[str, ...]:
        """The products of an update, whatever `change_kb` says of its row."""
        with self._lock:
            return self._update(kb_id).products

    def exposure(self, product: str) -> tuple[int, int]:
        """On how many machines a product misses an update, and on how many it is installed."""
        with self._lock:
            having = [id_ for id_ in self.onboarded() if product in self._by_id[id_].software]
            exposed = sum(
                any(product in update.products for update in self._truth.known(self._by_id[id_], self.day))
                for id_ in having
            )
            return exposed, len(having)

    def picture(self) -> Picture:
        """What vulnerability management knows now; later changes do not change it.

        Who is in it says `picture.py`.
        """
        with self._lock:
            picture = Picture(lambda: look((*self._devices, *self._added), self._truth, self.day), self._lock)
            self._pictures.add(picture)
            return picture

    # What a test does by hand

    def install(self, machine_id: str, kb_id: str) -> None:
        """From today on the machine has the update."""
        with self._changing():
            self._ledger.install(self._by_id[machine_id].id, self.day, self._update(kb_id).id, installed=True)

    def uninstall(self, machine_id: str, kb_id: str) -> None:
        """From today on the machine misses the update, whatever its software."""
        with self._changing():
            self._ledger.install(self._by_id[machine_id].id, self.day, self._update(kb_id).id, installed=False)

    def remove(self, *machine_ids: str) -> None:
        """The machines leave today, for good."""
        with self._changing():
            self._replace(replace(self._by_id[id_], left=self.day) for id_ in machine_ids)

    def add(self, **fields: object) -> str:
        """A machine comes today, plain but for `fields` (in the API's names). Its id is given."""
        with self._changing():
            made = make_device(self.seed, BY_HAND + len(self._added), self.day, Shares(0, 0, 0, 0))
            device = replace(made, id=str(fields.get("id", made.id)), silences=())
            if device.id in self._by_id:
                msg = f"There is a machine {device.id} already."
                raise ValueError(msg)
            self._added.append(device)
            self._by_id[device.id] = device
            self.change(device.id, **fields)
            return device.id

    def change(self, machine_id: str, **fields: object) -> None:
        """Set properties of a machine, documented or not, from today on."""
        with self._changing():
            self._ledger.change(self._by_id[machine_id].id, self.day, fields)

    def change_kb(self, kb_id: str, **fields: object) -> None:
        """Set properties of an update as it is served."""
        with self._changing():
            self._ledger.change_kb(self._update(kb_id).id, fields)

    def silence(self, *machine_ids: str) -> None:
        """The machines report today for the last time."""
        self._set_silence(machine_ids, (self.day, None))

    def report(self, *machine_ids: str) -> None:
        """The machines report from today on, and install what they put off."""
        self._set_silence(machine_ids)

    def exclude(self, *machine_ids: str) -> None:
        """People exclude the machines today."""
        for machine_id in machine_ids:
            self.change(machine_id, isExcluded=True, exclusionReason=EXCLUSION_REASONS[0])

    def include(self, *machine_ids: str) -> None:
        """People take the exclusion back today."""
        for machine_id in machine_ids:
            self.change(machine_id, isExcluded=False, exclusionReason=None)

    def forget_software(self, machine_id: str, product: str) -> None:
        """From today on Defender knows nothing of a product there: it had no events for 30 days."""
        with self._changing():
            self._ledger.forget(self._by_id[machine_id].id, self.day, product)

    def repeat(self, *machine_ids: str) -> None:
        """The listing has each of these twice in a row, and the rest one place later."""
        with self._changing():
            self._repeated.update(self._by_id[id_].id for id_ in machine_ids)

    def shuffle(self) -> None:
        """The listing comes in another order from now on."""
        with self._changing():
            self._order += 1

    def hide(self, machine_ids: Iterable[str]) -> None:
        """From today on the application may not see these: a device group was taken away."""
        with self._changing():
            for machine_id in machine_ids:
                self._ledger.show(self._by_id[machine_id].id, self.day, shown=False)

    def show(self, machine_ids: Iterable[str]) -> None:
        """The application may see these again."""
        with self._changing():
            for machine_id in machine_ids:
                self._ledger.show(self._by_id[machine_id].id, self.day, shown=True)

    # Inner workings; the lock is held

    def _day(self, day: int | None) -> int:
        if day is None:
            return self.day
        if not 0 <= day <= self.day:
            msg = f"Day {day} is not between 0 and today, {self.day}."
            raise ValueError(msg)
        return day

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Something changes: pictures that nobody looked at are taken just before."""
        with self._lock:
            for picture in list(self._pictures):
                picture.take()
            self._pictures.clear()
            yield
            self.version += 1
            self._cache.clear()

    def _set_silence(self, machine_ids: Iterable[str], *following: tuple[int, int | None]) -> None:
        """End the silence of today; what follows takes the place of any later one."""
        with self._changing():
            devices = [self._by_id[id_] for id_ in machine_ids]
            for device in devices:
                before = [
                    (first, self.day if end is None else min(end, self.day))
                    for first, end in device.silences
                    if first < self.day
                ]
                self._replace([replace(device, silences=(*before, *following))])

    def _replace(self, devices: Iterable[Device]) -> None:
        """Put changed devices in their places."""
        self._by_id |= {device.id: device for device in devices}
        for all_ in (self._devices, self._added):
            all_[:] = [self._by_id[device.id] for device in all_]

    def _update(self, kb_id: str) -> Update:
        for update in self._catalogue.published(self.day):
            if update.id == kb_id:
                return update
        raise KeyError(kb_id)

    def _with_duplicates(self, ids: list[str]) -> list[str]:
        every = max(1, round(1 / self.duplicates)) if self.duplicates else 0
        twice = {id_ for id_ in ids if every and self._by_id[id_].index % every == every // 4}
        listing: list[str] = []
        due: list[str] = []
        for position, id_ in enumerate(ids):
            listing.extend([id_, id_] if id_ in self._repeated else [id_])
            due.extend([id_] if id_ in twice else [])
            if due and position % DUPLICATE_DISTANCE == DUPLICATE_DISTANCE - 1:
                listing.extend(due)
                due.clear()
        return listing + due
