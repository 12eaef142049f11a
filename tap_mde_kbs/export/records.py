"""The records of a vulnerability export, grouped: what each machine lacks, and which CVEs an update closes.

Knows two vocabularies: properties as the wire has them, and the columns of `schema`, which every row leaves under. Must
not know HTTP, or where the records come from.

The records, tens of millions perhaps, are grouped by DuckDB while it reads a file: what is stored is a row for each
machine, update and product, with the CVEs as hashes, and a row for each update and CVE. So the rest is grouped out of a
tenth of the rows or fewer. What a file's groups take of memory grows with its records; where that is too much, its
machines are taken in several passes.

Source: learn.microsoft.com, "Export software vulnerabilities assessment per device".
"""

from __future__ import annotations

import contextlib
import json
import re
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from typing_extensions import Self

from tap_mde_kbs.errors import MalformedFileError, SettingsError, TapError, printable
from tap_mde_kbs.export.mending import mend, opened
from tap_mde_kbs.signals import signals_held

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
    from concurrent.futures import Future

    from duckdb import DuckDBPyConnection

MEMORY = "600MB"
"""What DuckDB may take; the process as a whole stays below 1 GiB."""

MOST_PASSES = 64
"""In so many passes a file is read at most, where its groups do not fit into `MEMORY`."""

THREADS = 2
SAMPLE_BYTES = 2**20
"""So much of a file is looked at to see how it spells its properties."""

MACHINES_AT_ONCE = 5_000
"""Machines whose updates are grouped by one query, while those before are written: it bounds what is sorted at once."""

ROWS_AT_ONCE = 2_000

LINES = "newline_delimited"
"""DuckDB's word for an object a line: quicker to read than objects anywhere, as strict but for a line that is null.

DuckDB 1.2 never ends, whatever signal it gets, where a line is longer than its `maximum_object_size` of 16 MiB.
"""

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

SEVERITIES = ("None", "Low", "Medium", "High", "Critical")
EXPLOITABILITIES = ("NoExploit", "ExploitIsPublic", "ExploitIsVerified", "ExploitIsInKit")
"""From harmless to bad; a word that is not listed counts as harmless as the first."""

_CREATE = """
CREATE TABLE found (
    deviceId VARCHAR,
    kb VARCHAR,
    softwareName VARCHAR,
    cveId VARCHAR,
    name VARCHAR,
    url VARCHAR,
    first_seen VARCHAR,
    cves UBIGINT[],
    severity VARCHAR,
    cvss_score DOUBLE,
    exploitability VARCHAR,
    records BIGINT
);
CREATE TEMP SEQUENCE strangers;
"""
"""Of `found`, a row with a device says what it lacks (its `kb` is null if a record says only that it is there), one
without says how bad a CVE is that an update closes. `cves` are hashes, perhaps the same one several times.
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
INSERT INTO found
SELECT
    deviceId, kb, softwareName, cveId, max(name), max(url), min(first_seen),
    list(cve) FILTER (cve IS NOT NULL), max(severity), max(cvss_score), max(exploitability), count(*)
FROM (
    SELECT
        deviceId,
        kb,
        CASE WHEN kb IS NOT NULL THEN softwareName END AS softwareName,
        CASE WHEN kb IS NOT NULL THEN cveId END AS cveId,
        CASE WHEN kb IS NOT NULL THEN hash(cveId) END AS cve,
        CASE WHEN kb IS NOT NULL THEN recommendedSecurityUpdate END AS name,
        CASE WHEN kb IS NOT NULL THEN recommendedSecurityUpdateUrl END AS url,
        CASE WHEN kb IS NOT NULL AND firstSeenTimestamp >= '2000' THEN replace(firstSeenTimestamp, ' ', 'T') END
            AS first_seen,
        CASE WHEN kb IS NOT NULL THEN {severity} END AS severity,
        CASE WHEN kb IS NOT NULL AND isfinite(TRY_CAST(cvssScore AS DOUBLE)) THEN TRY_CAST(cvssScore AS DOUBLE) END
            AS cvss_score,
        CASE WHEN kb IS NOT NULL THEN {exploitability} END AS exploitability
    FROM (
        SELECT *, {number} AS kb
        FROM (SELECT {spelled} FROM read_json($path, format = '{format}', columns = {{{types}}}))
        WHERE CASE
            WHEN deviceId IS NULL AND cveId IS NULL AND softwareVendor IS NULL AND softwareName IS NULL
            THEN nextval('strangers') IS NULL
            ELSE deviceId <> ''
        END
    )
    WHERE $passes = 1 OR hash(deviceId) % $passes = $number
)
GROUP BY GROUPING SETS ((deviceId, kb, softwareName), (kb, cveId))
"""
"""A record with none of its properties may have them in another spelling; it is counted, by the way."""

