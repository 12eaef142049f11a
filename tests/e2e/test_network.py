"""Proxies and private authorities by the usual environment variables, through a real forward proxy."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from tap_mde_kbs.api.client import Client
from tap_mde_kbs.api.network import PROXY_VARIABLES
from tap_mde_kbs.errors import SignInError
from tap_mde_kbs.settings import DEFAULTS
from tests.support.proxy import Proxy
from tests.support.singer import HURRIED, run_tap
from tests.support.stumbling import Answering

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


@pytest.mark.parametrize(
    ("proxy", "said"),
    [
        ("socks5://127.0.0.1:1", "needs the package PySocks"),
        ("socks5h://user:pa%2Fss@127.0.0.1:1", "needs the package PySocks"),
        ("http://user:pa/ss-word@127.0.0.1:1", "percent-encode / @ : # ? ["),
        ("http://user:pa#ss-word@127.0.0.1:1", "percent-encode / @ : # ? ["),
        ("http://user:pa?ss-word@127.0.0.1:1", "percent-encode / @ : # ? ["),
        ("gopher://127.0.0.1:1", "is no address of a proxy"),
        ("http://127.0.0.1:port", "is no address of a proxy"),
        ("http://", "is no address of a proxy"),
        ('"http://127.0.0.1:1"', "is no address of a proxy"),
        ("http://user:pa[ss-word@127.0.0.1:1", "is no address of a proxy"),
    ],
)
@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"])
def test_a_proxy_that_no_call_can_go_to_is_named_at_once(tmp_path: Path, proxy: str, said: str, variable: str) -> None:
    """With the variable, and without its value: a password may be in it."""
    config = {
        "tenant_id": "a.example",
        "client_id": "b",
        "client_secret": "secret-value",
        "api_url": "https://127.0.0.1:1",
    }
    config["authority_url"] = config["api_url"]
    messages = run_tap(tmp_path, config=config, environ={variable: proxy}) if variable == "HTTPS_PROXY" else None
    client = Client({**config, **DEFAULTS}, logging.getLogger("test"), HURRIED)
    with pytest.MonkeyPatch.context() as patch:
        for name in PROXY_VARIABLES:
            patch.delenv(name, raising=False)
        patch.setenv(variable, proxy)
        with pytest.raises(SignInError) as told:
            client.sign_in.token()
    for text in (str(told.value), messages.last_line if messages else str(told.value)):
        assert text.startswith(variable)
        assert said in text
        assert "ss-word" not in text
        assert "<credentials>" not in text
    assert messages is None or (messages.status == 1 and "Trying again" not in messages.stderr)


@pytest.mark.parametrize(("answer", "tries"), [("407 Wanted", 1), ("403 No", 1), ("502 Later", 4)])
def test_what_a_proxy_answers_is_said_with_its_status(tmp_path: Path, answer: str, tries: int) -> None:
    """A refusal at once; what may pass is tried again."""
    with Answering(f"HTTP/1.1 {answer}\r\nContent-Length: 0\r\n\r\n".encode()) as proxy:
        url = f"http://user:pa-ss@127.0.0.1:{proxy.port}"
        config = {"tenant_id": "a.example", "client_id": "b", "client_secret": "secret-value"}
        messages = run_tap(tmp_path, config=config, environ={"HTTPS_PROXY": url}, patience=HURRIED)
    assert messages.status == 1
    assert f"The proxy of HTTPS_PROXY answered HTTP {answer[:3]}" in messages.last_line
    assert proxy.met == tries
    assert "pa-ss" not in messages.stderr


@pytest.mark.parametrize("content", [b"", b"no certificate", b"\xff\xfe-\x00-\x00"])
def test_a_file_of_authorities_without_any_is_named(simulate: StartSimulator, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "ca.pem"
    path.write_bytes(content)
    messages = run_tap(tmp_path, simulate(1), environ={"REQUESTS_CA_BUNDLE": str(path)})
    assert messages.status == 1
    assert "REQUESTS_CA_BUNDLE" in messages.last_line
    assert "is not all certificates in PEM" in messages.last_line
    assert "Trying again" not in messages.stderr
