"""The API as a service: quotas first, then the token, then a fault if one strikes, then the route."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from mde_simulator.defender import errors
from mde_simulator.defender.odata import skipped
from mde_simulator.defender.quota import CALLS
from mde_simulator.defender.routes import Routes
from mde_simulator.http.messages import Response
from mde_simulator.services.service import FaultyService

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mde_simulator.defender.quota import Quota
    from mde_simulator.entra.identity import Token
    from mde_simulator.faults.faults import Faults
    from mde_simulator.http.journal import Entry
    from mde_simulator.http.messages import Request
    from mde_simulator.tenant import Tenant


class ApiService(FaultyService):
    """The API.

    Args:
        tenant: Whose it is.
        faults: What may go wrong.
        quotas: By their names.
    """

    def __init__(self, tenant: Tenant, faults: Faults, quotas: Mapping[str, Quota]) -> None:
        super().__init__(tenant, faults)
        self._quotas = quotas
        self._routes = Routes(tenant)

    @property
    def url(self) -> str:
        """The tenant's."""
        return self.tenant.url

    def error(self, request: Request, text: str, status: int, code: int) -> Response:  # noqa: ARG002 - as others need it
        """The API's error body for a status."""
        return errors.of_status(status, text)

    def close(self, request: Request, seconds: float) -> None:
        """Refuse every call of the same quota until the seconds are over."""
        self._quota(request).close(seconds)

    def _admit(self, request: Request, entry: Entry) -> Response:
        quota = self._quota(request)
        wait, wrong = quota.judge()
        if wrong == "early":
            self.journal.violation(entry, "before Retry-After had ended")
        elif wrong == "over":
            self.journal.violation(entry, "over the quota")
        if wait is not None:
            return errors.too_many(str(int(wait)), quota.limits)
        if request.body:
            self.journal.violation(entry, "a request body where there is none")
        token = self._token(request, entry)
        if isinstance(token, Response):
            return token
        response = self._meet(
            request,
            entry,
            lambda: self._routes.answer(request, entry, token.roles),
            walking=skipped(request.query) > 0,
        )
        response.delay += self.tenant.latency
        return response

    def _quota(self, request: Request) -> Quota:
        route = self._routes.find(request)
        return self._quotas[CALLS if route is None else route.quota]

    def _token(self, request: Request, entry: Entry) -> Token | Response:
        identity, authorization = self.tenant.identity, request.headers.get("authorization", "")
        token = identity.seen(authorization)
        if token is None:
            self.journal.violation(entry, "a bad or missing Authorization header")
        if token is None or not identity.is_valid(authorization):
            return errors.unauthorized()
        if token.audience not in identity.audiences:
            text = f"The token's audience {token.audience} is not that of this API."
            return Response.error(HTTPStatus.FORBIDDEN, "Forbidden", text)
        return token
