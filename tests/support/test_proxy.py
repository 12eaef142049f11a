"""The forward proxy of the tests: it lets the right ones through, counts them, and ends cleanly."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
import requests

from tests.support.proxy import Proxy

if TYPE_CHECKING:
    from mde_simulator import Simulator
    from tests.conftest import StartSimulator


def get(simulator: Simulator, proxy: str, url: str | None = None) -> requests.Response:
    """Ask the simulator through a proxy."""
    with requests.Session() as session:
        session.trust_env = False
        session.verify = simulator.ca_file
        session.proxies = {"https": proxy, "http": proxy}
        return session.get(url or simulator.url, timeout=10)


def test_a_tunnel_goes_through_and_is_counted(simulate: StartSimulator) -> None:
    simulator = simulate(3)
    with Proxy() as proxy:
        assert get(simulator, proxy.url).status_code == 404
        assert get(simulator, proxy.url).status_code == 404
        assert proxy.hosts == [f"127.0.0.1:{simulator.port}"] * 2
    assert (proxy.connections, proxy.refused) == (2, 0)
    assert proxy.bytes > 1000
    assert len(simulator.journal) == 2


def test_a_password_may_be_wanted(simulate: StartSimulator) -> None:
    simulator = simulate(3)
    with Proxy("us", "secret") as proxy:
        assert get(simulator, proxy.url).status_code == 404
        for wrong in (proxy.url.replace("secret", "wrong"), proxy.url.replace("us:secret@", "")):
            with pytest.raises(requests.exceptions.ProxyError, match="407"):
                get(simulator, wrong)
    assert (proxy.connections, proxy.refused) == (1, 2)


def test_a_host_may_lead_elsewhere(simulate: StartSimulator) -> None:
    """The certificate is still the simulator's, and so no other name passes TLS."""
    simulator = simulate(3)
    with Proxy(leads={"login.example": ("127.0.0.1", simulator.port)}) as proxy:
        with pytest.raises(requests.exceptions.SSLError):
            get(simulator, proxy.url, "https://login.example/")
        assert proxy.hosts == ["login.example:443"]


def test_what_is_no_tunnel_or_leads_nowhere_is_refused(simulate: StartSimulator) -> None:
    simulator = simulate(3)
    with Proxy() as proxy:
        assert get(simulator, proxy.url, "http://127.0.0.1:1/").status_code == 405
        with pytest.raises(requests.exceptions.ProxyError, match="502"):
            get(simulator, proxy.url, "https://127.0.0.1:1/")
    assert proxy.connections == 0


def test_no_thread_outlives_it(simulate: StartSimulator) -> None:
    simulator = simulate(3)
    before = set(threading.enumerate())
    with requests.Session() as session:
        session.trust_env = False
        session.verify = simulator.ca_file
        with Proxy() as proxy:
            session.proxies = {"https": proxy.url}
            session.get(simulator.url, timeout=10)
        left = {thread for thread in set(threading.enumerate()) - before if "mde-simulator" not in thread.name}
        assert not any("proxy" in thread.name or "_pump" in thread.name for thread in left)
