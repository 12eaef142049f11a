"""The export source, end to end: the real command on real sockets, its storage host included."""

from __future__ import annotations

import signal
import time
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest

from mde_simulator import EXPORT as EXPORT_QUOTA
from mde_simulator import ExportShape, Fault, Fleet, Quota
from tap_mde_kbs.patience import Patience
from tests.support.catalogs import selecting
from tests.support.contract import answers_of
from tests.support.process import started
from tests.support.singer import HURRIED, Messages, Target, run_tap

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from mde_simulator import Simulator
    from tests.conftest import StartSimulator
    from tests.e2e.conftest import Connect
    from tests.support.warehouse import Warehouse

SOURCES = ("export", "export_json")
AMID = 80
"""So many of 250 machines are out when a run is killed."""

EXPORT = "export"
BY_FILE = {"missing_kbs_source": EXPORT}
LIST = "*/softwarevulnerabilitiesexport"
PAGE = "*/softwarevulnerabilitiesbymachine"


def take(folder: Path, simulator: Simulator, source: str = "export", **options: Any) -> Messages:
    """A run from an export; waits are hurried."""
    config = {"missing_kbs_source": source, **options.pop("config", {})}
    return run_tap(folder, simulator, config=config, patience=HURRIED, **options)


def loaded(*runs: Messages) -> Target:
    """What a target holds after these runs."""
    target = Target()
    for messages in runs:
        assert messages.status == 0, messages.stderr
        target.take(messages.all)
    return target


def truth(simulator: Simulator) -> dict[str, dict[str, Any]]:
    """What the listed and onboarded machines of the newest export lack, by what the simulator knows."""
    listed = set(simulator.fleet.assessed())
    return {device: dict(kbs) for device, kbs in simulator.exports.missing().items() if device in listed}


def assert_true(target: Target, simulator: Simulator) -> None:
    """Every table is what the newest export says of the machines that are listed now."""
    export = simulator.exports
    missed_on = export.missed_on()
    generated_at = f"{export.generated:%Y-%m-%dT%H:%M:%S}.000000Z"
    newest = max(sweep for _, sweep in target.rows["missing_kbs_checks"])
    assert {
        key: {**row, "first_seen_at": datetime.fromisoformat(row["first_seen_at"].replace("Z", "+00:00"))}
        for key, row in target.rows["missing_kbs"].items()
    } == {
        (device, kb_id): {
            "machine_id": device,
            "id": kb_id,
            "name": simulator.fleet.kb(kb_id)["name"],
            "url": simulator.fleet.kb(kb_id)["url"],
            "products_names": sorted(found.products),
            "machine_missed_on": missed_on[kb_id],
            "cve_addressed": found.cves,
            "os_build": None,
            "first_seen_at": found.first_seen,
            "checked_at": generated_at,
            "sweep": newest,
        }
        for device, kbs in truth(simulator).items()
        for kb_id, found in kbs.items()
    }
    assert {
        key: (row["severity"], row["cvss_score"], row["exploitability_level"])
        for key, row in target.rows["kb_cves"].items()
    } == export.kb_cves()
    assert {row["checked_at"] for row in target.rows["kb_cves"].values()} == {generated_at}
    checks = {row["machine_id"]: row for row in target.rows["missing_kbs_checks"].values() if row["sweep"] == newest}
    onboarded, devices = set(simulator.fleet.assessed()), export.devices()
    assert {device: check["outcome"] for device, check in checks.items()} == {
        device: "skipped" if device not in onboarded else "answered" if device in devices else "not_in_export"
        for device in simulator.fleet.listed()
    }
    for device, check in checks.items():
        kbs = truth(simulator).get(device)
        assert check["checked_at"] == generated_at
        assert (check["missing_kbs"], check["missing_kb_ids"]) == (
            (len(kbs), sorted(kbs)) if kbs is not None else (None, None)
        )


