"""A server that means harm: bounded in memory and time, nothing reaches the terminal, no secret any log."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from mde_simulator import Fault
from mde_simulator.faults.fault import KINDS
from tap_mde_kbs.errors import SIGN_IN_REMEDIES
from tests.support.singer import HURRIED, Messages, named, run_tap

if TYPE_CHECKING:
    from pathlib import Path

    from mde_simulator import Simulator
    from tests.conftest import StartSimulator

LIMIT_BYTES = 1536 * 2**20
"""Of address space, libraries and threads included: less than the bodies that are sent."""


def run_within_limit(folder: Path, simulator: Simulator) -> Messages:
    """Run the tap where it can't have more memory."""
    return run_tap(folder, simulator, config={"request_timeout_seconds": 1}, patience=HURRIED, memory=LIMIT_BYTES)


def assert_harmless(messages: Messages, simulator: Simulator) -> None:
    """Nothing on stderr that a terminal would act on, or that nobody should read; every line of a length to read."""
    assert all(character.isprintable() or character == "\n" for character in messages.stderr)
    assert all(len(line) < 1_000 for line in messages.stderr.splitlines())
    assert "Traceback" not in messages.stderr
    assert simulator.identity.client_secret not in messages.stderr + messages.stdout
    assert "eyJ" not in messages.stderr + messages.stdout


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("endless", "GET /api/machines "),
        ("endless_nothing", "GET /api/machines was answered without an end"),
        ("bomb", "GET /api/machines answered with more than 128 MiB"),
        ("nested", "not JSON"),
        ("long_header", "broke"),
        ("many_headers", "broke"),
        ("drip", "GET /api/machines was answered without an end"),
        ("long_error", "answered HTTP 400"),
        ("control_error", "answered HTTP 400"),
        ("echo", "answered HTTP 400"),
    ],
)
def test_a_hostile_list_ends_the_run_in_a_line_and_in_little_memory(
    simulate: StartSimulator, tmp_path: Path, kind: str, said: str
) -> None:
    # Drips come well within the timeout of a second, also on a busy machine.
    simulator = simulate(5, faults=[Fault(kind, path="/api/machines", seconds=0.2)])
    messages = run_within_limit(tmp_path, simulator)
    assert messages.status == 1
    assert said in messages.last_line
    assert messages.of("RECORD") == []
    assert_harmless(messages, simulator)


@pytest.mark.parametrize("kind", ["long_error", "control_error", "echo", "nested", "drip"])
def test_one_hostile_answer_costs_one_machine(simulate: StartSimulator, tmp_path: Path, kind: str) -> None:
    """The machine has failed; the others are read, and nothing is deleted."""
    simulator = simulate(12)
    victim = simulator.fleet.assessed()[3]
    simulator.faults.add(Fault(kind, machine=victim))
    messages = run_within_limit(tmp_path, simulator)
    assert messages.status == 0, messages.stderr
    assert named(messages.sweep["failed"]) == 1
    assert messages.of("ACTIVATE_VERSION", "missing_kbs") == []
    assert_harmless(messages, simulator)


def test_control_characters_in_names_are_data_and_reach_no_terminal(simulate: StartSimulator, tmp_path: Path) -> None:
    simulator = simulate(12, faults=[Fault("control_names")])
    messages = run_tap(tmp_path, simulator)
    assert messages.status == 0, messages.stderr
    assert any("\x1b" in (row["computer_dns_name"] or "") for row in messages.records("machines"))
    assert "\x1b" not in messages.stdout
    assert_harmless(messages, simulator)


def test_a_link_to_another_host_is_not_followed(simulate: StartSimulator, tmp_path: Path) -> None:
    elsewhere = simulate(3)
    simulator = simulate(12, page_size=5, faults=[Fault("foreign_link", text=f"{elsewhere.url}/api/machines")])
    messages = run_tap(tmp_path, simulator)
    assert messages.status == 0, messages.stderr
    assert len(messages.records("machines")) == 12
    assert list(elsewhere.journal) == []


@pytest.mark.parametrize("kind", ["sign_in_html", "long_error", "echo", "bomb"])
def test_a_hostile_authority_is_harmless_too(simulate: StartSimulator, tmp_path: Path, kind: str) -> None:
    simulator = simulate(3, faults=[Fault(kind, path="*/token")])
    messages = run_within_limit(tmp_path, simulator)
    assert messages.status == 1
    assert messages.of("RECORD") == []
    assert_harmless(messages, simulator)


UNHURRIED = {"slow", "drip", "endless", "endless_nothing", "bomb", "throttled", "sign_in_down", "sign_in_throttled"}
"""Faults that take seconds each, or whose Retry-After must be waited out; what they lead to is logged above."""


@pytest.mark.parametrize(
    "fault",
    [
        *(Fault(kind) for kind in KINDS if kind not in UNHURRIED),
        *(Fault(kind, path="*/getmissingkbs") for kind in ("forbidden", "not_a_list", "echo")),
        Fault("echo", path="*/token"),
        Fault("throttled", times=1),
        *(Fault("sign_in", code=code) for code in SIGN_IN_REMEDIES),
    ],
    ids=lambda fault: f"{fault.kind} {fault.path or fault.code}",
)
def test_no_secret_and_no_token_is_logged_at_any_level(simulate: StartSimulator, tmp_path: Path, fault: Fault) -> None:
    simulator = simulate(6, faults=[fault])
    environ = {"TAP_MDE_KBS_LOGLEVEL": "DEBUG", "LOGLEVEL": "DEBUG"}
    messages = run_tap(tmp_path, simulator, environ=environ, patience=HURRIED)
    said = messages.stdout + messages.stderr
    assert simulator.identity.client_secret not in said
    assert "eyJ" not in said
    assert set(re.findall(r"Bearer (\S+)", said)) <= {"<token>;"}
    assert "DEBUG" in messages.stderr
