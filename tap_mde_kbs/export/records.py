"""The records of a vulnerability export, grouped: what each machine lacks, and which CVEs an update closes.

Knows no HTTP and no Singer. The records, tens of millions perhaps, go into a DuckDB file, which groups them in
bounded memory and spills to disk. Of the ways that were measured on two cores with 20 million records of 1.2 kB
in eight files, 2.7 million missing updates on 100,000 machines, it was the fastest and the least of our own code:
85 s and 522 MiB with DuckDB 2.0.0, 122 s and 483 MiB with 1.2.2, 121 s and 146 MiB with msgspec and dictionaries
that are spooled to disk.

Source: learn.microsoft.com, "Export software vulnerabilities assessment per device".
"""

from __future__ import annotations

import gzip
import json
import re
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple

from typing_extensions import Self

from tap_mde_kbs.errors import SettingsError, TapError, printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from duckdb import DuckDBPyConnection

MEMORY = "400MB"
"""What DuckDB may take; the process as a whole stays well below 1 GiB."""

THREADS = 2
SAMPLE_BYTES = 2**20
MACHINES_AT_ONCE = 4_000
ROWS_AT_ONCE = 2_000

COLUMNS: Mapping[str, str] = {
    "deviceId": "device",
    "recommendedSecurityUpdateId": "kb",
    "cveId": "cve",
    "softwareVendor": "vendor",
    "softwareName": "product",
    "recommendedSecurityUpdate": "name",
    "recommendedSecurityUpdateUrl": "url",
    "firstSeenTimestamp": "first_seen",
    "vulnerabilitySeverityLevel": "severity",
    "cvssScore": "score",
    "exploitabilityLevel": "exploitability",
}
"""The properties that are read, as the JSON answers spell them, and what they are called here."""

# From harmless to bad; what is not listed here is no worse than the first.
SEVERITIES = ("None", "Low", "Medium", "High", "Critical")
EXPLOITABILITIES = ("NoExploit", "ExploitIsPublic", "ExploitIsVerified", "ExploitIsInKit")

_INSERT = """
INSERT INTO records
SELECT
    {columns}
FROM read_json($path, format = '{format}', columns = {{{types}}})
WHERE "{device}" <> ''
"""

# An update is missing by records with a device, a CVE and an update of Microsoft's. The rest only say that the export
# has the device.
_CREATE = """
CREATE TABLE records (
    {columns},
    missing BOOLEAN GENERATED ALWAYS AS (kb <> '' AND cve <> '' AND lower(vendor) = 'microsoft')
)
"""

_MISSING = """
SELECT
    device,
    CASE WHEN missing THEN kb END AS missing_kb,
    max(name),
    max(url),
    list(DISTINCT product),
    count(DISTINCT cve),
    min(replace(first_seen, ' ', 'T'))
FROM records
WHERE device BETWEEN ? AND ?
GROUP BY device, missing_kb
ORDER BY device, missing_kb
"""


class MalformedError(Exception):
    """A file is no JSON objects with a `deviceId`; the text says what was found instead."""


class MissingKb(NamedTuple):
    """An update that a machine lacks."""

    id: str
    name: str | None
    url: str | None
    products: list[str]
    cves: int
    first_seen: str | None


class KbCve(NamedTuple):
    """A CVE that an update closes, at its worst over all machines."""

    kb_id: str
    cve_id: str
    severity: str | None
    cvss_score: float | None
    exploitability_level: str | None


def require() -> None:
    """Check that DuckDB is installed.

    Raises:
        SettingsError: it is not.
    """
    try:
        import duckdb  # noqa: F401, PLC0415 - an extra, which only the exports need
    except ImportError:
        msg = "missing_kbs_source is an export, which needs DuckDB, and it is not installed."
        raise SettingsError(msg, "Install the tap as tap-mde-kbs[export], or set it to per_machine.") from None


