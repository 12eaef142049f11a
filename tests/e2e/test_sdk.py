"""What the tap relies on in singer-sdk: its standard tests, and a test for every underscored name.

A new version of the SDK fails here first, and by name.
"""

from __future__ import annotations

import json
import os
import signal
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from singer_sdk import Stream, Tap
from singer_sdk import typing as th
from singer_sdk.configuration._dict_config import parse_environment_config
from singer_sdk.plugin_base import _ConfigInput
from singer_sdk.testing import SuiteConfig, get_tap_test_class
from typing_extensions import override

from mde_simulator import Fleet, Simulator
from tap_mde_kbs.errors import Interrupted
from tap_mde_kbs.tap import TapMdeKbs
from tests.support.singer import UNLIMITED

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from singer_sdk.helpers.types import Context

# The class is made when this module is read, the simulator when its first test begins: its URL is filled in then.
CONFIG: dict[str, Any] = {"tenant_id": "filled-in", "client_id": "later", "client_secret": "later", **UNLIMITED}
StandardTests: Any = get_tap_test_class(
    TapMdeKbs,
    config=CONFIG,
    parse_env_config=False,
    # The default limit would stop before the tail of `machines`, where the other streams begin.
    suite_config=SuiteConfig(max_records_limit=100_000),
)


