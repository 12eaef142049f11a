"""`--test`: a line for each thing that a run needs, and what to do about the first that is wrong."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest

from mde_simulator import Fault, Fleet
from tests.support.catalogs import selecting
from tests.support.contract import answers_of
from tests.support.singer import run_command, run_tap

if TYPE_CHECKING:
    from pathlib import Path

    from mde_simulator import Simulator
    from tests.conftest import StartSimulator


def examine(folder: Path, simulator: Simulator, **environ: str) -> tuple[int, list[str], str]:
    """Run `--test`: exit status, the lines on stdout, and stderr."""
    done = run_command(folder, "--config=ENV", "--test", environ={**simulator.environment, **environ})
    return done.status, done.stdout.splitlines(), done.stderr


def test_all_is_well(simulate: StartSimulator, tmp_path: Path) -> None:
    fleet = Fleet(machines=60, seed=1)
    simulator = simulate(fleet)
    status, lines, _ = examine(tmp_path, simulator)
    assert status == 0
    assert [line[0] for line in lines] == ["✓"] * 6
    assert simulator.url in lines[0]
    assert "client_secret" in lines[1]
    assert "valid until" in lines[1]
    assert "Machine.Read.All, Software.Read.All" in lines[2]
    unknown = Counter(fleet.not_assessed().values())
    assert f"{len(fleet.onboarded())} of them onboarded" in lines[3]
    assert f"{unknown['excluded']} excluded, {unknown['silent']} silent" in lines[3]
    newest = max(str(fleet.machine(machine_id)["lastSeen"] or "") for machine_id in fleet.listed())
    assert newest[:19] in lines[3]
    asked = lines[4].rpartition(" ")[2]
    assert lines[4].startswith(f"✓ missing KBs: {len(answers_of(fleet)[asked])} for machine")
    assert "by the quota" in lines[5]


def test_it_costs_a_handful_of_calls(simulate: StartSimulator, tmp_path: Path) -> None:
    simulator = simulate(60)
    examine(tmp_path, simulator)
    assert simulator.calls <= 3


def test_the_estimate_is_that_of_the_quota(simulate: StartSimulator, tmp_path: Path) -> None:
    simulator = simulate(Fleet(machines=2_000, seed=1, discovered=0, excluded=0, silent=0))
    _, lines, _ = examine(tmp_path, simulator)
    assert lines[-1] == "✓ a sweep takes 1 h 5 min by the quota"


def test_a_missing_setting_is_the_first_that_fails(simulate: StartSimulator, tmp_path: Path) -> None:
    status, lines, _ = examine(tmp_path, simulate(10), TAP_MDE_KBS_CLIENT_SECRET="")
    assert (status, len(lines)) == (1, 1)
    assert lines[0].startswith("✗ settings: Missing setting: client_secret.")


def test_a_misspelt_variable_is_named_first_and_fails_nothing(simulate: StartSimulator, tmp_path: Path) -> None:
    """In the log as well, which is all that a nightly run has."""
    status, lines, log = examine(tmp_path, simulate(10), TAP_MDE_KBS_CLOUDD="dod")
    said = "The environment variable TAP_MDE_KBS_CLOUDD is of no setting, and ignored. Did you mean TAP_MDE_KBS_CLOUD?"
    assert (status, lines[0], lines[1][0]) == (0, f"? settings: {said}", "✓")
    assert said in log


def test_a_secret_that_the_server_repeats_is_not_shown(simulate: StartSimulator, tmp_path: Path) -> None:
    simulator = simulate(10)
    secret = str(simulator.config["client_secret"])
    simulator.faults.add(Fault("long_error", path="*/token", text=f"No such secret: {secret}. ", size=100))
    status, lines, log = examine(tmp_path, simulator)
    assert (status, len(lines)) == (1, 2)
    assert "No such secret: <secret>." in lines[1]
    assert secret not in lines[1] + log


@pytest.mark.parametrize("value", ["foo", "config.json", ""])
def test_a_test_of_another_name_is_refused(simulate: StartSimulator, tmp_path: Path, value: str) -> None:
    """The SDK's own connection test would be a run that stops at its first machine, and ends well."""
    simulator = simulate(10)
    done = run_command(tmp_path, "--config=ENV", f"--test={value}", environ=simulator.environment)
    assert (done.status, done.stdout, simulator.calls) == (2, "", 0)
    assert "--test is given alone, or as --test=schema" in done.stderr


def test_a_wrong_secret_is_the_second(simulate: StartSimulator, tmp_path: Path) -> None:
    status, lines, _ = examine(tmp_path, simulate(10), TAP_MDE_KBS_CLIENT_SECRET="another-secret")  # noqa: S106 - a wrong one
    assert (status, [line[0] for line in lines]) == (1, ["✓", "✗"])
    assert "AADSTS7000215" in lines[1]
    assert "Set client_secret to the secret's Value" in lines[1]
    assert "another-secret" not in lines[1]


@pytest.mark.parametrize("permission", ["Machine.Read.All", "Software.Read.All"])
def test_a_missing_permission_is_named_and_no_call_wasted(
    simulate: StartSimulator, tmp_path: Path, permission: str
) -> None:
    others = {"Machine.Read.All", "Software.Read.All"} - {permission}
    simulator = simulate(10, roles=sorted(others))
    status, lines, _ = examine(tmp_path, simulator)
    assert (status, [line[0] for line in lines]) == (1, ["✓", "✓", "✗"])
    assert f"lacks the permission {permission}" in lines[2]
    assert "API permissions" in lines[2]
    assert simulator.calls == 0


