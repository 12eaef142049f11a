"""The truth about one device on one day, and what Defender knows of it. These are not the same.

It follows from the device, the catalogue, and what was done by hand. Knows nothing of other devices.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, time, timedelta, timezone
from typing import TYPE_CHECKING

from mde_simulator.fleet.devices import SNAPSHOT, describe, instant

if TYPE_CHECKING:
    from datetime import date

    from mde_simulator.fleet.catalogue import Catalogue, Record, Update
    from mde_simulator.fleet.devices import Device
    from mde_simulator.fleet.ledger import Ledger

NIGHT = time(2, 0, tzinfo=timezone.utc)
"""The time of day at which a night's run finds the fleet."""


@dataclass
class Truth:
    """Answers for any device and day; `start` is the date of day 0."""

    start: date
    catalogue: Catalogue
    ledger: Ledger

    def now(self, day: int) -> datetime:
        """The simulated time of a day's run."""
        return datetime.combine(self.start + timedelta(days=day), NIGHT)

    # As it is listed

    def is_listed(self, device: Device, day: int) -> bool:
        """Whether the API lists it."""
        return device.present(day) and self.ledger.is_shown(device.id, day)

    def record(self, device: Device, day: int) -> Record:
        """As the API shows it."""
        return describe(device, day, self.now(day)) | self.ledger.changes(device.id, day)

    def is_onboarded(self, device: Device, day: int) -> bool:
        """Whether it is onboarded; a null status counts as that."""
        status = "Onboarded" if device.onboarded else ""
        return self.ledger.changes(device.id, day).get("onboardingStatus", status) in ("Onboarded", None)

    def is_excluded(self, device: Device, day: int) -> bool:
        """Whether people excluded it."""
        return bool(self.ledger.changes(device.id, day).get("isExcluded", device.excluded))

    def last_seen(self, device: Device, day: int) -> datetime | None:
        """When it reported last, as it is listed; None: the list does not say."""
        changes = self.ledger.changes(device.id, day)
        if "lastSeen" in changes:
            text = changes["lastSeen"]
            return instant(text) if isinstance(text, str) else None
        return None if device.null == "lastSeen" else device.last_seen(day, self.now(day))

    # What it lacks

    def lacking(self, device: Device, day: int) -> list[Update]:
        """The updates that it really lacks."""
        updates = self.catalogue.applicable(device.software, day)
        by_hand = self.ledger.installs(device.id, day)
        if not by_hand:
            return [update for update in updates if not device.installed(update, day)]
        lacking = []
        for update in self.catalogue.published(day):
            by_itself = update not in updates or device.installed(update, day)
            if not by_hand.get(update.id, by_itself):
                lacking.append(update)
        return lacking

    def is_known(self, device: Device, day: int) -> bool:
        """Whether Defender shows vulnerabilities of it at all."""
        return device.silent_for(day) <= SNAPSHOT and not self.is_excluded(device, day)

    def known(self, device: Device, day: int) -> list[Update]:
        """The updates that Defender knows it to lack."""
        if not self.is_onboarded(device, day) or not self.is_known(device, day):
            return []
        forgotten = self.ledger.forgotten(device.id, day)
        return [update for update in self.lacking(device, day) if update.product not in forgotten]

    def row(self, update: Update, missed_on: int) -> Record:
        """An update as it is served."""
        return update.row(missed_on) | self.ledger.kb_changes(update.id)
