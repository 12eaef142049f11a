"""The storage host's files behind signed links, as Azure Storage serves them.

A link says all there is to say about who may read a file. It knows no sockets and no faults, and of
the exports only where their files are.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
import uuid
import zlib
from base64 import b64encode
from datetime import datetime, timedelta, timezone
from email.utils import formatdate
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

from mde_simulator.http.messages import Response

if TYPE_CHECKING:
    from pathlib import Path

    from mde_simulator.exports.exports import Exports, Snapshot
    from mde_simulator.http.messages import Request

FOLDER = "/tvm-export/"
"""What every path on the host begins with."""
VERSION = "2019-12-12"
MOMENT = "%Y-%m-%dT%H:%M:%SZ"
METHODS = ("GET", "HEAD")
DENIED = (
    "Server failed to authenticate the request. Make sure the value of Authorization header is formed "
    "correctly including the signature."
)


class Storage:
    """The host's account.

    Args:
        exports: Whose files it has.
        tenant_id: Of the tenant, which is in every path.

    Attributes:
        url: Where it is; known when it listens.
        key: What links are signed with.
        listed: When links were last given out, on the monotonic clock.
    """

    def __init__(self, exports: Exports, tenant_id: str) -> None:
        self.url = ""
        self.key = secrets.token_bytes(32)
        self.listed = -float("inf")
        self._exports = exports
        self._tenant_id = tenant_id

    def links(self, snapshot: Snapshot, hours: float) -> list[str]:
        """Signed links to the files of a snapshot, valid for that many hours."""
        self.listed = time.monotonic()
        now = datetime.fromtimestamp(self._exports.clock(), timezone.utc)
        return [
            f"{self.url}{path}?{self._query(path, now, now + timedelta(hours=hours))}" for path in self._paths(snapshot)
        ]

    def answer(self, request: Request) -> Response:
        """The file that a signed link leads to."""
        if request.method not in METHODS:
            return error(405, "UnsupportedHttpVerb", "The resource doesn't support specified Http Verb.")
        denied = self._refused(request)
        if denied is not None:
            return denied
        for snapshot in self._exports.snapshots:
            for number, path in enumerate(self._paths(snapshot)):
                if path == request.path:
                    return _found(snapshot.file(number))
        return no_such_file()

    def denied(self, end: datetime | None) -> Response:
        """403: the signature ended then; None: it never was one."""
        detail = "Signature not valid: it did not match."
        if end is not None:
            now = formatdate(self._exports.clock(), usegmt=True)
            expiry = formatdate(end.timestamp(), usegmt=True)
            detail = f"Signature not valid in the specified time frame: Expiry [{expiry}] - Current [{now}]"
        return error(403, "AuthenticationFailed", DENIED, detail)

    def expired(self) -> Response:
        """403: the signature ended a second ago."""
        return self.denied(datetime.fromtimestamp(self._exports.clock() - 1, timezone.utc))

    def _paths(self, snapshot: Snapshot) -> list[str]:
        """The files of a snapshot, named as Azure's."""
        name = uuid.uuid5(uuid.NAMESPACE_URL, snapshot.path)
        folder = f"{FOLDER}{snapshot.path}/VaExport/json/OrgId={self._tenant_id}"
        return [f"{folder}/part-{number:05d}-{name}.c000.json.gz" for number in range(snapshot.shape.files)]

    def _query(self, path: str, start: datetime, end: datetime) -> str:
        options = {"sv": VERSION, "st": start.strftime(MOMENT), "se": end.strftime(MOMENT), "sr": "b", "sp": "r"}
        return urlencode(options | {"sig": self._signature(path, options)}, quote_via=quote, safe="")

    def _signature(self, path: str, options: dict[str, str]) -> str:
        signed = "\n".join([path, *(f"{name}={text}" for name, text in sorted(options.items()))])
        return b64encode(hmac.digest(self.key, signed.encode(), hashlib.sha256)).decode()

    def _refused(self, request: Request) -> Response | None:
        options = dict(request.query)
        signature = options.pop("sig", "")
        if not hmac.compare_digest(signature.encode(), self._signature(request.path, options).encode()):
            return self.denied(None)
        end = datetime.strptime(options["se"], MOMENT).replace(tzinfo=timezone.utc)
        return self.denied(end) if self._exports.clock() >= end.timestamp() else None


def with_bytes(response: Response, body: bytes) -> Response:
    """The same response with other bytes than the file's."""
    response.file, response.body = None, body
    response.headers["Content-Length"] = str(len(body))
    return response


def error(status: int, code: str, message: str, detail: str = "") -> Response:
    """Azure Storage's error, in XML."""
    about = f"{message}\nRequestId:{uuid.uuid4()}\nTime:{datetime.now(timezone.utc):%Y-%m-%dT%H:%M:%S.%f}0Z"
    more = f"<AuthenticationErrorDetail>{detail}</AuthenticationErrorDetail>" if detail else ""
    text = f'<?xml version="1.0" encoding="utf-8"?><Error><Code>{code}</Code><Message>{about}</Message>{more}</Error>'
    body = b"\xef\xbb\xbf" + text.encode()
    headers = {"Content-Length": str(len(body)), "Content-Type": "application/xml", "x-ms-error-code": code}
    return Response(status, body, headers)


def no_such_file() -> Response:
    """404."""
    return error(404, "BlobNotFound", "The specified blob does not exist.")


def _found(path: Path) -> Response:
    status = path.stat()
    return Response(
        HTTPStatus.OK,
        headers={
            "Content-Length": str(status.st_size),
            "Content-Type": "application/octet-stream",
            "Last-Modified": formatdate(status.st_mtime, usegmt=True),
            "ETag": f'"0x{zlib.crc32(path.name.encode()):015X}"',
            "x-ms-request-id": str(uuid.uuid4()),
            "x-ms-blob-type": "BlockBlob",
        },
        file=path,
    )
