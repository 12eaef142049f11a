"""The command line: what it says of itself, and where its settings come from."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import pytest
from jsonschema import Draft202012Validator

from tap_mde_kbs import settings
from tap_mde_kbs.schema import MACHINES, MISSING_KBS, MISSING_KBS_CHECKS, SWEEPS
from tests.support.singer import BOOKMARKS, UNLIMITED, Messages, clean_environ, run_command, run_tap, trust

if TYPE_CHECKING:
    from pathlib import Path

    from mde_simulator import Simulator
    from tests.conftest import StartSimulator

CAPABILITIES = [
    "catalog",
    "state",
    "discover",
    "activate-version",
    "about",
    "stream-maps",
    "schema-flattening",
    "batch",
]
OF_THE_SDK = ["stream_maps", "flattening_enabled", "flattening_max_depth", "batch_config"]


def printed(folder: Path, *options: str) -> str:
    """What the command prints when all is well."""
    done = run_command(folder, *options)
    assert done.status == 0, done.stderr
    return done.stdout


def write(folder: Path, name: str, settings: object) -> str:
    """Make a file of JSON; returns its path."""
    path = folder / name
    path.write_text(json.dumps(settings))
    return str(path)


def user_agents(simulator: Simulator) -> set[str]:
    """The User-Agent headers of the calls so far: a setting whose value the API sees."""
    return {entry.headers["user-agent"] for entry in simulator.journal if entry.is_api}


class TestWhatItSaysOfItself:
    def test_it_tells_its_version(self, tmp_path: Path) -> None:
        said = run_command(tmp_path, "--version", afresh=True)
        assert said.stdout == f"tap-mde-kbs v{version('tap-mde-kbs')}, Meltano SDK v{version('singer-sdk')}\n"

    def test_it_runs_as_a_module_entry_that_python_finds(self, tmp_path: Path) -> None:
        """The tap's own modules need nothing of the simulator, the demo or the tests."""
        code = "import sys, tap_mde_kbs.cli; print([m for m in sys.modules if 'simulator' in m or m == 'faker'])"
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=tmp_path,
            env=clean_environ(tmp_path),
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout == "[]\n"

    def test_about_as_text_lists_every_setting_its_variable_and_every_capability(self, tmp_path: Path) -> None:
        text = printed(tmp_path, "--about")
        for name in [*settings.SCHEMA["properties"], *OF_THE_SDK]:
            assert f"Name: {name}\n" in text
            assert f"Environment Variable: TAP_MDE_KBS_{name.upper()}\n" in text
        for capability in CAPABILITIES:
            assert f"  - {capability}\n" in text

    def test_about_as_json_gives_every_setting_with_its_default(self, tmp_path: Path) -> None:
        about = json.loads(printed(tmp_path, "--about", "--format=json"))
        assert about["name"] == "tap-mde-kbs"
        assert about["version"] == version("tap-mde-kbs")
        assert set(CAPABILITIES) <= set(about["capabilities"])
        shown = about["settings"]["properties"]
        assert {*settings.SCHEMA["properties"], *OF_THE_SDK} <= set(shown)
        assert about["settings"]["required"] == ["tenant_id"]
        assert {name: prop["default"] for name, prop in shown.items() if "default" in prop} | {
            "user_agent": None
        } == expected_defaults() | {"user_agent": None}
        assert shown["user_agent"]["default"] == f"tap-mde-kbs/{version('tap-mde-kbs')}"
        assert all(shown[name]["description"] for name in settings.SCHEMA["properties"])
        assert [name for name, prop in shown.items() if prop.get("secret")] == [
            "client_secret",
            "certificate_passphrase",
        ]

    def test_about_as_markdown_has_a_row_for_every_setting(self, tmp_path: Path) -> None:
        rows = [line.split(" | ") for line in printed(tmp_path, "--about", "--format=markdown").splitlines()]
        rows_by_name = {row[0].strip("| "): row for row in rows if len(row) > 3}
        for name, prop in settings.SCHEMA["properties"].items():
            row = rows_by_name[name]
            assert prop["description"] in " | ".join(row)
            assert row[1].strip() == str(name in settings.SCHEMA["required"])
            if "default" in prop:
                assert str(prop["default"]) in row[2]


