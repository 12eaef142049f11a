"""One device: what it is, when it comes and goes, how fast it installs, how the API shows it.

Everything follows from a seed and an index. Knows nothing of the other devices, nor of what a
test changes by hand: that is `fleet.py`.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from mde_simulator.dice import dice
from mde_simulator.fleet.catalogue import ENROLLED, HOTPATCHED, WINDOWS, Record, Update

if TYPE_CHECKING:
    import random

PLATFORMS: tuple[tuple[str, int, str, str, str, int], ...] = (
    ("Windows11", 40, "windows_11", "24H2", "10.0", 26100),
    ("Windows10", 22, "windows_10", "22H2", "10.0", 19045),
    ("WindowsServer2022", 8, "windows_server_2022", "21H2", "10.0", 20348),
    ("WindowsServer2019", 6, "windows_server_2019", "1809", "10.0", 17763),
    ("WindowsServer2016", 3, "windows_server_2016", "1607", "10.0", 14393),
    ("WindowsServer2025", 2, "windows_server_2025", "24H2", "10.0", 26100),
    ("Ubuntu", 5, "", "22.04", "22.4", 6),
    ("RedHatEnterpriseLinux", 2, "", "9.4", "9.4", 5),
    ("macOS", 5, "", "15.1", "15.1", 24),
    ("iOS", 4, "", "17.6", "17.6", 17),
    ("Android", 3, "", "14.0", "14.0", 14),
)
"""osPlatform, share of the fleet, product (for Windows), version, osVersion, osBuild."""
PHONES = ("iOS", "Android")
GROUPS: tuple[tuple[str | None, int, tuple[int, ...]], ...] = (
    ("Headquarters", 1, (6, 3, 1, 0)),
    ("Servers", 2, (1, 4, 5, 1)),
    ("Field sales", 3, (2, 3, 4, 1)),
    ("Plant 2 · Fertigung", 4, (0, 1, 4, 5)),
    ("Développement", 5, (4, 4, 2, 0)),
    (None, 0, (2, 3, 3, 2)),
)
"""rbacGroupName, rbacGroupId, and the weights of `PACES` in it."""
PACES: tuple[tuple[int, int] | None, ...] = ((1, 6), (5, 21), (20, 75), None)
"""From how many to how many days after its publication an update is installed; None: never."""
NULLABLE = (
    "mergedIntoMachineId",
    "exclusionReason",
    "computerDnsName",
    "firstSeen",
    "lastSeen",
    "osVersion",
    "osBuild",
    "lastIpAddress",
    "lastExternalIpAddress",
    "agentVersion",
    "deviceValue",
    "rbacGroupName",
    "riskScore",
    "exposureLevel",
    "isAadJoined",
    "aadDeviceId",
    "defenderAvStatus",
    "vmMetadata",
)
"""Every property that may be null, one of them for each device from `FIRST_NULL` on."""
FIRST_NULL = 10
ODD_NAMES = (
    "Max Mustermann iPadAir 17zoll",
    "📱 Zoë's iPhone 🎉",
    "东京-笔记本-01",
    "جهاز المدير",
    "Zoe\u0301 Mu\u0308ller",
    "\"quoted\" 'twice'",
    "back\\slash & <b>tag</b>; --",
    "मोबाइल ३",
    "",
    " leading and trailing ",
    "e" * 255,
)
"""Names as people give them, one for each device from `FIRST_ODD_NAME` on."""
FIRST_ODD_NAME = 30
LEAVES, FALLS_SILENT = 0.0006, 0.0008
"""Chances a day that a device leaves, or falls silent."""
SILENT_FOR = 60
"""A device that is silent from the start has been so for up to 60 days."""
HOTPATCHES = 0.4
"""The share of the devices that may take hotpatches, and do."""
EXCLUSION_REASONS = ("InactiveDevice", "DuplicateDevice", "Other")
NEVER_INSTALLED, ROLLED_BACK = 0.03, 0.04
"""Of all pairs of device and update these never work out, or are rolled back for two weeks."""
ROLLBACK = (7, 21)
BY_HAND = 10_000_000
"""Devices added by hand are numbered from here."""
INACTIVE, SNAPSHOT, RETENTION = 7, 30, 180
"""Days without a report after which a device is called inactive; after which Defender drops what it knew of its
vulnerabilities (retention-logic-mdvm); after which it is no longer listed.
"""


@dataclass(frozen=True)
class Device:
    """What does not change about a device. Days are of the fleet's calendar."""

    index: int
    seed: int
    id: str
    platform: tuple[str, int, str, str, str, int]
    group: int
    onboarded: bool
    joined: int
    left: int
    silences: tuple[tuple[int, int | None], ...]
    pace: tuple[int, int] | None
    software: frozenset[str]
    phase: float
    excluded: bool

    @property
    def null(self) -> str:
        """The property that is null for it, if any."""
        position = self.index - FIRST_NULL
        return NULLABLE[position] if 0 <= position < len(NULLABLE) else ""

    def silent_since(self, day: int) -> int | None:
        """The day of its last report, if it is silent on `day`."""
        return next((first for first, end in self.silences if first <= day and (end is None or day < end)), None)

    def silent_for(self, day: int) -> int:
        """For how many days it has been silent on `day`."""
        since = self.silent_since(day)
        return 0 if since is None else day - since

    def present(self, day: int) -> bool:
        """Whether the API lists it on `day`: it came, has not left, was seen within retention."""
        return self.joined <= day < self.left and self.silent_for(day) < RETENTION

    def last_seen(self, day: int, now: datetime) -> datetime:
        """When it reported last, as of `day`; `now` is that day's time."""
        return now - timedelta(days=self.silent_for(day), seconds=self.phase * 72_000)

    def installed(self, update: Update, day: int) -> bool:
        """Whether it has an update of its software on `day`."""
        chance = (self.phase + update.phase) % 1.0
        if self.pace is None or chance < NEVER_INSTALLED:
            return False
        first, last = self.pace
        due = update.published + first + int(chance * (last - first + 1))
        for silent, end in self.silences:
            if silent < due and (end is None or due < end):
                if end is None:
                    return False
                due = end
        if day < due:
            return False
        back, again = ROLLBACK
        return not (chance < ROLLED_BACK and due + back <= day < due + again)


