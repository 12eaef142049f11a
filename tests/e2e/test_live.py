"""`make test-live`, with the simulator as the tenant: what it says of drift, and that it says nothing of the tenant."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from mde_simulator import Fault, Fleet
from tests.live.__main__ import main
from tests.live.shapes import BELIEVED
from tests.live.shapes import Look as Sight
from tests.support.environments import ROOT
from tests.support.singer import clean_environ

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from mde_simulator import Simulator
    from tests.conftest import StartSimulator


@dataclass(frozen=True)
class Looked:
    """How it ended, and what it said."""

    status: int
    report: str
    shown: str

    @property
    def drift(self) -> list[str]:
        """Where the tenant is other than believed."""
        section = self.report.partition("## Other than believed")[2].partition("##")[0]
        return re.findall(r"^- (.*)$", section, re.MULTILINE)


@pytest.fixture
def look(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Looked]:
    """`make test-live` in a folder of its own."""

    def run(simulator: Simulator) -> Looked:
        monkeypatch.chdir(tmp_path)
        for name, value in simulator.environment.items():
            monkeypatch.setenv(name, value)
        status = main()
        return Looked(status, (tmp_path / "live-report.md").read_text(), "".join(capsys.readouterr()))

    return run


def texts(value: Any) -> Iterator[str]:
    """Every text in a record."""
    if isinstance(value, str):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from texts(inner)


DATA = {
    "computerDnsName",
    "id",
    "lastIpAddress",
    "lastExternalIpAddress",
    "aadDeviceId",
    "rbacGroupName",
    "machineTags",
}


def assert_nothing_of(fleet: Fleet, report: str) -> None:
    """No name, id, address, group or tag of a machine is in a report, nor an update's."""
    for machine_id in fleet.listed():
        machine = fleet.machine(machine_id)
        values = [text for name in DATA for text in texts(machine[name])]
        values += [*texts(machine["ipAddresses"]), *texts(machine["vmMetadata"])]
        for text in {each for each in values if len(each) > 2} - {"Azure", "Ethernet", "SoftwareLoopback"}:
            assert not re.search(rf"(?<!\w){re.escape(text)}(?!\w)", report), text
    for kb_id in {kb for kbs in fleet.missing().values() for kb in kbs}:
        assert kb_id not in report


def test_the_simulator_is_as_believed(simulate: StartSimulator, look: Callable[..., Looked]) -> None:
    """All fields, types and words; with some fifteen calls."""
    simulator = simulate(Fleet(120, seed=1))
    looked = look(simulator)
    assert looked.drift == ["nothing"], looked.report
    assert looked.status == 0, looked.shown
    assert "never seen: `tmp" not in looked.report
    assert "5 machines: " in looked.report
    assert "record of the export: " in looked.report
    assert len([entry for entry in simulator.journal if entry.path.startswith("/api/")]) < 20
    assert_nothing_of(simulator.fleet, looked.report)


@pytest.mark.parametrize(
    ("fault", "drift"),
    [
        (Fault("new_field"), "machine: a field that nobody knows, `assetOwner`, in "),
        (Fault("new_type"), "machine: `agentVersion` is of type object in "),
        (Fault("new_word"), "machine: `healthStatus` has a new word, Quarantined"),
        (
            Fault("new_field", path="/api/machines/*/getmissingkbs"),
            "missing KB: a field that nobody knows, `assetOwner`",
        ),
    ],
    ids=["field", "type", "word", "field of a KB"],
)
def test_drift_is_named_and_nothing_of_the_tenant(
    simulate: StartSimulator, look: Callable[..., Looked], fault: Fault, drift: str
) -> None:
    simulator = simulate(40, faults=[fault])
    looked = look(simulator)
    assert looked.status == 1
    [line] = looked.drift
    assert line.startswith(drift)
    assert_nothing_of(simulator.fleet, looked.report)


