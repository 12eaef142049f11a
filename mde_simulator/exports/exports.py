"""The exports: snapshots of what vulnerability management knows, their files, and the truth about them.

A snapshot is made at the start and every six hours; asking for one does not make one
(`get-assessment-software-vulnerabilities.md`). Knows no HTTP.
"""

from __future__ import annotations

import threading
import time
import zlib
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

from mde_simulator.dice import dice
from mde_simulator.exports.records import CAMEL, PASCAL, ExportShape, RecordWriter, is_there, lacking, view
from mde_simulator.fleet.cves import cves

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from mde_simulator.fleet.fleet import Fleet
    from mde_simulator.fleet.picture import Content, Picture

EVERY = 6 * 3600.0
"""Seconds from one snapshot to the next."""
KEPT = 4
"""How many snapshots are kept, with their files."""
FAST, GZIP = 1, 31
"""zlib's fastest level; with the gzip header, which has no time in it."""
BLOCK = 262_144
"""How many bytes are deflated at once."""


@dataclass(frozen=True)
class Missing:
    """What the export says of an update that a device lacks."""

    cves: int
    first_seen: datetime
    products: frozenset[str]


@dataclass(eq=False)
class Snapshot:
    """One export: the fleet as it was, whatever became of it."""

    generated: datetime
    shape: ExportShape
    picture: Picture
    folder: Path | None
    _locks: list[threading.Lock] = field(init=False)
    _writers: dict[str, RecordWriter] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self._locks = [threading.Lock() for _ in range(self.shape.files)]

    @property
    def content(self) -> Content:
        """What was known."""
        return self.picture.take()

    @property
    def path(self) -> str:
        """Where it is in the storage, as Azure's exports are named: by its time."""
        return f"{self.generated:%Y-%m-%d/%H%M%S}"

    @property
    def generated_time(self) -> str:
        """As the API says it."""
        return f"{self.generated:%Y-%m-%dT%H:%M:%SZ}"

    # The truth

    def devices(self) -> frozenset[str]:
        """The ids of the devices that have a record."""
        return frozenset(device.id for device in self.content.devices if is_there(device, self.content))

    def missing(self) -> dict[str, dict[str, Missing]]:
        """For each device that has a record, the updates that it lacks, by KB number."""
        content = self.content
        return {
            device.id: {
                kb.id: Missing(kb.cves, device.first_seen(kb).replace(tzinfo=timezone.utc), frozenset(kb.products))
                for kb in lacking(device, content)
            }
            for device in content.devices
            if is_there(device, content)
        }

    def missed_on(self) -> Counter[str]:
        """On how many devices of the export each update is missing."""
        return Counter(kb_id for missing in self.missing().values() for kb_id in missing)

    def kb_cves(self) -> dict[tuple[str, str], tuple[str | None, float | None, str]]:
        """Severity, CVSS score and exploitability of each KB's CVEs, the worst of all devices."""
        content, views = self.content, dict[str, set[int]]()
        for device in content.devices:
            if is_there(device, content):
                for key in device.missing:
                    views.setdefault(key, set()).add(view(device))
        return {
            (content.kbs[key].id, cve.id): (cve.worst(seen), cve.score, cve.exploitability)
            for key, seen in views.items()
            for cve in cves(content.kbs[key])
        }

    # The records

    def _writer(self, way: str) -> RecordWriter:
        """Kept, since it knows by then how most records go on."""
        if way not in self._writers:
            self._writers[way] = RecordWriter(self.content, self.shape, way)
        return self._writers[way]

    def page(self, first: int, size: int) -> tuple[list[bytes], bool]:
        """A page of the JSON response, and whether there are more records after it."""
        records: list[bytes] = []
        for piece in self._writer(CAMEL).pieces():
            if first >= len(piece.rests):
                first -= len(piece.rests)
                continue
            records += piece.records[first:]
            first = 0
            if len(records) > size:
                return records[:size], True
        return records, False

    def file(self, number: int) -> Path:
        """A file of the export, written when it is first asked for.

        Raises:
            RuntimeError: The simulator is not running.
        """
        if self.folder is None:
            msg = "The simulator is not running."
            raise RuntimeError(msg)
        path = self.folder / f"{self.generated:%Y%m%d%H%M%S}-{number:05d}.gz"
        with self._locks[number]:
            if not path.exists():
                unfinished = path.with_suffix(".part")
                with unfinished.open("wb") as file:
                    for block in _deflated(self._writer(PASCAL), number):
                        file.write(block)
                unfinished.rename(path)
        return path

    def forget(self) -> None:
        """Remove the files."""
        if self.folder is not None:
            for path in self.folder.glob(f"{self.generated:%Y%m%d%H%M%S}-*.gz"):
                path.unlink()


