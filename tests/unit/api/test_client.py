"""The client by itself, on a simulated tenant: what it returns, how often it asks, and what it raises."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest

from mde_simulator import Fault, Fleet, Simulator
from tap_mde_kbs import schema
from tap_mde_kbs.api.client import TRIES, Client
from tap_mde_kbs.api.machines import LIST, LIST_PERMISSION, MachineSource, machine_page
from tap_mde_kbs.errors import (
    ApiError,
    BadRequestError,
    NoAnswerError,
    NotFoundError,
    ShapeError,
    Stopped,
    TapError,
)
from tap_mde_kbs.patience import Patience

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import StartSimulator

KBS = "/api/machines/*/getmissingkbs"


@pytest.fixture
def connect(simulate: StartSimulator, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Simulator, Client]]:
    """Starts a tenant, and a client of it that does not wait."""

    def start(*faults: Fault, **config: Any) -> tuple[Simulator, Client]:
        simulator = simulate(Fleet(machines=12, seed=1), faults=faults)
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", simulator.environment["REQUESTS_CA_BUNDLE"])
        settings = {
            **simulator.config,
            "requests_per_minute": 1_000_000,
            "requests_per_hour": 1_000_000,
            "request_timeout_seconds": 30,
            "max_parallel_requests": 2,
            "user_agent": "a test",
            **config,
        }
        return simulator, Client(settings, logging.getLogger("test"), Patience(retry=0.001))

    return start


def get(client: Client, **options: Any) -> Any:
    return client.get(LIST, permission=LIST_PERMISSION, **options)


def calls(simulator: Simulator) -> int:
    return sum(entry.is_api for entry in simulator.journal)


def test_it_returns_the_json_and_says_who_asks(connect: Callable[..., tuple[Simulator, Client]]) -> None:
    simulator, client = connect()
    assert {machine["id"] for machine in get(client, params={"$top": 50})["value"]} == set(simulator.fleet.listed())
    [entry] = [entry for entry in simulator.journal if entry.is_api]
    assert (entry.headers["user-agent"], entry.headers["accept"]) == ("a test", "application/json")
    assert (client.calls, client.retries) == (1, 0)


@pytest.mark.parametrize("kind", ["500", "reset", "cut", "html", "garbage"])
def test_what_another_try_may_bring_right_is_tried_so_often_and_no_oftener(
    connect: Callable[..., tuple[Simulator, Client]], kind: str
) -> None:
    """A body that is cut or not JSON counts, too; the error names the reason, and how often it was tried."""
    simulator, client = connect(Fault(kind, path=LIST))
    with pytest.raises(NoAnswerError, match=f"Tried {TRIES} times"):
        get(client)
    assert (calls(simulator), client.retries) == (TRIES, TRIES - 1)
    with pytest.raises(NoAnswerError, match="Tried 2 times"):
        get(client, tries=2)
    assert calls(simulator) == TRIES + 2


def test_a_certificate_that_is_refused_is_not_tried_again(
    connect: Callable[..., tuple[Simulator, Client]], monkeypatch: pytest.MonkeyPatch
) -> None:
    simulator, client = connect()
    token = client.sign_in.token()
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    with pytest.raises(NoAnswerError, match="set REQUESTS_CA_BUNDLE") as raised:
        get(client)
    assert "Tried" not in str(raised.value)
    assert (calls(simulator), client.retries, bool(token)) == (0, 0, True)


@pytest.mark.parametrize(
    ("fault", "error", "advice"),
    [
        (Fault("not_found", path=LIST), NotFoundError, "HTTP 404"),
        (Fault("forbidden", path=LIST), ApiError, LIST_PERMISSION),
        (Fault("unlicensed"), ApiError, "License Defender"),
        (Fault("redirect", path=LIST, text="https://a.example"), ApiError, "Redirects are not followed"),
        (Fault("long_error", path=LIST), BadRequestError, "Check api_url and the settings"),
    ],
    ids=lambda value: value.kind if isinstance(value, Fault) else "",
)
def test_a_refusal_is_its_own_kind_of_error_and_asked_for_once(
    connect: Callable[..., tuple[Simulator, Client]], fault: Fault, error: type[TapError], advice: str
) -> None:
    simulator, client = connect(fault)
    with pytest.raises(error, match=advice) as raised:
        get(client)
    assert type(raised.value) is error
    assert calls(simulator) == 1


def test_the_advice_for_a_bad_request_may_be_the_callers(connect: Callable[..., tuple[Simulator, Client]]) -> None:
    _, client = connect()
    with pytest.raises(BadRequestError, match="Correct machines_filter"):
        machine_page(client, 0, 10, "osPlatform equals Windows")
    with pytest.raises(BadRequestError, match="Check api_url and the settings"):
        get(client, params={"$filter": "osPlatform equals Windows"})


def test_it_is_not_for_any_other_refusal(connect: Callable[..., tuple[Simulator, Client]]) -> None:
    _, client = connect(Fault("long_error", path=LIST, status=405))
    with pytest.raises(BadRequestError, match="HTTP 405") as raised:
        machine_page(client, 0, 10, "osPlatform eq 'Windows'")
    assert "machines_filter" not in str(raised.value)


def test_a_list_that_the_api_does_not_find_is_empty(connect: Callable[..., tuple[Simulator, Client]]) -> None:
    """So it says that there are no recent machines."""
    _, client = connect(Fault("not_found", path=LIST))
    assert machine_page(client, 0, 10, None) == []


@pytest.mark.parametrize("kind", ["not_a_list", "not_an_object", "no_id"])
def test_an_answer_of_another_shape_is_told_from_none(
    connect: Callable[..., tuple[Simulator, Client]], kind: str
) -> None:
    simulator, client = connect(Fault(kind, path=LIST))
    with pytest.raises(ShapeError, match="GET /api/machines answered with JSON of another shape than documented"):
        machine_page(client, 0, 10, None)
    assert calls(simulator) == 1


def test_when_the_time_is_over_no_call_goes_out(connect: Callable[..., tuple[Simulator, Client]]) -> None:
    simulator, client = connect()
    client.check_time()
    client.stop()
    for ask in (client.check_time, lambda: get(client)):
        with pytest.raises(Stopped):
            ask()
    assert calls(simulator) == 0


class TestTheMachinesThemselves:
    """The source that asks each machine."""

    def test_its_rows_are_those_of_the_stream(self, connect: Callable[..., tuple[Simulator, Client]]) -> None:
        simulator, client = connect()
        reported: list[str] = []
        source = MachineSource(client, schema.Unlisted(reported.append))
        source.check()
        found = {}
        with source.opened(lambda _: False, lambda: None) as answers:
            assert (answers.made_at, [*answers.kb_cves()], answers.strangers({})) == (None, [], [])
            for machine_id in simulator.fleet.onboarded():
                answers.submit(machine_id)
                answer = answers.result(machine_id)
                found[machine_id] = frozenset(row["id"] for row in answer.rows)
                for row in answer.rows:
                    assert row.keys() == schema.MISSING_KBS.schema["properties"].keys()
                    assert (row["machine_id"], row["checked_at"]) == (machine_id, answer.checked_at)
        assert found == {machine_id: simulator.fleet.missing()[machine_id] for machine_id in found}
        assert any(found.values())
        assert reported == []

    @pytest.mark.parametrize(
        ("fault", "tries", "error"),
        [("503", 3, NoAnswerError), ("not_found", 1, NotFoundError), ("long_error", 1, BadRequestError)],
    )
    def test_one_that_is_ill_is_asked_a_few_times(
        self,
        connect: Callable[..., tuple[Simulator, Client]],
        fault: str,
        tries: int,
        error: type[TapError],
    ) -> None:
        """The sweep asks again, later."""
        simulator, client = connect(Fault(fault, path=KBS))
        [machine_id, *_] = simulator.fleet.onboarded()
        source = MachineSource(client, schema.Unlisted(lambda _: None))
        with source.opened(lambda _: True, lambda: None) as answers:
            answers.submit(machine_id)
            with pytest.raises(error):
                answers.result(machine_id)
        assert calls(simulator) == tries

    @pytest.mark.parametrize(
        ("faults", "ok", "text"),
        [
            ([], True, "for machine "),
            ([Fault("not_found", path=KBS, times=2)], True, "for machine "),
            ([Fault("not_found", path=KBS)], None, "HTTP 404 for the machines tried"),
        ],
    )
    def test_a_probe_asks_three_machines_at_most(
        self, connect: Callable[..., tuple[Simulator, Client]], faults: list[Fault], text: str, *, ok: bool | None
    ) -> None:
        simulator, client = connect(*faults)
        source = MachineSource(client, schema.Unlisted(lambda _: None))
        found = source.probe(simulator.fleet.onboarded())
        assert found[0] is ok
        assert text in found[1]
        assert calls(simulator) <= 3
        assert source.probe([]) == (None, "no onboarded machine to ask")