def expected_defaults() -> dict[str, Any]:
    """The defaults by the contract; those of the SDK's own settings are the SDK's."""
    return {
        "auth_method": "client_secret",
        "advisory_feeds": [],
        "msrc_url": "https://api.msrc.microsoft.com/cvrf/v3.0",
        "kev_url": "https://www.cisa.gov/sites/default/files/feeds/known_exploited_vulnerabilities.json",
        "epss_url": "https://epss.empiricalsecurity.com/epss_scores-current.csv.gz",
        "msrc_months": 60,
        "epss_min": 0.1,
        "cloud": "commercial",
        "include_not_onboarded": False,
        "include_excluded": False,
        "silent_after_days": 30,
        "requests_per_minute": 100,
        "requests_per_hour": 1500,
        "max_parallel_requests": 4,
        "request_timeout_seconds": 60,
        "max_shrink_percent": 5,
        "missing_kbs_source": "per_machine",
        "emit_activate_version_messages": True,
    }


class TestDiscovery:
    def test_the_catalog_needs_no_settings_and_lists_every_stream_key_and_property(self, tmp_path: Path) -> None:
        catalog = json.loads(printed(tmp_path, "--discover"))
        found = {entry["tap_stream_id"]: entry for entry in catalog["streams"]}
        assert {name: entry["key_properties"] for name, entry in found.items()} == {
            "machines": ["id"],
            "missing_kbs": ["machine_id", "id"],
            "missing_kbs_checks": ["machine_id", "sweep"],
            "sweeps": ["sweep"],
        }
        for name, table in (
            ("machines", MACHINES),
            ("missing_kbs", MISSING_KBS),
            ("missing_kbs_checks", MISSING_KBS_CHECKS),
            ("sweeps", SWEEPS),
        ):
            entry = found[name]
            columns = [field.column for field in table.fields]
            Draft202012Validator.check_schema(entry["schema"])
            assert list(entry["schema"]["properties"]) == columns
            assert entry["replication_method"] == "FULL_TABLE"
            metadata = {tuple(item["breadcrumb"]): item["metadata"] for item in entry["metadata"]}
            assert metadata[()]["table-key-properties"] == entry["key_properties"]
            for column in columns:
                inclusion = "automatic" if column in entry["key_properties"] else "available"
                assert metadata["properties", column]["inclusion"] == inclusion

    def test_its_own_catalog_is_accepted(self, tmp_path: Path, simulate: StartSimulator) -> None:
        """`tap --discover > catalog.json; tap --catalog catalog.json`: everything is selected by default."""
        catalog = json.loads(printed(tmp_path, "--discover"))
        messages = run_tap(tmp_path, simulate(3), catalog=catalog)
        assert messages.status == 0, messages.stderr
        assert {message["stream"] for message in messages.of("RECORD")} == {
            "machines",
            "missing_kbs",
            "missing_kbs_checks",
            "sweeps",
        }

    def test_it_says_nothing_that_frightens(self, tmp_path: Path) -> None:
        """Missing settings are no fault of somebody who only wants the catalog."""
        messages = run_command(tmp_path, "--discover")
        assert messages.status == 0
        assert "fail" not in messages.stderr.lower()


