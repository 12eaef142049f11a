"""Lists that change while they are walked: machines, and an export's files and pages."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any

from mde_simulator.defender.call import odata
from mde_simulator.defender.odata import skipped
from mde_simulator.faults.fault import EXPORT, EXPORT_JSON, LIST, kind, of_payload

if TYPE_CHECKING:
    from mde_simulator.faults.fault import Strike
    from mde_simulator.http.messages import Response

HOST = "https://api.securitycenter.windows.com"


def _read(strike: Strike) -> list[str]:
    """The ids that the client has read already."""
    return strike.tenant.fleet.listing()[: skipped(strike.request.query)]


@kind("leaving", LIST, "a machine already read leaves between two pages, once: the rest shifts", times=1, walking=True)
def _leaving(strike: Strike) -> Response:
    strike.tenant.fleet.remove(*_read(strike)[:1])
    return strike.answer()


@kind("duplicate", LIST, "a page begins with the last machine of the page before; the rest shifts", walking=True)
def _duplicate(strike: Strike) -> Response:
    strike.tenant.fleet.repeat(*_read(strike)[-1:])
    return strike.answer()


@kind("moving", LIST, "another order for each page, and `size` machines join; none by default", walking=True)
def _moving(strike: Strike) -> Response:
    for _ in range(strike.size):
        strike.tenant.fleet.add()
    strike.tenant.fleet.shuffle()
    return strike.answer()


@kind("export_new", EXPORT, "a snapshot is made just before the answer, once: the next list has other files", times=1)
def _export_new(strike: Strike) -> Response:
    strike.tenant.exports.generate()
    return strike.answer()


@kind("endless_skiptoken", EXPORT_JSON, "a next link that leads to the same page again")
@of_payload
def _endless_skiptoken(payload: Any, strike: Strike) -> object:
    request = strike.request
    return payload | {"@odata.nextLink": f"{strike.tenant.url}{request.path}?{request.query_string}"}


@kind("endless_pages", EXPORT_JSON, "pages without a record, each with a link to one more, for ever")
def _endless_pages(strike: Strike) -> Response:
    token = zlib.crc32(strike.request.query_string.encode())
    context = "Collection(microsoft.windowsDefenderATP.api.AssetVulnerability)"
    link = f"{strike.tenant.url}{strike.request.path}?$skiptoken={token}"
    return odata(context, {"value": [], "@odata.nextLink": link})


@kind("renamed_link", EXPORT_JSON, "a next link that names another of the API's hosts, as in Microsoft's samples")
@of_payload
def _renamed_link(payload: Any, strike: Strike) -> object:
    link = payload.get("@odata.nextLink", "")
    return payload | {"@odata.nextLink": link.replace(strike.tenant.url, HOST)} if link else payload


@kind("export_no_files", EXPORT, "an export that lists no files")
@of_payload
def _export_no_files(payload: Any, _strike: Strike) -> object:
    return payload | {"exportFiles": []}
