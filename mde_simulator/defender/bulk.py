"""The API's two calls for whole exports: the list of signed files, and the records as pages of JSON.

The facts are from Microsoft's page `get-assessment-software-vulnerabilities.md`. No sockets; the
files themselves are another host's, `storage.py`.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import quote

from mde_simulator.defender.odata import ODataError, whole
from mde_simulator.http.messages import ODATA, Request, Response

if TYPE_CHECKING:
    from mde_simulator.exports.exports import Exports
    from mde_simulator.exports.storage import Storage
    from mde_simulator.http.journal import Entry, Journal

FILES, JSON = "softwarevulnerabilitiesexport", "softwarevulnerabilitiesbymachine"
"""The functions of the collection of machines, in lower case."""
ROLES = ("Vulnerability.Read.All",)
LONGEST = 6
PAGE, LARGEST = 50_000, 200_000
SEAL = 9
"""How many bytes of a seal are in a token; divisible by three, so that a token needs no padding of its own."""
UNKNOWN_TOKEN = "The value of the query option '$skiptoken' is not valid."  # noqa: S105 - a sentence about one
CONTEXT = "https://api.securitycenter.microsoft.com/api/$metadata#"


class Bulk:
    """Answers both calls.

    Args:
        exports: The snapshots.
        storage: Where their files are.
        journal: Where violations are written down.
    """

    def __init__(self, exports: Exports, storage: Storage, journal: Journal) -> None:
        self.exports = exports
        self._storage = storage
        self._journal = journal

    def answer(self, request: Request, entry: Entry, url: str) -> Response:
        """What is said to one of the calls; `url` is the API's.

        Raises:
            ODataError: A query option is wrong.
        """
        if request.segments[2].lower() == FILES:
            return self._files(self._options(request, entry, ("sasvalidhours",)))
        return self._page(self._options(request, entry, ("pagesize", "$top", "$skiptoken")), url)

    def _options(self, request: Request, entry: Entry, known: tuple[str, ...]) -> dict[str, str]:
        options = {name.lower(): text for name, text in request.query}
        for name in options.keys() - set(known):
            self._journal.violation(entry, f"an unknown query option {name!r}")
        return options

    def _files(self, options: dict[str, str]) -> Response:
        hours = whole("sasValidHours", options.get("sasvalidhours", "1"))
        if not 1 <= hours <= LONGEST:
            msg = f"sasValidHours is {hours}, and must be from 1 to {LONGEST}."
            return Response.error(HTTPStatus.BAD_REQUEST, "BadRequest", msg)
        snapshot = self.exports.current()
        payload = {
            "@odata.context": f"{CONTEXT}microsoft.windowsDefenderATP.api.ExportFilesResponse",
            "exportFiles": self._storage.links(snapshot, hours),
            "generatedTime": snapshot.generated_time,
        }
        return Response.of(payload, type_=ODATA)

    def _page(self, options: dict[str, str], url: str) -> Response:
        size = whole("pageSize", options.get("pagesize", str(PAGE)))
        top = options.get("$top")
        if not 1 <= size <= LARGEST:
            msg = f"pageSize is {size}, and must be from 1 to {LARGEST}."
            return Response.error(HTTPStatus.BAD_REQUEST, "BadRequest", msg)
        path, first = self.exports.current().path, 0
        if "$skiptoken" in options:
            path, first = self._position(options["$skiptoken"])
        snapshot = self.exports.find(path)
        if snapshot is None:
            raise ODataError(UNKNOWN_TOKEN)
        wanted = size if top is None else min(size, whole("$top", top))
        records, more = snapshot.page(first, wanted)
        context = json.dumps(f"{CONTEXT}Collection(microsoft.windowsDefenderATP.api.AssetVulnerability)").encode()
        body = b'{"@odata.context":' + context + b',"value":[' + b",".join(records) + b"]"
        if more and top is None:
            link = _link(url, size, self._token(path, first + wanted))
            body += b',"@odata.nextLink":' + json.dumps(link).encode()
        return Response(HTTPStatus.OK, body + b"}", {"Content-Type": ODATA, "OData-Version": "4.0"})

    def stand_still(self, request: Request, response: Response, url: str) -> None:
        """The next link of a page leads to the page itself."""
        if response.status != HTTPStatus.OK:
            return
        payload = json.loads(response.body)
        options = {name.lower(): text for name, text in request.query}
        token = options.get("$skiptoken") or self._token(self.exports.current().path, 0)
        payload["@odata.nextLink"] = _link(url, int(options.get("pagesize", PAGE)), token)
        response.body = json.dumps(payload, ensure_ascii=False).encode()

    # The token: opaque to clients, and nothing they could make up

    def _token(self, path: str, first: int) -> str:
        position = json.dumps({"ExportDefinition": {"TimePath": path}, "LineStoppedAt": first}).encode()
        return urlsafe_b64encode(self._seal(position) + position).decode()

    def _position(self, token: str) -> tuple[str, int]:
        try:
            raw = urlsafe_b64decode(token)
        except ValueError as error:
            raise ODataError(UNKNOWN_TOKEN) from error
        seal, position = raw[:SEAL], raw[SEAL:]
        if not hmac.compare_digest(seal, self._seal(position)):
            raise ODataError(UNKNOWN_TOKEN)
        found = json.loads(position)
        return str(found["ExportDefinition"]["TimePath"]), int(found["LineStoppedAt"])

    def _seal(self, position: bytes) -> bytes:
        return hmac.digest(self._storage.key, position, hashlib.sha256)[:SEAL]


def _link(url: str, size: int, token: str) -> str:
    """The next link; `pagesize` is in lower case in Microsoft's, too."""
    return f"{url}/api/machines/SoftwareVulnerabilitiesByMachine?pagesize={size}&$skiptoken={quote(token)}"