class TestTheTable:
    @pytest.mark.parametrize("source", SOURCES)
    def test_it_is_what_each_machine_would_have_answered(
        self, simulate: StartSimulator, tmp_path: Path, source: str
    ) -> None:
        """Where the facts allow: machines that have a record. The counts of CVEs agree as well."""
        simulator = simulate(150)
        asked = loaded(run_tap(tmp_path, simulator))
        taken = loaded(take(tmp_path, simulator, source))
        devices = simulator.exports.devices()
        counts = [
            {key: row["cve_addressed"] for key, row in target.rows["missing_kbs"].items() if key[0] in devices}
            for target in (asked, taken)
        ]
        assert counts[0] == counts[1]
        assert len(counts[0]) > 100
        assert taken.rows["machines"].keys() == asked.rows["machines"].keys()

    def test_files_give_every_row_of_every_table(self, simulate: StartSimulator, tmp_path: Path) -> None:
        simulator = simulate(150, export_shape=ExportShape(files=4))
        assert_true(loaded(take(tmp_path, simulator)), simulator)

    def test_pages_give_the_same_rows_as_of_when_the_first_was_asked_for(
        self, simulate: StartSimulator, tmp_path: Path
    ) -> None:
        """A page says no time of its own. There are three of them here."""
        simulator = simulate(150, export_shape=ExportShape(records=320))
        files, pages = loaded(take(tmp_path, simulator)), loaded(take(tmp_path, simulator, "export_json"))

        def timeless(target: Target, stream: str) -> dict[Any, dict[str, Any]]:
            rows = target.rows[stream].values()
            keys = target.keys[stream]
            return {
                tuple(row[name] for name in keys if name != "sweep"): {
                    name: value for name, value in row.items() if name not in ("checked_at", "sweep")
                }
                for row in rows
            }

        assert sum(entry.path.lower().endswith("bymachine") for entry in simulator.journal) == 3
        for stream in ("missing_kbs", "missing_kbs_checks", "kb_cves"):
            assert timeless(files, stream) == timeless(pages, stream)
        assert len({row["checked_at"] for row in pages.rows["missing_kbs_checks"].values()}) == 1

    def test_next_links_may_name_any_host_and_ours_is_asked(self, simulate: StartSimulator, tmp_path: Path) -> None:
        """The token goes to no other; a link's query is what leads on."""
        simulator = simulate(150, export_shape=ExportShape(records=320))
        plain = loaded(take(tmp_path, simulator, "export_json"))
        simulator.faults.add(Fault("renamed_link"))
        renamed = loaded(take(tmp_path, simulator, "export_json"))
        assert sum(entry.path.lower().endswith("bymachine") for entry in simulator.journal) == 6
        assert renamed.rows["missing_kbs"].keys() == plain.rows["missing_kbs"].keys()

    def test_cves_come_first_and_both_tables_are_activated_last(self, simulate: StartSimulator, tmp_path: Path) -> None:
        """A STATE that passes a machine never comes before the CVEs of its updates."""
        messages = take(tmp_path, simulate(60)).all
        streams = [message.get("stream") for message in messages if message["type"] == "RECORD"]
        assert streams.index("kb_cves") > streams.index("machines")
        last_cve = len(streams) - 1 - streams[::-1].index("kb_cves")
        assert last_cve < min(streams.index("missing_kbs"), streams.index("missing_kbs_checks"))
        last = [(message["type"], message.get("stream")) for message in messages[-4:]]
        assert last == [
            ("ACTIVATE_VERSION", "missing_kbs"),
            ("ACTIVATE_VERSION", "kb_cves"),
            ("RECORD", "sweeps"),
            ("STATE", None),
        ]
        versions = {
            message["version"]
            for message in messages
            if message.get("stream") in ("missing_kbs", "kb_cves") and "version" in message
        }
        assert len(versions) == 1

    def test_the_stream_of_cves_is_there_only_with_this_source(self, simulate: StartSimulator, tmp_path: Path) -> None:
        simulator = simulate(12)
        assert [message["stream"] for message in run_tap(tmp_path, simulator).of("SCHEMA")] == [
            "machines",
            "missing_kbs",
            "missing_kbs_checks",
            "sweeps",
        ]
        assert "kb_cves" in [message["stream"] for message in take(tmp_path, simulator).of("SCHEMA")]

    @pytest.mark.parametrize("stream", ["kb_cves", "missing_kbs"])
    def test_any_stream_alone(self, simulate: StartSimulator, tmp_path: Path, stream: str) -> None:
        simulator = simulate(60)
        messages = take(tmp_path, simulator, catalog=selecting(stream, source=EXPORT))
        assert {message["stream"] for message in messages.of("RECORD")} == {stream}
        assert len(messages.of("ACTIVATE_VERSION")) == 1
        whole = loaded(take(tmp_path, simulator))
        assert len(messages.records(stream)) == len(whole.rows[stream])

    def test_a_machine_that_is_not_listed_is_told_and_counts(self, simulate: StartSimulator, tmp_path: Path) -> None:
        """It left after the export was made; other machines' `machine_missed_on` still knows it."""
        simulator = simulate(150)
        gone = next(device for device, kbs in truth(simulator).items() if kbs)
        simulator.fleet.remove(gone)
        messages = take(tmp_path, simulator)
        assert_true(loaded(messages), simulator)
        assert "machines of the export are not in the list, and" in messages.stderr
        assert gone in messages.stderr

    def test_an_update_installed_since_is_gone_with_the_next_export(
        self, simulate: StartSimulator, tmp_path: Path
    ) -> None:
        simulator = simulate(150)
        first = take(tmp_path, simulator)
        simulator.fleet.pass_days(40)
        simulator.exports.generate()
        second = take(tmp_path, simulator, state=first.state)
        target = loaded(first)
        before = set(target.rows["missing_kbs"])
        target.take(second.all)
        assert_true(target, simulator)
        assert before - set(target.rows["missing_kbs"])

    def test_postgres_holds_what_is_missing_now_by_either_source(
        self, simulate: StartSimulator, connect: Connect
    ) -> None:
        """A night by the machine, one from an export, one by the machine again: the README's query is always right."""
        simulator = simulate(120)
        pipeline, warehouse = connect(simulator)
        pipeline.run_whole()
        known = truth_now(warehouse)
        simulator.fleet.pass_days(30)
        time.sleep(1.1)  # its time is in whole seconds, and has to be after that of the last check
        simulator.exports.generate()
        pipeline.config = {**pipeline.config, **BY_FILE}
        pipeline.run_whole()
        absent = set(simulator.fleet.assessed()) - simulator.exports.devices()
        expected = {(device, kb_id) for device, kbs in truth(simulator).items() for kb_id in kbs}
        stale = {pair for pair in known if pair[0] in absent}
        assert warehouse.missing_now() - stale == expected
        assert {row["kb_id"] for row in warehouse.live("kb_cves")} == {
            kb_id for kb_id, _ in simulator.exports.kb_cves()
        }
        simulator.fleet.pass_days(10)
        pipeline.config = {**pipeline.config, "missing_kbs_source": "per_machine"}
        pipeline.run_whole()
        assert warehouse.missing_now() == {
            (device, kb_id) for device, kbs in answers_of(simulator.fleet).items() for kb_id in kbs
        }


