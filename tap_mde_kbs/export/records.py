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
import json
import re
import tempfile
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from typing_extensions import Self

from tap_mde_kbs.errors import MalformedFileError, SettingsError, TapError, printable
from tap_mde_kbs.export.mending import mend, opened

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from duckdb import DuckDBPyConnection

MEMORY = "400MB"
"""What DuckDB may take; the process as a whole stays well below 1 GiB."""

THREADS = 2
SAMPLE_BYTES = 2**20
"""So much of a file is looked at to see how it spells its properties."""

MACHINES_AT_ONCE = 4_000
"""Machines whose records are grouped by one query: it bounds what is sorted at once."""

ROWS_AT_ONCE = 2_000

_NAMES = re.compile(rb'"([A-Za-z]+)"\s*:')
LONGEST_NAME = 64
"""Bytes of a property's name that is looked for, with what is around it."""

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
    "status",
)
"""The properties of a record that are read, as the JSON pages spell them."""

NOT_STORED = ("softwareVendor", "status")
"""What is read only to see whether a record says that an update is missing."""

STORED = tuple(name for name in PROPERTIES if name not in NOT_STORED)

SEVERITIES = ("None", "Low", "Medium", "High", "Critical")
EXPLOITABILITIES = ("NoExploit", "ExploitIsPublic", "ExploitIsVerified", "ExploitIsInKit")
"""From harmless to bad; a word that is not listed counts as harmless as the first."""

_CREATE = f"""
CREATE TABLE records ({", ".join(f"{name} VARCHAR" for name in STORED)});
CREATE TEMP SEQUENCE strangers;
"""

_NUMBER = r"""
    CASE
        WHEN lower(softwareVendor) = 'microsoft' AND cveId <> '' AND coalesce(lower(trim(status)), '') <> 'fixed' THEN
            CASE ltrim(recommendedSecurityUpdateId, '0123456789')
                WHEN '' THEN nullif(recommendedSecurityUpdateId, '')
                ELSE nullif(
                    regexp_extract(recommendedSecurityUpdateId, '^[\s\pZ]*(?:KB)?[\s\pZ]*([0-9]+)[\s\pZ]*$', 1, 'i'), ''
                )
            END
    END"""
"""The update that a record says is missing, by its number: it has a CVE and an update of Microsoft's, and is not fixed
(records of a delta say so). Others only say that the export has the machine."""

_INSERT = """
INSERT INTO records
SELECT {stored}
FROM (SELECT {spelled} FROM read_json($path, format = '{format}', columns = {{{types}}}))
WHERE CASE
    WHEN deviceId IS NULL AND cveId IS NULL AND softwareVendor IS NULL AND softwareName IS NULL
    THEN nextval('strangers') IS NULL
    ELSE deviceId <> ''
END
"""
"""A record with none of its properties may have them in another spelling; it is counted, by the way."""

_MACHINES = "SELECT DISTINCT deviceId AS machine_id FROM records ORDER BY machine_id"

_MISSED_ON = """
CREATE OR REPLACE TABLE missed_on AS
SELECT recommendedSecurityUpdateId AS id, count(DISTINCT deviceId) AS machine_missed_on
FROM records
WHERE recommendedSecurityUpdateId IS NOT NULL
GROUP BY id
"""

