"""The comparison is honest: its contestants do the same work."""

from __future__ import annotations

import re

import pytest

from mde_simulator import Fleet
from tests.benchmarks import alternatives, compare, export


def test_the_contestants_list_the_same_missing_kbs(capsys: pytest.CaptureFixture[str]) -> None:
    """All of them, and nothing else; and the script says what it measured."""
    machines = 20
    fleet = Fleet(machines, 0, discovered=0)
    truth = {compare.pair(machine_id, kb_id) for machine_id, kb_ids in fleet.missing().items() for kb_id in kb_ids}
    runs = compare.compete(machines, dict.fromkeys(compare.CONTESTANTS, 1))
    assert truth
    assert {name: run.pairs for name, [run] in runs.items()} == dict.fromkeys(compare.CONTESTANTS, truth)
    assert [name for name, [run] in runs.items() if run.output["STATE"]] == ["this tap", "ordinary tap"]

    results = {name: compare.Result.of(machines, run, startup=0.0) for name, run in runs.items()}
    text = "\n".join(compare.tables({machines: results}, dict.fromkeys(results, 0.0)))
    assert text.count(f"\n| {machines} | ") == len(results) + 1
    assert f"{machines} machines, floor: " in capsys.readouterr().err


def test_contestants_that_do_not_tell_the_same_are_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "run", lambda name, _: compare.Run(1.0, 1, pairs={hash(name)}))
    with pytest.raises(ValueError, match="same missing KBs"):
        compare.compete(1, dict.fromkeys(compare.CONTESTANTS, 1))


def test_the_export_at_size_is_measured_whole_and_in_parts(capsys: pytest.CaptureFixture[str]) -> None:
    """A small one: what is written is what the parts read, and every part is named."""
    export.main(["--machines", "40", "--records", "20", "--files", "2", "--noise", "120", "--behind"])
    said = capsys.readouterr().out
    assert said.startswith("40 machines, ")
    assert "Written: 40 machines, " in said
    assert ", 40 missing_kbs_checks" in said
    for part in ("download, checked", "floor: inflate and parse", "inflate, parse, group, store", "group the rest"):
        assert f"| {part} |" in said


def test_what_people_use_instead_is_compared_with_the_truth(capsys: pytest.CaptureFixture[str]) -> None:
    """A small one, without a fault: of the same calls, one table keeps the updates that were installed."""
    alternatives.main(["--machines", "12", "--only", "nothing"])
    said = capsys.readouterr()
    assert re.search(r"^\| nothing \| right \| \d+ stale \| right \| right \|$", said.out, re.MULTILINE)
    assert re.search(r"^\| \| calls and files \| 13 \| 13 \| 14 \| \d+ \|$", said.out, re.MULTILINE)
    assert "nothing, this tap: right; then right\n" in said.err


@pytest.mark.long
def test_a_machine_that_fails_is_told_by_one_table_alone() -> None:
    """Of the others one takes it for patched, and one run ends with it."""
    done = alternatives.compete(12, ["sick"])["sick"]
    wrong = {name: course.wrong for name, course in done.items()}
    assert wrong["script"].lost
    assert [outcome.status for outcome in wrong.values()] == [0, 1, 0, 0]
    assert [outcome.told == outcome.wrong for outcome in wrong.values()] == [False, False, True, True]
    assert {name for name, course in done.items() if course.after.wrong} == {"ordinary tap"}


def test_who_is_wrong_without_any_fault_is_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alternatives.Script, "missing", lambda _: set())
    with pytest.raises(ValueError, match=r"script, without any fault: \d+ lost"):
        alternatives.compete(3, [])
