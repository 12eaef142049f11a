"""Proxies and private authorities by the usual environment variables, through a real forward proxy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.support.proxy import Proxy
from tests.support.singer import HURRIED, run_tap

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import StartSimulator


def test_login_and_api_go_through_the_proxy(simulate: StartSimulator, tmp_path: Path) -> None:
    simulator = simulate(8)
    with Proxy() as proxy:
        messages = run_tap(tmp_path, simulator, environ={"HTTPS_PROXY": proxy.url})
        assert messages.status == 0, messages.stderr
        assert set(proxy.hosts) == {f"127.0.0.1:{simulator.port}"}
    assert len(messages.records("machines")) == 8


def test_a_proxy_may_want_a_password_that_is_shown_nowhere(simulate: StartSimulator, tmp_path: Path) -> None:
    simulator = simulate(4)
    with Proxy(user="tap", password="open-sesame") as proxy:  # noqa: S106 - the proxy's own
        messages = run_tap(tmp_path, simulator, environ={"HTTPS_PROXY": proxy.url, "LOGLEVEL": "DEBUG"})
        assert messages.status == 0, messages.stderr
        assert "open-sesame" not in messages.stderr
        wrong = {"HTTPS_PROXY": proxy.url.replace("sesame", "sesam!")}
        refused = run_tap(tmp_path, simulator, environ=wrong, patience=HURRIED)
    assert refused.status == 1
    assert "sesam!" not in refused.stderr
    assert "proxy" in refused.last_line.lower()


def test_no_proxy_excepts_a_host(simulate: StartSimulator, tmp_path: Path) -> None:
    simulator = simulate(4)
    with Proxy() as proxy:
        environ = {"HTTPS_PROXY": proxy.url, "NO_PROXY": "127.0.0.1"}
        assert run_tap(tmp_path, simulator, environ=environ).status == 0
        assert proxy.connections == 0


def test_without_the_private_authority_the_run_ends_with_how_to_name_it(
    simulate: StartSimulator, tmp_path: Path
) -> None:
    messages = run_tap(tmp_path, simulate(4), environ={"REQUESTS_CA_BUNDLE": ""})
    assert messages.status == 1
    assert "was not accepted" in messages.last_line
    assert "set REQUESTS_CA_BUNDLE" in messages.last_line


def test_the_private_authority_alone_will_do(simulate: StartSimulator, tmp_path: Path) -> None:
    simulator = simulate(4)
    assert run_tap(tmp_path, simulator, environ={"REQUESTS_CA_BUNDLE": simulator.ca_file}).status == 0
