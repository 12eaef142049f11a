"""Faults: what goes wrong, where, how often; by rule, or by chance with a seed.

Declarative: this module decides which fault a request meets, and reads faults from text for the
command line. What a fault does to the response is up to `routes.py` and `server.py`.
"""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from mde_simulator.fleet.catalogue import dice

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

API, LIST, KBS, LOGIN = "/api/*", "/api/machines", "/api/machines/*/getmissingkbs", "*/token"
EXPORT, EXPORT_JSON = "/api/machines/SoftwareVulnerabilitiesExport", "/api/machines/SoftwareVulnerabilitiesByMachine"
"""The calls for whole exports, and where their files are on the storage host."""
STORAGE = "/tvm-export/"
FILE = f"{STORAGE}*"
DISCOVERY = "*/.well-known/openid-configuration"
"""The authority's description of itself, which MSAL asks for first."""
KINDS: dict[str, tuple[str, str]] = {
    "flapping": (KBS, "404 for a machine that exists, twice for each; then an answer"),
    "not_found": (KBS, "404 for a machine that exists"),
    "500": (API, "InternalServerError"),
    "502": (API, "a gateway's HTML page"),
    "503": (API, "a gateway's HTML page"),
    "504": (API, "a gateway's HTML page"),
    "reset": (API, "the connection is reset instead of an answer"),
    "cut": (API, "the connection ends in the middle of the body"),
    "html": (API, "200 with an HTML page"),
    "garbage": (API, "200 with something that is called JSON and is none"),
    "slow": (API, "the answer comes `seconds` late"),
    "throttled": (API, "429 although the client kept to its share; Retry-After is `seconds`"),
    "revoked": (API, "401, and every token given out so far is void"),
    "forbidden": (API, "403: a role is missing"),
    "unlicensed": (API, "403 with `No Tvm license`"),
    "redirect": (API, "302 to `text`, another host"),
    "not_a_list": (API, "`value` is no list"),
    "not_an_object": (API, "a record is no object"),
    "no_id": (API, "a record has no id"),
    "leaving": (LIST, "a machine already read leaves while the list is walked: the rest shifts"),
    "duplicate": (LIST, "a page begins with the last machine of the page before; the rest shifts"),
    "endless": (API, "a body that goes on until the client has enough"),
    "endless_nothing": (API, "the same, after the end of what is deflated: it inflates to nothing"),
    "bomb": (API, "a small body that inflates to `size` bytes, 2 GiB by default"),
    "nested": (API, "JSON that is nested `size` deep, 100,000 by default"),
    "drip": (API, "a byte of the body every `seconds`"),
    "long_header": (API, "a header of `size` bytes, 1 MiB by default"),
    "many_headers": (API, "headers of 1,000 bytes, together `size`, 1 MiB by default"),
    "long_error": (API, "400, or `status`, with a message of `size` bytes, 5 MiB by default"),
    "control_error": (API, "400, or `status`, with control characters in its message"),
    "control_names": (API, "control characters in the names of machines and KBs"),
    "echo": (API, "400, or `status`, whose message repeats the request, secrets and all"),
    "foreign_link": (LIST, "a next link to `text`, another host"),
    "export_new": (EXPORT, "a snapshot is made just before the response, so that the next list has other files"),
    "export_late": (FILE, "404 for a file that exists, twice for each; then the file"),
    "export_not_yet": (FILE, "the same for `seconds` after the list"),
    "export_expired": (FILE, "403 `Signature not valid`, whatever the link says"),
    "export_storage_down": (FILE, "503 from the storage host"),
    "export_empty": (FILE, "200 with no bytes"),
    "export_nothing": (FILE, "a gzip of nothing"),
    "export_cut": (FILE, "the connection ends in the middle of the file"),
    "export_truncated": (FILE, "half of the file, with a Content-Length that says so"),
    "export_corrupt": (FILE, "the checksum of the gzip is wrong"),
    "export_malformed": (FILE, "a line in the middle is no JSON, or is `text`"),
    "export_multiline": (FILE, "objects over several lines each"),
    "export_camel": (FILE, "camelCase and nulls, as in the JSON response"),
    "foreign_skiptoken_link": (EXPORT_JSON, "a next link to `text`, another host"),
    "endless_skiptoken": (EXPORT_JSON, "a next link that leads to the same page again"),
    "sign_in": (LOGIN, "Entra ID's error `code`"),
    "sign_in_down": ("*", "503 from the whole sign-in service; path=*/token: for tokens alone"),
    "sign_in_throttled": (LOGIN, "429 from the sign-in service; Retry-After is `seconds`"),
    "sign_in_html": (LOGIN, "200 with an HTML page, as a portal in between shows it"),
}
"""Every kind of fault: where it strikes unless told otherwise, and what it is."""
SIGN_IN = ("sign_in", "sign_in_down", "sign_in_throttled", "sign_in_html")
"""Kinds that never strike the API or the storage host, whatever the path."""
EACH = {"flapping": 2, "export_late": 2}
"""Kinds that strike each machine for itself, with how often."""
ONCE = ("revoked", "leaving", "export_new")
"""Kinds that strike once unless told otherwise."""
WALKING = ("leaving", "duplicate")
"""Kinds that strike only on a list's second page and on."""
RETRY_AFTER_FORMS = ("seconds", "date", "absent")


