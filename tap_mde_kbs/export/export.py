"""The bulk source: what every machine lacks out of a vulnerability export, in a few calls and some gigabytes.

An export is read to its end, checked and grouped on disk, before the first row is written. The answers are then
taken out of it machine by machine, in id order, as a sweep asks for them.

Decisions:

- Files are fetched two ahead and checked before they are read, so that what is read is whole, and the time that
  a signature is good for does not depend on how fast rows are written.
- A file is known by the path of its link, and its place among those of the same path: after a 403 the new list has
  other signatures for the same paths. A list of other paths is another export, whatever its `generatedTime` says.
- The JSON pages say no `generatedTime`: what they tell is as of when the first was asked for, six hours old at most.

Sources: learn.microsoft.com, "Export software vulnerabilities assessment per device"; the files' oddities (404, empty,
PascalCase) are seen in recorded answers.
"""

from __future__ import annotations

import contextlib
import tempfile
import threading
import time
from collections import Counter
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol
from urllib.parse import parse_qsl, urlsplit

from typing_extensions import override

from tap_mde_kbs import schema as schemas
from tap_mde_kbs.api.client import DefenderStream, other_shape, records_of
from tap_mde_kbs.errors import API_REMEDIES, ApiError, NoAnswerError, printable
from tap_mde_kbs.export.download import BrokenError, ExpiredError, NotThereError, Storage, shown
from tap_mde_kbs.export.records import MalformedError, MissingKb, Vulnerabilities
from tap_mde_kbs.sweep.pool import Answer, NotInExport, Threads

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

    from singer_sdk.helpers.types import Context

    from tap_mde_kbs.api.client import Connection

PERMISSION = "Vulnerability.Read.All"
FILES_AHEAD = 2
PAGE_SIZE = 20_000
"""Records of a page; some 25 MB. At 30 calls a minute that is 600,000 records a minute."""

TRIES = 4
"""How often a file that does not come whole is fetched."""

WAITS = 12
SECONDS_BETWEEN_WAITS = 5.0
"""For a file that is late: a minute in all."""

RENEWALS = 3
"""How many lists in a row are asked for when the links of each are refused, and how many exports are begun."""

SECONDS_BETWEEN_LINES = 10.0
NAMED_MACHINES = 20


class Snapshot(NamedTuple):
    """An export as the API lists it."""

    generated_at: str
    links: Mapping[str, str]
    """The files' links, by a name that a list with new signatures has for the same file."""


class Page(NamedTuple):
    """A page of an export in JSON."""

    records: list[dict[str, Any]]
    next_link: str | None


class SupersededError(Exception):
    """The files of an export are gone: there is a new one."""

    def __init__(self, snapshot: Snapshot) -> None:
        super().__init__()
        self.snapshot = snapshot


class BulkCall(DefenderStream):
    """A call with the errors and retries of the streams; no stream of the tap itself."""

    schema = {"properties": {}}  # noqa: RUF012 - the SDK asks for one
    permission = PERMISSION

    @override
    def backoff_max_tries(self) -> int:
        """More than for one machine: without it there is no run."""
        return 6


class ListOfFiles(BulkCall):
    """Where the files of the newest export are."""

    name = "SoftwareVulnerabilitiesExport"
    path = "/api/machines/SoftwareVulnerabilitiesExport"

    @override
    def get_url_params(self, context: Context | None, next_page_token: Any) -> dict[str, Any]:
        return {"sasValidHours": 1}

    @override
    def read(self, document: object, path: str) -> Snapshot:
        """The export's time, and its files."""
        listed = document if isinstance(document, dict) else {}
        links = listed.get("exportFiles")
        if not isinstance(links, list) or not all(isinstance(link, str) for link in links):
            raise other_shape(document, path, "there is no list `exportFiles` of links in it")
        try:
            generated_at = moment(str(listed.get("generatedTime")))
        except ValueError:
            raise other_shape(document, path, "there is no `generatedTime` in it") from None
        return Snapshot(generated_at, dict(_named(links)))