_MISSING = """
SELECT machine_id, id, name, products_names, url, machine_missed_on, cve_addressed, first_seen_at
FROM (
    SELECT
        deviceId AS machine_id,
        recommendedSecurityUpdateId AS id,
        max(recommendedSecurityUpdate) AS name,
        coalesce(list_sort(list(DISTINCT softwareName) FILTER (softwareName <> '')), []) AS products_names,
        max(recommendedSecurityUpdateUrl) AS url,
        count(DISTINCT cveId) AS cve_addressed,
        min(replace(firstSeenTimestamp, ' ', 'T')) FILTER (firstSeenTimestamp >= '2000') AS first_seen_at
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
WHERE recommendedSecurityUpdateId IS NOT NULL
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
        self._asked_at = 0
        self._malformed = (duckdb.InvalidInputException, duckdb.ConversionException)
        self._error = duckdb.Error
        # A thread that was fetching a file may not have ended yet when the folder is removed.
        try:
            self._temporary = tempfile.TemporaryDirectory(prefix="tap-mde-kbs-", ignore_cleanup_errors=True)
        except OSError as error:
            msg = f"An export needs a folder for temporary files, and there is none: {error.strerror}."
            advice = "Name one that can be written in TMPDIR; in a container, mount one at /tmp."
            raise TapError(msg, advice) from None
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

    def load(self, path: Path) -> int:
        """Take all records of a file, or none: JSON objects, which may span lines, gzipped if the name says so.

        Returns:
            How many places in its strings were mended: broken text is not a broken file.

        Raises:
            MalformedFileError: It holds anything else, or no object with a `deviceId`.
        """
        try:
            self._load(path)
        except MalformedFileError:
            mended = path.with_name(f"{path.name}.mended.gz")
            try:
                count = mend(path, mended)
                if not count:
                    raise
                self._load(mended)
            finally:
                mended.unlink(missing_ok=True)
            return count
        return 0

    def _load(self, path: Path) -> None:
        """Take all records of a file, or none."""
        count = 0
        with self._explained():
            self._database.begin()
            try:
                self._met_strangers()
                known = spellings(names_in(path, SAMPLE_BYTES))
                count += sum(self._insert(path, names) for names in known)
                if self._met_strangers():
                    known = [names for names in spellings(names_in(path)) if names not in known]
                    count += sum(self._insert(path, names) for names in known)
            except self._malformed as error:
                self._database.rollback()
                reason = re.sub(r" in file \".*?\"", "", str(error).partition("\n")[0])
                raise MalformedFileError(printable(reason)) from None
            self._database.commit()
        if not count:
            msg = "no object in it has a deviceId"
            raise MalformedFileError(msg)
        self.count += count

    def add(self, records: Iterable[Mapping[str, Any]]) -> int:
        """Take records out of a JSON answer, by way of a file.

        Returns:
            How many places in their strings were mended.

        Raises:
            MalformedFileError: None of them has a `deviceId`.
        """
        path = self.folder / "page.json"
        with path.open("w", encoding="utf-8") as file:
            for record in records:
                lower = {name.lower(): value for name, value in record.items()}
                file.write(json.dumps({name: lower.get(name.lower()) for name in PROPERTIES}) + "\n")
        try:
            return self.load(path)
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

    def _insert(self, path: Path, names: Mapping[str, str]) -> int:
        """Take the records of a file whose properties have these spellings; returns how many there were."""
        sql = _INSERT.format(
            stored=", ".join(_NUMBER if name == "recommendedSecurityUpdateId" else name for name in STORED),
            spelled=", ".join(f'"{spelling}" AS {name}' for name, spelling in names.items()),
            format="array" if _is_array(path) else "unstructured",
            types=", ".join(f"'{spelling}': 'VARCHAR'" for spelling in names.values()),
        )
        [(count,)] = self._database.execute(sql, {"path": str(path)}).fetchall()
        return int(count)

    def _met_strangers(self) -> bool:
        """Whether `_INSERT` met records with none of its properties since this was last asked."""
        [(number,)] = self._database.execute("SELECT nextval('strangers')").fetchall()
        before, self._asked_at = self._asked_at, int(number)
        return self._asked_at > before + 1

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


def names_in(path: Path, most: int | None = None) -> set[str]:
    """The names of properties in a file.

    Args:
        path: The file.
        most: So many bytes of its content are looked at; None: all.
    """
    names: set[bytes] = set()
    tail = b""
    with opened(path) as file:
        while piece := file.read(SAMPLE_BYTES):
            names.update(_NAMES.findall(tail + piece))
            tail = piece[-LONGEST_NAME:]
            if most is not None and file.tell() >= most:
                break
    return {name.decode() for name in names}


def spellings(names: Collection[str]) -> list[dict[str, str]]:
    """How a file spells the properties that are read: files have PascalCase, pages camelCase; neither is documented.

    Args:
        names: Of properties in it.

    Returns:
        For each spelling of `deviceId` that there is, the spelling of every property.
    """
    wanted = {name.lower(): name for name in PROPERTIES}
    found: dict[str, list[str]] = {name: [] for name in PROPERTIES}
    for name in sorted(names):
        if name.lower() in wanted:
            found[wanted[name.lower()]].append(name)
    spelled = []
    for device in found["deviceId"] or ["DeviceId"]:
        spelled_here = {}
        for name, candidates in found.items():
            usual = _in_case_of(device, name)
            spelled_here[name] = usual if usual in candidates or not candidates else candidates[0]
        spelled.append({**spelled_here, "deviceId": device})
    return spelled


def _in_case_of(other: str, name: str) -> str:
    """A property's name, in the case that another one has in the file."""
    if other.isupper() or other.islower():
        return name.upper() if other.isupper() else name.lower()
    return name[0].upper() + name[1:] if other[0].isupper() else name


def _is_array(path: Path) -> bool:
    with opened(path) as file:
        return file.read(SAMPLE_BYTES).lstrip()[:1] == b"["


def _worst(name: str, order: Sequence[str]) -> str:
    """SQL for the worst value of a property among a group's records; null if none has one."""
    ranks = ", ".join(f"'{word.lower()}'" for word in order)
    rank = f"coalesce(list_position([{ranks}], lower({name})), 0)"
    return f"arg_max({name}, ({rank}, {name})) FILTER ({name} <> '')"
