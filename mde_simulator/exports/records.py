"""The records of an export as text: which ones a device has, in which order, in which file.

A record is put together from two parts that are each written once: the device's, and that of an
update's CVE, or of another vendor's. So millions are written in seconds. Knows no HTTP and no disk.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from itertools import chain, zip_longest
from typing import TYPE_CHECKING

from mde_simulator.fleet import cves

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from mde_simulator.fleet.catalogue import Record
    from mde_simulator.fleet.picture import Assessed, Content, Kb

PASCAL, CAMEL = "pascal", "camel"
"""How names are written: in files PascalCase and nulls left out, in the JSON response camelCase and nulls
(microsoft-365-docs#5877).
"""
FILES_ONLY = ("isOnboarded", "cveBatchTitle", "cveBatchUrl")
NULLABLE = ("cveId", "cvssScore", "vulnerabilitySeverityLevel", "recommendedSecurityUpdate",
            "recommendedSecurityUpdateId", "recommendedSecurityUpdateUrl", "endOfSupportStatus",
            "endOfSupportDate", "cveMitigationStatus")  # fmt: skip
"""What is null in the JSON response if a record does not say it."""
ABSENT_EVERY = 40
"""One device in 40 has no record."""
BARE_EVERY = 10
"""One in 10 has none but for missing updates."""
TWICE_EVERY = 20
"""One in 20 has a record twice, in two groups."""
UNNAMED_EVERY = 50
"""One in 50 has a record that does not say whose it is."""
SPLIT_EVERY = 3
"""One in 3 has its records in two files."""
LEAST, SPREAD = 3, 5
"""A device has 3 records of other vendors' software, and up to 4 more."""
START = 60
"""They begin at one of the first 60."""
TOGETHER = 8
"""How many devices are written together, their records mixed."""
PLAIN_WIDTH = 950
"""A record without its evidence, paths on the disk and in the registry; and what is left out of narrower ones:
nothing that missing updates follow from.
"""
LEFT_OUT = ("deviceName", "osVersion", "osArchitecture", "diskPaths", "registryPaths", "recommendationReference",
            "cveBatchTitle", "cveBatchUrl", "productCategory", "lastSeenTimestamp")  # fmt: skip


@dataclass(frozen=True)
class ExportShape:
    """How large an export is.

    Args:
        records: How many records a device has at least, filled up with other vendors' software.
        files: In how many files they are.
        width: About how many bytes a record has, filled up with evidence; below 950 fields are
            left out instead, and it has some 600.
        noise: How many hex digits of a record in a file are in no other one. Without them a file
            is a thirtieth of what it holds; real ones, with their paths and users, are a tenth.
    """

    records: int = 0
    files: int = 3
    width: int = 1000
    noise: int = 0

    def __post_init__(self) -> None:
        if self.records < 0 or self.files < 1 or self.noise < 0:
            msg = "An export has one file at least, and no fewer than 0 records a device, or digits of noise."
            raise ValueError(msg)


@dataclass(frozen=True)
class Piece:
    """Records that begin alike; each rest ends with a new line."""

    start: bytes
    rests: Sequence[bytes]

    @property
    def text(self) -> bytes:
        """All of them."""
        return self.start + self.start.join(self.rests)

    @property
    def records(self) -> list[bytes]:
        """One by one."""
        return [self.start + rest for rest in self.rests]

    def noisy(self, digits: int, draw: random.Random) -> bytes:
        """All of them, each with a path in the registry that no other one has."""
        path = b',"RegistryPaths":["HKEY_LOCAL_MACHINE\\\\SOFTWARE\\\\%b"]}\n'
        paths = [path % f"{draw.getrandbits(4 * digits):0{digits}x}".encode() for _ in self.rests]
        return b"".join(
            self.start + rest.removesuffix(b"}\n") + found for rest, found in zip(self.rests, paths, strict=True)
        )


def is_absent(device: Assessed) -> bool:
    """Whether the export has no record of it, whatever it misses."""
    return not device.added and device.index % ABSENT_EVERY == 7  # noqa: PLR2004 - any one of them


def is_bare(device: Assessed) -> bool:
    """Whether no other vendor's software is on it."""
    return not device.added and device.index % BARE_EVERY == 3  # noqa: PLR2004 - any one of them


def lacking(device: Assessed, content: Content) -> list[Kb]:
    """The updates that its records speak of: those that close a CVE."""
    return [kb for kb in (content.kbs[key] for key in device.missing) if kb.cves]


def is_there(device: Assessed, content: Content) -> bool:
    """Whether it has a record."""
    return not is_absent(device) and (bool(lacking(device, content)) or not is_bare(device))


def view(device: Assessed) -> int:
    """The way in which it sees how bad a CVE is."""
    return device.index % cves.VIEWS


def timestamp(moment: datetime) -> str:
    """UTC without saying so, with .NET's seven decimals or with none."""
    return f"{moment:%Y-%m-%d %H:%M:%S}" + (f".{moment.microsecond:06d}0" if moment.microsecond else "")


def pascal(name: str) -> str:
    """A name as files have it."""
    return name.replace("os", "OS", 1) if name.startswith("os") else name[0].upper() + name[1:]


def camel(record: Record) -> Record:
    """A file's record as the JSON response has it: other names, and nulls."""
    named = {
        name.replace("OS", "os", 1) if name.startswith("OS") else name[0].lower() + name[1:]: value
        for name, value in record.items()
    }
    return {name: value for name, value in (dict.fromkeys(NULLABLE) | named).items() if name not in FILES_ONLY}


@dataclass
class RecordWriter:
    """Writes the records of a picture in one of the two ways."""

    content: Content
    shape: ExportShape
    way: str = PASCAL
    _kbs: dict[tuple[Kb, str, int], list[bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        others = range(START + max(LEAST + SPREAD, self.shape.records))
        self._others = [self._rest(cves.of_others(number)) for number in others]
        self.devices = [device for device in self.content.devices if is_there(device, self.content)]
        self._odd = [self._rest(record) for record in cves.odd()]

    def pieces(self) -> Iterator[Piece]:
        """All records, in the order of the files."""
        return chain.from_iterable(self.file(number) for number in range(self.shape.files))

    def file(self, number: int) -> Iterator[Piece]:
        """The records of one file: those of its devices, and what is left of some of the file before."""
        here = self._chunk(number)
        before = [device for device in self._chunk(number - 1) if self._is_split(device)]
        for start in range(0, len(here), TOGETHER):
            yield from _mixed([self._first(device) for device in here[start : start + TOGETHER]])
        for start in range(0, len(before), TOGETHER):
            yield from _mixed([self._second(device) for device in before[start : start + TOGETHER]])

    def _chunk(self, number: int) -> list[Assessed]:
        number %= self.shape.files
        size = -(-len(self.devices) // self.shape.files)
        return self.devices[number * size : (number + 1) * size]

    def _is_split(self, device: Assessed) -> bool:
        return self.shape.files > 1 and device.index % SPLIT_EVERY == 0

    def _first(self, device: Assessed) -> list[Piece]:
        pieces = self._device(device)
        return pieces[: len(pieces) // 2] if self._is_split(device) else pieces

    def _second(self, device: Assessed) -> list[Piece]:
        pieces = self._device(device)
        return pieces[len(pieces) // 2 :]

    def _device(self, device: Assessed) -> list[Piece]:
        """All pieces of a device."""
        whose, pieces, seen = self._whose(device), list[Piece](), view(device)
        for kb in lacking(device, self.content):
            start = self._start(device, whose, device.first_seen(kb))
            pieces += [Piece(start, self._of_kb(kb, product, seen)) for product in kb.products]
        if pieces and device.index % TWICE_EVERY == 2:  # noqa: PLR2004 - any one of them
            other = self._whose(device, {"rbacGroupName": "Changed yesterday", "rbacGroupId": 77})
            pieces.append(Piece(pieces[0].start.replace(whose, other, 1), pieces[0].rests))
        if pieces and device.index % UNNAMED_EVERY == 5:  # noqa: PLR2004 - any one of them
            nobody = self._members({"rbacGroupName": "Unassigned", "rbacGroupId": 0, "id": ""})
            pieces.append(Piece(b"{" + nobody[:-1], pieces[0].rests[:1]))
        if not is_bare(device):
            start = self._start(device, whose, self.content.now)
            wanted = self.shape.records - len(self._odd) - sum(len(piece.rests) for piece in pieces)
            first, count = device.index % START, max(LEAST + device.index % SPREAD, wanted)
            pieces.append(Piece(start, [*self._odd, *self._others[first : first + count]]))
        return pieces

    # Parts of a record

    def _whose(self, device: Assessed, changes: Record | None = None) -> bytes:
        name = device.group or (None if device.group_id else "Unassigned")
        group: Record = {"rbacGroupName": name, "rbacGroupId": device.group_id}
        return self._members(
            {
                "deviceId": device.id,
                "deviceName": device.name,
                **(changes or group),
                "osPlatform": device.platform,
                "osVersion": device.version,
                "osArchitecture": device.architecture,
                "isOnboarded": device.onboarded,
                "lastSeenTimestamp": timestamp(self.content.now),
            }
        )

    def _start(self, device: Assessed, whose: bytes, first_seen: datetime) -> bytes:
        id_ = self._members({"firstSeenTimestamp": timestamp(first_seen), "id": device.id})
        return b"{" + whose + b"," + id_[:-1]

    def _of_kb(self, kb: Kb, product: str, seen: int) -> list[bytes]:
        found = self._kbs.get((kb, product, seen))
        if found is None:
            records = cves.of_kb(kb, product, seen)
            found = self._kbs[kb, product, seen] = [self._rest(record) for record in records]
        return found

    def _rest(self, record: Record) -> bytes:
        """A record but for the device's part; it begins in the middle of the record's id."""
        parts = [record[name] or "" for name in ("softwareName", "softwareVersion", "cveId")]
        name, temporary = str(record["softwareName"]), {}
        if name in ("office", "firefox"):
            temporary = {"tmpAssessmentScore": 0.5}
        evidence = self._evidence(name)
        text = self._members({**record, **evidence, "productCategory": "Application", **temporary})
        return f'_{"_".join(map(str, parts))}",'.encode() + text + b"}\n"

    def _evidence(self, name: str) -> Record:
        """Paths, as many as fill the width."""
        room = self.shape.width - PLAIN_WIDTH
        disk, registry = f"C:\\Program Files\\{name}\\{name}.exe", f"HKEY_LOCAL_MACHINE\\SOFTWARE\\{name}"
        if self.shape.noise:  # each record then has a path in the registry of its own
            return {"diskPaths": [disk]}
        return {
            "diskPaths": [disk] * (room > 0),
            "registryPaths": [registry] * max(0, -(-(room - len(disk) - 10) // (len(registry) + 7))),
        }

    def _members(self, record: Record) -> bytes:
        """The members of an object, in this way of writing."""
        if self.shape.width < PLAIN_WIDTH:
            record = {name: value for name, value in record.items() if name not in LEFT_OUT}
        if self.way == PASCAL:
            named = {pascal(name): value for name, value in record.items() if value is not None}
        else:
            nulls = dict.fromkeys(NULLABLE) if "softwareName" in record else {}
            named = {name: value for name, value in (nulls | record).items() if name not in FILES_ONLY}
        return json.dumps(named, ensure_ascii=False, separators=(",", ":")).encode()[1:-1]


def _mixed(devices: list[list[Piece]]) -> Iterator[Piece]:
    """The first pieces of each device, then the second ones, and so on."""
    for pieces in zip_longest(*devices):
        yield from (piece for piece in pieces if piece is not None)
