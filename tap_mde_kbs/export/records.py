"""The records of a vulnerability export, grouped: what each machine lacks, and which CVEs an update closes.

Knows two vocabularies: properties as the wire has them, which the table `records` has too, and the columns of
`schema`, which every row leaves under. Must not know HTTP, or where the records come from.

The records, tens of millions perhaps, go into a DuckDB file, which groups them in bounded memory and spills to disk.
Of the ways that were measured on two cores with 20 million records of 1.2 kB in eight files, 2.7 million missing
updates on 100,000 machines, it was the fastest and the least code of our own: 85 s and 522 MiB with DuckDB 2.0.0,
122 s and 483 MiB with 1.2.2, 121 s and 146 MiB with msgspec and dictionaries that are spooled to disk.

Source: learn.microsoft.com, "Export software vulnerabilities assessment per device".
"""

from __future__ import annotations

import contextlib
import gzip
import json
import re
import tempfile
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from typing_extensions import Self

from tap_mde_kbs.errors import MalformedFileError, SettingsError, TapError, printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from duckdb import DuckDBPyConnection

MEMORY = "400MB"
"""What DuckDB may take; the process as a whole stays well below 1 GiB."""

THREADS = 2
SAMPLE_BYTES = 2**20
"""So much of a file is looked at to see how it spells its properties."""

MACHINES_AT_ONCE = 4_000
"""Machines whose records are grouped by one query: it bounds what is sorted at once."""

ROWS_AT_ONCE = 2_000

PROPERTIES = (
    "deviceId",
    "recommendedSecurityUpdateId",
    "cveId",
    "softwareVendor",
    "softwareName",
    "recommendedSecurityUpdate",
    "recommendedSecurityUpdateUrl",
    "firstSeenTimestamp",
    "vulnerabilitySeverityLevel",
    "cvssScore",
    "exploitabilityLevel",
)
"""The properties of a record that are read, as the JSON pages spell them."""

SEVERITIES = ("None", "Low", "Medium", "High", "Critical")
EXPLOITABILITIES = ("NoExploit", "ExploitIsPublic", "ExploitIsVerified", "ExploitIsInKit")
"""From harmless to bad; a word that is not listed counts as harmless as the first."""

_CREATE = f"""
CREATE TABLE records (
    {", ".join(f"{name} VARCHAR" for name in PROPERTIES)},
    missing BOOLEAN GENERATED ALWAYS AS (
        recommendedSecurityUpdateId <> '' AND cveId <> '' AND lower(softwareVendor) = 'microsoft'
    )
)
"""
"""A record says that an update is missing if it has a CVE and an update of Microsoft's. Others only say that the
export has the machine."""

_INSERT = """
INSERT INTO records
SELECT {spelled}
FROM read_json($path, format = '{format}', columns = {{{types}}})
WHERE "{device}" <> ''
"""

_MACHINES = "SELECT DISTINCT deviceId AS machine_id FROM records ORDER BY machine_id"

_MISSED_ON = """
CREATE OR REPLACE TABLE missed_on AS
SELECT recommendedSecurityUpdateId AS id, count(DISTINCT deviceId) AS machine_missed_on
FROM records
WHERE missing
GROUP BY id
"""

_MISSING = """
SELECT machine_id, id, name, products_names, url, machine_missed_on, cve_addressed, first_seen_at
FROM (
    SELECT
        deviceId AS machine_id,
        CASE WHEN missing THEN recommendedSecurityUpdateId END AS id,
        max(recommendedSecurityUpdate) AS name,
        coalesce(list_sort(list(DISTINCT softwareName) FILTER (softwareName <> '')), []) AS products_names,
        max(recommendedSecurityUpdateUrl) AS url,
        count(DISTINCT cveId) AS cve_addressed,
        min(replace(firstSeenTimestamp, ' ', 'T')) AS first_seen_at
    FROM records
    WHERE deviceId BETWEEN ? AND ?
    GROUP BY ALL
)
LEFT JOIN missed_on USING (id)
ORDER BY machine_id, id
"""

_KB_CVES = """
SELECT
    recommendedSecurityUpdateId AS kb_id,
    cveId AS cve_id,
    {worst_severity} AS severity,
    max(TRY_CAST(cvssScore AS DOUBLE)) FILTER (isfinite(TRY_CAST(cvssScore AS DOUBLE))) AS cvss_score,
    {worst_exploitability} AS exploitability_level
FROM records
WHERE missing
GROUP BY kb_id, cve_id
ORDER BY kb_id, cve_id
"""


def require_duckdb() -> None:
    """Check that DuckDB is installed.

    Raises:
        SettingsError: It is not.
    """
    try:
        import duckdb  # noqa: F401, PLC0415 - an extra, which only the exports need
    except ImportError:
        msg = "missing_kbs_source is an export, which needs DuckDB, and it is not installed."
        raise SettingsError(msg, "Install the tap as tap-mde-kbs[export], or set it to per_machine.") from None