class Pages(BulkCall):
    """The newest export, by the page."""

    name = "SoftwareVulnerabilitiesByMachine"
    path = "/api/machines/SoftwareVulnerabilitiesByMachine"

    @override
    def get_url(self, context: Context | None) -> str:
        return str((context or {}).get("link") or super().get_url(context))

    @override
    def get_url_params(self, context: Context | None, next_page_token: Any) -> dict[str, Any]:
        context = context or {}
        return {} if context.get("link") else {"pageSize": context.get("size", PAGE_SIZE)}

    @override
    def read(self, document: object, path: str) -> Page:
        """The page's records, and the link to the next page, which is opaque but for its host."""
        records = records_of(document, path, has_id=False)
        link = document.get("@odata.nextLink") if isinstance(document, dict) else None
        if link and not self._is_ours(link):
            raise other_shape(document, path, f"its next link is not on {self.url_base}")
        return Page(records, link or None)

    def _is_ours(self, link: object) -> bool:
        own = urlsplit(self.url_base + self.path)
        try:
            parts = urlsplit(str(link))
            same_host = (parts.scheme, parts.hostname, parts.port or 443) == ("https", own.hostname, own.port or 443)
        except ValueError:
            return False
        return same_host and parts.path.lower() == own.path.lower() and parts.username is None


class Source(Protocol):
    """A way to read an export."""

    def latest(self) -> Snapshot:
        """The newest export that there is."""

    def probe(self) -> str:
        """Check in a call or two that it can be read; what was found, as a person says it."""

    def read(self, snapshot: Snapshot, into: Vulnerabilities, folder: Path) -> None:
        """Read all of it.

        Raises:
            SupersededError: It is gone, and there is a newer one.
            TapError: It can't be read.
        """


class Export:
    """Reads an export, and answers out of it.

    Args:
        source: How it is read.
        connection: Whose time may be over.
        log: Where a person reads how it goes.
        unlisted: Where fields that do not fit are reported.
    """

    def __init__(self, source: Source, connection: Connection, log: logging.Logger, unlisted: schemas.Unlisted) -> None:
        self._source = source
        self._connection = connection
        self._log = log
        self._unlisted = unlisted

    def probe(self) -> str:
        """Check in a call or two that an export can be read; what was found, as a person says it."""
        return self._source.probe()

    @contextlib.contextmanager
    def taken(self, is_due: Callable[[str], bool]) -> Iterator[Taken | None]:
        """The newest export, wholly read; None if it is not to be.

        Args:
            is_due: Whether an export of this time is to be read.
        """
        snapshot = self._source.latest()
        if not is_due(snapshot.generated_at):
            yield None
            return
        started = time.monotonic()
        with contextlib.ExitStack() as stack:
            for _ in range(RENEWALS):
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tap-mde-kbs-")))
                records = stack.enter_context(Vulnerabilities(folder))
                try:
                    self._source.read(snapshot, records, folder)
                except SupersededError as error:
                    self._log.warning("There is a newer export, of %s: starting over.", error.snapshot.generated_at)
                    stack.close()
                    snapshot = error.snapshot
                    continue
                self._log.info(
                    "Export of %s: %d records read in %d s.",
                    snapshot.generated_at,
                    records.count,
                    time.monotonic() - started,
                )
                yield Taken(records, snapshot.generated_at, self._connection, self._unlisted)
                return
        msg = f"The files of {RENEWALS} exports were gone before they were read."
        raise ApiError(msg, "Run again; if that goes on, set missing_kbs_source to export_json.")