class TestWhereSettingsComeFrom:
    """The User-Agent header shows which of several values of a setting won."""

    def test_of_several_config_files_the_later_wins(self, tmp_path: Path, simulate: StartSimulator) -> None:
        simulator = simulate(1)
        first = write(tmp_path, "a.json", {**simulator.config, **UNLIMITED, "user_agent": "first"})
        second = write(tmp_path, "b.json", {"user_agent": "second"})
        messages = run_tap(tmp_path, None, "--config", first, "--config", second, environ=trust(simulator))
        assert messages.status == 0, messages.stderr
        assert user_agents(simulator) == {"second"}

    def test_a_config_file_may_begin_with_a_byte_order_mark(self, tmp_path: Path, simulate: StartSimulator) -> None:
        """Windows editors write one."""
        simulator = simulate(1)
        path = tmp_path / "bom.json"
        path.write_text(json.dumps({**simulator.config, **UNLIMITED}), encoding="utf-8-sig")
        messages = run_tap(tmp_path, None, "--config", str(path), environ=trust(simulator))
        assert messages.status == 0, messages.stderr

    def test_all_settings_may_come_from_the_environment(self, tmp_path: Path, simulate: StartSimulator) -> None:
        simulator = simulate(1)
        environ = {
            **simulator.environment,
            "TAP_MDE_KBS_USER_AGENT": "from the environment",
            "TAP_MDE_KBS_REQUESTS_PER_MINUTE": "1000",
            "TAP_MDE_KBS_TIME_LIMIT_MINUTES": "1.5",
            "TAP_MDE_KBS_MAX_SHRINK_PERCENT": "2.5",
            "TAP_MDE_KBS_EMIT_ACTIVATE_VERSION_MESSAGES": "false",
            "TAP_MDE_KBS_STREAM_MAPS": json.dumps({"missing_kbs": None}),
        }
        messages = run_tap(tmp_path, None, "--config=ENV", environ=environ)
        assert messages.status == 0, messages.stderr
        assert user_agents(simulator) == {"from the environment"}
        assert messages.of("ACTIVATE_VERSION") == []
        assert messages.of("SCHEMA", "missing_kbs") == []

    def test_without_config_env_the_environment_is_left_alone(self, tmp_path: Path, simulate: StartSimulator) -> None:
        simulator = simulate(1)
        run_tap(tmp_path, simulator, environ={"TAP_MDE_KBS_USER_AGENT": "not asked for"})
        assert user_agents(simulator) == {f"tap-mde-kbs/{version('tap-mde-kbs')}"}

    def test_the_environment_goes_before_config_files(self, tmp_path: Path, simulate: StartSimulator) -> None:
        simulator = simulate(1)
        environ = {"TAP_MDE_KBS_USER_AGENT": "from the environment"}
        messages = run_tap(tmp_path, simulator, "--config=ENV", config={"user_agent": "file"}, environ=environ)
        assert messages.status == 0, messages.stderr
        assert user_agents(simulator) == {"from the environment"}

    def test_a_dotenv_file_in_the_working_folder_is_read(self, tmp_path: Path, simulate: StartSimulator) -> None:
        simulator = simulate(1)
        dotenv(tmp_path, simulator, user_agent="from .env")
        messages = run_tap(tmp_path, None, "--config=ENV", environ=trust(simulator))
        assert messages.status == 0, messages.stderr
        assert user_agents(simulator) == {"from .env"}

    def test_a_dotenv_file_above_it_is_another_programs(self, tmp_path: Path, simulate: StartSimulator) -> None:
        """It could name an authority, to which the secret would go."""
        simulator = simulate(1)
        dotenv(tmp_path, simulator, user_agent="from .env")
        folder = tmp_path / "below"
        folder.mkdir()
        messages = run_tap(folder, None, "--config=ENV", environ=trust(simulator))
        assert messages.status == 1
        assert "Missing settings: tenant_id" in messages.last_line
        assert list(simulator.journal) == []

    def test_the_environment_goes_before_the_dotenv_file(self, tmp_path: Path, simulate: StartSimulator) -> None:
        simulator = simulate(1)
        dotenv(tmp_path, simulator, user_agent="from .env")
        environ = {**trust(simulator), "TAP_MDE_KBS_USER_AGENT": "from the environment"}
        run_tap(tmp_path, None, "--config=ENV", environ=environ)
        assert user_agents(simulator) == {"from the environment"}

    def test_of_a_dotenv_file_only_settings_count(self, tmp_path: Path, simulate: StartSimulator) -> None:
        """Not the proxies and authorities of another program."""
        simulator = simulate(1)
        other = {"HTTPS_PROXY": "http://127.0.0.1:1", "REQUESTS_CA_BUNDLE": "/nowhere", "LOGLEVEL": "DEBUG"}
        dotenv(tmp_path, simulator, user_agent="from .env", **other)
        messages = run_tap(tmp_path, None, "--config=ENV", environ=trust(simulator))
        assert messages.status == 0, messages.stderr
        assert user_agents(simulator) == {"from .env"}

    @pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le"])
    def test_a_dotenv_file_may_be_as_windows_writes_it(
        self, tmp_path: Path, simulate: StartSimulator, encoding: str
    ) -> None:
        simulator = simulate(1)
        dotenv(tmp_path, simulator, user_agent="from .env")
        path = tmp_path / ".env"
        path.write_text(path.read_text().replace("\n", "\r\n"), encoding=encoding)
        messages = run_tap(tmp_path, None, "--config=ENV", environ=trust(simulator))
        assert messages.status == 0, messages.stderr
        assert user_agents(simulator) == {"from .env"}

    @pytest.mark.parametrize(
        "content", ["TAP_MDE_KBS_CLIENT_ID=\xfc".encode("cp1252"), b"TAP_MDE_KBS_CLIENT_ID=a\0b\n"]
    )
    def test_a_dotenv_file_that_is_no_text_is_named(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / ".env").write_bytes(content)
        messages = run_tap(tmp_path, None, "--config=ENV")
        assert messages.status == 1
        assert messages.last_line.startswith("The file .env in the working folder is no text in UTF-8 or UTF-16.")

    def test_a_run_by_a_settings_old_name_is_the_same_run_with_a_warning(
        self, tmp_path: Path, simulate: StartSimulator
    ) -> None:
        """As if `user_agent` had been called `agent` in an earlier release."""
        simulator = simulate(1)
        environ = {"TAP_MDE_KBS_AGENT": "by its old name"}
        renamed = {"tap_mde_kbs.settings:RENAMED": {"agent": "user_agent"}}
        messages = run_tap(tmp_path, simulator, "--config=ENV", environ=environ, attributes=renamed)
        assert messages.status == 0, messages.stderr
        assert user_agents(simulator) == {"by its old name"}
        assert (
            messages.stderr.count("The setting agent (TAP_MDE_KBS_AGENT in the environment) is called user_agent") == 1
        )

    def test_null_is_the_same_as_not_set(self, tmp_path: Path, simulate: StartSimulator) -> None:
        simulator = simulate(1)
        nothing = dict.fromkeys(("machines_filter", "time_limit_minutes", "cloud", "user_agent", "token_scope"))
        path = write(tmp_path, "null.json", {**simulator.config, **UNLIMITED, **nothing})
        messages = run_tap(tmp_path, None, "--config", path, environ=trust(simulator))
        assert messages.status == 0, messages.stderr
        assert user_agents(simulator) == {f"tap-mde-kbs/{version('tap-mde-kbs')}"}

    def test_the_state_of_the_last_run_is_taken(self, tmp_path: Path, simulate: StartSimulator) -> None:
        simulator = simulate(5)
        first = run_tap(tmp_path, simulator)
        second = run_tap(tmp_path, simulator, state=first.state)
        assert second.status == 0, second.stderr
        assert second.sweep["version"] > first.sweep["version"]
        counts = first.sweep["counts"]
        assert second.sweep["answered_last"] == counts["answered"] + counts["skipped"] == 5

    @pytest.mark.parametrize(
        "state",
        [
            {},
            {"bookmarks": {}},
            {"bookmarks": {"machines": {}, "missing_kbs": {}}},
            {"bookmarks": {"machines": {"version": 5}, "missing_kbs": {"sweep": {"version": 5, "after": "a"}}}},
            {"bookmarks": {"missing_kbs": {"sweep": {"version": "odd", "after": 7}, "partitions": []}}, "more": 1},
        ],
        ids=["empty", "no bookmarks", "empty bookmarks", "parts", "odd"],
    )
    def test_a_state_that_says_little_begins_anew(
        self, tmp_path: Path, simulate: StartSimulator, state: dict[str, Any]
    ) -> None:
        messages = run_tap(tmp_path, simulate(3), state=state)
        assert messages.status == 0, messages.stderr
        assert messages.sweep["complete"]
        assert_same_keys(messages)


