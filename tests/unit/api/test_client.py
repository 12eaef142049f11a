"""The client by itself, on a simulated tenant: what it returns, how often it asks, and what it raises."""

from __future__ import annotations

import json
import logging
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any

import pytest

from mde_simulator import Fault, Fleet, Simulator
from mde_simulator.faults.fault import KINDS, Kind
from mde_simulator.http.messages import Response
from tap_mde_kbs import schema
from tap_mde_kbs.api import http
from tap_mde_kbs.api.client import TRIES, Client
from tap_mde_kbs.api.http import seconds_to_wait
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
from tap_mde_kbs.sweep.sweep import MACHINES_OWN

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import StartSimulator

KBS = "/api/machines/*/getmissingkbs"
NO_PATH = (
    '{"error": {"code": "NotFound", "message": "No HTTP resource was found that matches the request URI /api/api."}}'
)
UNHEARD = schema.Unlisted(lambda _: None)


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
        (Fault("long_error", path=LIST, status=403), BadRequestError, "Grant the application permission"),
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
        machine_page(client, 0, 10, "osPlatform equals Windows", UNHEARD)
    with pytest.raises(BadRequestError, match="Check api_url and the settings"):
        get(client, params={"$filter": "osPlatform equals Windows"})


def test_it_is_not_for_any_other_refusal(connect: Callable[..., tuple[Simulator, Client]]) -> None:
    _, client = connect(Fault("long_error", path=LIST, status=405))
    with pytest.raises(BadRequestError, match="HTTP 405") as raised:
        machine_page(client, 0, 10, "osPlatform eq 'Windows'", UNHEARD)
    assert "machines_filter" not in str(raised.value)


def test_a_list_that_the_api_does_not_find_is_empty(connect: Callable[..., tuple[Simulator, Client]]) -> None:
    """So it says that there are no recent machines."""
    _, client = connect(Fault("not_found", path=LIST))
    assert machine_page(client, 0, 10, None, UNHEARD) == []


@pytest.mark.parametrize(
    "text", ["", "<html>404 page not found</html>", '{"error": "Not Found", "status": 404}', NO_PATH]
)
def test_a_404_of_a_wrong_path_is_no_empty_list(connect: Callable[..., tuple[Simulator, Client]], text: str) -> None:
    """An api_url with `/api` behind it, or of another host, is no tenant without machines."""
    simulator, client = connect(Fault("bare_404", path=LIST, text=text))
    with pytest.raises(
        BadRequestError, match=r"HTTP 404.* Check api_url: the API's host alone, without /api behind it"
    ):
        machine_page(client, 0, 10, None, UNHEARD)
    assert calls(simulator) == 1


@pytest.mark.parametrize("kind", ["not_a_list", "null_value", "error_in_200"])
def test_an_answer_of_another_shape_is_told_from_none(
    connect: Callable[..., tuple[Simulator, Client]], kind: str
) -> None:
    simulator, client = connect(Fault(kind, path=LIST))
    with pytest.raises(ShapeError, match="GET /api/machines answered with JSON of another shape than documented"):
        machine_page(client, 0, 10, None, UNHEARD)
    assert calls(simulator) == 1


@pytest.mark.parametrize(
    ("fault", "nameless"),
    [
        (
            Fault("no_id_entry", times=9),
            {"computerDnsName": "has no id", "onboardingStatus": "Onboarded", "isExcluded": False},
        ),
        (Fault("not_an_object", path=LIST), {}),
    ],
    ids=lambda value: value.kind if isinstance(value, Fault) else "",
)
def test_an_entry_without_an_id_counts_in_positions_and_is_reported_once(
    connect: Callable[..., tuple[Simulator, Client]], fault: Fault, nameless: dict[str, Any]
) -> None:
    """One odd entry does not end the run."""
    simulator, client = connect(fault)
    reported: list[str] = []
    unlisted = schema.Unlisted(reported.append)
    for _ in range(2):
        first, *machines = machine_page(client, 0, 100, None, unlisted)
        assert first == nameless
        assert {machine["id"] for machine in machines} == set(simulator.fleet.listed())
    assert reported == [f"The machine list has 1 entries without an id on a page of {len(machines) + 1}: dropped."]