class Taken:
    """An export that was read, as a pool that machines are asked in: in id order, each once."""

    size = 1

    def __init__(
        self, records: Vulnerabilities, generated_at: str, connection: Connection, unlisted: schemas.Unlisted
    ) -> None:
        self.generated_at = generated_at
        self._records = records
        self._connection = connection
        self._unlisted = unlisted
        self._missed_on = records.missed_on()
        self._missing: Iterator[tuple[str, list[MissingKb]]] | None = None
        self._next: tuple[str, list[MissingKb]] | None = None

    def submit(self, machine_id: str) -> None:
        """Nothing: all that is asked is here already."""

    def result(self, machine_id: str) -> Answer:
        """What a machine lacks; of those asked, the next in id order.

        Raises:
            NotInExport: The export does not have it.
            Stopped: The run's time is over.
        """
        self._connection.go_on()
        if self._missing is None:
            self._missing = self._records.missing(machine_id)
            self._next = next(self._missing, None)
        while self._next and self._next[0] < machine_id:
            self._next = next(self._missing, None)
        if not self._next or self._next[0] != machine_id:
            raise NotInExport
        return Answer([self._row(machine_id, kb) for kb in self._next[1]], self.generated_at)

    def kb_cves(self) -> Iterator[dict[str, Any]]:
        """Which CVEs each update closes, a record each."""
        for found in self._records.kb_cves():
            yield {
                name: schemas.text(value, self._unlisted) if isinstance(value, str) else value
                for name, value in found._asdict().items()
            }

    def strangers(self, listed: Collection[str]) -> str:
        """The machines that are in the export and not in the list, as a sentence; empty if there are none."""
        found = [device for device in self._records.devices() if device not in listed]
        named = ", ".join(printable(device, 80) for device in found[:NAMED_MACHINES])
        more = ", …" if len(found) > NAMED_MACHINES else ""
        return (
            f"{len(found)} machines of the export are not in the list, and have no rows: {named}{more}" if found else ""
        )

    def _row(self, machine_id: str, kb: MissingKb) -> dict[str, Any]:
        fields = {
            "id": kb.id,
            "name": kb.name,
            "productsNames": kb.products,
            "url": kb.url,
            "machineMissedOn": self._missed_on[kb.id],
            "cveAddressed": kb.cves,
            "firstSeenAt": kb.first_seen,
        }
        row = schemas.export_fields(fields, self._unlisted)
        return {"machine_id": machine_id, **row, "checked_at": self.generated_at}


class FileSource:
    """The export as files.

    Args:
        call: Lists them.
        connection: Whose time may be over.
        storage: Fetches them.
        log: Where a person reads how it goes.
    """

    def __init__(self, call: ListOfFiles, connection: Connection, storage: Storage, log: logging.Logger) -> None:
        self._call = call
        self._connection = connection
        self._storage = storage
        self._log = log
        self._lock = threading.Lock()
        self._refused = 0

    def latest(self) -> Snapshot:
        """The newest export that there is."""
        snapshot: Snapshot = self._call.ask({})
        return snapshot

    def probe(self) -> str:
        """List the files, and knock at the door of the first."""
        snapshot = self.latest()
        for link in [*snapshot.links.values()][:1]:
            try:
                self._storage.probe(link)
            except (ExpiredError, NotThereError, BrokenError) as error:
                msg = f"A file of the export can't be fetched: {error}."
                raise ApiError(msg, API_REMEDIES["export"].advice) from None
        return f"an export of {snapshot.generated_at} in {len(snapshot.links)} files"

    def read(self, snapshot: Snapshot, into: Vulnerabilities, folder: Path) -> None:
        """Fetch its files, a few ahead, and read each when it is whole."""
        self._snapshot = snapshot
        self._folder = folder
        self._refused = 0
        names = [*snapshot.links]
        told = time.monotonic()
        with Threads(self._fetch, FILES_AHEAD, self._connection.go_on) as pool:
            for name in names[:FILES_AHEAD]:
                pool.submit(name)
            for number, name in enumerate(names):
                self._load(name, pool, into)
                for ahead in names[number + FILES_AHEAD : number + FILES_AHEAD + 1]:
                    pool.submit(ahead)
                if time.monotonic() - told > SECONDS_BETWEEN_LINES:
                    told = time.monotonic()
                    self._log.info("%d of %d files read, %d records.", number + 1, len(names), into.count)

    def _load(self, name: str, pool: Threads[Path | None], into: Vulnerabilities) -> None:
        for tries_left in reversed(range(TRIES)):
            path = pool.result(name)
            if path is None:
                self._log.warning("%s is empty, and stays so: taken as it is.", shown(self._snapshot.links[name]))
                return
            try:
                into.load(path)
            except MalformedError as error:
                self._failed(f"{shown(self._snapshot.links[name])} is malformed: {printable(error)}", tries_left)
                pool.submit(name)
            else:
                return
            finally:
                path.unlink()

    def _fetch(self, name: str) -> Path | None:
        """Fetch a file, in a thread: checked, and its path, or None if it is empty for good."""
        path = self._folder / f"{threading.get_ident()}-{time.monotonic_ns()}.json.gz"
        waits, tries = WAITS, TRIES
        while True:
            self._connection.go_on()
            link = self._snapshot.links[name]
            try:
                if self._storage.fetch(link, path):
                    self._refused = 0
                    return path
                if not waits:
                    return None
                waits -= 1
            except ExpiredError as error:
                self._renew(name, link, str(error))
                continue
            except NotThereError as error:
                if not waits:
                    msg = f"A file of the export is not there: {error}."
                    raise ApiError(msg, API_REMEDIES["export"].advice) from None
                waits -= 1
            except BrokenError as error:
                tries -= 1
                self._failed(str(error), tries)
            time.sleep(SECONDS_BETWEEN_WAITS)

    def _failed(self, reason: str, tries_left: int) -> None:
        """Count a file that did not come whole.

        Raises:
            NoAnswerError: There is no try left.
        """
        if not tries_left:
            msg = f"{reason}. Tried {TRIES} times."
            raise NoAnswerError(msg, API_REMEDIES["export"].advice)
        self._connection.retries += 1
        self._log.debug("Fetching it again: %s", reason)

    def _renew(self, name: str, link: str, reason: str) -> None:
        """Have new links for what was not read yet: those at hand are refused.

        Raises:
            SupersededError: They are another export's.
            ApiError: New links are refused as well.
        """
        with self._lock:
            if self._snapshot.links[name] != link:
                return  # another thread did it
            if self._refused == RENEWALS:
                msg = f"The links of {RENEWALS} lists were refused: {reason}."
                raise ApiError(msg, API_REMEDIES["export"].advice)
            self._refused += 1
            self._log.debug("A new list of files: %s", reason)
            snapshot = self.latest()
            if snapshot.generated_at != self._snapshot.generated_at or name not in snapshot.links:
                raise SupersededError(snapshot)
            self._snapshot = Snapshot(snapshot.generated_at, {**self._snapshot.links, **snapshot.links})


