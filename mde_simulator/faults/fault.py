"""What a fault is: its kind, the rule by which it strikes, and what its effect sees when it does.

An effect is a function of a `Strike`. It may answer itself, let the service answer and change the
response, or first do something to the tenant. Knows no kind in particular.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from email.utils import formatdate
from fnmatch import fnmatchcase
from functools import wraps
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from mde_simulator.exports.storage import FOLDER, with_bytes
from mde_simulator.http.journal import FEED_PATHS

if TYPE_CHECKING:
    from mde_simulator.http.messages import Request, Response
    from mde_simulator.tenant import Tenant

API, LIST, KBS = "/api/*", "/api/machines", "/api/machines/*/getmissingkbs"
EXPORT, EXPORT_JSON = "/api/machines/SoftwareVulnerabilitiesExport", "/api/machines/SoftwareVulnerabilitiesByMachine"
FILE = f"{FOLDER}*"
"""An export's files on the storage host."""
LOGIN, DISCOVERY = "*/token", "*/.well-known/openid-configuration"
"""A token, and the authority's description of itself, which MSAL asks for first."""
RETRY_AFTER_FORMS = ("seconds", "date", "absent")


@dataclass(frozen=True)
class Kind:
    """One kind of fault.

    Attributes:
        path: Where it strikes unless told otherwise, a pattern.
        help: What it is, in a line.
        effect: What it does to the request that it strikes.
        times: How often it strikes unless told otherwise; None: always.
        each: Whether it counts each path by itself.
        walking: Whether it strikes only from a list's second page on.
        sign_in: Whether it never strikes the API or the storage host, whatever its path.
        feed: Whether it strikes the advisory feeds alone.
        size: How large it is unless told otherwise.
    """

    path: str
    help: str
    effect: Callable[[Strike], Response]
    times: int | None = None
    each: bool = False
    walking: bool = False
    sign_in: bool = False
    feed: bool = False
    size: int = 0


Effect: TypeAlias = Callable[["Strike"], "Response"]
KINDS: dict[str, Kind] = {}
"""Every kind by its name; filled by `kind`."""


def kind(name: str, path: str, help_: str, **rule: Any) -> Callable[[Effect], Effect]:
    """Make a kind of fault of an effect; `rule` are further attributes of `Kind`."""

    def register(effect: Effect) -> Effect:
        KINDS[name] = Kind(path, help_, effect, **rule)
        return effect

    return register


@dataclass(frozen=True)
class Fault:
    """One rule.

    Args:
        kind: One of `KINDS`.
        path: A pattern for the request's decoded path, with `*`; by default the kind's own.
        machine: Only calls about this machine.
        method: Only calls with this method.
        times: How often it strikes; None: as often as its kind does, which for most is always.
        after: How many matching requests pass before it strikes.
        chance: The share of matching requests that it strikes; of paths, with `each`.
        each: Count `times` and `after`, and draw the chance, for each path by itself.
        seconds: How long `slow` waits, or `drip` before each byte, or `export_not_yet` lasts, or what
            Retry-After says.
        retry_after: How the 429s and `sign_in_down` say it: "seconds", "date" or "absent".
        code: The AADSTS number of `sign_in`, and of errors with a hostile text at the sign-in.
        status: Another status than the kind's own.
        text: What the kind's help says; the message of an error.
        size: How large, or how many, as the kind's help says; 0: the kind's own.
        date: The header Date, instead of the server's time.
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
    date: str = ""

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
        kind = KINDS[self.kind]
        if kind.sign_in and path.lower().startswith(("/api/", FOLDER)):
            return False
        if kind.feed and not any(part in path.lower() for part in FEED_PATHS.values()):
            return False
        return (
            fnmatchcase(path.lower(), (self.path or kind.path).lower())
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
        for option in options.split(",") if options.strip() else ():
            name, equals, value = (part.strip() for part in option.partition("="))
            if not equals or name not in OPTIONS:
                msg = f"{option.strip()!r} is not one of {', '.join(OPTIONS)} with a value."
                raise ValueError(msg)
            try:
                values[name] = _value(OPTIONS[name], value)
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


OPTIONS = {item.name: str(item.type) for item in fields(Fault) if item.name != "kind"}
"""What a fault's text may say besides its kind, with the types."""


class Struck(Protocol):
    """The service at which a fault strikes."""

    @property
    def tenant(self) -> Tenant:
        """What stands behind it."""

    def error(self, request: Request, text: str, status: int, code: int) -> Response:
        """An error as this service words it.

        Args:
            request: What was asked.
            text: The message; the service's own if there is none.
            status: Of the response, unless the code decides it.
            code: The AADSTS number, at a sign-in.
        """

    def close(self, request: Request, seconds: float) -> None:
        """Watch that no such request comes before the seconds are over: that is a violation."""


@dataclass(frozen=True)
class Strike:
    """A fault that strikes a request: what its effect sees, and what it may touch.

    Attributes:
        answer: What the service says if it is let.
    """

    fault: Fault
    request: Request
    service: Struck
    answer: Callable[[], Response]

    @property
    def tenant(self) -> Tenant:
        """What stands behind the service."""
        return self.service.tenant

    @property
    def size(self) -> int:
        """How large the fault is."""
        return self.fault.size or KINDS[self.fault.kind].size

    def error(self, text: str = "", code: int | None = None) -> Response:
        """An error as the service words it."""
        status = self.fault.status or HTTPStatus.BAD_REQUEST
        return self.service.error(self.request, text, status, code or self.fault.code)

    def retry_later(self, response: Response) -> Response:
        """Say in the response when to come back, and have the service watch for who comes earlier."""
        if self.fault.retry_after == "absent":
            return response
        seconds = float(math.ceil(self.fault.seconds))
        response.headers["Retry-After"] = f"{seconds:.0f}"
        if self.fault.retry_after == "date":  # It has whole seconds only.
            now = self.tenant.clock()
            until = math.floor(now + self.fault.seconds)
            response.headers["Retry-After"] = formatdate(until, usegmt=True)
            seconds = max(0.0, until - now)
        self.service.close(self.request, seconds)
        return response

    def respond(self) -> Response:
        """What the client gets."""
        response = KINDS[self.fault.kind].effect(self)
        response.status = self.fault.status or response.status
        if self.fault.date:
            response.headers["Date"] = self.fault.date
        return response


# Two shapes of effects that are many


def of_payload(change: Callable[[Any, Strike], Any]) -> Effect:
    """The effect of changing what a response says, unless it is an error."""

    @wraps(change)
    def effect(strike: Strike) -> Response:
        response = strike.answer()
        if response.status == HTTPStatus.OK:
            payload = change(json.loads(response.body), strike)
            response.body = json.dumps(payload, ensure_ascii=False).encode()
        return response

    return effect


def of_file(change: Callable[[bytes, Strike], bytes]) -> Effect:
    """The effect of changing a file's bytes; in memory, so for small files."""

    @wraps(change)
    def effect(strike: Strike) -> Response:
        response = strike.answer()
        if response.file is None:
            return response
        return with_bytes(response, change(response.file.read_bytes(), strike))

    return effect
