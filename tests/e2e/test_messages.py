"""The order of the messages, their versions, and what there is of them in batches."""

from __future__ import annotations

import gzip
import json
import time
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from mde_simulator import Fleet, Simulator
from tap_mde_kbs.patience import Patience
from tests.support.contract import answers_of
from tests.support.singer import BOOKMARKS, Messages, Target, lacking, run_tap

if TYPE_CHECKING:
    from tests.conftest import StartSimulator

STREAMS = ["machines", "missing_kbs", "missing_kbs_checks", "sweeps"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Messages, Fleet]:
    """One plain run over sixty machines, and the fleet it is about."""
    with Simulator(Fleet(machines=60, seed=1), page_size=25) as simulator:
        messages = run_tap(tmp_path_factory.mktemp("whole"), simulator)
        assert messages.status == 0, messages.stderr
        assert simulator.violations == []
        return messages, simulator.fleet


def positions(messages: Messages, kind: str, stream: str) -> list[int]:
    """Where messages of a kind stand among all."""
    return [
        number
        for number, message in enumerate(messages.all)
        if (message["type"], message.get("stream")) == (kind, stream)
    ]


def test_each_stream_has_one_schema_before_its_first_record(whole: tuple[Messages, Fleet]) -> None:
    messages, _ = whole
    assert [message["stream"] for message in messages.of("SCHEMA")] == STREAMS
    for stream in STREAMS:
        [schema] = positions(messages, "SCHEMA", stream)
        assert schema < positions(messages, "RECORD", stream)[0]


def test_all_machines_come_before_the_first_kb(whole: tuple[Messages, Fleet]) -> None:
    messages, fleet = whole
    machines = positions(messages, "RECORD", "machines")
    assert len(machines) == len(fleet.listed())
    assert machines[-1] < positions(messages, "SCHEMA", "missing_kbs")[0]
    assert machines[-1] < positions(messages, "RECORD", "missing_kbs")[0]


def test_a_machines_check_comes_right_after_its_kbs_and_machines_in_the_order_of_their_ids(
    whole: tuple[Messages, Fleet],
) -> None:
    messages, fleet = whole
    rows = [message for message in messages.of("RECORD") if message["stream"] not in {"machines", "sweeps"}]
    order = []
    for machine_id, group in groupby(rows, key=lambda message: message["record"]["machine_id"]):
        *kbs, check = group
        order.append(machine_id)
        assert check["stream"] == "missing_kbs_checks"
        assert {message["stream"] for message in kbs} <= {"missing_kbs"}
        if check["record"]["outcome"] == "answered":
            assert check["record"]["missing_kbs"] == len(kbs)
            assert check["record"]["missing_kb_ids"] == [message["record"]["id"] for message in kbs]
            assert {message["record"]["checked_at"] for message in kbs} <= {check["record"]["checked_at"]}
    assert order == sorted(fleet.listed())


def test_machines_are_activated_once_after_their_last_record_and_before_the_first_kb(
    whole: tuple[Messages, Fleet],
) -> None:
    messages, _ = whole
    [activation] = positions(messages, "ACTIVATE_VERSION", "machines")
    assert positions(messages, "RECORD", "machines")[-1] < activation
    assert activation < positions(messages, "SCHEMA", "missing_kbs")[0]


def test_missing_kbs_are_activated_once_and_at_the_very_end(whole: tuple[Messages, Fleet]) -> None:
    messages, _ = whole
    [activation] = positions(messages, "ACTIVATE_VERSION", "missing_kbs")
    after = {(message["type"], message.get("stream")) for message in messages.all[activation + 1 :]}
    assert after == {("STATE", None), ("RECORD", "sweeps")}
    assert not any(message["value"]["bookmarks"]["missing_kbs"]["sweep"]["complete"] for message in before(messages))
    assert messages.sweep["complete"]


def before(messages: Messages) -> list[dict[str, Any]]:
    """The STATEs before the activation of missing_kbs."""
    [activation] = positions(messages, "ACTIVATE_VERSION", "missing_kbs")
    return [message for message in messages.all[:activation] if message["type"] == "STATE"]


