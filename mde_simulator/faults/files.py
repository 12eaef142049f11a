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
    from collections.abc import Callable, Iterable

    from mde_simulator.faults.fault import Strike
    from mde_simulator.fleet.catalogue import Record
    from mde_simulator.http.messages import Response

NOT_JSON = '{"DeviceId": "half a reco'
HALF = "\ud800"
"""Half a surrogate: JSON can say it, and no text can hold it."""
HALF_BYTES = HALF.encode("utf-8", "surrogatepass")
NO_UTF8 = b"\xff\xfe"
NEVER = "0001-01-01 00:00:00.0000000"
"""What .NET makes of no date."""
NO_UPDATES = ("--", "N/A", "Release Notes")
CHECKSUM = -8
"""Where a gzip has the checksum of its content, from the end."""


def _lines(raw: bytes) -> list[bytes]:
    return gzip.decompress(raw).splitlines()


def _written(record: Record, errors: str = "strict") -> bytes:
    return json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode("utf-8", errors)


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


@kind("export_bom", FILE, "a byte order mark begins the file")
@of_file
def _bom(raw: bytes, _strike: Strike) -> bytes:
    return gzip.compress(b"\xef\xbb\xbf" + gzip.decompress(raw), 1, mtime=0)


@kind("export_camel", FILE, "camelCase and nulls, as in the JSON response")
@of_file
def _camel(raw: bytes, _strike: Strike) -> bytes:
    return _packed(_written(camel(json.loads(line))) for line in _lines(raw))


@kind("export_mixed", FILE, "the same, in the second half of the file alone")
@of_file
def _mixed(raw: bytes, _strike: Strike) -> bytes:
    lines = _lines(raw)
    half = len(lines) // 2
    return _packed([*lines[:half], *(_written(camel(json.loads(line))) for line in lines[half:])])


@kind(
    "export_surrogate", FILE, "half a surrogate in the column `text`, by default DiskPaths, of another vendor's record"
)
@of_file
def _surrogate(raw: bytes, strike: Strike) -> bytes:
    return _with_broken(raw, strike, lambda record: json.dumps(record).encode())


@kind("export_not_utf8", FILE, "bytes there that are not UTF-8")
@of_file
def _not_utf8(raw: bytes, strike: Strike) -> bytes:
    return _with_broken(raw, strike, lambda record: _written(record, "surrogatepass").replace(HALF_BYTES, NO_UTF8))


def _with_broken(raw: bytes, strike: Strike, write: Callable[[Record], bytes]) -> bytes:
    """Break one string of the first record that no missing update follows from."""
    lines, column = _lines(raw), strike.fault.text or "DiskPaths"
    for number, line in enumerate(lines):
        record = json.loads(line)
        if column in record and record["SoftwareVendor"] != "microsoft":
            broken = f"C:\\Temp\\{HALF}.exe"
            record[column] = [broken] if isinstance(record[column], list) else broken
            lines[number] = write(record)
            break
    return _packed(lines)


@kind("export_odd_ids", FILE, "ids of updates with `KB` or blanks around them, and records whose id is no update")
@of_file
def _odd_ids(raw: bytes, _strike: Strike) -> bytes:
    records = [json.loads(line) for line in _lines(raw)]
    found = [record for record in records if _has_update(record)]
    strangers = [record | {"RecommendedSecurityUpdateId": id_} for record, id_ in zip(found, NO_UPDATES, strict=False)]
    for number, record in enumerate(found):
        id_ = record["RecommendedSecurityUpdateId"]
        record["RecommendedSecurityUpdateId"] = (id_, f"KB{id_}", f" {id_} ")[number % 3]
    return _packed(_written(record) for record in (*records, *strangers))


@kind("export_no_first_seen", FILE, "when an update was first seen missing is empty, or the year 1")
@of_file
def _no_first_seen(raw: bytes, _strike: Strike) -> bytes:
    records = [json.loads(line) for line in _lines(raw)]
    return _packed(
        _written(record | {"FirstSeenTimestamp": ("", NEVER)[number % 2]}) for number, record in enumerate(records)
    )


def _has_update(record: Record) -> bool:
    return record["SoftwareVendor"] == "microsoft" and {"CveId", "RecommendedSecurityUpdateId"} <= record.keys()
