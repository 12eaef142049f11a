"""A hostile server: what each such fault sends, as a client sees it that bounds what it takes."""

from __future__ import annotations

import json
import socket
import ssl
import time
import tracemalloc
import zlib
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import pytest
import requests

from mde_simulator import Fault
from mde_simulator.faults.fault import LOGIN
from mde_simulator.faults.hostile import CONTROLS, bomb

if TYPE_CHECKING:
    from collections.abc import Callable

    from .door import Door

    Opened = Callable[..., Door]

MEGABYTE = 1_048_576


def streamed(door: Door, path: str = "/api/machines") -> requests.Response:
    """An answer of which only the head was read."""
    return door.session.get(f"{door.simulator.url}{path}", timeout=10, stream=True)


def taken(answer: requests.Response, most: int) -> int:
    """How many bytes came until there were so many."""
    size = 0
    with answer:
        for part in answer.iter_content(65_536):
            size += len(part)
            if size >= most:
                break
    return size


@pytest.mark.parametrize("path", ["/api/machines", "/api/machines/x/getmissingkbs"])
def test_a_body_goes_on_until_the_client_has_enough(opened: Opened, path: str) -> None:
    door = opened(faults=[Fault("endless", times=1)]).sign_in()
    answer = streamed(door, path)
    assert answer.status_code == 200
    assert taken(answer, 20 * MEGABYTE) >= 20 * MEGABYTE
    assert door.get("/api/machines").ok
    assert door.simulator.journal[1].fault == "endless"


def test_a_body_goes_on_and_inflates_to_nothing(opened: Opened) -> None:
    """Who counts inflated bytes alone, or waits for one, waits for ever."""
    door = opened(faults=[Fault("endless_nothing", times=1)]).sign_in()
    with streamed(door) as answer:
        packed = answer.raw.read(MEGABYTE, decode_content=False)
    inflater = zlib.decompressobj()
    assert inflater.decompress(packed).startswith(b'{"@odata.context"')
    assert inflater.eof
    assert len(inflater.unused_data) > MEGABYTE // 2


def test_a_stop_ends_an_endless_body_also_when_nobody_reads_it(opened: Opened) -> None:
    door = opened(faults=[Fault("endless")]).sign_in()
    answer = streamed(door)
    begun = time.monotonic()
    door.simulator.stop()
    assert time.monotonic() - begun < 3
    answer.close()


def test_the_sign_in_may_be_endless_too(opened: Opened) -> None:
    door = opened(faults=[Fault("endless", path=LOGIN)])
    tenant = door.simulator.config["tenant_id"]
    url = f"{door.simulator.url}/{tenant}/oauth2/v2.0/token"
    assert taken(door.session.post(url, data={}, timeout=10, stream=True), MEGABYTE) >= MEGABYTE


