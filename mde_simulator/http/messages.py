"""Requests and responses as values: what a service takes and gives. Knows no sockets."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass, field
from functools import cached_property
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, unquote

if TYPE_CHECKING:
    from pathlib import Path

JSON = "application/json; charset=utf-8"
ODATA = "application/json; odata.metadata=minimal; odata.streaming=true"
FUNCTIONS = "softwarevulnerabilit"
"""What begins the functions of the collection of machines, which are no machines' ids."""


@dataclass(frozen=True)
class Request:
    """A parsed request; header names in lower case, `path` as it came, without the query."""

    method: str
    path: str
    query_string: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @cached_property
    def segments(self) -> list[str]:
        """The path's parts, decoded one by one, so that `%2F` is no separator."""
        return [unquote(part) for part in self.path.split("/")[1:]]

    @cached_property
    def query(self) -> list[tuple[str, str]]:
        """The decoded query options, in their order, also those without a name."""
        return parse_qsl(self.query_string, keep_blank_values=True)

    @cached_property
    def form(self) -> dict[str, str]:
        """The body of a sign-in."""
        return dict(parse_qsl(self.body.decode("utf-8", "replace"), keep_blank_values=True))

    @property
    def machine_id(self) -> str | None:
        """The machine that an API call is about, if it is about one."""
        parts = [part.lower() for part in self.segments]
        machine, with_function = 3, 4
        if parts[:2] != ["api", "machines"] or len(parts) not in (machine, with_function):
            return None
        if parts[2].startswith(FUNCTIONS):
            return None
        return self.segments[2]


@dataclass
class Response:
    """What is to be sent, and how it goes wrong.

    `ending` is "whole", "cut" (in the middle of the body), "reset", "endless" (the body goes on till
    the client has enough) or "drip" (a byte every `pace` seconds). With a Content-Encoding among the
    headers the body is encoded already; with a Content-Length it goes as it is, and in one piece.
    With a `file` its content is the body.
    """

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    ending: str = "whole"
    pace: float = 0.0
    file: Path | None = None

    @classmethod
    def of(cls, payload: object, status: int = HTTPStatus.OK, type_: str = JSON) -> Response:
        """A response in JSON."""
        headers = {"Content-Type": type_}
        if type_ == ODATA:
            headers["OData-Version"] = "4.0"
        return cls(status, json.dumps(payload, ensure_ascii=False).encode(), headers)

    @classmethod
    def error(cls, status: int, code: str, message: str) -> Response:
        """The API's error body (`common-errors.md`); `target` is what the support asks for."""
        error = {"code": code, "message": message, "target": str(uuid.uuid4())}
        return cls.of({"error": error}, status)