class PageSource:
    """The export as JSON pages.

    Args:
        call: Asks for them.
        connection: Whose time may be over.
        log: Where a person reads how it goes.
    """

    def __init__(self, call: Pages, connection: Connection, log: logging.Logger) -> None:
        self._call = call
        self._connection = connection
        self._log = log

    def latest(self) -> Snapshot:
        """The one that is there now; it has no time of its own."""
        return Snapshot(schemas.utc(datetime.now(timezone.utc)), {})

    def probe(self) -> str:
        """Ask for a short page."""
        page: Page = self._call.ask({"size": 10})
        return f"{len(page.records)} records of an export on a page of ten"

    def read(self, snapshot: Snapshot, into: Vulnerabilities, folder: Path) -> None:  # noqa: ARG002 - as of a Source
        """Follow the links to the last page."""
        link: str | None = None
        met: set[str] = set()
        told = time.monotonic()
        while link or not met:
            self._connection.go_on()
            page: Page = self._call.ask({"link": link})
            if page.records:
                self._add(page.records, into, folder)
            link = page.next_link
            token = dict(parse_qsl(urlsplit(link or "").query)).get("$skiptoken", link or "")
            if link and token in met:
                msg = f"The pages of {self._call.path} go round in a circle."
                raise ApiError(msg, API_REMEDIES["shape"].advice)
            met.add(token)
            if time.monotonic() - told > SECONDS_BETWEEN_LINES:
                told = time.monotonic()
                self._log.info("%d pages read, %d records.", len(met), into.count)

    def _add(self, records: Iterable[Mapping[str, Any]], into: Vulnerabilities, folder: Path) -> None:
        try:
            into.add(folder / "page.json", records)
        except MalformedError as error:
            msg = f"GET {self._call.path} answered with records of another shape than documented: {printable(error)}."
            raise ApiError(msg, API_REMEDIES["shape"].advice) from None


def _named(links: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Each link once, with its file's name."""
    places: Counter[str] = Counter()
    for link in dict.fromkeys(links):
        path = urlsplit(link).path
        yield f"{path} {places[path]}", link
        places[path] += 1


def moment(text: str) -> str:
    """A time of the API as `checked_at` is written, so that the two compare: UTC, six decimals.

    Raises:
        ValueError: It is none.
    """
    iso = schemas.date_time(text, schemas.Unlisted(lambda _: None))
    return schemas.utc(datetime.fromisoformat(iso.replace("Z", "+00:00")))