def test_checks_are_never_activated(whole: tuple[Messages, Fleet]) -> None:
    """They are the history: nothing ever deletes one."""
    messages, _ = whole
    assert messages.of("ACTIVATE_VERSION", "missing_kbs_checks") == []
    assert not any(message.get("version") for message in messages.of("RECORD", "missing_kbs_checks"))


@pytest.mark.parametrize("stream", ["machines", "missing_kbs"])
def test_records_carry_the_version_that_is_activated_an_epoch_second(
    whole: tuple[Messages, Fleet], stream: str
) -> None:
    messages, _ = whole
    [activation] = messages.of("ACTIVATE_VERSION", stream)
    assert {message["version"] for message in messages.of("RECORD", stream)} == {activation["version"]}
    assert time.time() - 600 < activation["version"] <= time.time()


def test_checks_bear_the_version_of_their_sweep(whole: tuple[Messages, Fleet]) -> None:
    messages, _ = whole
    [activation] = messages.of("ACTIVATE_VERSION", "missing_kbs")
    assert {row["sweep"] for row in messages.records("missing_kbs_checks")} == {activation["version"]}


def test_all_machines_have_the_same_listed_at(whole: tuple[Messages, Fleet]) -> None:
    messages, _ = whole
    assert len({record["listed_at"] for record in messages.records("machines")}) == 1


def test_state_is_small_and_not_written_for_every_machine(whole: tuple[Messages, Fleet]) -> None:
    """An ordinary tap's grows with the square of the fleet."""
    messages, fleet = whole
    assert len(messages.of("STATE")) < len(fleet.listed()) / 3
    assert all(len(json.dumps(message["value"])) < 8192 for message in messages.of("STATE"))
    names = {frozenset(message["value"]["bookmarks"]) for message in messages.of("STATE")}
    assert names == {frozenset(BOOKMARKS)}


def test_the_version_grows_even_if_the_clock_went_back(simulate: StartSimulator, tmp_path: Path) -> None:
    simulator = simulate(3)
    first = run_tap(tmp_path, simulator)
    future = int(time.time()) + 1_000_000
    first.state["bookmarks"]["machines"]["version"] = future
    first.state["bookmarks"]["missing_kbs"]["sweep"]["version"] = future
    first.state["bookmarks"]["missing_kbs_checks"]["version"] = future
    second = run_tap(tmp_path, simulator, state=first.state)
    assert second.status == 0, second.stderr
    assert [message["version"] > future for message in second.of("ACTIVATE_VERSION")] == [True, True]


def test_an_installed_update_and_a_machine_that_left_are_gone_the_next_night(
    simulate: StartSimulator, tmp_path: Path
) -> None:
    simulator = simulate(40)
    fleet = simulator.fleet
    target = Target()
    target.take(run_tap(tmp_path, simulator).all)
    machine_id, kbs = next((machine_id, kbs) for machine_id, kbs in sorted(answers_of(fleet).items()) if len(kbs) > 1)
    installed = min(kbs)
    fleet.install(machine_id, installed)
    left = next(other for other in fleet.assessed() if other != machine_id)
    fleet.remove(left)
    second = run_tap(tmp_path, simulator, state=target.state)
    assert second.status == 0, second.stderr
    target.take(second.all)
    assert target.missing == lacking(answers_of(fleet))
    assert installed not in target.missing[machine_id]
    assert (left,) not in target.rows["machines"]


def test_without_activation_nothing_of_it_is_written_and_no_version(simulate: StartSimulator, tmp_path: Path) -> None:
    """Several tenants in one table: a target that swaps versions would wait for ever for one to be activated."""
    simulator = simulate(20)
    messages = run_tap(tmp_path, simulator, config={"emit_activate_version_messages": False})
    assert messages.status == 0, messages.stderr
    assert messages.of("ACTIVATE_VERSION") == []
    assert [message for message in messages.of("RECORD") if "version" in message] == []
    assert messages.sweep["complete"]
    assert "emit_activate_version_messages is off" in messages.stderr
    target = Target()
    target.take(messages.all)
    assert target.missing == lacking(answers_of(simulator.fleet))