@dataclass(frozen=True)
class Shares:
    """Of all devices: how many are not onboarded, excluded by people, silent from the start, install nothing."""

    discovered: float
    excluded: float
    silent: float
    behind: float


def make_device(seed: int, index: int, joined: int, shares: Shares) -> Device:
    """The device of this index."""
    draw = dice(seed, "device", index)
    plain = index == 0
    platform = draw.choices(PLATFORMS, [row[1] for row in PLATFORMS])[0]
    onboarded = draw.random() >= shares.discovered
    group = draw.choices(range(len(GROUPS)), (30, 15, 20, 15, 10, 10))[0]
    product = platform[2]
    software = {product} if product else set()
    if product and draw.random() < 3 / 4:
        software.add(".net_framework")
    if product:
        server = "server" in product
        software.update(draw.choices(("sql_server", "exchange_server") if server else ("office",)))
    if product == HOTPATCHED and dice(seed, "hotpatches", index).random() < HOTPATCHES:
        software.add(ENROLLED)
    silent = joined + 1 + int(draw.expovariate(FALLS_SILENT))
    if draw.random() < shares.silent:
        silent = joined - draw.randrange(SILENT_FOR)
    left = joined + 1 + int(draw.expovariate(LEAVES))
    id_, pace = _id(draw, index), draw.choices(PACES, GROUPS[group][2])[0]
    return Device(
        index=index,
        seed=seed,
        id=id_,
        platform=PLATFORMS[0] if plain else platform,
        group=group,
        onboarded=onboarded,
        joined=joined,
        left=left + (RETENTION if plain else 0),
        silences=() if plain else ((silent, None),),
        pace=None if dice(seed, "behind", index).random() < shares.behind else pace,
        software=frozenset({"windows_11", "office"}) if plain else frozenset(software),
        phase=draw.random(),
        excluded=not plain and dice(seed, "excluded", index).random() < shares.excluded,
    )


def _id(draw: random.Random, index: int) -> str:
    """Forty hex digits, mostly; some with an underscore, some a GUID."""
    form, bits = draw.random(), draw.getrandbits(160)
    old, guid, rare = 4, 6, 0.03
    if index == old or form < rare:
        return f"da{10**17 + bits % (9 * 10**17)}_{bits % 2**31}"
    if index == guid or form > 1 - rare:
        return str(uuid.UUID(int=bits % 2**128))
    return f"{bits:040x}"


def describe(device: Device, day: int, now: datetime) -> Record:
    """The device as GET /api/machines shows it on `day`; `now` is that day's time."""
    draw = dice(device.seed, "record", device.index)
    record = _system(device, draw) | _standing(device, draw) | _network(device, draw)
    seen = device.last_seen(day, now)
    first = now - timedelta(days=day - device.joined + draw.randrange(1, 900))
    record["firstSeen"] = _timestamp(min(first, seen), device.index)
    record["lastSeen"] = _timestamp(seen, device.index)
    if device.silent_for(day) >= INACTIVE:
        record["healthStatus"] = "Inactive"
    if device.null:
        record[device.null] = None
    return record


def _timestamp(moment: datetime, index: int) -> str:
    """UTC with none to seven decimals, as they come."""
    text, decimals = f"{moment:%Y-%m-%dT%H:%M:%S.%f}7", index % 8
    return (text[: -7 + decimals] if decimals < 7 else text).rstrip(".") + "Z"  # noqa: PLR2004 - .NET's seven digits


