"""A picture of the fleet: what vulnerability management knew of each device at one moment.

It does not change when the fleet does. In it are the onboarded machines that are listed, those that
left a day ago, and some discovered ones; none that is excluded, or silent for over 30 days. Knows
neither records nor files.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, time, timedelta
from typing import TYPE_CHECKING

from mde_simulator.fleet.devices import BY_HAND, RETENTION

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterable
    from datetime import date

    from mde_simulator.fleet.catalogue import Update
    from mde_simulator.fleet.devices import Device
    from mde_simulator.fleet.truth import Truth

LINGERS = 2
"""A device that left, or may no longer be seen, is there for 2 days more."""
DISCOVERED_EVERY = 4
"""One in 4 of the discovered Windows devices is there."""
HOURS = timedelta(hours=2)
"""The part of a day in which what is new on it is first seen: before the night's run."""


@dataclass(frozen=True)
class Kb:
    """An update as it is served; `cves` is how many CVEs it addresses, `product` who needs it."""

    id: str
    name: str | None
    url: str | None
    products: tuple[str, ...]
    cves: int
    published: date
    product: str
    is_out_of_band: bool
    is_hotpatch: bool


@dataclass(frozen=True)
class Assessed:
    """A device; `missing` are keys of the picture's `kbs`, `arrived` is None for those of the first day.

    Attributes:
        added: Whether a test made it by hand.
        phase: A number from 0 to 1 of its own.
    """

    id: str
    index: int
    added: bool
    phase: float
    name: str | None
    group: str | None
    group_id: int
    platform: str
    version: str
    architecture: str
    onboarded: bool
    arrived: date | None
    missing: tuple[str, ...]

    def first_seen(self, kb: Kb) -> datetime:
        """When the device was first seen without an update (UTC): it came out, or the device came."""
        day = kb.published if self.arrived is None else max(kb.published, self.arrived)
        moment = datetime.combine(day, time()) + HOURS * self.phase
        # Every third one has whole seconds, as Microsoft's example of the JSON response.
        return moment if self.index % 3 else moment.replace(microsecond=0)


@dataclass(frozen=True)
class Content:
    """What is in a picture: devices in the list's order, and every update that one of them misses."""

    now: datetime
    devices: tuple[Assessed, ...]
    kbs: dict[str, Kb]


class Picture:
    """Taken when somebody looks at it, or just before the fleet changes, whichever is first.

    A fleet of 100,000 takes seconds to look at, and most simulators never serve an export.
    """

    def __init__(self, look: Callable[[], Content], lock: threading.RLock) -> None:
        self._look = look
        self._lock = lock
        self._content: Content | None = None

    def take(self) -> Content:
        """What is in it."""
        with self._lock:
            if self._content is None:
                self._content = self._look()
            return self._content


def look(devices: Iterable[Device], truth: Truth, day: int) -> Content:
    """What there is to see on `day`, in the devices' order."""
    assessed, kbs = [], dict[str, Kb]()
    for device in devices:
        if _is_there(device, truth, day):
            missing = _missing(device, truth, day)
            kbs |= {update.id: as_served(update, truth) for update in missing if update.id not in kbs}
            assessed.append(_assessed(device, truth, day, missing))
    return Content(truth.now(day), tuple(assessed), kbs)


def _is_there(device: Device, truth: Truth, day: int) -> bool:
    if not truth.is_known(device, day):
        return False
    if not truth.is_onboarded(device, day):
        discovered = device.index % DISCOVERED_EVERY == 1 and bool(device.platform[2])
        return discovered and truth.is_listed(device, day)
    if truth.is_listed(device, day):
        return True
    hidden = truth.ledger.hidden_since(device.id)
    gone = device.left if hidden is None else min(device.left, hidden)
    return gone <= day < gone + LINGERS and device.silent_for(gone) < RETENTION


def _missing(device: Device, truth: Truth, day: int) -> list[Update]:
    """A discovered device is assessed here, though the API answers nothing of it."""
    return truth.known(device, day) if truth.is_onboarded(device, day) else truth.lacking(device, day)


def _assessed(device: Device, truth: Truth, day: int, missing: list[Update]) -> Assessed:
    record = truth.record(device, day)
    name, group = record["computerDnsName"], record["rbacGroupName"]
    group_id = str(record["rbacGroupId"])
    return Assessed(
        id=device.id,
        index=device.index,
        added=device.index >= BY_HAND,
        phase=device.phase,
        name=name if isinstance(name, str) else None,
        group=group if isinstance(group, str) else None,
        group_id=int(group_id) if group_id.isdecimal() else 0,
        platform=str(record["osPlatform"]),
        version=f"{device.platform[4]}.{device.platform[5]}",
        architecture="arm64" if record["osProcessor"] == "arm64" else "x64",
        onboarded=truth.is_onboarded(device, day),
        arrived=truth.start + timedelta(days=device.joined) if device.joined else None,
        missing=tuple(update.id for update in missing),
    )


def as_served(update: Update, truth: Truth) -> Kb:
    """An update as it is served by now."""
    row = truth.row(update, 0)
    name, url, products, cves = (row[key] for key in ("name", "url", "productsNames", "cveAddressed"))
    return Kb(
        id=str(row["id"]),
        name=name if isinstance(name, str) else None,
        url=url if isinstance(url, str) else None,
        products=tuple(map(str, products)) if isinstance(products, list) and products else update.products,
        cves=cves if isinstance(cves, int) else update.cves,
        published=truth.start + timedelta(days=update.published),
        product=update.product,
        is_out_of_band=update.is_out_of_band,
        is_hotpatch=update.is_hotpatch,
    )