class TestBatches:
    """`batch_config`: rows go to files that carry no version."""

    @pytest.fixture
    def batched(self, simulate: StartSimulator, tmp_path: Path) -> tuple[Messages, Simulator]:
        simulator = simulate(20)
        messages = run_tap(tmp_path, simulator, config=batches(tmp_path))
        assert messages.status == 0, messages.stderr
        return messages, simulator

    def test_batches_hold_the_rows_and_nothing_is_activated(self, batched: tuple[Messages, Simulator]) -> None:
        messages, simulator = batched
        assert messages.of("RECORD", "machines") == messages.of("RECORD", "missing_kbs") == []
        assert {row["id"] for row in rows(messages, "machines")} == set(simulator.fleet.listed())
        found = {(row["machine_id"], row["id"]) for row in rows(messages, "missing_kbs")}
        assert found == {(machine_id, kb) for machine_id, kbs in answers_of(simulator.fleet).items() for kb in kbs}
        assert len(messages.records("missing_kbs_checks")) == len(simulator.fleet.listed())
        assert {(row["sweep"], row["is_complete"]) for row in messages.records("sweeps")} == {
            (messages.sweep["version"], False),
            (messages.sweep["version"], True),
        }
        assert messages.of("ACTIVATE_VERSION") == []
        assert "Batch files carry no version" in messages.stderr

    def test_no_state_says_that_a_machine_was_asked_whose_batch_is_not_written(
        self, simulate: StartSimulator, tmp_path: Path
    ) -> None:
        messages = eager(tmp_path, simulate(20), **batches(tmp_path))
        last_batch = positions(messages, "BATCH", "missing_kbs")[-1]
        before_it = [message for message in messages.all[:last_batch] if message["type"] == "STATE"]
        assert before_it
        for message in before_it:
            sweep = message["value"]["bookmarks"]["missing_kbs"]["sweep"]
            assert sweep["after"] is None
            assert not sweep["complete"]
        assert messages.sweep["complete"]


def eager(folder: Path, simulator: Simulator, **config: Any) -> Messages:
    """A run that writes a STATE after each machine."""
    messages = run_tap(folder, simulator, config=config, patience=Patience(state=0.0))
    assert messages.status == 0, messages.stderr
    return messages


def test_no_state_says_that_a_machine_was_asked_whose_rows_are_not_out(
    simulate: StartSimulator, tmp_path: Path
) -> None:
    """Whatever STATE the target has last, the next run misses nothing."""
    messages = eager(tmp_path, simulate(20))
    out: set[str] = set()
    cursors = set()
    machine_ids = {record["id"] for record in messages.records("machines")}
    for message in messages.all:
        if message["type"] == "RECORD" and message["stream"] == "missing_kbs_checks":
            out.add(message["record"]["machine_id"])
        elif message["type"] == "STATE":
            sweep = message["value"]["bookmarks"]["missing_kbs"]["sweep"]
            cursors.add(sweep["after"])
            asked = {machine_id for machine_id in machine_ids if machine_id <= (sweep["after"] or "")}
            assert sweep["deferred"] == []
            assert asked <= out
            assert out <= machine_ids
    assert len(cursors) > 10


def batches(folder: Path) -> dict[str, Any]:
    """The setting for small ones in a folder."""
    return {
        "batch_config": {
            "encoding": {"format": "jsonl", "compression": "gzip"},
            "storage": {"root": f"file://{folder}/batches", "prefix": "x-"},
            "batch_size": 7,
        }
    }


def rows(messages: Messages, stream: str) -> list[dict[str, Any]]:
    """The rows in the batch files of a stream."""
    found: list[dict[str, Any]] = []
    for message in messages.of("BATCH", stream):
        for name in message["manifest"]:
            lines = gzip.decompress(Path(urlsplit(name).path).read_bytes()).decode().splitlines()
            found += map(json.loads, lines)
    return found


def test_the_state_has_the_time_of_the_last_answer_written(simulate: StartSimulator, tmp_path: Path) -> None:
    """An export is news if it was made at another time than the one that was written last."""
    messages = run_tap(tmp_path, simulate(12))
    answered = [
        check["checked_at"] for check in messages.records("missing_kbs_checks") if check["missing_kbs"] is not None
    ]
    assert messages.sweep["source_time"] == answered[-1]
