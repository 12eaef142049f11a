"""The simulator: a fleet, its tenant, and the server, started and stopped as one.

The one object that tests and the command line hold. On two cores, shared with the clients, 250
machines: 2,100 calls of `getmissingkbs` a second for one connection, 2,400 to 3,100 for four to
six in two or three processes. `python tests/simulator/measure_rate.py` repeats the measurement.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mde_simulator.defender.odata import MAXIMUM
from mde_simulator.defender.quota import CALLS, EXPORT_CALLS, EXPORT_PAGES, Quota
from mde_simulator.entra.federation import Issuer
from mde_simulator.entra.identity import ROLES, Identity
from mde_simulator.entra.managed import ManagedIdentity
from mde_simulator.exports.exports import Exports
from mde_simulator.exports.records import ExportShape
from mde_simulator.exports.storage import Storage
from mde_simulator.faults.faults import Faults
from mde_simulator.feeds.feeds import NAMES as FEED_NAMES
from mde_simulator.feeds.feeds import Feeds
from mde_simulator.fleet.fleet import Fleet
from mde_simulator.http import certificates
from mde_simulator.http.journal import FEEDS, STORAGE
from mde_simulator.http.server import Server
from mde_simulator.services.api import ApiService
from mde_simulator.services.feeds import FeedService
from mde_simulator.services.front import Front
from mde_simulator.services.login import LoginService, ManagedIdentityService
from mde_simulator.services.storage import StorageService
from mde_simulator.tenant import Tenant

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from types import TracebackType

    from typing_extensions import Self

    from mde_simulator.faults.fault import Fault
    from mde_simulator.http.journal import Journal


AUTH_METHODS = ("client_secret", "certificate", "federated_token", "managed_identity")
DAY = 86_400.0
"""How long a federated token of `settings_for` is good."""


class Simulator:
    """A Defender tenant on loopback, from `with` (or `start`) to its end (or `stop`).

    Args:
        fleet: The machines; 250 of them by default.
        quota: None: no quota at all. The documented one is `Quota()`.
        faults: What goes wrong; more by `simulator.faults.add` at any time.
        latency: Seconds that every answer of the API takes.
        token_life: Seconds that a token is good for.
        page_size: How many machines a page has at most, whatever is asked for.
        roles: The application permissions in the tokens.
        port: 0: any.
        seed: Of the faults' chances.
        compress: Whether bodies are deflated or gzipped for clients that accept it.
        bearer_form: What can be seen of a token, one of `identity.BEARER_FORMS`.
        managed_identity: Whether the managed identity endpoints are there too, on a port of their own.
        export_shape: How large the vulnerability exports are.
        export_quota: Of the call for an export's files; None: none. The documented one is `Quota(EXPORT)`.
        export_json_quota: Of the call for an export as pages; the documented one is `Quota(EXPORT_JSON)`.
        export_clock: Seconds of the epoch, for when exports are made and how long links are valid;
            by default `clock`.
        clock: Seconds of the epoch, as the services have it: in the header Date, in Retry-After, in tokens.
        advisory_feeds: Which advisory feeds its settings name, of "msrc", "kev" and "epss"; with none there is no host
            of theirs.
        epss_rows: How many scores EPSS has at least.
    """

    def __init__(  # noqa: PLR0913 - a tenant has that many knobs, each by its name
        self,
        fleet: Fleet | None = None,
        *,
        quota: Quota | None = None,
        faults: Iterable[Fault] = (),
        latency: float = 0.0,
        token_life: float = 3599,
        page_size: int = MAXIMUM,
        roles: Iterable[str] = ROLES,
        port: int = 0,
        seed: int = 0,
        compress: bool = True,
        bearer_form: str = "jwt",
        managed_identity: bool = False,
        export_shape: ExportShape | None = None,
        export_quota: Quota | None = None,
        export_json_quota: Quota | None = None,
        export_clock: Callable[[], float] | None = None,
        clock: Callable[[], float] = time.time,
        advisory_feeds: Sequence[str] = (),
        epss_rows: int = 20_000,
    ) -> None:
        if unknown := {*advisory_feeds} - {*FEED_NAMES}:
            msg = f"There are no feeds {', '.join(sorted(unknown))}; there are {', '.join(FEED_NAMES)}."
            raise ValueError(msg)
        if page_size < 1:
            msg = "A page has one machine at least."
            raise ValueError(msg)
        self.fleet = Fleet() if fleet is None else fleet
        self.faults = Faults(faults, seed)
        self.identity = Identity(token_life, tuple(roles), clock, bearer_form=bearer_form)
        self.exports = Exports(self.fleet, export_shape or ExportShape(), export_clock or clock)
        storage = Storage(self.exports, self.identity.tenant_id)
        self.advisory_feeds = tuple(advisory_feeds)
        self.feeds = Feeds(self.fleet, epss_rows)
        self.tenant = Tenant(self.fleet, self.identity, self.exports, storage, self.feeds, page_size, latency, clock)
        self._quotas = {
            CALLS: quota or Quota(()),
            EXPORT_CALLS: export_quota or Quota(()),
            EXPORT_PAGES: export_json_quota or Quota(()),
        }
        self.port = port
        self.managed = ManagedIdentity(self.identity) if managed_identity else None
        """The identities of the host that the endpoints are on; None if they are not asked for."""
        self._compress = compress
        self._server: Server | None = None
        self._endpoints: Server | None = None
        self._files: Server | None = None
        self._public: Server | None = None
        self._folder: Path | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Listen and answer.

        Raises:
            OSError: The port is taken.
        """
        self._folder = Path(tempfile.mkdtemp(prefix="mde-simulator-"))
        try:
            context = certificates.make(self._folder)
            certificates.write_bundle(self._folder)
            self._server = Server(self.port, context, compress=self._compress)
            self._files = Server(0, context, compress=False, host=STORAGE)
            if self.advisory_feeds:
                self._public = Server(0, context, compress=self._compress, host=FEEDS)
            if self.managed is not None:
                self._endpoints = Server(0, None, compress=False)
        except BaseException:
            self.stop()
            raise
        self.port = self._server.port
        self.identity.url = self.url
        self.exports.start(self._folder)
        self.tenant.storage.url = f"https://localhost:{self._files.port}"
        api = ApiService(self.tenant, self.faults, self._quotas)
        self._server.start(Front(api, LoginService(self.tenant, self.faults)))
        self._files.start(StorageService(self.tenant, self.faults))
        if self._public is not None:
            self.feeds.url = f"https://127.0.0.1:{self._public.port}"
            self._public.start(FeedService(self.tenant, self.faults, self.feeds))
        if self.managed is not None and self._endpoints is not None:
            self.managed.url = f"http://127.0.0.1:{self._endpoints.port}"
            self._endpoints.start(ManagedIdentityService(self.tenant, self.faults, self.managed))

    def stop(self) -> None:
        """End connections and threads, and remove the certificates and the exports' files."""
        for server in (self._server, self._files, self._endpoints, self._public):
            if server is not None:
                server.stop()
        self._server = self._files = self._endpoints = self._public = None
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    # Where it is, and how to get in

    @property
    def storage_url(self) -> str:
        """The URL of the host that has the exports' files."""
        return self.tenant.storage.url

    @property
    def url(self) -> str:
        """The URL of both the API and the login authority."""
        return f"https://127.0.0.1:{self.port}"

    @property
    def ca_file(self) -> str:
        """The throw-away authority, a PEM file."""
        return str(self._path("ca.pem"))

    @property
    def config(self) -> dict[str, Any]:
        """The settings of the tap."""
        urls = {f"{name}_url": self.feeds.urls[name] for name in self.advisory_feeds}
        return {
            **({"advisory_feeds": [*self.advisory_feeds], **urls} if urls else {}),
            "tenant_id": self.identity.tenant_id,
            "client_id": self.identity.client_id,
            "client_secret": self.identity.client_secret,
            "api_url": self.url,
            "authority_url": self.url,
        }

    def settings_for(self, auth_method: str, certificate: str | None = None) -> dict[str, Any]:
        """The settings of the tap for a credential, which is made and registered here.

        Args:
            auth_method: One of `AUTH_METHODS`. `managed_identity` is the system-assigned one, and
                needs `managed_identity_environment` besides.
            certificate: A PEM file with key and certificate; without it a throw-away one is made.

        Raises:
            ValueError: There is no such method, or no certificate in the file.
            OSError: The file cannot be read.
        """
        if auth_method not in AUTH_METHODS:
            msg = f"There is no auth_method {auth_method!r}; there are {', '.join(AUTH_METHODS)}."
            raise ValueError(msg)
        settings = {"auth_method": auth_method, **self.config}
        if auth_method != "client_secret":
            del settings["client_secret"]
        if auth_method == "certificate":
            path = Path(certificate or certificates.make_client_certificate(self._path(""))).absolute()
            self.identity.register_certificate(path.read_bytes())
            settings["certificate_file"] = str(path)
        elif auth_method == "federated_token":
            issuer = Issuer()
            self.identity.federate(issuer)
            settings["federated_token_file"] = str(issuer.write(self._path("federated-token"), life=DAY))
        elif auth_method == "managed_identity":
            del settings["client_id"]
        return settings

    def managed_identity_environment(self, kind: str = "vm") -> dict[str, str]:
        """What a client of managed identities finds in its environment.

        Args:
            kind: "app_service" or "vm".

        Raises:
            ValueError: There is no such kind.
            RuntimeError: The simulator was made without them.
        """
        if self.managed is None:
            msg = "Simulator(managed_identity=True) has the endpoints."
            raise RuntimeError(msg)
        self._path("")
        return self.managed.environment(kind)

    @property
    def environment(self) -> dict[str, str]:
        """The same as environment variables, and the authorities to trust."""
        return self.exported(self.config)

    def exported(self, settings: Mapping[str, Any]) -> dict[str, str]:
        """Settings as environment variables, and the authorities to trust."""
        variables = {
            f"TAP_MDE_KBS_{name.upper()}": ",".join(value) if isinstance(value, list) else str(value)
            for name, value in settings.items()
        }
        return variables | {"REQUESTS_CA_BUNDLE": str(self._path("bundle.pem"))}

    def _path(self, name: str) -> Path:
        if self._folder is None:
            msg = "The simulator is not running."
            raise RuntimeError(msg)
        return self._folder / name

    # What happened

    @property
    def journal(self) -> Journal:
        """Every request so far."""
        return self.tenant.journal

    @property
    def calls(self) -> int:
        """How many calls of the API there were."""
        return self.journal.calls

    @property
    def violations(self) -> list[str]:
        """What clients did wrong."""
        return self.journal.violations