def truth_now(warehouse: Warehouse) -> set[tuple[str, str]]:
    """What the README's query says."""
    return warehouse.missing_now()


class TestWhichExport:
    """Another than the one loaded last, or that one if it is not wholly written."""

    def assert_nothing_to_do(self, messages: Messages) -> None:
        assert messages.status == 0, messages.stderr
        assert messages.records("machines")
        for stream in ("missing_kbs", "missing_kbs_checks", "kb_cves"):
            assert messages.records(stream) == []
            assert messages.of("ACTIVATE_VERSION", stream) == []
        assert "nothing to do" in messages.stderr

    def test_the_same_one_is_not_loaded_again(self, simulate: StartSimulator, tmp_path: Path) -> None:
        simulator = simulate(60)
        first = take(tmp_path, simulator)
        second = take(tmp_path, simulator, state=first.state)
        self.assert_nothing_to_do(second)
        listings = [run.sweep["counts"].pop("listing") for run in (first, second)]
        began = [run.sweep["counts"].pop("listed_at") for run in (first, second)]
        assert listings == sorted({*listings})  # the machine list is news, and stands in the last sweep's row
        assert began == sorted({*began})
        assert second.records("sweeps")[-1]["listing"] == listings[-1]
        assert second.sweep == first.sweep

    def test_nor_after_a_change_of_scope(self, simulate: StartSimulator, tmp_path: Path) -> None:
        simulator = simulate(60)
        state = take(tmp_path, simulator).state
        self.assert_nothing_to_do(take(tmp_path, simulator, state=state, config={"include_not_onboarded": True}))

    def test_one_that_is_older_than_the_last_checks_is_loaded_once(
        self, simulate: StartSimulator, tmp_path: Path
    ) -> None:
        """Asked by the machine since. What orders is the sweep, not the time: the host's clock may be ahead."""
        simulator = simulate(60)
        first = run_tap(tmp_path, simulator)
        second = take(tmp_path, simulator, state=first.state)
        assert second.status == 0, second.stderr
        assert second.sweep["version"] > first.sweep["version"]
        assert {(row["machine_id"], row["id"]) for row in second.records("missing_kbs")} == {
            (device, kb_id) for device, kbs in truth(simulator).items() for kb_id in kbs
        }
        self.assert_nothing_to_do(take(tmp_path, simulator, state=second.state))

    def test_a_newer_one_is(self, simulate: StartSimulator, tmp_path: Path) -> None:
        simulator = simulate(60)
        first = take(tmp_path, simulator)
        simulator.exports.generate()
        second = take(tmp_path, simulator, state=first.state)
        assert_true(loaded(first, second), simulator)
        assert second.sweep["version"] > first.sweep["version"]
        assert second.sweep["source_time"] == f"{simulator.exports.generated:%Y-%m-%dT%H:%M:%S}.000000Z"

    def test_a_newer_one_in_place_of_one_half_written_begins_a_new_sweep(
        self, simulate: StartSimulator, tmp_path: Path
    ) -> None:
        """Machines of both in one sweep would be of no time at all."""
        simulator = simulate(250)
        first = killed(tmp_path, simulator)
        simulator.exports.generate()
        second = take(tmp_path, simulator, state=first[-1]["value"])
        target = Target()
        target.take(first)
        target.take(second.all)
        assert_true(target, simulator)

    def test_pages_are_taken_every_time(self, simulate: StartSimulator, tmp_path: Path) -> None:
        simulator = simulate(60)
        first = take(tmp_path, simulator, "export_json")
        second = take(tmp_path, simulator, "export_json", state=first.state)
        assert second.sweep["version"] > first.sweep["version"]
        assert len(second.records("missing_kbs")) == len(first.records("missing_kbs"))