def _deflated(writer: RecordWriter, number: int) -> Iterator[bytes]:
    """A gzip, the same bytes each time."""
    compressor = zlib.compressobj(FAST, zlib.DEFLATED, GZIP)
    waiting: list[bytes] = []
    size = 0
    noise, draw = writer.shape.noise, dice("noise", number)
    for piece in writer.file(number):
        waiting.append(piece.noisy(noise, draw) if noise else piece.text)
        size += len(waiting[-1])
        if size >= BLOCK:
            yield compressor.compress(b"".join(waiting))
            waiting, size = [], 0
    yield compressor.compress(b"".join(waiting)) + compressor.flush()


class Exports:
    """The snapshots of a tenant; questions about the truth are of the latest.

    Args:
        fleet: What is exported.
        shape: How large exports are.
        clock: Seconds of the epoch.
    """

    def __init__(self, fleet: Fleet, shape: ExportShape, clock: Callable[[], float] = time.time) -> None:
        self.shape = shape
        self.clock = clock
        self._fleet = fleet
        self._folder: Path | None = None
        self._snapshots: list[Snapshot] = []
        self._made = 0.0
        self._lock = threading.RLock()

    def start(self, folder: Path) -> None:
        """Make the first snapshot; files are written into the folder."""
        with self._lock:
            self._folder = folder
            self._snapshots.clear()
            self.generate()

    def generate(self, at: datetime | None = None) -> Snapshot:
        """Make a snapshot now.

        Args:
            at: What it says when it was made (UTC, whole seconds); by default the present time, or a
                second after the one before.

        Raises:
            ValueError: `at` is not after the snapshot before.
        """
        with self._lock:
            now = self.clock()
            before = self._snapshots[-1].generated if self._snapshots else None
            moment = datetime.fromtimestamp(int(now), timezone.utc)
            if at is not None:
                moment = (at if at.tzinfo else at.replace(tzinfo=timezone.utc)).astimezone(timezone.utc)
                moment = moment.replace(microsecond=0)
            if before is not None and moment <= before:
                if at is not None:
                    msg = f"A snapshot is later than the one before, of {before}."
                    raise ValueError(msg)
                moment = before + timedelta(seconds=1)
            self._made = now
            snapshot = Snapshot(moment, self.shape, self._fleet.picture(), self._folder)
            self._snapshots.append(snapshot)
            for old in self._snapshots[:-KEPT]:
                old.forget()
            del self._snapshots[:-KEPT]
            return snapshot

    def current(self) -> Snapshot:
        """What a client is given now: another one every six hours."""
        with self._lock:
            if self.clock() - self._made >= EVERY:
                self.generate()
            return self._snapshots[-1]

    @property
    def latest(self) -> Snapshot:
        """The last one that was made."""
        with self._lock:
            return self._snapshots[-1]

    @property
    def snapshots(self) -> list[Snapshot]:
        """Those that are not gone, oldest first."""
        with self._lock:
            return list(self._snapshots)

    def find(self, path: str) -> Snapshot | None:
        """The snapshot of a path, unless it is gone."""
        return next((snapshot for snapshot in self.snapshots if snapshot.path == path), None)

    def build(self) -> None:
        """Write the files of the latest one at once, so that no client waits for them."""
        for number in range(self.shape.files):
            self.latest.file(number)

    # The truth about the latest

    @property
    def generated(self) -> datetime:
        """When it was made."""
        return self.latest.generated

    def devices(self) -> frozenset[str]:
        """The ids of the devices that have a record."""
        return self.latest.devices()

    def missing(self) -> dict[str, dict[str, Missing]]:
        """For each device that has a record, the updates that it lacks, by KB number."""
        return self.latest.missing()

    def missed_on(self) -> Counter[str]:
        """On how many devices of the export each update is missing."""
        return self.latest.missed_on()

    def kb_cves(self) -> dict[tuple[str, str], tuple[str | None, float | None, str]]:
        """Severity, CVSS score and exploitability of each KB's CVEs, the worst of all devices."""
        return self.latest.kb_cves()

    def first_seen(self, machine_id: str, kb_id: str) -> datetime:
        """When a device was first seen without an update (UTC).

        Raises:
            KeyError: The export does not say that it lacks it.
        """
        return self.latest.missing()[machine_id][kb_id].first_seen