def dotenv(folder: Path, simulator: Simulator, **more: str) -> None:
    """Write a `.env` with the settings of a simulator, and more: settings, or variables as they are."""
    given = {**simulator.config, **more}
    lines = [f"{name if name.isupper() else f'TAP_MDE_KBS_{name.upper()}'}='{value}'" for name, value in given.items()]
    (folder / ".env").write_text("\n".join(lines))


def assert_same_keys(messages: Messages) -> None:
    """Every STATE has every key at every level: a merge never finds one left out."""
    sweep = [
        "version",
        "scope",
        "began_at",
        "progress_at",
        "after",
        "deferred",
        "failed",
        "failed_before",
        "asked_all",
        "complete",
        "counts",
        "answered_last",
        "answered_short",
        "pairs_last",
        "pairs_short",
        "source_time",
    ]
    states = [message["value"] for message in messages.of("STATE")]
    assert states
    for state in states:
        assert set(state) == {"bookmarks"}
        assert set(state["bookmarks"]) == BOOKMARKS
        assert set(state["bookmarks"]["machines"]) == {"version", "listed", "listed_short", "listing", "listed_at"}
        assert set(state["bookmarks"]["missing_kbs"]) == {"sweep"}
        assert sorted(state["bookmarks"]["missing_kbs"]["sweep"]) == sorted(sweep)
        assert set(state["bookmarks"]["missing_kbs_checks"]) == {"version", "after", "asked_all", "counts"}
