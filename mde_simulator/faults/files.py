"""An export's files: late, gone, cut, broken and strange ones."""

from __future__ import annotations

import gzip
import json
import time
from typing import TYPE_CHECKING

from mde_simulator.exports import storage
from mde_simulator.exports.records import camel
from mde_simulator.faults.fault import FILE, kind, of_file

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mde_simulator.faults.fault import Strike
    from mde_simulator.http.messages import Response

NOT_JSON = '{"DeviceId": "half a reco'
CHECKSUM = -8
"""Where a gzip has the checksum of its content, from the end."""


def _lines(raw: bytes) -> list[bytes]:
    return gzip.decompress(raw).splitlines()


def _packed(lines: Iterable[bytes]) -> bytes:
    return gzip.compress(b"".join(line + b"\n" for line in lines), 1, mtime=0)


@kind("export_late", FILE, "404 for a file that exists, twice for each; then the file", times=2, each=True)
def _late(_strike: Strike) -> Response:
    return storage.no_such_file()


@kind("export_not_yet", FILE, "the same for `seconds` after the list")
def _not_yet(strike: Strike) -> Response:
    until = strike.tenant.storage.listed + strike.fault.seconds
    return storage.no_such_file() if time.monotonic() < until else strike.answer()


@kind("export_expired", FILE, "403 `Signature not valid`, whatever the link says")
def _expired(strike: Strike) -> Response:
    return strike.tenant.storage.expired()


@kind("export_storage_down", FILE, "503 from the storage host")
def _storage_down(_strike: Strike) -> Response:
    return storage.error(503, "ServerBusy", "The server is busy.")


@kind("export_cut", FILE, "the connection ends in the middle of the file")
def _cut(strike: Strike) -> Response:
    response = strike.answer()
    response.ending = "cut"
    return response


@kind("export_empty", FILE, "200 with no bytes")
@of_file
def _empty(_raw: bytes, _strike: Strike) -> bytes:
    return b""


@kind("export_nothing", FILE, "a gzip of nothing")
@of_file
def _nothing(_raw: bytes, _strike: Strike) -> bytes:
    return _packed([])


@kind("export_truncated", FILE, "half of the file, with a Content-Length that says so")
@of_file
def _truncated(raw: bytes, _strike: Strike) -> bytes:
    return raw[: len(raw) // 2]


@kind("export_corrupt", FILE, "the checksum of the gzip is wrong")
@of_file
def _corrupt(raw: bytes, _strike: Strike) -> bytes:
    return raw[:CHECKSUM] + bytes([raw[CHECKSUM] ^ 1]) + raw[CHECKSUM + 1 :]


@kind("export_malformed", FILE, "a line in the middle is no JSON, or is `text`")
@of_file
def _malformed(raw: bytes, strike: Strike) -> bytes:
    lines = _lines(raw)
    lines.insert(len(lines) // 2, (strike.fault.text or NOT_JSON).encode())
    return _packed(lines)


@kind("export_multiline", FILE, "objects over several lines each")
@of_file
def _multiline(raw: bytes, _strike: Strike) -> bytes:
    return _packed(json.dumps(json.loads(line), indent=2, ensure_ascii=False).encode() for line in _lines(raw))


@kind("export_camel", FILE, "camelCase and nulls, as in the JSON response")
@of_file
def _camel(raw: bytes, _strike: Strike) -> bytes:
    return _packed(json.dumps(camel(json.loads(line)), ensure_ascii=False).encode() for line in _lines(raw))
