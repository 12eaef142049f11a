"""The two calls for whole exports: the list of signed files, and the records as pages of JSON.

The facts are from Microsoft's page `get-assessment-software-vulnerabilities.md`. The
files themselves are on another host.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import quote

from mde_simulator.defender.call import CONTEXT, odata
from mde_simulator.defender.odata import ODataError, whole
from mde_simulator.http.messages import ODATA, Response

if TYPE_CHECKING:
    from mde_simulator.defender.call import Call
    from mde_simulator.tenant import Tenant

LONGEST = 6
PAGE, LARGEST = 50_000, 200_000
SEAL = 9
"""How many bytes of a seal are in a token; divisible by three, so that a token needs no padding of its own."""
UNKNOWN_TOKEN = "The value of the query option '$skiptoken' is not valid."  # noqa: S105 - a sentence about one


class Bulk:
    """Answers both calls."""

    def __init__(self, tenant: Tenant) -> None:
        self._tenant = tenant

    def files(self, call: Call) -> Response:
        """GET /api/machines/SoftwareVulnerabilitiesExport.

        Raises:
            ODataError: A query option is refused.
        """
        options = call.named_options("sasvalidhours")
        hours = whole("sasValidHours", options.get("sasvalidhours", "1"))
        if not 1 <= hours <= LONGEST:
            text = f"sasValidHours is {hours}, and must be from 1 to {LONGEST}."
            return Response.error(HTTPStatus.BAD_REQUEST, "BadRequest", text)
        snapshot = self._tenant.exports.current()
        return odata(
            "microsoft.windowsDefenderATP.api.ExportFilesResponse",
            {
                "exportFiles": self._tenant.storage.links(snapshot, hours),
                "generatedTime": snapshot.generated_time,
            },
        )

    def page(self, call: Call) -> Response:
        """GET /api/machines/SoftwareVulnerabilitiesByMachine.

        Raises:
            ODataError: A query option is refused.
        """
        options = call.named_options("pagesize", "$top", "$skiptoken")
        size = whole("pageSize", options.get("pagesize", str(PAGE)))
        top = options.get("$top")
        if not 1 <= size <= LARGEST:
            text = f"pageSize is {size}, and must be from 1 to {LARGEST}."
            return Response.error(HTTPStatus.BAD_REQUEST, "BadRequest", text)
        exports = self._tenant.exports
        path, first = exports.current().path, 0
        if "$skiptoken" in options:
            path, first = self._position(options["$skiptoken"])
        snapshot = exports.find(path)
        if snapshot is None:
            raise ODataError(UNKNOWN_TOKEN)
        wanted = size if top is None else min(size, whole("$top", top))
        records, more = snapshot.page(first, wanted)
        context = json.dumps(f"{CONTEXT}Collection(microsoft.windowsDefenderATP.api.AssetVulnerability)").encode()
        body = b'{"@odata.context":' + context + b',"value":[' + b",".join(records) + b"]"
        if more and top is None:
            body += b',"@odata.nextLink":' + json.dumps(self._link(size, path, first + wanted)).encode()
        return Response(HTTPStatus.OK, body + b"}", {"Content-Type": ODATA, "OData-Version": "4.0"})

    def _link(self, size: int, path: str, first: int) -> str:
        """The next link; `pagesize` is in lower case in Microsoft's, too."""
        token = quote(self._token(path, first))
        return f"{self._tenant.url}/api/machines/SoftwareVulnerabilitiesByMachine?pagesize={size}&$skiptoken={token}"

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
        return hmac.digest(self._tenant.storage.key, position, hashlib.sha256)[:SEAL]
