"""What the tenant answers: the API's routes, with their oddities, and the rules every call obeys.

No sockets: it takes a `Request` and gives a `Response`. The facts are from Microsoft's pages
`get-machines.md`, `get-missing-kbs-machine.md`, `get-missing-kbs-software.md` and
`common-errors.md`. A `Fault` strikes here; the connection's own end is `server.py`'s.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

from mde_simulator.defender import bulk
from mde_simulator.defender.bulk import Bulk
from mde_simulator.defender.odata import MAXIMUM, Filter, ODataError, Options
from mde_simulator.entra.login import Login
from mde_simulator.exports.storage import Storage
from mde_simulator.faults import spoil
from mde_simulator.faults.faults import WALKING
from mde_simulator.fleet.catalogue import SOFTWARE, WINDOWS, Record
from mde_simulator.http.journal import Entry, Journal
from mde_simulator.http.messages import ODATA, Request, Response

if TYPE_CHECKING:
    from mde_simulator.defender.quota import Quota
    from mde_simulator.entra.identity import Identity, Token
    from mde_simulator.exports.exports import Exports
    from mde_simulator.faults.faults import Fault, Faults
    from mde_simulator.fleet.fleet import Fleet

MACHINE_ROLES = ("Machine.Read.All", "Machine.ReadWrite.All")
SOFTWARE_ROLES = ("Software.Read.All",)
CONTEXT = "https://api.securitycenter.microsoft.com/api/$metadata#"
FIXES = "Collection(microsoft.windowsDefenderATP.api.PublicProductFixDto)"
VENDOR = "microsoft-_-"


@dataclass
class Tenant:
    """A tenant behind its two doors, login and API."""

    fleet: Fleet
    identity: Identity
    quota: Quota
    faults: Faults
    exports: Exports
    export_quota: Quota
    export_json_quota: Quota
    journal: Journal = field(default_factory=Journal)
    page_size: int = MAXIMUM
    latency: float = 0.0
    _filtered: tuple[tuple[int, str], list[str]] | None = None

    @cached_property
    def login(self) -> Login:
        """The other door."""
        return Login(self.identity, self.faults, self.journal)

    @cached_property
    def storage(self) -> Storage:
        """The host that has the files of exports."""
        return Storage(self.exports, self.login)

    @cached_property
    def _bulk(self) -> Bulk:
        return Bulk(self.exports, self.storage, self.journal)

    def answer(self, request: Request, entry: Entry) -> Response:
        """What the tenant says to it."""
        self.login.check_host(request, entry, self.identity.url)
        response = (
            self._api(request, entry) if entry.is_api else self.login.answer(request, entry, self.identity.answer)
        )
        entry.status = None if response.ending == "reset" else response.status
        return response

    # The rules

    def _api(self, request: Request, entry: Entry) -> Response:
        quota = self._quota(request)
        wait, wrong = quota.judge()
        if wrong == "early":
            self.journal.violation(entry, "before Retry-After had ended")
        elif wrong == "over":
            self.journal.violation(entry, "over the quota")
        if wait is not None:
            return spoil.too_many(str(int(wait)), quota.limits)
        if request.body:
            self.journal.violation(entry, "a request body where there is none")
        token = self._token(request, entry)
        if isinstance(token, Response):
            return token
        response = self._struck(request, entry, token)
        response.delay += self.latency
        return response

    def _quota(self, request: Request) -> Quota:
        """The calls for whole exports have quotas of their own."""
        by_call = {bulk.FILES: self.export_quota, bulk.JSON: self.export_json_quota}
        return by_call.get(_bulk_call(request), self.quota)

    def _token(self, request: Request, entry: Entry) -> Token | Response:
        authorization = request.headers.get("authorization", "")
        token = self.identity.seen(authorization)
        if token is None:
            self.journal.violation(entry, "a bad or missing Authorization header")
        if token is None or not self.identity.is_valid(authorization):
            return spoil.unauthorized()
        if token.audience not in self.identity.audiences:
            msg = f"The token's audience {token.audience} is not that of this API."
            return Response.error(HTTPStatus.FORBIDDEN, "Forbidden", msg)
        return token

    def _struck(self, request: Request, entry: Entry, token: Token) -> Response:
        path = "/" + "/".join(request.segments)
        fault = self.faults.strike(request.method, path, entry.machine_id, walking=_skip(request) > 0)
        if fault is None:
            return self._route(request, entry, token)
        entry.fault = fault.kind
        self._happen(fault, request)
        instead = spoil.instead(fault, request, self.identity.url)
        if instead is not None:
            return instead
        response = spoil.spoil(self._route(request, entry, token), fault, self.identity.url)
        if fault.kind == "endless_skiptoken":
            self._bulk.stand_still(request, response, self.identity.url)
        return response

    def _happen(self, fault: Fault, request: Request) -> None:
        """What a fault does to the tenant, not to the response."""
        if fault.kind == "revoked":
            self.identity.revoke()
        elif fault.kind == "throttled" and fault.retry_after != "absent":
            self._quota(request).close(spoil.announced(fault))
        elif fault.kind == "export_new":
            self.exports.generate()
        elif fault.kind in WALKING:
            read = self.fleet.listing()[: _skip(request)]
            if read and fault.kind == "leaving":
                self.fleet.remove(read[0])
            elif read:
                self.fleet.repeat(read[-1])

    # The routes

    def _route(self, request: Request, entry: Entry, token: Token) -> Response:
        parts = [part.lower() for part in request.segments[1:]]
        resource, function = parts[0], parts[2:]
        whole = bool(_bulk_call(request))
        if resource not in ("machines", "software") or function not in ([], ["getmissingkbs"]):
            msg = f"No HTTP resource was found that matches the request URI {request.path}."
            return Response.error(HTTPStatus.NOT_FOUND, "NotFound", msg)
        if request.method != "GET":
            msg = "The requested resource does not support this method."
            return Response.error(HTTPStatus.METHOD_NOT_ALLOWED, "MethodNotAllowed", msg)
        software = resource == "software" or bool(function)
        required = bulk.ROLES if whole else SOFTWARE_ROLES if software else MACHINE_ROLES
        if not set(required) & set(token.roles):
            return spoil.forbidden(required, token.roles)
        try:
            if whole:
                return self._bulk.answer(request, entry, self.identity.url)
            return self._resource(resource, request, entry)
        except ODataError as error:
            return Response.error(HTTPStatus.BAD_REQUEST, "ODataError", str(error))

    def _resource(self, resource: str, request: Request, entry: Entry) -> Response:
        segments = [part for part in request.segments[2:] if part]
        if not segments:
            if resource == "machines":
                return self._machines(request, entry)
            return self._softwares(request, entry)
        for name, _ in request.query:
            self.journal.violation(entry, f"an unknown query option {name!r}")
        if resource == "software":
            return self._software(segments[0], fixes=bool(segments[1:]))
        return self._machine(segments[0], fixes=bool(segments[1:]))

    def _machine(self, machine_id: str, *, fixes: bool) -> Response:
        try:
            if fixes:
                return _odata(FIXES, {"value": self.fleet.missing_kbs(machine_id)})
            return _odata("Machines/$entity", self.fleet.machine(machine_id))
        except KeyError:
            return spoil.not_found("Machine", machine_id)

    def _machines(self, request: Request, entry: Entry) -> Response:
        if any(not name for name, _ in request.query):
            self.journal.violation(entry, "a followed bad link")
            return self._endless(request)
        options = self._options(request, entry)
        listing = self.fleet.listing()
        if not listing:
            return Response.error(HTTPStatus.NOT_FOUND, "NotFound", "No recent machines were found.")
        ids = self._select(listing, options)
        size = self._size(options)
        payload: Record = {"@odata.count": len(ids)} if options.count else {}
        payload["value"] = [
            options.project(record) for record in self._records(ids[options.skip : options.skip + size])
        ]
        after = options.skip + size
        if options.top is None and after < len(ids):
            payload["@odata.nextLink"] = self._next_link(request, options, size, after)
        return _odata("Machines", payload)

    def _options(self, request: Request, entry: Entry) -> Options:
        options = Options.read(request.query)
        for name in options.unknown:
            self.journal.violation(entry, f"an unknown query option {name!r}")
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

    def _size(self, options: Options) -> int:
        """How many records a page has: the server may return fewer than asked."""
        asked = (self.page_size, options.top, options.page_size)
        return min(size for size in asked if size is not None)

    def _records(self, ids: list[str]) -> list[Record]:
        """As far as they have not left meanwhile."""
        return [self.fleet.machine(id_) for id_ in ids if self.fleet.is_listed(id_)]

    def _select(self, listing: list[str], options: Options) -> list[str]:
        """What `$filter` leaves, in the order of `$orderby`; the last filter's result is kept."""
        ids = listing
        if options.filter is not None:
            key = (self.fleet.version, options.filter)
            if self._filtered is None or self._filtered[0] != key:
                test = Filter(options.filter).matches
                self._filtered = (
                    key,
                    [id_ for id_ in listing for r in self._records([id_]) if test(r)],
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
        return f"{self.identity.url}/api/machines?{query}"

    def _mangled_link(self, text: str, size: int, after: int) -> str:
        """With a filter the names are lost (microsoft-365-docs#8316)."""
        return f"{self.identity.url}/api/machines?={quote(text)}&={size}&$skip={after}"

    def _endless(self, request: Request) -> Response:
        """What a mangled link leads to: the list without its filter, round and round."""
        unnamed = [text for name, text in request.query if not name]
        first, size = _skip(request), self.page_size
        listing = self.fleet.listing()
        ids = [listing[(first + step) % len(listing)] for step in range(min(size, len(listing)))]
        link = self._mangled_link(unnamed[0], size, first + size)
        return _odata("Machines", {"value": self._records(ids), "@odata.nextLink": link})

    def _softwares(self, request: Request, entry: Entry) -> Response:
        options = self._options(request, entry)
        size = self._size(options)
        products = [*WINDOWS, *SOFTWARE][options.skip : options.skip + size]
        records = [options.project(self._software_record(product)) for product in products]
        return _odata("Software", {"value": records})

    def _software(self, software_id: str, *, fixes: bool) -> Response:
        product = software_id.removeprefix(VENDOR)
        if not software_id.startswith(VENDOR) or product not in (*WINDOWS, *SOFTWARE):
            return spoil.not_found("Software", software_id)
        if fixes:
            return _odata(FIXES, {"value": self._fixes(product)})
        return _odata("Software/$entity", self._software_record(product))

    def _fixes(self, product: str) -> list[Record]:
        rows = [self.fleet.kb(kb_id) for kb_id in self.fleet.missed_on()]
        return [row for row in rows if product in self.fleet.products(str(row["id"]))]

    def _software_record(self, product: str) -> Record:
        exposed, installed = self.fleet.exposure(product)
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


def _bulk_call(request: Request) -> str:
    """Which of the calls for whole exports it is, if it is one."""
    parts = [part.lower() for part in request.segments]
    return parts[2] if parts[1:2] == ["machines"] and parts[2:] in ([bulk.FILES], [bulk.JSON]) else ""


def _skip(request: Request) -> int:
    """How much of a list was read already, as far as the request says."""
    texts = [text for name, text in request.query if name.lower() == "$skip"]
    return int(texts[0]) if texts and texts[0].isascii() and texts[0].isdecimal() else 0


def _odata(context: str, payload: Record) -> Response:
    return Response.of({"@odata.context": CONTEXT + context, **payload}, type_=ODATA)
