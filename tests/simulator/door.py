"""A plain client of the simulated tenant, as tests need it: it obeys no quota, retries nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

import requests

if TYPE_CHECKING:
    from typing_extensions import Self

    from mde_simulator import Simulator

SCOPE = "https://api.securitycenter.microsoft.com/.default"


class Door:
    """A running simulator and a session that is signed in."""

    def __init__(self, simulator: Simulator) -> None:
        self.simulator = simulator
        self.session = requests.Session()
        # REQUESTS_CA_BUNDLE would beat `verify`.
        self.session.trust_env = False

    def __enter__(self) -> Self:
        self.simulator.start()
        self.session.verify = self.simulator.ca_file
        return self

    def __exit__(self, *_: object) -> None:
        self.session.close()
        self.simulator.stop()

    def token(self, scope: str = SCOPE, **changes: str) -> requests.Response:
        """Ask for a token."""
        config = self.simulator.config | changes
        form = {"grant_type": "client_credentials", "scope": scope}
        form |= {name: config[name] for name in ("client_id", "client_secret")}
        url = f"{self.simulator.url}/{config['tenant_id']}/oauth2/v2.0/token"
        return self.session.post(url, data=form, timeout=10)

    def sign_in(self, scope: str = SCOPE) -> Self:
        """Use a new token from now on."""
        # The old one is the API's alone.
        self.session.headers.pop("Authorization", None)
        token = self.token(scope).json()["access_token"]
        self.session.headers["Authorization"] = f"Bearer {token}"
        return self

    def get(self, path: str, **params: object) -> requests.Response:
        """Ask the API; `top=5` is `$top=5`."""
        url = path if path.startswith("https:") else f"{self.simulator.url}{path}"
        query = {"pageSize" if name == "pageSize" else f"${name}": str(text) for name, text in params.items()}
        return self.session.get(url, params=query, timeout=10, allow_redirects=False)

    def ids(self, **params: object) -> list[str]:
        """The ids of one page of machines."""
        answer = self.get("/api/machines", **params)
        answer.raise_for_status()
        return [machine["id"] for machine in answer.json()["value"]]

    def kbs(self, machine_id: str | None = None) -> requests.Response:
        """The missing KBs of a machine, the first one by default."""
        machine_id = machine_id or self.simulator.fleet.onboarded()[0]
        return self.get(f"/api/machines/{quote(machine_id, safe='')}/getmissingkbs")
