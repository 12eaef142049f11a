"""The hosts of MSRC, CISA and FIRST as one service: public files, where nobody signs in."""

from __future__ import annotations

from datetime import date, timezone
from email.utils import format_datetime, parsedate_to_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING

from mde_simulator.faults.answers import PAGE, page
from mde_simulator.feeds.feeds import PATHS
from mde_simulator.http.messages import JSON, Response
from mde_simulator.services.service import FaultyService

if TYPE_CHECKING:
    from mde_simulator.faults.faults import Faults
    from mde_simulator.feeds.feeds import Feeds
    from mde_simulator.http.journal import Entry
    from mde_simulator.http.messages import Request
    from mde_simulator.tenant import Tenant

UNWANTED = ("python-requests", "python-urllib", "curl/", "wget/", "go-http-client", "okhttp")
"""How user agents begin that nobody set: cisa.gov refuses them."""
SCORES, PACKED = "/epss_scores-", ".csv.gz"
XML = b'<?xml version="1.0" encoding="utf-8"?><cvrf:cvrfdoc xmlns:cvrf="http://www.icasi.org/CVRF/schema/cvrf/1.1"/>'


class FeedService(FaultyService):
    """The three hosts.

    Args:
        tenant: Beside which they are played.
        faults: What may go wrong.
        feeds: What they say.
    """

    def __init__(self, tenant: Tenant, faults: Faults, feeds: Feeds) -> None:
        super().__init__(tenant, faults)
        self.feeds = feeds

    @property
    def url(self) -> str:
        """The hosts' own."""
        return self.feeds.url

    def error(self, request: Request, text: str, status: int, code: int) -> Response:  # noqa: ARG002 - as others need it
        """A page; the hosts have no errors of their own in common."""
        return page(PAGE.format(text or HTTPStatus(status).phrase), status)

    def close(self, request: Request, seconds: float) -> None:
        """None of them says when to come back."""

    def _admit(self, request: Request, entry: Entry) -> Response:
        for header in ("authorization", "proxy-authorization", "cookie"):
            if header in request.headers:
                self.journal.violation(entry, f"the header {header} at a public host")
        agent = request.headers.get("user-agent", "").lower()
        is_unwanted = not agent or agent.startswith(UNWANTED)
        if is_unwanted:
            self.journal.violation(entry, "a user agent that nobody set")
        if len(self.journal.feeds_in_flight) > 1:
            self.journal.violation(entry, "two requests to feeds at once")
        if request.method != "GET":
            self.journal.violation(entry, "a method that is not GET")
            return page(PAGE.format("Method Not Allowed"), HTTPStatus.METHOD_NOT_ALLOWED)
        return self._meet(request, entry, lambda: self._answer(request, is_unwanted=is_unwanted))

    def _answer(self, request: Request, *, is_unwanted: bool) -> Response:
        if request.path.startswith(f"{PATHS['msrc']}/"):
            return self._msrc(request)
        if request.path == PATHS["kev"]:
            return page(PAGE.format("Access Denied"), HTTPStatus.FORBIDDEN) if is_unwanted else self._kev(request)
        if request.path.startswith(SCORES) and request.path.endswith(PACKED):
            return self._epss(request.path.removeprefix(SCORES).removesuffix(PACKED))
        return page(PAGE.format("Page not found"), HTTPStatus.NOT_FOUND)

    def _msrc(self, request: Request) -> Response:
        """Without caching of any kind, and as XML unless JSON is asked for."""
        headers = {"Cache-Control": "no-store", "Content-Type": JSON}
        name = request.path.removeprefix(f"{PATHS['msrc']}/")
        if name == "updates":
            if any(option == "$filter" for option, _ in request.query):
                return Response(HTTPStatus.INTERNAL_SERVER_ERROR, b"", headers)
            body: bytes | None = self.feeds.index()
        else:
            body = self.feeds.document(name.removeprefix("cvrf/")) if name.startswith("cvrf/") else None
        if body is None:
            return Response(HTTPStatus.NOT_FOUND, b'"No document of that ID."', headers)
        if "json" not in request.headers.get("accept", "").lower():
            return Response(HTTPStatus.OK, XML, headers | {"Content-Type": "application/xml; charset=utf-8"})
        return Response(HTTPStatus.OK, body, headers)

    def _kev(self, request: Request) -> Response:
        """The ETag is not honoured, If-Modified-Since is."""
        body = self.feeds.catalogue()
        released = self.feeds.kev.released().replace(microsecond=0, tzinfo=timezone.utc)
        headers = {"Last-Modified": format_datetime(released, usegmt=True), "ETag": f'"{len(body):x}"'}
        try:
            since = parsedate_to_datetime(request.headers.get("if-modified-since", ""))
        except ValueError:
            since = None
        if since is not None and since >= released:
            return Response(HTTPStatus.NOT_MODIFIED, b"", headers | {"Content-Length": "0"})
        return Response(HTTPStatus.OK, body, headers | {"Content-Type": "application/json"})

    def _epss(self, day: str) -> Response:
        """A file of each day until today; the current one is found by a redirect."""
        today = self.feeds.score_date()
        if day == "current":
            return Response(HTTPStatus.FOUND, b"", {"Location": f"{SCORES}{today}{PACKED}"})
        try:
            wanted = date.fromisoformat(day)
        except ValueError:
            wanted = None
        if wanted is None or wanted > today:
            return page(PAGE.format("Not Found"), HTTPStatus.NOT_FOUND)
        body = self.feeds.scores(wanted)
        headers = {"Content-Type": "application/gzip", "Content-Length": str(len(body))}
        return Response(HTTPStatus.OK, body, headers)
