"""Machines: the list with its oddities, one machine, and what it misses.

The facts are from Microsoft's pages `get-machines.md` and `get-missing-kbs-machine.md`.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

from mde_simulator.defender import errors
from mde_simulator.defender.call import FIXES, odata
from mde_simulator.defender.odata import Filter, skipped
from mde_simulator.http.messages import Response

if TYPE_CHECKING:
    from mde_simulator.defender.call import Call
    from mde_simulator.defender.odata import Options
    from mde_simulator.fleet.catalogue import Record
    from mde_simulator.http.messages import Request
    from mde_simulator.tenant import Tenant


class Machines:
    """Answers the calls about machines."""

    def __init__(self, tenant: Tenant) -> None:
        self._tenant = tenant
        self._fleet = tenant.fleet
        self._filtered: tuple[tuple[int, str], list[str]] | None = None

    def one(self, call: Call) -> Response:
        """GET /api/machines/{id}."""
        call.named_options()
        try:
            return odata("Machines/$entity", self._fleet.machine(call.id))
        except KeyError:
            return errors.not_found("Machine", call.id)

    def missing_kbs(self, call: Call) -> Response:
        """GET /api/machines/{id}/getmissingkbs."""
        call.named_options()
        try:
            return odata(FIXES, {"value": self._fleet.missing_kbs(call.id)})
        except KeyError:
            return errors.not_found("Machine", call.id)

    def page(self, call: Call) -> Response:
        """GET /api/machines.

        Raises:
            ODataError: A query option is refused.
        """
        if any(not name for name, _ in call.request.query):
            call.violation("a followed bad link")
            return self._endless(call.request)
        options = call.options()
        listing = self._fleet.listing()
        if not listing:
            return Response.error(HTTPStatus.NOT_FOUND, "NotFound", "No recent machines were found.")
        ids = self._select(listing, options)
        size = call.size(options)
        payload: Record = {"@odata.count": len(ids)} if options.count else {}
        payload["value"] = [
            options.project(record) for record in self._records(ids[options.skip : options.skip + size])
        ]
        after = options.skip + size
        if options.top is None and after < len(ids):
            payload["@odata.nextLink"] = self._next_link(call.request, options, size, after)
        return odata("Machines", payload)

    def _records(self, ids: list[str]) -> list[Record]:
        """As far as they have not left meanwhile."""
        return [self._fleet.machine(id_) for id_ in ids if self._fleet.is_listed(id_)]

    def _select(self, listing: list[str], options: Options) -> list[str]:
        """What `$filter` leaves, in the order of `$orderby`; the last filter's result is kept."""
        ids = listing
        if options.filter is not None:
            key = (self._fleet.version, options.filter)
            if self._filtered is None or self._filtered[0] != key:
                test = Filter(options.filter).matches
                self._filtered = (
                    key,
                    [id_ for id_ in listing for record in self._records([id_]) if test(record)],
                )
            ids = self._filtered[1]
        if options.order_by:
            records = self._records(ids)
            options.sort(records)
            ids = [str(record["id"]) for record in records]
        return ids

    def _next_link(self, request: Request, options: Options, size: int, after: int) -> str:
        if options.filter is not None:
            return self._mangled_link(options.filter, size, after)
        kept = [(name, text) for name, text in request.query if name.lower() != "$skip"]
        query = urlencode([*kept, ("$skip", after)], safe="$", quote_via=quote)
        return f"{self._tenant.url}/api/machines?{query}"

    def _mangled_link(self, text: str, size: int, after: int) -> str:
        """With a filter the names are lost (microsoft-365-docs#8316)."""
        return f"{self._tenant.url}/api/machines?={quote(text)}&={size}&$skip={after}"

    def _endless(self, request: Request) -> Response:
        """What a mangled link leads to: the list without its filter, round and round."""
        unnamed = [text for name, text in request.query if not name]
        first, size = skipped(request.query), self._tenant.page_size
        listing = self._fleet.listing()
        ids = [listing[(first + step) % len(listing)] for step in range(min(size, len(listing)))]
        link = self._mangled_link(unnamed[0], size, first + size)
        return odata("Machines", {"value": self._records(ids), "@odata.nextLink": link})
