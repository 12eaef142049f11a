"""Fetches feeds: a public file from its host, from a mirror, or from a folder. Never a token, never a cookie.

Whatever a host does, a fetch ends in time, with a bounded body or with a `FeedError`. Must not know what is in a feed.
"""

from __future__ import annotations

import queue
import threading
import time
import zlib
from functools import cached_property
from http import HTTPStatus
from http.cookiejar import DefaultCookiePolicy
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urljoin, urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError

from tap_mde_kbs.api.network import PASSING_STATUS, network_fault
from tap_mde_kbs.api.session import Session
from tap_mde_kbs.errors import FeedError, TapError
from tap_mde_kbs.signals import signals_held

if TYPE_CHECKING:
    from collections.abc import Mapping

MOST_BYTES = 64 * 2**20
"""Of a body, inflated: six times what MSRC's largest document has."""

PIECE_BYTES = 2**16
TRIES = 2
MOST_REDIRECTS = 5
REDIRECTS = {301, 302, 303, 307, 308}
GZIP_MAGIC = b"\x1f\x8b"

GZIP = 31
"""For zlib: with the header and the checksum of gzip."""


class Fetched(NamedTuple):
    """What came."""

    content: bytes

    last_modified: str
    """The header Last-Modified; empty where there is none."""

    name: str
    """The last part of the address that it came from, after redirects."""