def test_a_small_body_inflates_to_gigabytes(opened: Opened) -> None:
    door = opened(faults=[Fault("bomb")]).sign_in()
    with streamed(door) as answer:
        assert answer.headers["Content-Encoding"] == "gzip"
        packed = answer.raw.read(decode_content=False)
    assert len(packed) < 3 * MEGABYTE
    first, second = zlib.decompressobj(wbits=31), zlib.decompressobj(wbits=31)
    first.decompress(packed)
    size = len(second.decompress(first.unused_data))
    member = first.unused_data[: -len(second.unused_data)]
    assert first.unused_data == member * (len(first.unused_data) // len(member))
    assert size * len(first.unused_data) // len(member) > 2 * 1024 * MEGABYTE


def test_the_bomb_may_be_smaller_and_begins_like_json(opened: Opened) -> None:
    door = opened(faults=[Fault("bomb", size=40 * MEGABYTE)]).sign_in()
    text = door.get("/api/machines").text
    assert 40 * MEGABYTE < len(text) < 60 * MEGABYTE
    assert text.startswith('{"@odata.context"')


@pytest.mark.parametrize("status", [400, 403, 500])
def test_an_error_has_megabytes_of_text(opened: Opened, status: int) -> None:
    answer = opened(faults=[Fault("long_error", status=status)]).sign_in().get("/api/machines")
    assert answer.status_code == status
    error = answer.json()["error"]
    assert len(error["message"]) == 5 * MEGABYTE
    assert error["code"] == {400: "BadRequest", 403: "Forbidden", 500: "InternalServerError"}[status]


def test_an_error_of_the_sign_in_has_megabytes_of_text(opened: Opened) -> None:
    door = opened(faults=[Fault("long_error", path=LOGIN, code=700016, size=MEGABYTE)])
    answer = door.token()
    assert (answer.status_code, answer.json()["error_codes"]) == (400, [700016])
    assert len(answer.json()["error_description"]) > MEGABYTE


def test_an_error_has_control_characters_at_the_api_and_the_sign_in(opened: Opened) -> None:
    door = opened(faults=[Fault("control_error", status=403)]).sign_in()
    answer = door.get("/api/machines")
    assert answer.status_code == 403
    assert CONTROLS in answer.json()["error"]["message"]
    assert b"\\u001b" in answer.content
    door.simulator.faults.clear()
    door.simulator.faults.add(Fault("control_error", path=LOGIN, text="\x1b[5m"))
    assert "\x1b[5m" in door.token().json()["error_description"]
    door.simulator.journal.clear()


def test_names_of_machines_and_kbs_have_control_characters(opened: Opened) -> None:
    door = opened(faults=[Fault("control_names")]).sign_in()
    id_ = next(id_ for id_, kbs in door.simulator.fleet.missing().items() if kbs)
    machines, kbs = door.get("/api/machines").json()["value"], door.kbs(id_).json()["value"]
    assert all(CONTROLS in machine["computerDnsName"] for machine in machines if machine["computerDnsName"])
    assert all(kb["name"].endswith(CONTROLS) for kb in kbs if kb["name"])
    assert all(CONTROLS in tag for machine in machines for tag in machine["machineTags"])
    assert {machine["id"] for machine in machines} == set(door.simulator.fleet.listing())
    assert CONTROLS in door.get(f"/api/machines/{id_}").json()["computerDnsName"]


@pytest.mark.parametrize("status", [None, 401, 500])
def test_an_error_repeats_the_token(opened: Opened, status: int | None) -> None:
    door = opened(faults=[Fault("echo", status=status)]).sign_in()
    answer = door.get("/api/machines")
    assert answer.status_code == (status or 400)
    assert str(door.session.headers["Authorization"]) in answer.json()["error"]["message"]


def test_an_error_of_the_sign_in_repeats_the_secret(opened: Opened) -> None:
    door = opened(faults=[Fault("echo", path=LOGIN)])
    assert door.simulator.config["client_secret"] in door.token().json()["error_description"]


@pytest.mark.parametrize("path", ["/api/*", LOGIN])
def test_json_is_nested_a_hundred_thousand_deep(opened: Opened, path: str) -> None:
    door = opened().sign_in()
    door.session.headers.pop("Authorization") if path == LOGIN else None
    door.simulator.faults.add(Fault("nested", path=path))
    answer = door.token() if path == LOGIN else door.get("/api/machines")
    assert answer.status_code == HTTPStatus.OK
    assert answer.text.count("[") == answer.text.count("]") == 100_000
    assert answer.text.startswith('{"value": [[[')


@pytest.mark.parametrize("kind", ["long_header", "many_headers"])
def test_headers_have_a_megabyte(opened: Opened, kind: str) -> None:
    door = opened(faults=[Fault(kind, times=1)]).sign_in()
    with pytest.raises(requests.ConnectionError):
        door.get("/api/machines")
    assert door.get("/api/machines").ok


def test_the_long_header_is_as_long_as_it_says(opened: Opened) -> None:
    answer = opened(faults=[Fault("long_header", size=5000)]).sign_in().get("/api/machines")
    assert answer.ok
    assert len(answer.headers["X-Filler"]) == 5000


def test_a_body_drips(opened: Opened) -> None:
    door = opened(faults=[Fault("drip", seconds=0.2)]).sign_in()
    begun = time.monotonic()
    assert taken_raw(streamed(door), 4) == 4
    assert 0.7 < time.monotonic() - begun < 5


def taken_raw(answer: requests.Response, count: int) -> int:
    """So many bytes as they come."""
    with answer:
        return len(answer.raw.read(count, decode_content=False))


def test_a_drip_comes_to_its_end_and_a_stop_does_not_wait_for_one(opened: Opened) -> None:
    door = opened(faults=[Fault("drip", seconds=0.001, times=1), Fault("drip", seconds=60)]).sign_in()
    assert door.get(f"/api/machines/{door.simulator.fleet.listed()[0]}").json()["id"]
    answer = streamed(door)
    begun = time.monotonic()
    door.simulator.stop()
    assert time.monotonic() - begun < 3
    answer.close()


def test_a_next_link_leads_to_another_host_and_must_not_be_followed(opened: Opened) -> None:
    door = opened(faults=[Fault("foreign_link")]).sign_in()
    page = door.get("/api/machines", top=5).json()
    link = page["@odata.nextLink"]
    assert len(page["value"]) == 5
    assert link.startswith("https://localhost:")
    assert door.simulator.violations == []
    assert door.get(link).status_code == 404
    assert [text.partition(":")[0] for text in door.simulator.violations] == [
        "a token to the wrong place",
        "a link to another host that was followed",
    ]


def test_the_foreign_link_may_be_any(opened: Opened) -> None:
    text = "http://169.254.169.254/metadata/identity/oauth2/token"
    answer = opened(faults=[Fault("foreign_link", text=text)]).sign_in().get("/api/machines")
    assert answer.json()["@odata.nextLink"] == text


def test_an_old_client_gets_an_endless_body_too(opened: Opened) -> None:
    door = opened(faults=[Fault("endless", path="/api/*")]).sign_in()
    context = ssl.create_default_context(cafile=door.simulator.ca_file)
    with (
        socket.create_connection(("127.0.0.1", door.simulator.port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as connection,
    ):
        head = f"GET /api/machines HTTP/1.0\r\nHost: 127.0.0.1:{door.simulator.port}\r\n"
        connection.sendall(f"{head}Authorization: {door.session.headers['Authorization']!s}\r\n\r\n".encode())
        received = 0
        while received < MEGABYTE:
            part = connection.recv(65_536)
            assert part
            received += len(part)


def test_a_bomb_costs_the_simulator_little() -> None:
    bomb.cache_clear()
    tracemalloc.start()
    bomb(4096 * MEGABYTE)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 * MEGABYTE


@pytest.mark.parametrize("kind", ["control_names", "foreign_link", "drip", "long_header"])
def test_what_changes_an_answer_leaves_errors_readable(opened: Opened, kind: str) -> None:
    door = opened(faults=[Fault(kind, path="/api/*", seconds=0, size=10)]).sign_in()
    answer: Any = door.get("/api/machines/nobody").json()
    assert answer["error"]["code"] == "ResourceNotFound"
    assert json.dumps(answer)