class Vulnerabilities:
    """The records of one export, in a folder. A context manager, closed at its end."""

    def __init__(self, folder: Path) -> None:
        """Begin with no record, in an empty folder."""
        import duckdb  # noqa: PLC0415 - see `require`

        self.count = 0
        self._folder = folder
        self._malformed = (duckdb.InvalidInputException, duckdb.ConversionException)
        self._failed = duckdb.Error
        self._database: DuckDBPyConnection = duckdb.connect(
            str(folder / "records.duckdb"),
            config={
                "memory_limit": MEMORY,
                "threads": THREADS,
                "temp_directory": str(folder / "spilled"),
                "preserve_insertion_order": "false",
                "autoinstall_known_extensions": "false",
            },
        )
        self._database.execute(_CREATE.format(columns=", ".join(f"{name} VARCHAR" for name in COLUMNS.values())))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: object, error: BaseException | None, traceback: object) -> None:
        """Close it.

        Raises:
            TapError: DuckDB could not do its work: the disk is full, most likely.
        """
        self._database.close()
        if isinstance(error, self._failed):
            msg = f"The export could not be grouped in {self._folder.parent}: {printable(error)}"
            raise TapError(msg, "Free some disk there, or name another folder in TMPDIR.") from None

    def load(self, path: Path) -> int:
        """Take all records of a file, or none: JSON objects, which may span lines, gzipped if the name says so.

        Returns:
            How many there were.

        Raises:
            MalformedError: It holds anything else.
        """
        sample = _sample(path)
        array = sample.lstrip()[:1] == b"["
        count = 0
        try:
            self._database.begin()
            for names in spellings(sample):
                [(loaded,)] = self._database.execute(
                    _INSERT.format(
                        columns=",\n    ".join(f'"{name}"' for name in names.values()),
                        format="array" if array else "unstructured",
                        types=", ".join(f"'{name}': 'VARCHAR'" for name in names.values()),
                        device=names["deviceId"],
                    ),
                    {"path": str(path)},
                ).fetchall()
                count += loaded
            self._database.commit()
        except self._malformed as error:
            self._database.rollback()
            reason = re.sub(r" in file \".*?\"", "", str(error).partition("\n")[0])
            raise MalformedError(reason) from None
        if not count:
            msg = "no object in it has a deviceId"
            raise MalformedError(msg)
        self.count += count
        return count

    def add(self, path: Path, records: Iterable[Mapping[str, Any]]) -> int:
        """Take records out of an answer in JSON, by way of a file at `path`."""
        with path.open("w", encoding="utf-8") as file:
            for record in records:
                lower = {name.lower(): value for name, value in record.items()}
                file.write(json.dumps({name: lower.get(name.lower()) for name in COLUMNS}) + "\n")
        try:
            return self.load(path)
        finally:
            path.unlink()

    def devices(self) -> list[str]:
        """The ids of all machines that there are records of, in order."""
        found = self._database.execute("SELECT DISTINCT device FROM records ORDER BY device").fetchall()
        return [device for (device,) in found]

    def missed_on(self) -> dict[str, int]:
        """On how many machines each update is missing."""
        return dict(
            self._database.execute(
                "SELECT kb, count(DISTINCT device) FROM records WHERE missing GROUP BY kb"
            ).fetchall()
        )

    def missing(self, first: str = "") -> Iterator[tuple[str, list[MissingKb]]]:
        """What each machine that there are records of lacks, nothing perhaps; in the order of their ids.

        Args:
            first: Only this machine and those after it.
        """
        devices = [device for device in self.devices() if device >= first]
        for start in range(0, len(devices), MACHINES_AT_ONCE):
            part = devices[start : start + MACHINES_AT_ONCE]
            # A cursor of its own: the caller may ask other things in between.
            rows = self._database.cursor().execute(_MISSING, [part[0], part[-1]])
            for device, found in groupby(_fetched(rows), key=lambda row: str(row[0])):
                yield (
                    device,
                    [
                        MissingKb(kb, name, url, sorted(filter(None, products)), cves, first_seen)
                        for _, kb, name, url, products, cves, first_seen in found
                        if kb is not None
                    ],
                )

    def kb_cves(self) -> Iterator[KbCve]:
        """Which CVEs each update closes, and how bad they are at the worst, over all machines."""
        rows = self._database.execute(
            "SELECT DISTINCT kb, cve, severity, score, exploitability FROM records WHERE missing ORDER BY kb, cve"
        )
        for (kb, cve), found in groupby(_fetched(rows), key=lambda row: (str(row[0]), str(row[1]))):
            _, _, severities, scores, exploitabilities = zip(*found, strict=True)
            yield KbCve(
                kb,
                cve,
                _worst(severities, SEVERITIES),
                max((score for score in map(_number, scores) if score is not None), default=None),
                _worst(exploitabilities, EXPLOITABILITIES),
            )


def spellings(sample: bytes) -> list[dict[str, str]]:
    """How a file spells the properties that are read: files have PascalCase, answers camelCase, and it is not said why.

    Args:
        sample: The beginning of the file.

    Returns:
        For each spelling of `deviceId` that there is, the spelling of every property.
    """
    wanted = {name.lower(): name for name in COLUMNS}
    found: dict[str, list[str]] = {name: [] for name in COLUMNS}
    for name in sorted({match.decode() for match in re.findall(rb'"([A-Za-z]+)"\s*:', sample)}):
        if name.lower() in wanted:
            found[wanted[name.lower()]].append(name)
    spelled = []
    for device in found["deviceId"] or ["DeviceId"]:
        names = {}
        for name, candidates in found.items():
            usual = name[0].upper() + name[1:] if device[0].isupper() else name
            names[name] = usual if usual in candidates or not candidates else candidates[0]
        spelled.append({**names, "deviceId": device})
    return spelled


def _sample(path: Path) -> bytes:
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rb") as file:
        return file.read(SAMPLE_BYTES)


def _fetched(rows: DuckDBPyConnection) -> Iterator[tuple[Any, ...]]:
    while some := rows.fetchmany(ROWS_AT_ONCE):
        yield from some


def _worst(values: Iterable[str | None], order: tuple[str, ...]) -> str | None:
    ranks = {name.lower(): rank for rank, name in enumerate(order)}
    return max(filter(None, values), key=lambda value: (ranks.get(value.lower(), -1), value), default=None)


def _number(text: str | None) -> float | None:
    try:
        return float(text or "")
    except ValueError:
        return None
