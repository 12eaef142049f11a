"""Software: the list of it, one piece, and the updates that it misses somewhere.

The facts are from Microsoft's page `get-missing-kbs-software.md`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mde_simulator.defender import errors
from mde_simulator.defender.call import FIXES, odata
from mde_simulator.fleet.catalogue import SOFTWARE, WINDOWS

if TYPE_CHECKING:
    from mde_simulator.defender.call import Call
    from mde_simulator.fleet.catalogue import Record
    from mde_simulator.http.messages import Response
    from mde_simulator.tenant import Tenant

VENDOR = "microsoft-_-"


class Software:
    """Answers the calls about software."""

    def __init__(self, tenant: Tenant) -> None:
        self._fleet = tenant.fleet

    def page(self, call: Call) -> Response:
        """GET /api/Software.

        Raises:
            ODataError: A query option is refused.
        """
        options = call.options()
        products = [*WINDOWS, *SOFTWARE][options.skip : options.skip + call.size(options)]
        return odata("Software", {"value": [options.project(self._record(product)) for product in products]})

    def one(self, call: Call) -> Response:
        """GET /api/Software/{id}."""
        call.named_options()
        product = _product(call.id)
        if product is None:
            return errors.not_found("Software", call.id)
        return odata("Software/$entity", self._record(product))

    def missing_kbs(self, call: Call) -> Response:
        """GET /api/Software/{id}/getmissingkbs."""
        call.named_options()
        product = _product(call.id)
        if product is None:
            return errors.not_found("Software", call.id)
        return odata(FIXES, {"value": self._fixes(product)})

    def _fixes(self, product: str) -> list[Record]:
        rows = [self._fleet.kb(kb_id) for kb_id in self._fleet.missed_on()]
        return [row for row in rows if product in self._fleet.products(str(row["id"]))]

    def _record(self, product: str) -> Record:
        exposed, installed = self._fleet.exposure(product)
        return {
            "id": f"{VENDOR}{product}",
            "name": product,
            "vendor": "microsoft",
            "weaknesses": sum(int(str(row["cveAddressed"] or 0)) for row in self._fixes(product)),
            "publicExploit": product in WINDOWS,
            "activeAlert": False,
            "exposedMachines": exposed,
            "installedMachines": installed,
            "impactScore": round(exposed / max(1, installed) * 10, 2),
            "isNormalized": True,
            "category": "OperatingSystem" if product in WINDOWS else "Application",
            "distributions": [],
        }


def _product(software_id: str) -> str | None:
    """The product of an id, if it is one of the catalogue's."""
    product = software_id.removeprefix(VENDOR)
    return product if software_id.startswith(VENDOR) and product in (*WINDOWS, *SOFTWARE) else None
