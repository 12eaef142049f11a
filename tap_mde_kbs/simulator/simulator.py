"""The simulator: a fleet, its tenant, and the server, started and stopped as one.

The one object that tests and the command line hold. On two cores, shared with the clients, 250
machines: 2,100 calls of `getmissingkbs` a second for one connection, 2,400 to 3,100 for four to
six in two or three processes. `python tests/simulator/measure_rate.py` repeats the measurement.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tap_mde_kbs.simulator import certificates
from tap_mde_kbs.simulator.faults import Faults
from tap_mde_kbs.simulator.fleet import Fleet
from tap_mde_kbs.simulator.identity import ROLES, Identity
from tap_mde_kbs.simulator.odata import MAXIMUM
from tap_mde_kbs.simulator.quota import Quota
from tap_mde_kbs.simulator.routes import Tenant
from tap_mde_kbs.simulator.server import Server

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

    from typing_extensions import Self

    from tap_mde_kbs.simulator.faults import Fault
    from tap_mde_kbs.simulator.journal import Journal


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
    ) -> None:
        if page_size < 1:
            message = "A page has one machine at least."
            raise ValueError(message)
        self.fleet = Fleet() if fleet is None else fleet
        self.faults = Faults(faults, seed)
        self.identity = Identity(token_life, tuple(roles))
        self.tenant = Tenant(
            fleet=self.fleet,
            identity=self.identity,
            quota=quota or Quota(()),
            faults=self.faults,
            page_size=page_size,
            latency=latency,
        )
        self.port = port
        self._compress = compress
        self._server: Server | None = None
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
        except BaseException:
            self.stop()
            raise
        self.port = self._server.port
        self.identity.url = self.url
        self._server.start(self.tenant)

    def stop(self) -> None:
        """End connections and threads, and remove the certificates."""
        if self._server is not None:
            self._server.stop()
            self._server = None
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    # Where it is, and how to get in

    @property
    def url(self) -> str:
        """The URL of both the API and the login authority."""
        return f"https://127.0.0.1:{self.port}"

    @property
    def ca_file(self) -> str:
        """The throw-away authority, a PEM file."""
        return str(self._path("ca.pem"))

    @property
    def config(self) -> dict[str, str]:
        """The settings of the tap."""
        return {
            "tenant_id": self.identity.tenant_id,
            "client_id": self.identity.client_id,
            "client_secret": self.identity.client_secret,
            "api_url": self.url,
            "authority_url": self.url,
        }

    @property
    def environment(self) -> dict[str, str]:
        """The same as environment variables, and the authorities to trust."""
        settings = {f"TAP_MDE_KBS_{name.upper()}": text for name, text in self.config.items()}
        return settings | {"REQUESTS_CA_BUNDLE": str(self._path("bundle.pem"))}

    def _path(self, name: str) -> Path:
        if self._folder is None:
            message = "The simulator is not running."
            raise RuntimeError(message)
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