class Records:
    """The records of one export, on disk. A context manager: they are gone at its end.

    Attributes:
        count: How many there are.
        folder: A temporary folder, where files of the export may be put too.

    Raises:
        TapError: From every method: DuckDB could not do its work, most likely because the disk is full.
    """

    def __init__(self) -> None:
        import duckdb  # noqa: PLC0415 - see `require_duckdb`

        self.count = 0
        self._malformed = (duckdb.InvalidInputException, duckdb.ConversionException)
        self._error = duckdb.Error
        # A thread that was fetching a file may not have ended yet when the folder is removed.
        self._temporary = tempfile.TemporaryDirectory(prefix="tap-mde-kbs-", ignore_cleanup_errors=True)
        self.folder = Path(self._temporary.name)
        with self._explained():
            self._database: DuckDBPyConnection = duckdb.connect(
                str(self.folder / "records.duckdb"),
                config={
                    "memory_limit": MEMORY,
                    "threads": THREADS,
                    "temp_directory": str(self.folder / "spilled"),
                    "preserve_insertion_order": "false",
                    "autoinstall_known_extensions": "false",
                },
            )
            self._database.execute(_CREATE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove everything from disk."""
        self._database.close()
        self._temporary.cleanup()

    def load(self, path: Path) -> None:
        """Take all records of a file, or none: JSON objects, which may span lines, gzipped if the name says so.

        Raises:
            MalformedFileError: It holds anything else, or no object with a `deviceId`.
        """
        sample = _sample(path)
        with self._explained():
            self._database.begin()
            try:
                count = sum(self._insert(path, sample, names) for names in spellings(sample))
            except self._malformed as error:
                self._database.rollback()
                reason = re.sub(r" in file \".*?\"", "", str(error).partition("\n")[0])
                raise MalformedFileError(printable(reason)) from None
            self._database.commit()
        if not count:
            msg = "no object in it has a deviceId"
            raise MalformedFileError(msg)
        self.count += count

    def add(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Take records out of a JSON answer, by way of a file.

        Raises:
            MalformedFileError: None of them has a `deviceId`.
        """
        path = self.folder / "page.json"
        with path.open("w", encoding="utf-8") as file:
            for record in records:
                lower = {name.lower(): value for name, value in record.items()}
                file.write(json.dumps({name: lower.get(name.lower()) for name in PROPERTIES}) + "\n")
        try:
            self.load(path)
        finally:
            path.unlink()

    def machines(self) -> list[str]:
        """The ids of all machines that there are records of, in order."""
        return [row["machine_id"] for row in self._rows(_MACHINES)]

    def missing(self, first: str = "") -> Iterator[tuple[str, list[dict[str, Any]]]]:
        """What each machine that there are records of lacks, in the order of their ids.

        Args:
            first: Only this machine and those after it.

        Yields:
            A machine's id, and a record for each update that it lacks, by column; none perhaps.
        """
        with self._explained():
            self._database.execute(_MISSED_ON)
        machine_ids = [machine_id for machine_id in self.machines() if machine_id >= first]
        for start in range(0, len(machine_ids), MACHINES_AT_ONCE):
            part = machine_ids[start : start + MACHINES_AT_ONCE]
            rows = self._rows(_MISSING, [part[0], part[-1]])
            for machine_id, found in groupby(rows, key=itemgetter("machine_id")):
                yield machine_id, [row for row in found if row["id"] is not None]

    def kb_cves(self) -> Iterator[dict[str, Any]]:
        """Which CVEs each update closes, and how bad they are at the worst over all machines; records by column."""
        return self._rows(
            _KB_CVES.format(
                worst_severity=_worst("vulnerabilitySeverityLevel", SEVERITIES),
                worst_exploitability=_worst("exploitabilityLevel", EXPLOITABILITIES),
            )
        )

    def _insert(self, path: Path, sample: bytes, names: Mapping[str, str]) -> int:
        """Take the records of a file whose properties have these spellings; returns how many there were."""
        sql = _INSERT.format(
            spelled=", ".join(f'"{spelling}"' for spelling in names.values()),
            format="array" if sample.lstrip()[:1] == b"[" else "unstructured",
            types=", ".join(f"'{spelling}': 'VARCHAR'" for spelling in names.values()),
            device=names["deviceId"],
        )
        [(count,)] = self._database.execute(sql, {"path": str(path)}).fetchall()
        return int(count)

    def _rows(self, sql: str, parameters: Sequence[Any] = ()) -> Iterator[dict[str, Any]]:
        """The rows of a query, by column; with a cursor of its own, since other queries may run in between."""
        with self._explained():
            cursor = self._database.cursor().execute(sql, parameters)
            columns = [name for name, *_ in cursor.description or ()]
            while rows := cursor.fetchmany(ROWS_AT_ONCE):
                for row in rows:
                    yield dict(zip(columns, row, strict=True))

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn an error of DuckDB into one that says what to do."""
        try:
            yield
        except self._error as error:
            msg = f"The export could not be grouped in {self.folder.parent}: {printable(error)}"
            raise TapError(msg, "Free some disk there, or name another folder in TMPDIR.") from None


def spellings(sample: bytes) -> list[dict[str, str]]:
    """How a file spells the properties that are read: files have PascalCase, pages camelCase; neither is documented.

    Args:
        sample: The beginning of the file.

    Returns:
        For each spelling of `deviceId` that there is, the spelling of every property.
    """
    wanted = {name.lower(): name for name in PROPERTIES}
    found: dict[str, list[str]] = {name: [] for name in PROPERTIES}
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


def _worst(name: str, order: Sequence[str]) -> str:
    """SQL for the worst value of a property among a group's records; null if none has one."""
    ranks = ", ".join(f"'{word.lower()}'" for word in order)
    rank = f"coalesce(list_position([{ranks}], lower({name})), 0)"
    return f"arg_max({name}, ({rank}, {name})) FILTER ({name} <> '')"