@pytest.mark.parametrize("odd", [None, "", " ", True, [], {"id": "a"}])
def test_what_is_no_id_is_none(connect: Callable[..., tuple[Simulator, Client]], odd: object) -> None:
    reported: list[str] = []
    value = [{"id": odd}, {"id": "a"}, {"id": 7}]
    _, client = connect(Fault("garbage", path=LIST, text=json.dumps({"value": value})))
    assert machine_page(client, 0, 10, None, schema.Unlisted(reported.append)) == value
    assert len(reported) == 1


@pytest.mark.parametrize(
    ("with_id", "without", "skip", "is_refused"),
    [
        (101, 100, 0, False),
        (10, 11, 0, False),
        (100, 101, 0, True),
        (100, 101, 300, True),
        (0, 1, 0, True),
        (0, 1, 100, False),
        (3, 5, 0, False),
        (0, 0, 0, False),
    ],
)
def test_a_page_whose_entries_mostly_have_no_id_is_of_a_wrong_host(
    connect: Callable[..., tuple[Simulator, Client]], with_id: int, without: int, skip: int, *, is_refused: bool
) -> None:
    """But the last of many pages may hold nothing else than the one odd entry."""
    value = [*({"id": f"m{number}"} for number in range(with_id)), *[{"name": "none"}] * without]
    _, client = connect(Fault("garbage", path=LIST, text=json.dumps({"value": value})))
    if is_refused:
        with pytest.raises(ShapeError, match=f"{without} of {with_id + without} entries of `value` have no id"):
            machine_page(client, skip, 300, None, UNHEARD)
    else:
        assert machine_page(client, skip, 300, None, UNHEARD) == value


