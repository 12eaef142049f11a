"""The comparison is honest: its contestants do the same work."""

from __future__ import annotations

import re
import sys

import pytest

from mde_simulator import Fleet
from tests.benchmarks import alternatives, compare, export, warehouse
from tests.support.environments import settings_of


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


ON_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="it reads /proc")
ROW = re.compile(r"^\| (\d) \| ([^|]+) \|(?: [\d.,]+ \|){5} ([\d,]+) \|", re.MULTILINE)


def test_meltano_sets_what_is_recommended_of_target_postgres() -> None:
    ours = settings_of("target-postgres")
    assert {name: ours[name] for name in warehouse.ALL} == warehouse.ALL


@ON_LINUX
def test_two_nights_into_a_warehouse_are_measured_and_come_out_right(capsys: pytest.CaptureFixture[str]) -> None:
    """A small fleet: the script itself compares the pairs in the warehouse with those of the sweep."""
    warehouse.main(["--machines", "40", "--ways", "all"])
    said = capsys.readouterr().out
    assert [(night, way) for night, way, _ in ROW.findall(said)] == [("1", "all"), ("2", "all")]
    [shares] = re.findall(
        r"^Of [\d,]+ pairs [\d,]+ are gone, and [\d,]+ are new: ([\d.]+)% changed\.$", said, re.MULTILINE
    )
    assert 3 < float(shares) < 20


@ON_LINUX
@pytest.mark.long
def test_batches_end_with_the_same_pairs_and_streams_are_loaded_by_themselves(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """But for those of BATCH, whose rows are in files."""
    warehouse.main(["--machines", "20", "--ways", "default", "large, BATCH", "--nights", "1", "--streams"])
    said = capsys.readouterr().out
    found = ROW.findall(said)
    assert [way for _, way, _ in found] == ["default", "large, BATCH"]
    assert len({rows for _, _, rows in found}) == 1
    for stream in warehouse.STREAMS:
        assert re.search(rf"^\| `{stream}` \| [\d,]+ \| [\d,]+ \|$", said, re.MULTILINE)


def test_ways_that_do_not_end_with_the_same_pairs_are_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warehouse.Way, "night", lambda _, __: warehouse.Cost(seconds=1.0))
    monkeypatch.setattr(warehouse.Way, "pairs", lambda way: (1, way.name))
    with pytest.raises(ValueError, match="same pairs"):
        [*warehouse.run(1, 1, ["default", "all"])]
