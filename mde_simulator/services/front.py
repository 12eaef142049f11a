"""One address for two services: the API and the login authority, told apart by the path."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mde_simulator.http.journal import Entry, Journal
    from mde_simulator.http.messages import Request, Response
    from mde_simulator.services.api import ApiService
    from mde_simulator.services.login import LoginService


@dataclass
class Front:
    """Passes each request on to the service that it is for."""

    api: ApiService
    login: LoginService

    @property
    def journal(self) -> Journal:
        """The tenant's."""
        return self.api.journal

    def answer(self, request: Request, entry: Entry) -> Response:
        """What is said to a request."""
        service = self.api if entry.is_api else self.login
        return service.answer(request, entry)
