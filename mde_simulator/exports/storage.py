"""The storage host: the files of the exports behind signed links, as Azure Storage serves them.

Another host than the API, with rules of its own: a link says all, and a token has no business here.
It knows no sockets, and of the exports only where their files are.
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

from mde_simulator.exports.records import CAMEL, PASCAL
from mde_simulator.faults import spoil
from mde_simulator.faults.damage import DAMAGES
from mde_simulator.faults.faults import STORAGE
from mde_simulator.http.messages import Response

if TYPE_CHECKING:
    from pathlib import Path

    from mde_simulator.entra.login import Login
    from mde_simulator.exports.exports import Exports, Snapshot
    from mde_simulator.faults.faults import Fault
    from mde_simulator.http.journal import Entry, Journal
    from mde_simulator.http.messages import Request

VERSION = "2019-12-12"
MOMENT = "%Y-%m-%dT%H:%M:%SZ"
METHODS = ("GET", "HEAD")
DENIED = (
    "Server failed to authenticate the request. Make sure the value of Authorization header is formed "
    "correctly including the signature."
)


class Storage:
    """The host.

    Args:
        exports: Whose files it has.
        login: The rules for every door.

    Attributes:
        url: Where it is; known when it listens.
        key: What links are signed with.
    """

    def __init__(self, exports: Exports, login: Login) -> None:
        self.url = ""
        self.key = secrets.token_bytes(32)
        self._exports = exports
        self._login = login
        self._listed = -float("inf")
        self._closed_until = -float("inf")

    @property
    def journal(self) -> Journal:
        """That of the tenant: one for all doors."""
        return self._login.journal

    def links(self, snapshot: Snapshot, hours: float) -> list[str]:
        """Signed links to the files of a snapshot, good for so many hours."""
        self._listed = time.monotonic()
        now = datetime.fromtimestamp(self._exports.clock(), timezone.utc)
        return [
            f"{self.url}{path}?{self._query(path, now, now + timedelta(hours=hours))}" for path in self._paths(snapshot)
        ]

    def answer(self, request: Request, entry: Entry) -> Response:
        """What is said to a request."""
        self._login.check_host(request, entry, self.url)
        self._login.check_path(request, entry)
        if time.monotonic() < self._closed_until:
            self.journal.violation(entry, "before Retry-After had ended")
        if "authorization" in request.headers:
            self.journal.violation(entry, "a token to the wrong place")
            response = _error(401, "InvalidAuthenticationInfo", "Authentication information is not expected.")
        else:
            response = self._struck(request, entry)
        response.headers |= {"Server": "Windows-Azure-Blob/1.0 Microsoft-HTTPAPI/2.0", "x-ms-version": VERSION}
        entry.status = None if response.ending == "reset" else response.status
        return response

    # Faults

    def _struck(self, request: Request, entry: Entry) -> Response:
        fault = self._login.faults.strike(request.method, "/" + "/".join(request.segments))
        if fault is None or (fault.kind == "export_not_yet" and time.monotonic() >= self._listed + fault.seconds):
            return self._file(request)
        entry.fault = fault.kind
        if fault.kind == "throttled" and fault.retry_after != "absent":
            self._closed_until = time.monotonic() + spoil.announced(fault)
        instead = self._instead(fault) or spoil.instead(fault, request, self.url)
        if instead is not None:
            return instead
        response = self._file(request, CAMEL if fault.kind == "export_camel" else PASCAL)
        if response.file is not None and fault.kind in DAMAGES:
            return _of(DAMAGES[fault.kind](response.file.read_bytes(), fault), response.file)
        return spoil.spoil(response, fault, self.url)

    def _instead(self, fault: Fault) -> Response | None:
        match fault.kind:
            case "export_late" | "export_not_yet":
                return _no_such_file()
            case "export_expired":
                return self._denied(datetime.fromtimestamp(self._exports.clock() - 1, timezone.utc))
            case "export_storage_down":
                return _error(fault.status or 503, "ServerBusy", "The server is busy.")
        return None

    # Files

    def _file(self, request: Request, way: str = PASCAL) -> Response:
        if request.method not in METHODS:
            return _error(405, "UnsupportedHttpVerb", "The resource doesn't support specified Http Verb.")
        denied = self._refused(request)
        if denied is not None:
            return denied
        for snapshot in self._exports.snapshots:
            for number, path in enumerate(self._paths(snapshot)):
                if path == request.path:
                    return _found(snapshot.file(number, way))
        return _no_such_file()

    def _paths(self, snapshot: Snapshot) -> list[str]:
        """The files of a snapshot, named as Azure's."""
        tenant = self._login.identity.tenant_id
        name = uuid.uuid5(uuid.NAMESPACE_URL, snapshot.path)
        folder = f"{STORAGE}{snapshot.path}/VaExport/json/OrgId={tenant}"
        return [f"{folder}/part-{number:05d}-{name}.c000.json.gz" for number in range(snapshot.shape.files)]

    # Signatures

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
            return self._denied(None)
        end = datetime.strptime(options["se"], MOMENT).replace(tzinfo=timezone.utc)
        return self._denied(end) if self._exports.clock() >= end.timestamp() else None

    def _denied(self, end: datetime | None) -> Response:
        detail = "Signature not valid: it did not match."
        if end is not None:
            now = formatdate(self._exports.clock(), usegmt=True)
            expiry = formatdate(end.timestamp(), usegmt=True)
            detail = f"Signature not valid in the specified time frame: Expiry [{expiry}] - Current [{now}]"
        return _error(403, "AuthenticationFailed", DENIED, detail)


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


def _of(body: bytes, path: Path) -> Response:
    """Other bytes in place of the file's."""
    response = _found(path)
    response.file, response.body = None, body
    response.headers["Content-Length"] = str(len(body))
    return response


def _error(status: int, code: str, message: str, detail: str = "") -> Response:
    about = f"{message}\nRequestId:{uuid.uuid4()}\nTime:{datetime.now(timezone.utc):%Y-%m-%dT%H:%M:%S.%f}0Z"
    more = f"<AuthenticationErrorDetail>{detail}</AuthenticationErrorDetail>" if detail else ""
    text = f'<?xml version="1.0" encoding="utf-8"?><Error><Code>{code}</Code><Message>{about}</Message>{more}</Error>'
    body = b"\xef\xbb\xbf" + text.encode()
    headers = {"Content-Length": str(len(body)), "Content-Type": "application/xml", "x-ms-error-code": code}
    return Response(status, body, headers)


def _no_such_file() -> Response:
    return _error(404, "BlobNotFound", "The specified blob does not exist.")