@dataclass(frozen=True)
class Fault:
    """One rule.

    Args:
        kind: One of `KINDS`.
        path: A pattern for the request's decoded path, with `*`; by default the kind's own.
        machine: Only calls about this machine.
        method: Only calls with this method.
        times: It strikes so often; None: for ever. (`flapping` and `export_late`: twice for each path;
            `revoked`, `leaving` and `export_new`: once.)
        after: So many matching requests pass first.
        chance: The share of matching requests that it strikes; of paths, with `each`.
        each: Count `times` and `after`, and draw the chance, for each path by itself.
        seconds: How long `slow` waits, or `drip` before each byte, or `export_not_yet` lasts, or what
            Retry-After says.
        retry_after: How the 429s and `sign_in_down` say it: "seconds", "date" or "absent".
        code: The AADSTS number of `sign_in`, and of errors with a hostile text at the sign-in.
        status: Another status than the kind's own.
        text: For `redirect` and the foreign links where to; for `control_…` the characters; the body of
            `html` and `garbage`, the message of others.
        size: How large the large kinds are: bytes, or levels; 0: the kind's own.
    """

    kind: str
    path: str = ""
    machine: str | None = None
    method: str | None = None
    times: int | None = None
    after: int = 0
    chance: float = 1.0
    each: bool = False
    seconds: float = 1.0
    retry_after: str = "seconds"
    code: int = 7000215
    status: int | None = None
    text: str = ""
    size: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            msg = f"There is no fault {self.kind!r}; there are {', '.join(KINDS)}."
            raise ValueError(msg)
        if self.retry_after not in RETRY_AFTER_FORMS:
            msg = f"retry_after is one of {', '.join(RETRY_AFTER_FORMS)}."
            raise ValueError(msg)
        if not 0 <= self.chance <= 1 or min(self.after, self.seconds, self.size) < 0:
            msg = "chance is from 0 to 1, after, seconds and size are not negative."
            raise ValueError(msg)

    def concerns(self, method: str, path: str, machine_id: str | None) -> bool:
        """Whether it is about such a request at all."""
        if self.kind in SIGN_IN and path.lower().startswith(("/api/", STORAGE)):
            return False
        return (
            fnmatchcase(path.lower(), (self.path or KINDS[self.kind][0]).lower())
            and self.machine in (None, machine_id)
            and self.method in (None, method)
        )

    @classmethod
    def parse(cls, text: str) -> Fault:
        """A fault as written on a command line: `reset:chance=0.05,times=3`.

        Raises:
            ValueError: It says nothing that is understood; the message says what.
        """
        kind, _, options = text.partition(":")
        values: dict[str, Any] = {}
        types = {item.name: str(item.type) for item in fields(cls) if item.name != "kind"}
        for option in options.split(",") if options.strip() else ():
            name, equals, value = (part.strip() for part in option.partition("="))
            if not equals or name not in types:
                msg = f"{option.strip()!r} is not one of {', '.join(types)} with a value."
                raise ValueError(msg)
            try:
                values[name] = _value(types[name], value)
            except ValueError as error:
                msg = f"{name} is a number, and {value!r} is none."
                raise ValueError(msg) from error
        return cls(kind.strip(), **values)


def _value(type_: str, text: str) -> object:
    if type_.startswith("int"):
        return int(text)
    if type_ == "float":
        return float(text)
    if type_ == "bool":
        return text.lower() in ("1", "true", "yes")
    return text


class Faults:
    """The faults of a tenant, to be changed at any time; the first that strikes is it.

    Chance does not depend on how threads take turns: it is drawn from the seed, the fault, the
    path, and how often that path was asked.
    """

    def __init__(self, faults: Iterable[Fault] = (), seed: int = 0) -> None:
        self.seed = seed
        self._lock = threading.Lock()
        self._faults: list[Fault] = []
        self._seen: Counter[tuple[int, str]] = Counter()
        self._matched: Counter[tuple[int, str]] = Counter()
        self._struck: Counter[tuple[int, str]] = Counter()
        self._offset = 0
        self.add(*faults)

    def __iter__(self) -> Iterator[Fault]:
        return iter(list(self._faults))

    def add(self, *faults: Fault) -> None:
        """From now on these too."""
        with self._lock:
            self._faults.extend(faults)

    def clear(self) -> None:
        """From now on all is well."""
        with self._lock:
            self._offset += len(self._faults)
            self._faults.clear()

    def strike(self, method: str, path: str, machine_id: str | None = None, *, walking: bool = False) -> Fault | None:
        """The fault that this request meets, counted as met.

        Args:
            method: The request's.
            path: Decoded, without the query.
            machine_id: The machine it is about.
            walking: Whether it asks for a further page of a list.
        """
        with self._lock:
            for number, fault in enumerate(self._faults, self._offset):
                if fault.kind in WALKING and not walking:
                    continue
                if fault.concerns(method, path, machine_id) and self._strikes(number, fault, path):
                    return fault
        return None

    def _strikes(self, number: int, fault: Fault, path: str) -> bool:
        each = fault.each or fault.kind in EACH
        key = (number, path if each else "")
        times = fault.times
        if times is None:
            times = EACH.get(fault.kind, 1 if fault.kind in ONCE else None)
        self._seen[number, path] += 1
        draw = 0 if each else self._seen[number, path]
        if fault.chance < 1 and dice(self.seed, number, path, draw).random() >= fault.chance:
            return False
        self._matched[key] += 1
        if self._matched[key] <= fault.after:
            return False
        if times is not None and self._struck[key] >= times:
            return False
        self._struck[key] += 1
        return True
