"""The journal: what the simulated tenant was asked, and what a client did wrong.

It knows neither sockets nor rules: the server and the services write into it, tests read it. No
token and no secret gets into it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, overload

if TYPE_CHECKING:
    from mde_simulator.http.messages import Request

FRONT, STORAGE, FEEDS = HOSTS = ("front", "storage", "feeds")
"""The hosts: API and login authority; the files of exports; the advisory feeds."""
FEED_PATHS = {"msrc": "/cvrf/", "kev": "known_exploited_vulnerabilities", "epss": "/epss_scores"}
SECRET_HEADERS = ("authorization", "proxy-authorization", "cookie", "x-identity-header")


def without_secrets(headers: dict[str, str]) -> dict[str, str]:
    """The headers, names in lower case, of secret ones only the scheme."""
    return {
        name: (value.partition(" ")[0] if " " in value else "") + " …" if name in SECRET_HEADERS else value
        for name, value in headers.items()
    }


@dataclass
class Entry:
    """One request.

    Attributes:
        at: Seconds on the monotonic clock, on arrival.
        path: As it came, percent-encoded, without the query.
        query: The decoded query options.
        machine_id: The decoded id of the machine it is about, if any.
        status: The answer's; None while there is none, or when the connection was reset.
        fault: The kind of the injected fault, if any.
        in_flight: How many requests to the API were being answered, this one included.
        seconds: How long the answer took.
        credential: How a sign-in proved who it is, named like the tap's `auth_method`.
        assertion: Header and claims (not the signature) of a sign-in's assertion; `x5c` is among
            them if it was sent.
        host: Which host it came to, one of `HOSTS`.
    """

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str] = field(repr=False)
    at: float = field(default_factory=time.monotonic)
    machine_id: str | None = None
    status: int | None = None
    fault: str | None = None
    in_flight: int = 0
    seconds: float | None = None
    credential: str | None = None
    assertion: dict[str, Any] | None = field(default=None, repr=False)
    host: str = FRONT

    @classmethod
    def of(cls, request: Request, host: str = FRONT) -> Entry:
        """A request on its arrival."""
        return cls(
            method=request.method,
            path=request.path,
            query=dict(request.query),
            headers=without_secrets(request.headers),
            machine_id=request.machine_id,
            host=host,
        )

    @property
    def is_storage(self) -> bool:
        """Whether it came to the storage host, where the files of exports are."""
        return self.host == STORAGE

    @property
    def feed(self) -> str | None:
        """Which advisory feed was asked, if any: msrc, kev or epss; empty for a path of none."""
        if self.host != FEEDS:
            return None
        return next((feed for feed, part in FEED_PATHS.items() if part in self.path.lower()), "")

    @property
    def is_token_request(self) -> bool:
        """Whether a token was asked for, of the authority or of a managed identity endpoint."""
        return self.host == FRONT and not self.is_api and self.path.lower().endswith("/token")

    @property
    def is_api(self) -> bool:
        """Whether it was a call of the API, not a sign-in, nor a file of an export, nor a feed's."""
        return self.host == FRONT and self.path.lower().startswith("/api/")


class Journal(Sequence[Entry]):
    """All requests in the order of their arrival, and the list of violations."""

    def __init__(self) -> None:
        self._entries: list[Entry] = []
        self._violations: list[str] = []
        self._lock = threading.Lock()
        self._in_flight = 0
        self._calls = 0
        self._feeds_in_flight: list[Entry] = []

    @overload
    def __getitem__(self, index: int) -> Entry: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Entry]: ...
    def __getitem__(self, index: int | slice) -> Entry | Sequence[Entry]:
        return self._entries[index]

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        with self._lock:
            return iter(list(self._entries))

    @property
    def calls(self) -> int:
        """How many requests went to the API."""
        return self._calls

    @property
    def token_requests(self) -> list[Entry]:
        """The requests for a token, oldest first: several threads, one renewal, and so one request."""
        return [entry for entry in self if entry.is_token_request]

    @property
    def downloads(self) -> list[Entry]:
        """The requests to the storage host, oldest first."""
        return [entry for entry in self if entry.is_storage]

    @property
    def feed_requests(self) -> list[Entry]:
        """The requests to the advisory feeds, oldest first."""
        return [entry for entry in self if entry.feed is not None]

    @property
    def feeds_in_flight(self) -> list[Entry]:
        """Those of them that are being answered, but for those that a fault holds up."""
        with self._lock:
            return [entry for entry in self._feeds_in_flight if entry.fault is None]

    @property
    def violations(self) -> list[str]:
        """What clients did wrong so far, oldest first; a copy."""
        with self._lock:
            return list(self._violations)

    def begin(self, entry: Entry) -> None:
        """A request has arrived."""
        with self._lock:
            if entry.is_api:
                self._calls += 1
                self._in_flight += 1
            if entry.feed is not None:
                self._feeds_in_flight.append(entry)
            entry.in_flight = self._in_flight
            self._entries.append(entry)

    def end(self, entry: Entry) -> None:
        """It was answered, or the connection is gone."""
        with self._lock:
            self._in_flight -= entry.is_api
            if entry.feed is not None:
                self._feeds_in_flight = [each for each in self._feeds_in_flight if each is not entry]
            entry.seconds = time.monotonic() - entry.at

    def violation(self, entry: Entry, what: str) -> None:
        """A client did something that no well-behaved client does."""
        with self._lock:
            self._violations.append(f"{what}: {entry.method} {entry.path}")

    def clear(self) -> None:
        """Forget the requests and the violations so far."""
        with self._lock:
            self._entries.clear()
            self._violations.clear()
            self._calls = 0