def test_readwrite_serves_too(simulate: StartSimulator, tmp_path: Path) -> None:
    """The roles say so; whether the simulated API agrees is another question, asked by nobody here."""
    simulator = simulate(10, roles=["Machine.ReadWrite.All", "Software.Read.All"])
    _, lines, _ = examine(tmp_path, simulator)
    assert lines[2].startswith("✓ permissions: Machine.ReadWrite.All")


def test_an_api_that_refuses_is_named_with_its_reason(simulate: StartSimulator, tmp_path: Path) -> None:
    simulator = simulate(10, faults=[Fault("unlicensed")])
    status, lines, _ = examine(tmp_path, simulator)
    assert (status, [line[0] for line in lines]) == (1, ["✓", "✓", "✓", "✗"])
    assert "No Tvm license" in lines[3]
    assert "License Defender" in lines[3]


def test_an_empty_tenant_fails_nothing(simulate: StartSimulator, tmp_path: Path) -> None:
    fleet = Fleet(machines=5, seed=1)
    fleet.hide(fleet.listed())
    status, lines, _ = examine(tmp_path, simulate(fleet))
    assert (status, [line[0] for line in lines]) == (0, ["✓", "✓", "✓", "?", "?", "✓"])


def test_a_terminal_without_check_marks_gets_words(simulate: StartSimulator, tmp_path: Path) -> None:
    _, lines, _ = examine(tmp_path, simulate(10), PYTHONIOENCODING="ascii")
    assert lines[0].startswith("ok   settings")


def test_the_schema_test_stays_the_sdks(simulate: StartSimulator, tmp_path: Path) -> None:
    messages = run_tap(tmp_path, simulate(5), "--test=schema")
    assert [message["type"] for message in messages.all] == ["SCHEMA"] * 4
    assert messages.status == 0


@pytest.mark.parametrize("permission", ["Machine.Read.All", "Software.Read.All"])
def test_a_run_without_a_permission_ends_before_its_first_record(
    simulate: StartSimulator, tmp_path: Path, permission: str
) -> None:
    """`meltano config test` passes at the first RECORD, and shows only the last line of a failure."""
    others = {"Machine.Read.All", "Software.Read.All"} - {permission}
    simulator = simulate(10, roles=sorted(others))
    messages = run_tap(tmp_path, simulator)
    assert messages.status == 1
    assert messages.of("RECORD") == []
    assert simulator.calls == 0
    assert f"lacks the permission {permission}" in messages.last_line


def test_a_run_of_machines_alone_needs_one_permission(simulate: StartSimulator, tmp_path: Path) -> None:
    simulator = simulate(10, roles=["Machine.Read.All"])
    messages = run_tap(tmp_path, simulator, catalog=selecting("machines"))
    assert messages.status == 0, messages.stderr
    assert {message["stream"] for message in messages.of("RECORD")} == {"machines"}


@pytest.mark.parametrize(
    ("source", "found"),
    [("export", "missing KBs: an export of "), ("export_json", "missing KBs: 10 records of an export")],
)
def test_an_export_is_looked_at_in_a_call_or_two(
    simulate: StartSimulator, tmp_path: Path, source: str, found: str
) -> None:
    """And the permission that a machine's answer needs is not asked for."""
    simulator = simulate(60, roles=("Machine.Read.All", "Vulnerability.Read.All"))
    status, lines, _ = examine(tmp_path, simulator, TAP_MDE_KBS_MISSING_KBS_SOURCE=source)
    assert status == 0
    assert [line[0] for line in lines] == ["✓"] * 6
    assert found in lines[4]
    assert lines[5] == "✓ an export takes about 1 min"
    assert simulator.calls <= 3
    assert sum(entry.is_storage for entry in simulator.journal) == (source == "export")


def test_a_storage_host_that_refuses_is_told(simulate: StartSimulator, tmp_path: Path) -> None:
    simulator = simulate(12, faults=[Fault("export_storage_down")])
    status, lines, _ = examine(tmp_path, simulator, TAP_MDE_KBS_MISSING_KBS_SOURCE="export")
    assert (status, lines[-1][0]) == (1, "✗")
    assert "HTTP 503" in lines[-1]
    assert "let the storage host through the proxy" in lines[-1]


def test_an_export_needs_its_own_permission(simulate: StartSimulator, tmp_path: Path) -> None:
    simulator = simulate(12, roles=("Machine.Read.All", "Software.Read.All"))
    _, lines, _ = examine(tmp_path, simulator, TAP_MDE_KBS_MISSING_KBS_SOURCE="export")
    assert lines[-1].startswith("✗ The application lacks the permission Vulnerability.Read.All")
    assert simulator.calls == 0


def test_for_a_large_tenant_the_export_is_recommended(simulate: StartSimulator, tmp_path: Path) -> None:
    """With the estimates for both, and the permission that it takes."""
    simulator = simulate(Fleet(machines=10_001, seed=1, discovered=0, excluded=0, silent=0, duplicates=0))
    status, lines, _ = examine(tmp_path, simulator)
    assert status == 0
    assert lines[-1].startswith(
        "✓ a sweep of 10000 or more machines takes 6 h 10 min by the quota, an export about 1 min"
    )
    assert "missing_kbs_source: export" in lines[-1]
    assert "Vulnerability.Read.All" in lines[-1]
