"""Files of an export, fetched from the host that stores them: to disk, and checked to be whole.

Links are pre-signed, so no token goes along. Must not know DuckDB, Singer, or the API that names the files.
"""

from __future__ import annotations

import re
import time
from http import HTTPStatus
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, TypeVar
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError

from tap_mde_kbs.api.network import network_fault
from tap_mde_kbs.api.session import Session
from tap_mde_kbs.errors import (
    API_REMEDIES,
    ApiError,
    BrokenFileError,
    ExpiredLinkError,
    NotFoundError,
    ShapeError,
    printable,
)

try:
    from zlib_ng import zlib_ng as inflating  # a fifth of zlib's time; it comes with the extra `export`
except ImportError:
    import zlib as inflating  # type: ignore[no-redef] # the same names

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

T = TypeVar("T")

PIECE_BYTES = 2**18
SLOWEST_BYTES_A_SECOND = 2**14
"""A file that comes more slowly than this, however steadily, is as good as one that does not come."""

MOST_INFLATED_BYTES = 2**18
"""So much of a file is inflated at once, to be checked: a bomb takes time, but no memory. Pieces that fit into a core's
cache are inflated in half the time of 16 MiB."""

REASON_BYTES = 2**12
BLANK = b" \t\r\n[]\xef\xbb\xbf"
"""Of a file that holds no more than these nobody would say that it has a record: with a byte order mark, or `[]`."""

LONGEST_LINE_BYTES = 2**22
"""A file with a longer line is not one of lines: DuckDB 1.2 never ends over one of more than 16 MiB."""

GZIP = 31
"""For zlib: with the header and the checksum of gzip."""


class Content(NamedTuple):
    """What was seen of a file when it was checked."""

    has_any: bool
    """Whether there is anything in it but blanks."""
    is_in_lines: bool
    """Whether no line of it is longer than `LONGEST_LINE_BYTES`."""


class Downloader:
    """Fetches files; no token, no cookie and no redirect goes to the host of a link.

    Args:
        timeout: Seconds to wait for a connection, and for each next piece.
        user_agent: The header User-Agent.
    """

    def __init__(self, timeout: float, user_agent: str) -> None:
        self._timeout = timeout
        self._user_agent = user_agent

    def probe(self, link: str) -> None:
        """Begin to fetch a file, and leave it at that; raises as `fetch` does."""
        self._get(link, lambda _: None)

    def fetch(self, link: str, path: Path) -> Content:
        """Save a gzip file at `path`, checked to its end.

        Raises:
            ExpiredLinkError: HTTP 403.
            NotFoundError: HTTP 404: there is no such file, or not yet.
            BrokenFileError: Any other answer, or a file that is cut, damaged or not gzip.
            ApiError: The link must not be followed, or the host's certificate is refused.
        """
        with path.open("wb") as file:
            return self._get(link, lambda response: self._save(response, file))

    def _get(self, link: str, save: Callable[[requests.Response], T]) -> T:
        where, session = shown(link), self._session(link)
        try:
            with session, session.get(link, stream=True) as response:
                if response.status_code != HTTPStatus.OK:
                    raise _refused(response, where)
                return save(response)
        except inflating.error:  # type: ignore[misc] # its stub has an instance of it
            msg = f"{where} is damaged: no gzip, or its checksum is wrong"
        except (requests.RequestException, HTTPError) as error:
            fault = network_fault(error, where, session)
            if not fault.may_pass:
                raise ApiError(fault.what, fault.advice) from None
            msg = f"{where} did not come whole ({type(error).__name__})"
        raise BrokenFileError(msg)

    def _session(self, link: str) -> Session:
        """A session for the link's host, whose bodies come in pieces: a file is larger than any answer may be.

        Raises:
            ShapeError: The link is not to an https host.
        """
        parts = urlsplit(link)
        if parts.scheme != "https" or not parts.hostname or parts.username is not None:
            msg = f"The API named a file that is not on an https host: {shown(link)}."
            raise ShapeError(msg, API_REMEDIES["shape"].advice)
        session = Session(link, self._timeout)
        session.mount("https://", HTTPAdapter())
        session.headers.update({"User-Agent": self._user_agent, "Accept-Encoding": "identity"})
        return session

    def _save(self, response: requests.Response, file: BinaryIO) -> Content:
        """Write the body as it comes, and inflate it on the way, to nowhere: that proves it whole."""
        started, size, anything = time.monotonic(), 0, False
        inflater, lines = inflating.decompressobj(GZIP), Lines()
        for piece in response.raw.stream(PIECE_BYTES, decode_content=False):
            file.write(piece)
            size += len(piece)
            if time.monotonic() - started > self._timeout + size / SLOWEST_BYTES_A_SECOND:
                msg = f"{shown(response.url)} came too slowly"
                raise BrokenFileError(msg)
            rest = piece
            while rest:
                if inflater.eof:  # gzip files may be several, one after the other
                    inflater = inflating.decompressobj(GZIP)
                some = inflater.decompress(rest, MOST_INFLATED_BYTES)
                anything = anything or bool(some.strip(BLANK))
                lines.go_on(some)
                rest = inflater.unused_data or inflater.unconsumed_tail
        anything = anything or bool(inflater.flush().strip(BLANK))
        if size and not inflater.eof:
            msg = f"{shown(response.url)} is cut short: its gzip has no end"
            raise BrokenFileError(msg)
        return Content(has_any=anything, is_in_lines=lines.are_short)


class Lines:
    """How long the lines of a text are, which comes in pieces."""

    def __init__(self) -> None:
        self.are_short = True
        """Whether none of them is longer than `LONGEST_LINE_BYTES`, so far."""
        self._begun = 0

    def go_on(self, piece: bytes) -> None:
        """Look at the next piece: only as often as there could be a line that is too long."""
        start = 0
        while self.are_short and self._begun + len(piece) - start > LONGEST_LINE_BYTES:
            end = piece.rfind(b"\n", start, start + LONGEST_LINE_BYTES - self._begun + 1)
            self.are_short = end >= 0
            start, self._begun = end + 1, 0
        end = piece.rfind(b"\n", start)
        self._begun = len(piece) - end - 1 if end >= 0 else self._begun + len(piece) - start


def shown(link: str) -> str:
    """A link as it may be shown: host and file, without the signature, which is as good as a password."""
    parts = urlsplit(link)
    return printable(f"{parts.hostname}/…/{parts.path.rpartition('/')[2]}", 200)


def _refused(response: requests.Response, where: str) -> ApiError:
    """The error for any answer but 200, with the reason out of the XML or HTML of its body."""
    body = response.raw.read(REASON_BYTES, decode_content=True).decode(errors="replace")
    reason = printable(re.sub(r"(\s*<[^>]*>\s*)+", " ", body)) or response.reason
    msg = f"{where} answered HTTP {response.status_code}: {reason}"
    if response.status_code == HTTPStatus.FORBIDDEN:
        return ExpiredLinkError(msg)
    return NotFoundError(msg) if response.status_code == HTTPStatus.NOT_FOUND else BrokenFileError(msg)
