"""What becomes of an export's file: each fault that changes its bytes, as a function of them.

In memory, so for small files. Knows neither requests nor answers.
"""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from mde_simulator.faults.faults import Fault

NOT_JSON = '{"DeviceId": "half a reco'
CHECKSUM = -8
"""Where a gzip has the checksum of its content, from the end."""


def _nothing(_raw: bytes, _fault: Fault) -> bytes:
    return b""


def _gzip_of_nothing(_raw: bytes, _fault: Fault) -> bytes:
    return gzip.compress(b"", mtime=0)


def _truncated(raw: bytes, _fault: Fault) -> bytes:
    return raw[: len(raw) // 2]


def _corrupt(raw: bytes, _fault: Fault) -> bytes:
    return raw[:CHECKSUM] + bytes([raw[CHECKSUM] ^ 1]) + raw[CHECKSUM + 1 :]


def _malformed(raw: bytes, fault: Fault) -> bytes:
    lines = gzip.decompress(raw).splitlines(keepends=True)
    lines.insert(len(lines) // 2, f"{fault.text or NOT_JSON}\n".encode())
    return gzip.compress(b"".join(lines), 1, mtime=0)


def _multiline(raw: bytes, _fault: Fault) -> bytes:
    objects = [json.loads(line) for line in gzip.decompress(raw).splitlines()]
    text = "".join(json.dumps(object_, indent=2, ensure_ascii=False) + "\n" for object_ in objects)
    return gzip.compress(text.encode(), 1, mtime=0)


DAMAGES: dict[str, Callable[[bytes, Fault], bytes]] = {
    "export_empty": _nothing,
    "export_nothing": _gzip_of_nothing,
    "export_truncated": _truncated,
    "export_corrupt": _corrupt,
    "export_malformed": _malformed,
    "export_multiline": _multiline,
}