def killed(folder: Path, simulator: Simulator, state: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
    """What a target had of a run that was killed (SIGKILL) amid its rows: up to the last STATE, and that."""
    with started(folder, simulator, state, patience=Patience(state=0.0), missing_kbs_source=EXPORT) as tap:
        while tap.output.count(b'"outcome"') < AMID:
            tap.read_until(size=len(tap.output) + 1)
        tap.send(signal.SIGKILL)
        tap.end()
    messages = tap.messages()
    last = max(number for number, message in enumerate(messages) if message["type"] == "STATE")
    return messages[: last + 1]


class TestBrokenOff:
    def test_a_killed_run_goes_on_where_the_last_state_says(self, simulate: StartSimulator, tmp_path: Path) -> None:
        """Kill -9 amid the rows, and another run, give the table of one run; what is out is not written again."""
        simulator = simulate(250)
        first = killed(tmp_path, simulator)
        sweep = first[-1]["value"]["bookmarks"]["missing_kbs"]["sweep"]
        assert sweep["after"]
        assert not sweep["asked_all"]
        second = take(tmp_path, simulator, state=first[-1]["value"])
        assert second.sweep["version"] == sweep["version"]
        assert min(row["machine_id"] for row in second.records("missing_kbs_checks")) > sweep["after"]
        target = Target()
        target.take(first)
        target.take(second.all)
        assert_true(target, simulator)

    def test_out_of_time_while_reading_nothing_is_written(self, simulate: StartSimulator, tmp_path: Path) -> None:
        """Exit status 0: the next run begins anew."""
        simulator = simulate(60, faults=[Fault("export_late", times=100)])
        config = {**BY_FILE, "time_limit_minutes": 0.05}
        messages = run_tap(tmp_path, simulator, config=config)
        assert messages.status == 0, messages.stderr
        assert "time_limit_minutes is over" in messages.stderr
        assert messages.records("missing_kbs_checks") == []
        assert messages.of("ACTIVATE_VERSION", "missing_kbs") == []
        simulator.faults.clear()
        assert_true(loaded(take(tmp_path, simulator, state=messages.state)), simulator)

    def test_nothing_is_left_on_disk(self, simulate: StartSimulator, tmp_path: Path) -> None:
        """Neither of a run that went well nor of one that failed."""
        simulator = simulate(60, faults=[Fault("export_malformed", after=2)])
        (tmp_path / "tmp").mkdir()
        for status in (1, 0):
            messages = take(tmp_path, simulator, environ={"TMPDIR": str(tmp_path / "tmp")})
            assert messages.status == status
            assert list((tmp_path / "tmp").iterdir()) == []
            simulator.faults.clear()


class TestBesideTheList:
    """The export is read while a list that is slow is waited for: what ends the listing ends that, and removes it."""

    def test_files_are_fetched_before_the_list_ends(self, simulate: StartSimulator, tmp_path: Path) -> None:
        simulator = simulate(60, faults=[Fault("slow", path="/api/machines", seconds=2.0)])
        assert_true(loaded(take(tmp_path, simulator)), simulator)
        paths = [entry.path for entry in simulator.journal]
        last_page = max(number for number, path in enumerate(paths) if path == "/api/machines")
        assert any(path.startswith("/tvm-export/") for path in paths[:last_page])

    def test_machines_alone_need_no_export(self, simulate: StartSimulator, tmp_path: Path) -> None:
        simulator = simulate(20)
        assert take(tmp_path, simulator, catalog=selecting("machines")).status == 0
        assert {entry.path for entry in simulator.journal if entry.path.startswith("/api/")} == {"/api/machines"}

    @pytest.mark.parametrize("each", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
    @pytest.mark.parametrize("source", SOURCES)
    @pytest.mark.parametrize("kind", ["", "export_late", "slow_page"])
    def test_a_signal_while_listing_leaves_nothing_on_disk(
        self, simulate: StartSimulator, tmp_path: Path, each: signal.Signals, source: str, kind: str
    ) -> None:
        """Whether the export is read by then, is waited for, or does not answer."""
        faults = [Fault("slow", path="/api/machines", seconds=60.0)]
        if kind == "export_late":
            faults.append(Fault("export_late", times=100, each=True))
        elif kind:
            faults.append(Fault("slow", path=PAGE, after=1, seconds=60.0))
        simulator = simulate(60, faults=faults, page_size=1_000)
        (tmp_path / "tmp").mkdir()
        environ = {"TMPDIR": str(tmp_path / "tmp")}
        with started(tmp_path, simulator, environ=environ, missing_kbs_source=source) as run:
            while not any("oftwareVulnerab" in entry.path for entry in simulator.journal):
                time.sleep(0.01)
            time.sleep(1.0)
            run.send(each)
            run.end()
        assert run.process.returncode == 128 + each
        assert "Traceback" not in run.stderr
        assert list((tmp_path / "tmp").iterdir()) == []

    def test_a_list_that_is_refused_ends_it(self, simulate: StartSimulator, tmp_path: Path) -> None:
        slow = Fault("slow", path="/api/machines", seconds=3.0, times=1)
        simulator = simulate(
            60, faults=[slow, Fault("forbidden", path="/api/machines"), Fault("export_late", times=100)]
        )
        (tmp_path / "tmp").mkdir()
        messages = take(tmp_path, simulator, environ={"TMPDIR": str(tmp_path / "tmp")})
        assert messages.status == 1
        assert "HTTP 403" in messages.stderr.splitlines()[-1]
        assert any(entry.path.startswith("/tvm-export/") for entry in simulator.journal)
        assert list((tmp_path / "tmp").iterdir()) == []

    def test_a_list_that_is_out_of_time_ends_it(self, simulate: StartSimulator, tmp_path: Path) -> None:
        simulator = simulate(60, faults=[Fault("slow", path="/api/machines", seconds=2.0)], page_size=10)
        (tmp_path / "tmp").mkdir()
        config = {"time_limit_minutes": 0.05}
        messages = take(tmp_path, simulator, config=config, environ={"TMPDIR": str(tmp_path / "tmp")})
        assert messages.status == 0, messages.stderr
        assert "nothing was asked" in messages.stderr
        assert list((tmp_path / "tmp").iterdir()) == []

    def test_what_is_wrong_with_the_export_is_said_when_all_machines_are_out(
        self, simulate: StartSimulator, tmp_path: Path
    ) -> None:
        simulator = simulate(60, faults=[Fault("forbidden", path=LIST), Fault("slow", path="/api/machines", seconds=2)])
        messages = take(tmp_path, simulator)
        assert messages.status == 1
        assert "HTTP 403" in messages.stderr.splitlines()[-1]
        assert len(messages.records("machines")) == 60
        assert len(messages.of("ACTIVATE_VERSION", "machines")) == 1


class TestFaultsThatPass:
    """What another try mends: the table is as if nothing had happened."""

    @pytest.mark.parametrize(
        "fault",
        [
            Fault("export_late"),
            Fault("export_late", times=11, each=True),
            Fault("export_empty", times=3, each=True),
            Fault("export_nothing", times=3, each=True),
            Fault("export_cut", times=2, each=True),
            Fault("export_truncated", times=2, each=True),
            Fault("export_corrupt", times=2, each=True),
            Fault("export_malformed", times=2, each=True),
            Fault("export_storage_down", times=2, each=True),
            Fault("export_expired", times=1, after=1),
            Fault("export_expired", times=2),
            Fault("reset", path="/tvm-export/*", times=2),
            Fault("html", path="/tvm-export/*", times=2),
            Fault("export_multiline"),
            Fault("export_camel"),
            Fault("export_camel", times=1),
            Fault("500", path=LIST, times=2),
            Fault("cut", path=LIST, times=2),
            Fault("throttled", path=LIST, times=1),
            Fault("revoked", path=LIST),
        ],
        ids=lambda fault: f"{fault.kind} {fault.path} {fault.times}",
    )
    def test_of_a_file(self, simulate: StartSimulator, tmp_path: Path, fault: Fault) -> None:
        simulator = simulate(60, faults=[fault], export_shape=ExportShape(files=3))
        assert_true(loaded(take(tmp_path, simulator)), simulator)
        assert any(entry.fault == fault.kind for entry in simulator.journal)

    @pytest.mark.parametrize(
        "fault",
        [
            Fault("500", path=PAGE, times=2),
            Fault("cut", path=PAGE, times=2),
            Fault("reset", path=PAGE, times=2),
            Fault("throttled", path=PAGE, times=1),
        ],
        ids=lambda fault: fault.kind,
    )
    def test_of_a_page(self, simulate: StartSimulator, tmp_path: Path, fault: Fault) -> None:
        simulator = simulate(60, faults=[fault])
        taken = loaded(take(tmp_path, simulator, "export_json"))
        assert set(taken.rows["missing_kbs"]) == {
            (device, kb_id) for device, kbs in truth(simulator).items() for kb_id in kbs
        }
        assert any(entry.fault == fault.kind for entry in simulator.journal)

    def test_links_that_expire_are_asked_for_anew_and_only_what_is_left_is_read(
        self, simulate: StartSimulator, tmp_path: Path
    ) -> None:
        simulator = simulate(60, faults=[Fault("export_expired", after=2, times=2)], export_shape=ExportShape(files=5))
        assert_true(loaded(take(tmp_path, simulator)), simulator)
        lists = [entry for entry in simulator.journal if entry.path.lower().endswith("softwarevulnerabilitiesexport")]
        whole = [entry.path for entry in simulator.journal if entry.path.startswith("/tvm-export") and not entry.fault]
        assert 2 <= len(lists) <= 3
        assert len(whole) == len(set(whole)) == 5

    def test_a_list_of_another_export_starts_over_with_that(self, simulate: StartSimulator, tmp_path: Path) -> None:
        """What was read of the first is forgotten: an update installed in between is not in the table."""
        faults = [Fault("export_expired", after=2, times=1), Fault("export_new", after=1)]
        simulator = simulate(150, faults=faults, export_shape=ExportShape(files=4))
        simulator.fleet.pass_days(30)
        messages = take(tmp_path, simulator)
        assert_true(loaded(messages), simulator)
        assert "starting over" in messages.stderr
        assert len(simulator.exports.snapshots) == 2


class TestFaultsThatStay:
    """The run fails, with a line or two that say why; nothing is written, and nothing activated.

    A list of files that is asked for in vain takes a minute: its quota is five calls, and the sixth waits.
    """

    @pytest.mark.parametrize(
        ("fault", "said"),
        [
            (Fault("export_late", times=1000, each=True), "is not there"),
            (Fault("export_cut"), "did not come whole"),
            (Fault("export_truncated"), "is cut short"),
            (Fault("export_corrupt"), "is damaged"),
            (Fault("export_malformed"), "is malformed"),
            (Fault("export_malformed", text="17", after=2), "is malformed"),
            (Fault("export_storage_down"), "HTTP 503"),
            (Fault("export_expired"), "Signature not valid"),
            (Fault("redirect", path="/tvm-export/*", text="https://127.0.0.1:1/"), "HTTP 302"),
            (Fault("html", path="/tvm-export/*"), "is damaged"),
            pytest.param(Fault("500", path=LIST), "HTTP 500", marks=pytest.mark.long),
            (Fault("forbidden", path=LIST), "Vulnerability.Read.All"),
            pytest.param(Fault("html", path=LIST), "not JSON", marks=pytest.mark.long),
            (Fault("not_found", path=LIST), "HTTP 404"),
        ],
        ids=lambda value: f"{value.kind} {value.path}" if isinstance(value, Fault) else "",
    )
    def test_of_files(self, simulate: StartSimulator, tmp_path: Path, fault: Fault, said: str) -> None:
        simulator = simulate(60, faults=[fault])
        self.assert_harmless(take(tmp_path, simulator, environ={"LOGLEVEL": "DEBUG"}), said)

    @pytest.mark.parametrize(
        ("fault", "said"),
        [
            (Fault("foreign_skiptoken_link", text="https://127.0.0.1:1/api"), "next link has no query"),
            (Fault("endless_pages"), "round in a circle"),
            (Fault("endless_skiptoken"), "round in a circle"),
            (Fault("500", path=PAGE), "HTTP 500"),
            (Fault("forbidden", path=PAGE), "Vulnerability.Read.All"),
            (Fault("not_a_list", path=PAGE), "no list `value`"),
            (Fault("not_an_object", path=PAGE), "is no object"),
        ],
        ids=lambda value: f"{value.kind}" if isinstance(value, Fault) else "",
    )
    def test_pages_in_a_circle_or_of_another_shape_end_the_run(
        self, simulate: StartSimulator, tmp_path: Path, fault: Fault, said: str
    ) -> None:
        simulator = simulate(60, faults=[fault])
        self.assert_harmless(take(tmp_path, simulator, "export_json"), said)

    def assert_harmless(self, messages: Messages, said: str) -> None:
        assert messages.status == 1
        assert said in messages.last_line
        assert "sig=" not in messages.stderr.replace("sig=<signature>", "")
        assert "Traceback" not in messages.last_line
        assert messages.records("machines")
        for stream in ("missing_kbs", "missing_kbs_checks", "kb_cves"):
            assert messages.records(stream) == []
            assert messages.of("ACTIVATE_VERSION", stream) == []

    def test_a_file_that_stays_empty_is_read_and_not_believed_the_first_time(
        self, simulate: StartSimulator, tmp_path: Path
    ) -> None:
        """It may be real; machines that were in it alone are `not_in_export`, and keep what was known of them."""
        simulator = simulate(60, export_shape=ExportShape(files=3))
        simulator.faults.add(Fault("export_empty", path="/tvm-export/*00002*"))
        messages = take(tmp_path, simulator)
        assert messages.status == 0, messages.stderr
        assert "is still empty after a minute" in messages.stderr
        outcomes = {row["outcome"] for row in messages.records("missing_kbs_checks")}
        assert "not_in_export" in outcomes
        judged = messages.records("sweeps")[-1]
        assert (judged["is_complete"], judged["is_believed"]) == (True, False)
        assert "1 files of the export are empty" in judged["verdict"]
        assert messages.of("ACTIVATE_VERSION", "missing_kbs") == []

    def test_a_missing_permission_ends_the_run_before_its_first_record(
        self, simulate: StartSimulator, tmp_path: Path
    ) -> None:
        """And the one that each machine's answer needs is not needed."""
        simulator = simulate(12, roles=["Machine.Read.All", "Software.Read.All"])
        messages = take(tmp_path, simulator)
        assert (messages.status, messages.of("RECORD")) == (1, [])
        assert "lacks the permission Vulnerability.Read.All" in messages.last_line
        simulator.identity.roles = ("Machine.Read.All", "Vulnerability.Read.All")
        assert take(tmp_path, simulator).status == 0

    def test_without_duckdb_the_run_ends_before_its_first_call(self, simulate: StartSimulator, tmp_path: Path) -> None:
        simulator = simulate(12)
        (tmp_path / "without").mkdir()
        (tmp_path / "without" / "duckdb.py").write_text("raise ImportError")
        messages = run_tap(
            tmp_path, simulator, config=BY_FILE, environ={"PYTHONPATH": str(tmp_path / "without")}, patience=HURRIED
        )
        assert (messages.status, messages.of("RECORD"), list(simulator.journal)) == (1, [], [])
        assert "tap-mde-kbs[export]" in messages.last_line


class TestTheQuotas:
    """Those of these calls are their own; that of the list of files is 5 a minute."""

    def test_lists_of_files_are_paced_by_their_own(self, simulate: StartSimulator, tmp_path: Path) -> None:
        """The sixth waits for a minute after the first; here the run's time is over before. The simulator is strict."""
        simulator = simulate(12, faults=[Fault("500", path=LIST)], export_quota=Quota(EXPORT_QUOTA))
        config = {**BY_FILE, "time_limit_minutes": 0.3}
        messages = run_tap(tmp_path, simulator, config=config, patience=HURRIED)
        assert messages.status == 0, messages.stderr
        lists = [entry for entry in simulator.journal if entry.path.lower().endswith("softwarevulnerabilitiesexport")]
        assert 1 <= len(lists) <= 5

    def test_for_a_sweep_of_many_hours_the_log_recommends_it(self, simulate: StartSimulator, tmp_path: Path) -> None:
        """As it begins; here it ends soon, as no machine answers."""
        simulator = simulate(
            Fleet(13_000, seed=1, discovered=0, excluded=0, silent=0), faults=[Fault("500", path="*/getmissingkbs")]
        )
        quota = {"requests_per_minute": 100, "requests_per_hour": 1500}
        messages = run_tap(tmp_path, simulator, config=quota, patience=HURRIED)
        assert "The API is down" in messages.last_line
        [line] = [line for line in messages.stderr.splitlines() if "missing_kbs_source: export" in line]
        assert "a sweep of 13000 machines takes 8 h" in line
        assert "an export about 1 min" in line
        assert "Vulnerability.Read.All" in line


class TestTheGuard:
    def test_an_export_that_lost_machines_deletes_nothing_until_the_next_says_so_too(
        self, simulate: StartSimulator, tmp_path: Path
    ) -> None:
        """`not_in_export` is no answer: an empty file looks like machines that went."""
        simulator = simulate(60, export_shape=ExportShape(files=2))
        runs = [take(tmp_path, simulator)]
        assert len(runs[0].of("ACTIVATE_VERSION", "missing_kbs")) == 1
        simulator.faults.add(Fault("export_empty", path="/tvm-export/*part-00001*"))
        for _ in range(2):
            simulator.exports.generate()
            runs.append(take(tmp_path, simulator, state=runs[-1].state))
        activated = [len(run.of("ACTIVATE_VERSION", stream)) for run in runs for stream in ("missing_kbs", "kb_cves")]
        assert activated == [1, 1, 0, 0, 1, 1]
        assert "believed if the next sweep ends so too" in runs[1].stderr
        target = loaded(*runs)
        assert set(target.versions["missing_kbs"].values()) == {runs[2].sweep["version"]}