@pytest.mark.parametrize("word", ["Contoso", "Servers", "Not here!"])
def test_a_word_that_may_be_a_value_is_counted_and_not_shown(
    simulate: StartSimulator, look: Callable[..., Looked], word: str
) -> None:
    """Of another form, or the same as what stands in another field."""
    simulator = simulate(12, faults=[Fault("new_word", text=word)])
    for machine_id in simulator.fleet.listed():
        simulator.fleet.change(machine_id, rbacGroupName="Servers", computerDnsName="ws-00001.contoso.example")
    looked = look(simulator)
    assert looked.drift == ["machine: `healthStatus` has 1 new words; they may be values, and are not shown"]
    assert word not in looked.report


@pytest.mark.parametrize("name", ["Contoso", "ws-1", "f" * 40])
def test_a_field_whose_name_may_be_a_value_is_counted_and_not_shown(
    simulate: StartSimulator, look: Callable[..., Looked], name: str
) -> None:
    simulator = simulate(12, faults=[Fault("new_field", text=name)])
    for machine_id in simulator.fleet.listed():
        simulator.fleet.change(machine_id, computerDnsName="ws-1.contoso.example")
    looked = look(simulator)
    [line] = looked.drift
    assert line == "machine: 1 fields that nobody knows; they may be values, and are not shown"
    assert name not in looked.report


def test_names_inside_an_object_are_counted_too(simulate: StartSimulator, look: Callable[..., Looked]) -> None:
    """Where an object is keyed by what are values, with dots and all."""
    simulator = simulate(6)
    for number, machine_id in enumerate(simulator.fleet.listed()):
        simulator.fleet.change(machine_id, vmMetadata={f"ws-{number}.contoso.example": {"deep": "secret"}, "vmId": "v"})
    looked = look(simulator)
    assert looked.drift == [
        "machine: 6 fields that nobody knows in `vmMetadata`; they may be values, and are not shown"
    ]
    assert "contoso" not in looked.report


@pytest.mark.parametrize("what", BELIEVED)
def test_no_value_of_any_field_is_shown_whatever_its_type(what: str) -> None:
    """Each field holds a secret in a text, a list, an object's value and an object's name."""
    seen = Sight(what)
    for path in BELIEVED[what]:
        name = path.partition("[")[0].partition(".")[0]
        for value in ("Secret 1", ["Secret 1"], {"Secret 1": 1}, {name: "Secret 1"}, [{"a": ["Secret 1"]}], 1.5, None):
            seen.take([{name: value}, {name: value}, value])
    told = [*seen.drift(frozenset(seen.private)), *seen.known_words(), *seen.known_forms(), *seen.never_seen()]
    assert told
    assert "Secret" not in "".join(told)


def test_without_a_permission_it_says_what_was_not_looked_at(
    simulate: StartSimulator, look: Callable[..., Looked]
) -> None:
    """The rest is looked at all the same."""
    simulator = simulate(12, faults=[Fault("forbidden", path="/api/machines/SoftwareVulnerabilitiesExport")])
    looked = look(simulator)
    assert looked.status == 1
    assert "- the export: ApiError" in looked.report
    assert "12 looked at" in looked.report


def test_without_settings_it_says_what_to_set_and_fails(tmp_path: Path) -> None:
    """A test that was not run has not passed."""
    environ = {**clean_environ(tmp_path), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "tests.live"], cwd=tmp_path, env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2, done.stderr
    assert "TAP_MDE_KBS_TENANT_ID" in done.stderr
    assert "Nothing was looked at." in done.stderr
    assert not (tmp_path / "live-report.md").exists()


def test_settings_that_write_somewhere_are_not_taken(
    simulate: StartSimulator, look: Callable[..., Looked], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Batch files would be their data, on a disk."""
    root = f"file://{tmp_path}/batches"
    config = f'{{"encoding": {{"format": "jsonl", "compression": "gzip"}}, "storage": {{"root": "{root}"}}}}'
    monkeypatch.setenv("TAP_MDE_KBS_BATCH_CONFIG", config)
    assert look(simulate(12)).status == 0
    assert [path.name for path in tmp_path.iterdir()] == ["live-report.md"]