def instant(text: str) -> datetime:
    """The moment of a timestamp, its seventh decimal left out."""
    whole, _, decimals = text.removesuffix("Z").partition(".")
    return datetime.fromisoformat(f"{whole}.{decimals[:6]:0<6}+00:00")


def _system(device: Device, draw: random.Random) -> Record:
    platform, _, _, version, os_version, build = device.platform
    arm = draw.random() < 1 / 10
    return {
        "id": device.id,
        "mergedIntoMachineId": None,
        "isPotentialDuplication": draw.random() < 1 / 50,
        "isExcluded": False,
        "exclusionReason": None,
        "computerDnsName": _name(device, draw),
        "firstSeen": None,
        "lastSeen": None,
        "osPlatform": platform,
        "osVersion": os_version if draw.random() < 1 / 2 else None,
        "osProcessor": "arm64" if arm else "x64",
        "osArchitecture": "64-bit",
        "version": version,
        "osBuild": build,
    }


def _name(device: Device, draw: random.Random) -> str:
    odd = device.index - FIRST_ODD_NAME
    if 0 <= odd < len(ODD_NAMES):
        return ODD_NAMES[odd]
    if device.platform[0] in PHONES:
        first = draw.choice(("Mia", "Łukasz", "Chloé", "Søren", "Ana María", "Yuki"))
        return f"{first} {draw.choice(('iPhone', 'iPad Pro', 'Galaxy S24'))}"
    kind = "srv" if "Server" in device.platform[0] else "ws"
    return f"{kind}-{device.index:05d}.contoso.example"


def _standing(device: Device, draw: random.Random) -> Record:
    name, group_id, _ = GROUPS[device.group]
    windows = device.platform[2] in WINDOWS
    status = draw.choice(("CanBeOnboarded", "CanBeOnboarded", "Unsupported", "InsufficientInfo"))
    return {
        "isExcluded": device.excluded,
        "exclusionReason": draw.choice(EXCLUSION_REASONS) if device.excluded else None,
        "agentVersion": f"10.8760.{draw.randrange(17000, 29000)}.{draw.randrange(1000, 3000)}",
        "healthStatus": draw.choices(("Active", "ImpairedCommunication", "NoSensorData"), (95, 3, 2))[0],
        "deviceValue": draw.choice(("Normal", "Normal", "Normal", "Low", "High")),
        "rbacGroupId": group_id,
        "rbacGroupName": name,
        "riskScore": draw.choice(("None", "Informational", "Low", "Medium", "High")),
        "exposureLevel": draw.choice(("None", "Low", "Medium", "High")),
        "isAadJoined": windows and draw.random() < 3 / 4,
        "aadDeviceId": str(uuid.UUID(int=draw.getrandbits(128))),
        "machineTags": draw.sample(["VIP", "kiosk", "Büro Köln", "o'clock", "lab"], draw.choice((0, 0, 1, 2))),
        "onboardingStatus": "Onboarded" if device.onboarded else status,
        "managedBy": draw.choice(("Intune", "MicrosoftDefenderForEndpoint", "Unknown")),
        "managedByStatus": draw.choice(("Success", "Success", "Unknown", "Error")),
        "defenderAvStatus": draw.choice(("Updated", "Updated", "NotUpdated", "Unknown", None)),
    }


def _network(device: Device, draw: random.Random) -> Record:
    number = device.index + 257
    address = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
    mac = f"{draw.getrandbits(48):012X}"
    ethernet = {"ipAddress": address, "macAddress": mac, "type": "Ethernet"}
    ethernet["operationalStatus"] = "Up"
    addresses: list[dict[str, str | None]] = [
        dict(ethernet),
        {
            "ipAddress": "::1",
            "macAddress": None,
            "type": "SoftwareLoopback",
            "operationalStatus": "Up",
        },
        {"ipAddress": "", "macAddress": mac, "type": None, "operationalStatus": None},
    ]
    virtual = draw.random() < (1 / 2 if "Server" in device.platform[0] else 1 / 30)
    subscription = str(uuid.UUID(int=draw.getrandbits(128)))
    return {
        "lastIpAddress": address,
        "lastExternalIpAddress": f"203.0.113.{number % 254 + 1}",
        "ipAddresses": addresses[: draw.choice((0, 1, 2, 3))],
        "vmMetadata": {
            "vmId": str(uuid.UUID(int=draw.getrandbits(128))),
            "cloudProvider": "Azure",
            "resourceId": f"/subscriptions/{subscription}/resourceGroups/rg/vm{device.index}",
            "subscriptionId": subscription,
        }
        if virtual
        else None,
    }
