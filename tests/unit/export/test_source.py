"""The export as a source, on a simulated tenant: files that stay empty, that are odd, that are not there at all."""

from __future__ import annotations

import gzip
import logging
import zlib
from typing import TYPE_CHECKING, Any

import duckdb
import pytest
from zlib_ng import zlib_ng

from mde_simulator import Fault, Fleet, Simulator
from mde_simulator.exports.records import ExportShape
from mde_simulator.faults.fault import FILE, KINDS, Kind, of_file
from tap_mde_kbs import schema
from tap_mde_kbs.api.client import Client
from tap_mde_kbs.errors import ApiError
from tap_mde_kbs.export import download
from tap_mde_kbs.export.source import export_source
from tap_mde_kbs.patience import Patience

if TYPE_CHECKING:
    from collections.abc import Callable

    from tap_mde_kbs.export.source import ExportSource
    from tests.conftest import StartSimulator

FIRST_FILE = f"{FILE}part-00000*"


@pytest.fixture
def connect(simulate: StartSimulator, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Simulator, ExportSource]]:
    """Starts a tenant, and a source out of its export that does not wait for files."""

    def start(*faults: Fault, kind: str = "export", **config: Any) -> tuple[Simulator, ExportSource]:
        simulator = simulate(Fleet(machines=40, seed=1), faults=faults, export_shape=ExportShape(files=3))
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
        log = logging.getLogger("test")
        client = Client(settings, log, Patience(retry=0.001, file=0.0))
        return simulator, export_source(kind, client, "a test", schema.Unlisted(lambda _: None), log)

    return start


def found(simulator: Simulator, source: ExportSource) -> tuple[dict[str, frozenset[str]], int]:
    """What the machines of the export lack, and how many of its files were empty."""
    with source.opened(lambda _: True, lambda: None) as answers:
        assert answers is not None
        answers.submit("anyone", once=True)
        missing = {
            machine_id: frozenset(row["id"] for row in answers.result(machine_id).rows)
            for machine_id in sorted(simulator.exports.devices())
            if machine_id in set(answers.strangers(()))
        }
        return missing, answers.empty_files


def truth(simulator: Simulator) -> dict[str, frozenset[str]]:
    return {machine_id: frozenset(kbs) for machine_id, kbs in simulator.exports.missing().items()}


@pytest.mark.parametrize("kind", ["export", "export_json"])
def test_of_a_whole_export_no_file_is_empty(connect: Callable[..., tuple[Simulator, ExportSource]], kind: str) -> None:
    simulator, source = connect(kind=kind)
    assert found(simulator, source) == (truth(simulator), 0)


def _only(content: bytes) -> Kind:
    return Kind(FILE, "nothing but that", of_file(lambda _raw, _strike: content))


@pytest.mark.parametrize("kind", ["export_empty", "export_nothing", "array", "mark"])
def test_a_file_that_stays_empty_is_loaded_and_counted(
    connect: Callable[..., tuple[Simulator, ExportSource]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    kind: str,
) -> None:
    """Whatever it is that has no record; the sweep does not believe it the first time."""
    monkeypatch.setitem(KINDS, "array", _only(gzip.compress(b"[ ]\n")))
    monkeypatch.setitem(KINDS, "mark", _only(gzip.compress(b"\xef\xbb\xbf\n")))
    simulator, source = connect(Fault(kind, path=FIRST_FILE))
    missing, empty_files = found(simulator, source)
    assert empty_files == 1
    assert "is still empty after a minute: loaded as empty." in caplog.text
    whole = truth(simulator)
    assert missing != whole
    assert all(missing[machine_id] <= whole[machine_id] for machine_id in missing)


def test_a_file_that_is_only_late_is_not_empty(connect: Callable[..., tuple[Simulator, ExportSource]]) -> None:
    simulator, source = connect(Fault("export_empty", times=5), Fault("export_late"))
    assert found(simulator, source) == (truth(simulator), 0)


@pytest.mark.parametrize(
    "kind", ["export_surrogate", "export_not_utf8", "export_bom", "export_mixed", "export_odd_ids", "export_camel"]
)
def test_what_is_odd_in_every_file_changes_nothing(
    connect: Callable[..., tuple[Simulator, ExportSource]], caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    simulator, source = connect(Fault(kind))
    assert found(simulator, source) == (truth(simulator), 0)
    takes_marks = duckdb.__version__ >= "2"
    is_broken = kind in {"export_surrogate", "export_not_utf8"} or (kind == "export_bom" and not takes_marks)
    assert caplog.text.count("has text that is none") == 3 * is_broken


@pytest.mark.parametrize("inflates", [zlib, zlib_ng], ids=["zlib", "zlib-ng"])
@pytest.mark.parametrize("kind", ["export_truncated", "export_corrupt", "export_nothing", "export_late"])
def test_files_are_checked_alike_with_zlib_and_zlib_ng(
    connect: Callable[..., tuple[Simulator, ExportSource]], monkeypatch: pytest.MonkeyPatch, inflates: Any, kind: str
) -> None:
    """The latter comes with the extra `export`; the tap does without."""
    monkeypatch.setattr(download, "inflating", inflates)
    simulator, source = connect(Fault(kind, times=1))
    assert found(simulator, source) == (truth(simulator), 0)
    assert any(entry.fault == kind for entry in simulator.journal)


def test_an_export_that_lists_no_files_is_not_a_tenant_without_machines(
    connect: Callable[..., tuple[Simulator, ExportSource]],
) -> None:
    """Whether it is due or not; and `--test` says so, too."""
    _, source = connect(Fault("export_no_files"))
    for is_due in ("", "another time"):
        with (
            pytest.raises(ApiError, match=r"lists no files: nothing is known of any machine\. Run again later"),
            source.opened(is_due.__ne__, lambda: None),
        ):
            pass
    with pytest.raises(ApiError, match="lists no files"):
        source.probe([])


@pytest.mark.parametrize("kind", ["export", "export_json"])
def test_settings_that_make_no_sense_are_not_read_before_they_are_needed(
    connect: Callable[..., tuple[Simulator, ExportSource]], kind: str
) -> None:
    """Discovery asks nobody."""
    _, source = connect(kind=kind, request_timeout_seconds="soon")
    source.check()
    assert source.permission == "Vulnerability.Read.All"
