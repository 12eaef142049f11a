"""The streams, through the real command line: what a target would hold is what the tenant knows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.support.contract import answers_of
from tests.support.singer import Target, lacking, run_tap

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import StartSimulator


def test_the_table_holds_what_the_tenant_knows(simulate: StartSimulator, tmp_path: Path) -> None:
    """230 machines over pages of 70: every machine, every missing KB, and a check for each machine."""
    simulator = simulate(230, page_size=70)
    messages = run_tap(tmp_path, simulator)
    assert messages.status == 0, messages.stderr
    target = Target()
    target.take(messages.all)
    fleet = simulator.fleet
    assert {key for (key,) in target.rows["machines"]} == set(fleet.listed())
    assert target.missing == lacking(answers_of(fleet))
    checks = {machine_id: row for (machine_id, _), row in target.rows["missing_kbs_checks"].items()}
    assert set(checks) == set(fleet.listed())
    for machine_id, kbs in answers_of(fleet).items():
        assert checks[machine_id]["outcome"] == "answered"
        assert frozenset(checks[machine_id]["missing_kb_ids"]) == kbs