class TestTheStandardTests(StandardTests):  # type: ignore[misc] # made by a factory, so Any
    """Those of the SDK, on a simulated tenant."""

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def simulator(cls) -> Iterator[Simulator]:
        with Simulator(Fleet(machines=50, seed=1)) as simulator, pytest.MonkeyPatch.context() as patch:
            patch.setenv("REQUESTS_CA_BUNDLE", simulator.environment["REQUESTS_CA_BUNDLE"])
            CONFIG.update(simulator.config)
            yield simulator
            assert simulator.violations == []

    @pytest.fixture(autouse=True)
    def _trust(self, _clean_environ: None, simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", simulator.environment["REQUESTS_CA_BUNDLE"])


class Parent(Stream):
    """A stream of two records that starts its child by hand, in its tail."""

    name = "parent"
    schema: ClassVar[dict[str, Any]] = th.PropertiesList(th.Property("id", th.IntegerType)).to_dict()

    @override
    def get_records(self, context: Context | None) -> Iterator[dict[str, Any]]:
        self._stream_version = 7
        yield {"id": 1}
        yield {"id": 2}
        self._sync_children({})

    @override
    def generate_child_contexts(self, record: Any, context: Context | None) -> Iterable[Context | None]:
        return ()


class Child(Stream):
    """A child without partitions in STATE, and without records of its own."""

    name = "child"
    parent_stream_type = Parent
    state_partitioning_keys = ()
    schema: ClassVar[dict[str, Any]] = th.PropertiesList(
        th.Property("id", th.IntegerType), th.Property("secretive", th.StringType)
    ).to_dict()

    @override
    def get_records(self, context: Context | None) -> Iterable[dict[str, Any]]:
        return ()


class SmallTap(Tap):
    """The SDK alone, with nothing of this tap's own."""

    name = "small-tap"

    @override
    def discover_streams(self) -> list[Stream]:
        return [Parent(self), Child(self)]


def messages_of(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def said(messages: Iterable[Mapping[str, Any]]) -> list[tuple[str, str | None]]:
    """What kinds of messages, of which streams, STATE aside."""
    return [(message["type"], message.get("stream")) for message in messages if message["type"] != "STATE"]


class TestTheUnderscoredNames:
    def test_sync_children_writes_the_childs_schema_once_and_after_the_parents_last_record(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        SmallTap().sync_all()
        assert said(messages_of(capsys)) == [
            ("SCHEMA", "parent"),
            ("RECORD", "parent"),
            ("RECORD", "parent"),
            ("SCHEMA", "child"),
        ]

    def test_sync_children_leaves_a_child_alone_that_is_not_selected(self, capsys: pytest.CaptureFixture[str]) -> None:
        tap = SmallTap()
        tap.streams["child"].selected = False
        tap.sync_all()
        assert ("SCHEMA", "child") not in said(messages_of(capsys))

    def test_a_child_started_with_an_empty_context_leaves_no_partitions_in_state(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        SmallTap().sync_all()
        states = [message["value"] for message in messages_of(capsys) if message["type"] == "STATE"]
        assert "partitions" not in json.dumps(states)

    def test_stream_version_is_put_on_every_record_and_activates_nothing_by_itself(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        SmallTap().sync_all()
        messages = messages_of(capsys)
        assert [message["version"] for message in messages if message["type"] == "RECORD"] == [7, 7]
        assert "ACTIVATE_VERSION" not in {message["type"] for message in messages}

    def test_write_record_message_writes_one_record_through_selection_types_and_stream_maps(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        tap = SmallTap(config={"stream_maps": {"child": {"twice": "id * 2", "__alias__": "other"}}})
        child = tap.streams["child"]
        child.metadata["properties", "secretive"].selected = False
        child._write_record_message({"id": 3, "secretive": "x"})  # noqa: SLF001 - that it does this is the question
        [message] = messages_of(capsys)
        assert (message["type"], message["stream"]) == ("RECORD", "other")
        assert message["record"] == {"id": 3, "twice": 6}

    def test_write_record_message_writes_at_once(self, capsys: pytest.CaptureFixture[str]) -> None:
        """A check must be out before STATE says that its machine was asked."""
        child = SmallTap().streams["child"]
        child._write_record_message({"id": 1})  # noqa: SLF001
        assert len(messages_of(capsys)) == 1

    def test_handle_termination_is_what_sigterm_calls(self) -> None:
        """The tap's own ends the run between two lines; the SDK's would write STATE into one, and exit with 0."""
        before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        held = signal.pthread_sigmask(signal.SIG_BLOCK, set())
        try:
            for number, other in (before, reversed(before)):
                tap = TapMdeKbs(config=CONFIG)
                assert signal.getsignal(number) == tap._handle_termination  # noqa: SLF001
                with pytest.raises(Interrupted) as caught:
                    signal.raise_signal(number)
                assert caught.value.exit_status == 128 + number
                # A second one is held back, and is not raised where the first is being told of.
                signal.raise_signal(other)
                assert signal.sigpending() == {other}
                signal.pthread_sigmask(signal.SIG_SETMASK, held)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, held)
            for number, handler in before.items():
                signal.signal(number, handler)

    def test_validate_config_fills_in_the_defaults(self) -> None:
        """And says nothing where settings need not be valid."""
        tap = TapMdeKbs(config=dict(CONFIG))
        assert tap._validate_config() == []  # noqa: SLF001
        assert tap.config["max_shrink_percent"] == 5

    def test_validate_config_keeps_quiet_where_settings_need_not_be_valid(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        TapMdeKbs(config={}, validate_config=False)
        assert [record for record in caplog.records if record.levelname == "WARNING"] == []

    def test_config_input_merges_files_and_knows_the_environment(self, tmp_path: Path) -> None:
        paths = []
        for number, content in enumerate(({"a": 1, "b": 1}, {"b": 2})):
            paths.append(tmp_path / f"{number}.json")
            paths[-1].write_text(json.dumps(content))
        given = _ConfigInput.from_cli_args(paths[0], "ENV", paths[1])
        assert given.config == {"a": 1, "b": 2}
        assert given.parse_env

    def test_parse_environment_config_reads_each_type_and_no_file(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        schema = th.PropertiesList(
            th.Property("text", th.StringType),
            th.Property("number", th.IntegerType),
            th.Property("switch", th.BooleanType),
            th.Property("maps", th.ObjectType()),
            th.Property("absent", th.StringType),
        ).to_dict()
        monkeypatch.chdir(tmp_path)
        (tmp_path / ".env").write_text("X_ABSENT=from the file")
        for name, value in {"TEXT": "a b", "NUMBER": "7", "SWITCH": "true", "MAPS": '{"a": null}'}.items():
            monkeypatch.setenv(f"X_{name}", value)
        assert parse_environment_config(schema, "X_", dotenv_path=os.devnull) == {
            "text": "a b",
            "number": 7,
            "switch": True,
            "maps": {"a": None},
        }