_COUNT = "SELECT coalesce(sum(records), 0) FROM found WHERE deviceId IS NOT NULL"

_MACHINES = "SELECT DISTINCT deviceId AS machine_id FROM found WHERE deviceId IS NOT NULL ORDER BY machine_id"

_MISSED_ON = """
CREATE OR REPLACE TABLE missed_on AS
SELECT kb AS id, count(DISTINCT deviceId) AS machine_missed_on
FROM found
WHERE deviceId IS NOT NULL AND kb IS NOT NULL
GROUP BY id
"""

_MISSING = """
SELECT machine_id, id, name, products_names, url, machine_missed_on, cve_addressed, first_seen_at
FROM (
    SELECT
        deviceId AS machine_id,
        kb AS id,
        max(name) AS name,
        coalesce(list_sort(list(DISTINCT softwareName) FILTER (softwareName <> '')), []) AS products_names,
        max(url) AS url,
        coalesce(list_unique(flatten(list(cves))), 0) AS cve_addressed,
        min(first_seen) AS first_seen_at
    FROM found
    WHERE deviceId BETWEEN ? AND ?
    GROUP BY ALL
)
LEFT JOIN missed_on USING (id)
ORDER BY machine_id, id
"""

_KB_CVES = """
SELECT
    kb AS kb_id,
    cveId AS cve_id,
    substr(max(severity), 2) AS severity,
    max(cvss_score) AS cvss_score,
    substr(max(exploitability), 2) AS exploitability_level
FROM found
WHERE deviceId IS NULL AND kb IS NOT NULL
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
        folder: A temporary folder, where files of the export may be put too.

    Raises:
        TapError: From every method: DuckDB could not do its work, most likely because the disk is full.
    """

    def __init__(self) -> None:
        import duckdb  # noqa: PLC0415 - see `require_duckdb`

        self._asked_at = 0
        self._passes = 1
        self._thread = ThreadPoolExecutor(1)
        self._open = threading.Lock()
        self._is_closed = False
        self._malformed = (duckdb.InvalidInputException, duckdb.ConversionException)
        self._no_memory = duckdb.OutOfMemoryException
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

    @property
    def count(self) -> int:
        """How many there are."""
        with self._explained():
            return self._number(_COUNT)

    def interrupt(self) -> None:
        """End the statement that another thread is in, or its next one: it raises there. For the end alone."""
        with self._open:
            if not self._is_closed:
                self._database.interrupt()

    def close(self) -> None:
        """Remove everything from disk."""
        with signals_held():  # DuckDB crashes when it is closed while the thread is in a query: that is waited for
            with self._open:
                self._is_closed = True
            self._thread.shutdown(cancel_futures=True)
            self._database.close()
            self.remove()

    def remove(self) -> None:
        """Remove everything from disk, whoever still uses it."""
        self._temporary.cleanup()

    def load(self, path: Path, *, is_in_lines: bool = True) -> int:
        """Take all records of a file, or none: JSON objects, which may span lines, gzipped if the name says so.

        Args:
            path: The file.
            is_in_lines: Whether it is known to have no line of many megabytes.

        Returns:
            How many places in its strings were mended: broken text is not a broken file.

        Raises:
            MalformedFileError: It holds anything else, or no object with a `deviceId`.
        """
        try:
            self._load(path, is_in_lines=is_in_lines)
        except MalformedFileError:
            mended = path.with_name(f"{path.name}.mended.gz")
            try:
                count = mend(path, mended)
                if not count:
                    raise
                self._load(mended, is_in_lines=is_in_lines)
            finally:
                mended.unlink(missing_ok=True)
            return count
        return 0

    def _load(self, path: Path, *, is_in_lines: bool) -> None:
        """Take all records of a file, or none."""
        with self._explained():
            known = spellings(names_in(path, SAMPLE_BYTES))
            for form in _forms(path, is_in_lines=is_in_lines):
                try:
                    rows = self._insert_in_passes(path, form, known)
                except (*self._malformed, MalformedFileError) as error:
                    reason = re.sub(r" in file \".*?\"", "", str(error).partition("\n")[0])
                else:
                    break
            else:
                raise MalformedFileError(printable(reason))
        if not rows:
            msg = "no object in it has a deviceId"
            raise MalformedFileError(msg)

    def _insert_in_passes(self, path: Path, form: str, known: Sequence[Mapping[str, str]]) -> int:
        """Take the records of a file in as many passes as before, or in more, where memory does not suffice.

        Returns:
            How many rows of `found` they became.
        """
        while True:
            self._database.begin()
            try:
                rows = self._insert(path, form, known)
            except BaseException as error:
                self._database.rollback()
                if not isinstance(error, self._no_memory) or self._passes == MOST_PASSES:
                    raise
                self._passes *= 2
            else:
                self._database.commit()
                return rows

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
        starts = range(0, len(machine_ids), MACHINES_AT_ONCE)
        parts = (machine_ids[start : start + MACHINES_AT_ONCE] for start in starts)
        begun = (self._begun(_MISSING, [part[0], part[-1]]) for part in parts)
        ahead = next(begun, None)
        while ahead:
            rows = self._rows_of(ahead.result())
            ahead = next(begun, None)
            for machine_id, found in groupby(rows, key=itemgetter("machine_id")):
                yield machine_id, [row for row in found if row["id"] is not None]

    def kb_cves(self) -> Iterator[dict[str, Any]]:
        """Which CVEs each update closes, and how bad they are at the worst over all machines; records by column."""
        return self._rows(_KB_CVES)

    def _insert(self, path: Path, form: str, known: Sequence[Mapping[str, str]]) -> int:
        """Take the records of a file, however its properties are spelled.

        Args:
            path: The file.
            form: One of its `_forms`.
            known: The spellings that its beginning has.

        Returns:
            How many rows of `found` they became.

        Raises:
            MalformedFileError: A line may be `null`, which this form takes for a record.
        """
        self._met_strangers()
        rows = sum(self._insert_spelled(path, form, names) for names in known)
        if self._met_strangers():
            if form == LINES:
                msg = "a line in it may be no object"
                raise MalformedFileError(msg)
            more = [names for names in spellings(names_in(path)) if names not in known]
            rows += sum(self._insert_spelled(path, form, names) for names in more)
        return rows

    def _insert_spelled(self, path: Path, form: str, names: Mapping[str, str]) -> int:
        """Take the records of a file whose properties have these spellings; returns how many rows they became."""
        sql = _INSERT.format(
            severity=_ranked("vulnerabilitySeverityLevel", SEVERITIES),
            exploitability=_ranked("exploitabilityLevel", EXPLOITABILITIES),
            number=_NUMBER,
            spelled=", ".join(f'"{spelling}" AS {name}' for name, spelling in names.items()),
            format=form,
            types=", ".join(f"'{spelling}': 'VARCHAR'" for spelling in names.values()),
        )
        return sum(
            self._number(sql, {"path": str(path), "passes": self._passes, "number": number})
            for number in range(self._passes)
        )

    def _number(self, sql: str, parameters: Mapping[str, Any] | None = None) -> int:
        """The only number that a query gives, or how many rows a statement inserts."""
        [(number,)] = self._database.execute(sql, parameters).fetchall()
        return int(number)

    def _met_strangers(self) -> bool:
        """Whether `_INSERT` met records with none of its properties since this was last asked."""
        before, self._asked_at = self._asked_at, self._number("SELECT nextval('strangers')")
        return self._asked_at > before + 1

    def _rows(self, sql: str) -> Iterator[dict[str, Any]]:
        """The rows of a query, by column."""
        return self._rows_of(self._asked(sql))

    def _asked(self, sql: str, parameters: Sequence[Any] = ()) -> DuckDBPyConnection:
        """The cursor of a query: one of its own, since other queries may run in between."""
        with self._explained():
            return self._database.cursor().execute(sql, parameters)

    def _begun(self, sql: str, parameters: Sequence[Any]) -> Future[DuckDBPyConnection]:
        """A query under way in the thread; its cursor, when it is there."""
        with signals_held():  # the thread, if it is started here, must not get one
            return self._thread.submit(self._asked, sql, parameters)

    def _rows_of(self, cursor: DuckDBPyConnection) -> Iterator[dict[str, Any]]:
        """What is left of a query's rows, by column."""
        with self._explained():
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


def _forms(path: Path, *, is_in_lines: bool) -> Sequence[str]:
    """How a file's objects may stand in it, as DuckDB calls that; the quickest first, which is strict."""
    with opened(path) as file:
        is_array = file.read(SAMPLE_BYTES).lstrip()[:1] == b"["
    if is_array:
        return ("array",)
    return (LINES, "unstructured") if is_in_lines else ("unstructured",)


def _ranked(name: str, order: Sequence[str]) -> str:
    """SQL for a property's value with its rank before it, so that the worst is the greatest; null if it has none."""
    ranks = " ".join(f"WHEN '{word.lower()}' THEN {rank}" for rank, word in enumerate(order, start=1))
    return f"CASE WHEN {name} <> '' THEN CASE lower({name}) {ranks} ELSE 0 END || {name} END"
