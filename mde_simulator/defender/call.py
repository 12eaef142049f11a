"""One call of the API, as its handlers see it, and the envelope of what they answer."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING

from mde_simulator.defender.odata import MAXIMUM, ODataError, Options
from mde_simulator.http.messages import ODATA, Response

if TYPE_CHECKING:
    from mde_simulator.fleet.catalogue import Record
    from mde_simulator.http.journal import Entry
    from mde_simulator.http.messages import Request
    from mde_simulator.tenant import Tenant

CONTEXT = "https://api.securitycenter.microsoft.com/api/$metadata#"
FIXES = "Collection(microsoft.windowsDefenderATP.api.PublicProductFixDto)"


@dataclass(frozen=True)
class Call:
    """A request that found its route.

    Attributes:
        id: The decoded id of the resource, where the route has one.
    """

    tenant: Tenant
    request: Request
    entry: Entry
    id: str = ""

    def violation(self, what: str) -> None:
        """Write down that the client did something wrong."""
        self.tenant.journal.violation(self.entry, what)

    def named_options(self, *known: str) -> dict[str, str]:
        """The query options by their names in lower case; any but the known ones is a violation."""
        options = {name.lower(): text for name, text in self.request.query}
        for name, _ in self.request.query:
            if name.lower() not in known:
                self.violation(f"an unknown query option {name!r}")
        return options

    def options(self) -> Options:
        """The query options of a list.

        Raises:
            ODataError: One of them is refused.
        """
        options = Options.read(self.request.query)
        for name in options.unknown:
            self.violation(f"an unknown query option {name!r}")
        if options.top is not None and options.top > MAXIMUM:
            msg = (
                f"The limit of '{MAXIMUM}' for Top query has been exceeded. "
                f"The value from the incoming request is '{options.top}'."
            )
            raise ODataError(msg)
        if options.page_size == 0:
            msg = "Invalid value '0' for pageSize query option found."
            raise ODataError(msg)
        return options

    def size(self, options: Options) -> int:
        """How many records a page has: the server may return fewer than asked."""
        asked = (self.tenant.page_size, options.top, options.page_size)
        return min(size for size in asked if size is not None)


def odata(context: str, payload: Record) -> Response:
    """200 with a payload in its envelope."""
    return Response.of({"@odata.context": CONTEXT + context, **payload}, HTTPStatus.OK, ODATA)
