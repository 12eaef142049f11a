"""The API's routes as a table: which path, which role, which quota, who answers. Knows no sockets."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING

from mde_simulator.defender import errors
from mde_simulator.defender.bulk import Bulk
from mde_simulator.defender.call import Call
from mde_simulator.defender.machines import Machines
from mde_simulator.defender.odata import ODataError
from mde_simulator.defender.quota import CALLS, EXPORT_CALLS, EXPORT_PAGES
from mde_simulator.defender.software import Software
from mde_simulator.http.messages import Response

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from mde_simulator.http.journal import Entry
    from mde_simulator.http.messages import Request
    from mde_simulator.tenant import Tenant

MACHINE_ROLES = ("Machine.Read.All", "Machine.ReadWrite.All")
SOFTWARE_ROLES = ("Software.Read.All",)
EXPORT_ROLES = ("Vulnerability.Read.All",)
ID = "{id}"


@dataclass(frozen=True)
class Route:
    """One line of the table.

    Attributes:
        method: The only one that is supported.
        path: In lower case, as the API takes paths without regard to case; `{id}` is any one segment.
        roles: The token must have one of them.
        handler: Who answers.
        quota: The name of the quota that its calls count for.
    """

    method: str
    path: str
    roles: tuple[str, ...]
    handler: Callable[[Call], Response]
    quota: str = CALLS

    def matches(self, segments: list[str]) -> bool:
        """Whether a path, cut into segments in lower case, is this one's."""
        own = self.path.split("/")[1:]
        return len(own) == len(segments) and all(
            name in (ID, segment) for name, segment in zip(own, segments, strict=True)
        )

    def id(self, request: Request) -> str:
        """The id in a path of this route, decoded; nothing if it has none."""
        own = self.path.split("/")[1:]
        return request.segments[own.index(ID)] if ID in own else ""


class Routes:
    """The table, for one tenant; of several lines that match the first counts."""

    def __init__(self, tenant: Tenant) -> None:
        self._tenant = tenant
        machines, software, bulk = Machines(tenant), Software(tenant), Bulk(tenant)
        exports = "/api/machines/softwarevulnerabilities"
        self.table = (
            Route("GET", "/api/machines", MACHINE_ROLES, machines.page),
            Route("GET", f"{exports}export", EXPORT_ROLES, bulk.files, EXPORT_CALLS),
            Route("GET", f"{exports}bymachine", EXPORT_ROLES, bulk.page, EXPORT_PAGES),
            Route("GET", "/api/machines/{id}", MACHINE_ROLES, machines.one),
            Route("GET", "/api/machines/{id}/getmissingkbs", SOFTWARE_ROLES, machines.missing_kbs),
            Route("GET", "/api/software", SOFTWARE_ROLES, software.page),
            Route("GET", "/api/software/{id}", SOFTWARE_ROLES, software.one),
            Route("GET", "/api/software/{id}/getmissingkbs", SOFTWARE_ROLES, software.missing_kbs),
        )

    def find(self, request: Request) -> Route | None:
        """The route of a request, whatever its method; None: there is none."""
        segments = [part.lower() for part in request.segments]
        while segments[-1:] == [""]:
            segments.pop()
        return next((route for route in self.table if route.matches(segments)), None)

    def answer(self, request: Request, entry: Entry, roles: Iterable[str]) -> Response:
        """What is said to a client that has these roles."""
        route = self.find(request)
        if route is None:
            resources = {each.path.split("/")[2] for each in self.table}
            is_known = request.segments[1].lower() in resources
            return errors.no_route(request.path) if is_known else errors.bare_not_found()
        if request.method != route.method:
            text = "The requested resource does not support this method."
            return Response.error(HTTPStatus.METHOD_NOT_ALLOWED, "MethodNotAllowed", text)
        if not set(route.roles) & set(roles):
            return errors.forbidden(route.roles, roles)
        try:
            return route.handler(Call(self._tenant, request, entry, route.id(request)))
        except ODataError as error:
            return Response.error(HTTPStatus.BAD_REQUEST, "ODataError", str(error))