class Fetcher:
    """Fetches the files of one feed, one at a time.

    Args:
        place: The feed's URL, or the path of a file or folder.
        setting: The setting that says so, for messages.
        user_agent: The header User-Agent.
        timeout: Seconds to wait for a connection, and for each next piece.
        seconds: How long all of this feed's fetches may take together, beyond what is normal: a twentieth of it each.
        wait: Seconds before the second try.
    """

    def __init__(  # noqa: PLR0913 - what bounds a fetch, each a keyword
        self, place: str, *, setting: str, user_agent: str, timeout: float, seconds: float, wait: float
    ) -> None:
        self._place = place
        self._setting = setting
        self._user_agent = user_agent
        self._timeout = timeout
        self._wait = wait
        self._normal = seconds / 20
        self._patience = seconds
        self._deadline = 0.0

    @property
    def where(self) -> str:
        """The host, or the path, as a message names it."""
        return self._place if is_path(self._place) else str(urlsplit(self._place).hostname)

    @cached_property
    def _session(self) -> Session:
        """One for all of the feed's files; nothing of the API's is in it."""
        session = Session(self._place, self._timeout)
        session.mount("https://", HTTPAdapter())
        session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        session.headers.update({"User-Agent": self._user_agent, "Accept": "application/json, text/csv, */*;q=0.1"})
        return session

    def get(self, name: str = "", headers: Mapping[str, str] | None = None) -> Fetched | None:
        """Fetch a file.

        Args:
            name: Its path below the place, if the place is not the file: `cvrf/2026-Jun`. In a folder it is the last
                part of it, with `.json`.
            headers: Besides the usual ones.

        Returns:
            What came; None if it was not modified (HTTP 304), which `headers` asked for.

        Raises:
            FeedError: It did not come; `status` is the HTTP status, where there was one.
        """
        if is_path(self._place):
            return self._read(name)
        url = f"{self._place.rstrip('/')}/{name}" if name else self._place
        began = time.monotonic()
        self._deadline = began + self._normal + self._patience
        try:
            return self._tried(url, headers or {})
        finally:  # many files of a host in good health are no reason to give it up
            self._patience -= min(self._patience, max(0.0, time.monotonic() - began - self._normal))

    def _tried(self, url: str, headers: Mapping[str, str]) -> Fetched | None:
        for tried in range(1, TRIES + 1):
            try:
                return self._within_time(url, headers)
            except FeedError as error:
                if not error.may_pass or tried == TRIES or self._left() <= self._wait:
                    raise
            time.sleep(self._wait)
        raise AssertionError

    def _read(self, name: str) -> Fetched:
        path = Path(self._place) / f"{name.rpartition('/')[2]}.json" if name else Path(self._place)
        try:
            with path.open("rb") as file:
                content = file.read(MOST_BYTES + 1)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "that is no path"
            status = HTTPStatus.NOT_FOUND if isinstance(error, FileNotFoundError) else None
            msg = f"{path} can't be read: {reason}"
            raise FeedError(msg, f"Correct {self._setting}.", status=status) from None
        return Fetched(self._bounded(content), "", path.name)

    def _within_time(self, url: str, headers: Mapping[str, str]) -> Fetched | None:
        """Fetch in a thread, and leave it there if it takes too long: a host may drip its headers, too."""
        outcome: queue.Queue[Fetched | Exception | None] = queue.Queue()

        def fetch() -> None:
            try:
                outcome.put(self._follow(url, headers))
            except Exception as error:  # noqa: BLE001 - whatever it is, it is the waiting thread's
                outcome.put(error)

        thread = threading.Thread(target=fetch, name="feed", daemon=True)
        with signals_held():
            thread.start()
        try:
            found = outcome.get(timeout=max(0.0, self._left()))
        except queue.Empty:
            msg = f"{self.where} did not answer in time"
            raise FeedError(msg, self._advice, is_gone=True) from None
        if isinstance(found, (FeedError, TapError)):
            raise found if isinstance(found, FeedError) else FeedError(str(found), self._advice, is_gone=True)
        if isinstance(found, (requests.RequestException, HTTPError, OSError)):
            fault = network_fault(found, self.where, self._session)
            advice = fault.advice or self._advice
            raise FeedError(fault.what.rstrip("."), advice, may_pass=fault.may_pass, is_gone=True)
        if isinstance(found, Exception):
            msg = f"{self.where} sent what can't be read ({type(found).__name__})"
            raise FeedError(msg, self._advice)
        return found

    def _follow(self, url: str, headers: Mapping[str, str]) -> Fetched | None:
        """Fetch, and follow redirects on the same host alone."""
        for _ in range(MOST_REDIRECTS):
            with self._session.get(url, headers=dict(headers), stream=True) as response:
                if response.status_code not in REDIRECTS:
                    return self._taken(response, url, is_conditional="If-Modified-Since" in headers)
                location = urljoin(url, response.headers.get("Location", ""))
            if urlsplit(location)[:2] != urlsplit(url)[:2]:
                msg = f"{self.where} redirects to another host, which is not followed"
                raise FeedError(msg, self._advice, status=response.status_code)
            url = location
        msg = f"{self.where} redirects in a circle"
        raise FeedError(msg, self._advice)

    def _taken(self, response: requests.Response, url: str, *, is_conditional: bool) -> Fetched | None:
        status = response.status_code
        if status == HTTPStatus.NOT_MODIFIED and is_conditional:
            return None
        if status != HTTPStatus.OK:
            msg = f"HTTP {status} from {self.where}"
            raise FeedError(msg, self._advice, status=status, may_pass=status in PASSING_STATUS)
        body = bytearray()
        for piece in response.iter_content(PIECE_BYTES):
            body += piece
            if len(body) > MOST_BYTES:
                break
        return Fetched(
            self._bounded(bytes(body)), response.headers.get("Last-Modified", ""), urlsplit(url).path.rpartition("/")[2]
        )

    def _bounded(self, content: bytes) -> bytes:
        """The content, inflated if it is gzip; of a size that an honest file has."""
        if content.startswith(GZIP_MAGIC) and len(content) <= MOST_BYTES:
            inflater = zlib.decompressobj(GZIP)
            try:
                content = inflater.decompress(content, MOST_BYTES + 1)
            except zlib.error:
                msg = f"{self.where} sent a damaged gzip"
                raise FeedError(msg, self._advice) from None
            if not inflater.eof and len(content) <= MOST_BYTES:
                msg = f"{self.where} sent a gzip that is cut short"
                raise FeedError(msg, self._advice)
        if len(content) > MOST_BYTES:
            msg = f"{self.where} sent more than {MOST_BYTES // 2**20} MiB"
            raise FeedError(msg, self._advice)
        return content

    def _left(self) -> float:
        return self._deadline - time.monotonic()

    @property
    def _advice(self) -> str:
        return f"Set {self._setting} to a mirror or a file, or take the feed out of advisory_feeds."


def is_path(place: str) -> bool:
    """Whether a place is a path, not a URL."""
    return "://" not in place
