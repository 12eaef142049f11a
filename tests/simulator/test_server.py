"""The server: TLS, keep-alive, encodings, hostile clients, and a clean end."""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
import time
from typing import TYPE_CHECKING

import pytest
import requests

from mde_simulator import Fault, Fleet, Simulator

if TYPE_CHECKING:
    from collections.abc import Callable

    from .door import Door

    Opened = Callable[..., Door]


def raw(door: Door, request: bytes) -> bytes:
    """Send bytes, and read to the connection's end."""
    context = ssl.create_default_context(cafile=door.simulator.ca_file)
    address = ("127.0.0.1", door.simulator.port)
    with (
        socket.create_connection(address, timeout=10) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as connection,
    ):
        connection.sendall(request)
        received = b""
        while part := connection.recv(65536):
            received += part
        return received


def test_the_certificate_is_good_for_loopback_and_the_throw_away_authority_alone(door: Door) -> None:
    port = door.simulator.port
    for host in ("127.0.0.1", "localhost"):
        assert door.session.get(f"https://{host}:{port}/api/machines", timeout=10).ok
    with requests.Session() as session:
        session.trust_env = False
        with pytest.raises(requests.exceptions.SSLError):
            session.get(door.simulator.url, timeout=10)
    assert door.get("/api/machines").ok


def test_the_certificate_stands_strict_verification(door: Door) -> None:
    context = ssl.create_default_context(cafile=door.simulator.ca_file)
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    connection = http.client.HTTPSConnection("127.0.0.1", door.simulator.port, context=context)
    connection.request("GET", "/")
    assert connection.getresponse().status == 404
    connection.close()


def test_the_environment_trusts_the_simulator_and_what_was_trusted_before(door: Door) -> None:
    environment = door.simulator.environment
    assert set(environment) == {
        "TAP_MDE_KBS_TENANT_ID",
        "TAP_MDE_KBS_CLIENT_ID",
        "TAP_MDE_KBS_CLIENT_SECRET",
        "TAP_MDE_KBS_API_URL",
        "TAP_MDE_KBS_AUTHORITY_URL",
        "REQUESTS_CA_BUNDLE",
    }
    with requests.Session() as session:
        session.trust_env = False
        session.verify = environment["REQUESTS_CA_BUNDLE"]
        assert session.get(door.simulator.url, timeout=10).status_code == 404
    context = ssl.create_default_context(cafile=environment["REQUESTS_CA_BUNDLE"])
    assert context.cert_store_stats()["x509_ca"] > 10


@pytest.mark.parametrize(
    ("accepted", "encoding"),
    [("deflate", "deflate"), ("gzip", "gzip"), ("gzip, deflate", "deflate"), ("identity", None)],
)
def test_bodies_are_encoded_as_accepted(door: Door, accepted: str, encoding: str | None) -> None:
    answer = door.session.get(f"{door.simulator.url}/api/machines", headers={"Accept-Encoding": accepted}, timeout=10)
    assert answer.headers.get("Content-Encoding") == encoding
    assert len(answer.json()["value"]) == 41


def test_encoding_can_be_switched_off(opened: Opened) -> None:
    answer = opened(compress=False).sign_in().get("/api/machines")
    assert "Content-Encoding" not in answer.headers


def test_a_connection_is_kept_alive(door: Door) -> None:
    context = ssl.create_default_context(cafile=door.simulator.ca_file)
    connection = http.client.HTTPSConnection("127.0.0.1", door.simulator.port, context=context)
    headers = {"Authorization": str(door.session.headers["Authorization"])}
    used = set()
    for _ in range(3):
        connection.request("GET", "/api/machines?$top=1", headers=headers)
        connection.getresponse().read()
        used.add(connection.sock.getsockname())
    assert len(used) == 1
    connection.close()


def test_an_old_client_gets_an_answer_without_chunks(door: Door) -> None:
    host = f"Host: 127.0.0.1:{door.simulator.port}\r\n".encode()
    answer = raw(door, b"GET /nothing HTTP/1.0\r\n" + host + b"\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"chunked" not in head
    assert body.startswith(b'{"error"')


@pytest.mark.parametrize(
    "request_",
    [
        b"nonsense\r\n\r\n",
        b"GET https://elsewhere/ HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: many\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 300 + b"\r\n",
    ],
)
def test_what_is_not_http_is_refused_and_the_next_client_served(door: Door, request_: bytes) -> None:
    try:
        answer = raw(door, request_)
    except ConnectionError:
        answer = b"HTTP/1.1 400"  # Reset, since not all of it was read.
    assert answer == b"" or answer.startswith(b"HTTP/1.1 400")
    assert door.get("/api/machines").ok


def test_a_client_that_never_shakes_hands_holds_up_nobody(door: Door) -> None:
    with (
        socket.create_connection(("127.0.0.1", door.simulator.port)),
        requests.Session() as session,
    ):
        session.trust_env = False
        session.verify = door.simulator.ca_file
        assert session.get(door.simulator.url, timeout=5).status_code == 404


def test_a_reset_is_a_reset_on_the_wire(opened: Opened) -> None:
    door = opened(faults=[Fault("reset", path="*")])
    context = ssl.create_default_context(cafile=door.simulator.ca_file)
    plain = socket.create_connection(("127.0.0.1", door.simulator.port), timeout=10)
    connection = context.wrap_socket(plain, server_hostname="127.0.0.1")
    connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    with socket.socket(fileno=connection.detach()) as bare:
        bare.settimeout(10)
        time.sleep(0.3)
        bare.recv(65536)  # What the handshake left behind.
        with pytest.raises(ConnectionResetError):
            bare.recv(65536)


def test_latency_is_that_of_every_answer(opened: Opened) -> None:
    door = opened(latency=0.2).sign_in()
    begun = time.monotonic()
    door.kbs()
    assert time.monotonic() - begun >= 0.2


def test_no_thread_and_no_connection_outlives_the_simulator() -> None:
    before = set(threading.enumerate())
    with Simulator(Fleet(3)) as simulator:
        port = simulator.port
        idle = socket.create_connection(("127.0.0.1", port))
        session = requests.Session()
        session.trust_env = False
        session.verify = simulator.ca_file
        session.get(simulator.url, timeout=5)
    assert set(threading.enumerate()) == before
    idle.close()
    session.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port)).close()
    with pytest.raises(RuntimeError, match="not running"):
        _ = simulator.ca_file


def test_a_port_in_use_is_an_error_and_leaves_nothing_behind(door: Door) -> None:
    second = Simulator(Fleet(1), port=door.simulator.port)
    with pytest.raises(OSError, match="in use"):
        second.start()
    second.stop()


def test_several_simulators_live_side_by_side(opened: Opened) -> None:
    first, second = opened(Fleet(3, seed=1)).sign_in(), opened(Fleet(4, seed=2)).sign_in()
    assert (len(first.ids()), len(second.ids())) == (3, 4)
    second.session.headers["Authorization"] = first.session.headers["Authorization"]
    assert second.get("/api/machines").status_code == 401


def test_a_page_has_one_machine_at_least() -> None:
    with pytest.raises(ValueError, match="one machine"):
        Simulator(page_size=0)