def test_bytes_that_are_no_text_are_mended_and_not_refused(
    connect: Callable[..., tuple[Simulator, Client]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One broken name of a machine is not a list that can't be had."""
    body = b'{"value": [{"id": "a", "computerDnsName": "M\xfcller"}, {"id": "b"}]}'
    latin = Kind(
        LIST, "a name in another encoding", lambda _: Response(200, body, {"Content-Type": "application/json"})
    )
    monkeypatch.setitem(KINDS, "latin", latin)
    _, client = connect(Fault("latin"))
    assert machine_page(client, 0, 10, None, UNHEARD) == [{"id": "a", "computerDnsName": "M\ufffdller"}, {"id": "b"}]


@pytest.mark.parametrize("date", ["Fri, 31 Dec 9999 23:59:59 GMT", "Fri, 31 Dec 9999 23:59:59 -0700", "yesterday"])
def test_a_date_that_can_not_be_does_not_break_the_wait_for_the_quota(
    connect: Callable[..., tuple[Simulator, Client]], date: str
) -> None:
    simulator, client = connect(Fault("throttled", path=LIST, times=1, seconds=1, date=date))
    assert machine_page(client, 0, 100, None, UNHEARD)
    assert (calls(simulator), client.throttled) == (2, 1)


@pytest.mark.parametrize(
    "date",
    [
        "Fri, 31 Dec 9999 23:59:59 GMT",
        "Fri, 31 Dec 9999 23:59:59 -0700",
        "Sat, 01 Jan 1970 00:00:00 GMT",
        "Mon, 99 Jan 2026 00:00:00 GMT",
        "",
    ],
)
def test_beside_a_date_that_can_not_be_the_hosts_clock_counts(date: str) -> None:
    in_a_minute = format_datetime(datetime.now(timezone.utc) + timedelta(seconds=60), usegmt=True)
    waits = seconds_to_wait({"Date": date, "Retry-After": in_a_minute})
    assert waits is not None
    assert 0 < waits <= 60
    assert seconds_to_wait({"Date": date, "Retry-After": "17"}) == 17
    assert seconds_to_wait({"Date": date}) is None


@pytest.mark.parametrize("ahead", [timedelta(0), timedelta(days=1), timedelta(days=-400)])
def test_a_date_of_another_clock_is_what_retry_after_is_measured_by(ahead: timedelta) -> None:
    sent = datetime.now(timezone.utc) + ahead
    until = format_datetime(sent + timedelta(seconds=60), usegmt=True)
    assert seconds_to_wait({"Date": format_datetime(sent, usegmt=True), "Retry-After": until}) == 60


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
                    assert {*row, "sweep"} == set(schema.MISSING_KBS.schema["properties"])
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

    def answer_of(self, client: Client, machine_id: str, *, once: bool = False) -> list[dict[str, Any]]:
        """A machine's rows."""
        source = MachineSource(client, UNHEARD)
        with source.opened(lambda _: True, lambda: None) as answers:
            assert answers.empty_files == 0
            answers.submit(machine_id, once=once)
            return answers.result(machine_id).rows

    @pytest.mark.parametrize("kind", ["503", "cut", "garbage"])
    def test_one_that_was_ill_before_is_asked_once(
        self, connect: Callable[..., tuple[Simulator, Client]], kind: str
    ) -> None:
        """The sick don't eat the quota; and the next machine is asked as often as ever."""
        simulator, client = connect(Fault(kind, path=KBS))
        ill, other, *_ = simulator.fleet.onboarded()
        with pytest.raises(NoAnswerError) as raised:
            self.answer_of(client, ill, once=True)
        assert "Tried" not in str(raised.value)
        assert (calls(simulator), client.retries) == (1, 0)
        with pytest.raises(NoAnswerError, match="Tried 3 times"):
            self.answer_of(client, other)
        assert calls(simulator) == 1 + 3

    @pytest.mark.parametrize(
        "fault",
        [
            *map(Fault, ("null_value", "no_value", "bare_list", "null_id", "error_in_200", "bare_404")),
            *(Fault(kind, path=KBS) for kind in ("no_id", "not_a_list", "not_an_object")),
            *(Fault("long_error", path=KBS, status=status) for status in (400, 402, 403, 405, 409, 410, 413, 451)),
            Fault("bare_404", path=KBS, text="<html>no such page</html>"),
            Fault("garbage", path=KBS, text="[]"),
            Fault("garbage", path=KBS, text="17"),
            Fault("garbage", path=KBS, text="null"),
            Fault("garbage", path=KBS, text='{"value": [{"id": ""}]}'),
            Fault("garbage", path=KBS, text='{"value": [{"id": ["5065429"]}]}'),
        ],
        ids=lambda fault: f"{fault.kind} {fault.status or fault.text}".rstrip(),
    )
    def test_an_odd_answer_is_the_machines_own(
        self, connect: Callable[..., tuple[Simulator, Client]], fault: Fault
    ) -> None:
        """It says nothing of the others, and another try would not improve it."""
        simulator, client = connect(fault)
        with pytest.raises(MACHINES_OWN):
            self.answer_of(client, simulator.fleet.onboarded()[0])
        assert calls(simulator) == 1

    def test_an_answer_that_is_too_large_is_the_machines_own(
        self, connect: Callable[..., tuple[Simulator, Client]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(http, "MAX_ANSWER_BYTES", 100)
        simulator, client = connect()
        with pytest.raises(ShapeError, match="answered with more than"):
            self.answer_of(client, simulator.fleet.onboarded()[0])

    @pytest.mark.parametrize(
        "fault",
        [
            Fault("forbidden", path=KBS),
            Fault("unlicensed", path=KBS),
            Fault("redirect", path=KBS, text="https://a.example"),
            Fault("revoked", path=KBS, times=9),
        ],
        ids=lambda fault: fault.kind,
    )
    def test_a_refusal_of_token_role_or_licence_seems_to_be_about_all(
        self, connect: Callable[..., tuple[Simulator, Client]], fault: Fault
    ) -> None:
        """The sweep asks another machine before it believes it."""
        simulator, client = connect(fault)
        with pytest.raises(ApiError) as raised:
            self.answer_of(client, simulator.fleet.onboarded()[0])
        assert type(raised.value) is ApiError

    def test_an_update_that_comes_twice_is_one_with_all_that_is_said_of_it(
        self, connect: Callable[..., tuple[Simulator, Client]]
    ) -> None:
        value = [
            {
                "id": "100",
                "name": None,
                "productsNames": ["edge", "windows_10"],
                "machineMissedOn": 3,
                "cveAddressed": 9,
            },
            {"id": "200", "name": "B", "productsNames": None},
            {"id": "KB100", "name": "A", "productsNames": ["office", "edge"], "machineMissedOn": 4, "cveAddressed": 2},
            {"id": " 100 ", "name": "Z", "productsNames": None, "url": "https://a.example", "osBuild": 19045},
            {"id": "200", "name": "C", "productsNames": None, "cveAddressed": 0},
        ]
        simulator, client = connect(Fault("garbage", path=KBS, text=json.dumps({"value": value})))
        names = ("id", "name", "products_names", "url", "machine_missed_on", "cve_addressed", "os_build")
        rows = self.answer_of(client, simulator.fleet.onboarded()[0])
        assert [tuple(row[name] for name in names) for row in rows] == [
            ("100", "A", ["edge", "windows_10", "office"], "https://a.example", 4, 9, 19045),
            ("200", "B", None, None, None, 0, None),
        ]

    def test_it_is_as_the_simulator_has_it(self, connect: Callable[..., tuple[Simulator, Client]]) -> None:
        simulator, client = connect()
        machine_id = max(simulator.fleet.missing(), key=lambda each: len(simulator.fleet.missing()[each]))
        before = self.answer_of(client, machine_id)
        simulator.faults.add(Fault("kb_twice"))
        after = self.answer_of(client, machine_id)
        assert before
        assert [(row["id"], row["cve_addressed"], row["machine_missed_on"]) for row in after] == [
            (row["id"], row["cve_addressed"] + 5, row["machine_missed_on"] + 1) for row in before
        ]
        assert all(set(row["products_names"]) > {"edge_chromium-based"} for row in after)

    @pytest.mark.parametrize(
        ("sent", "row_id"),
        [
            ("5065429", "5065429"),
            (5065429, "5065429"),
            ("KB5065429", "5065429"),
            (" kb 5065429\t", "5065429"),
            ("Release Notes", "Release Notes"),
            ("KB", "KB"),
            ("AKB5", "AKB5"),
            ("kbKB5", "kbKB5"),
        ],
    )
    def test_an_update_has_its_number(
        self, connect: Callable[..., tuple[Simulator, Client]], sent: object, row_id: str
    ) -> None:
        """The contract is a text: what is no number stays what it is."""
        simulator, client = connect(Fault("garbage", path=KBS, text=json.dumps({"value": [{"id": sent}]})))
        [row] = self.answer_of(client, simulator.fleet.onboarded()[0])
        assert row["id"] == row_id

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


def test_one_machine_that_is_throttled_for_good_holds_nobody_up(
    connect: Callable[..., tuple[Simulator, Client]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its 429s are not the quota's while others are served: it has failed, and the others go on."""
    monkeypatch.setattr(http, "MOST_REFUSALS", 2)
    sick, *others = Fleet(machines=12, seed=1).listed()
    simulator, client = connect(Fault("throttled", machine=sick, seconds=1))
    source = MachineSource(client, UNHEARD)
    with source.opened(lambda _: True, lambda: None) as answers:
        assert answers
        answers.submit(sick)
        for machine_id in others[:4]:
            answers.submit(machine_id)
        for machine_id in others[:4]:
            answers.result(machine_id)
        with pytest.raises(BadRequestError, match="HTTP 429"):
            answers.result(sick)
    assert simulator.violations == []
