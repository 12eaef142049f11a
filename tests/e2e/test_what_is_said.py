"""What is said and where, whatever a user's logging configuration has, and whatever became of stdout and stderr."""

from __future__ import annotations

import json
import logging
import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from mde_simulator import Fault
from tap_mde_kbs.messages import Redaction
from tests.support.singer import TAP, clean_environ, run_command, run_tap, trust

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mde_simulator import Simulator
    from tests.conftest import StartSimulator

SECRET = 's3cr3t~/+ü"value'  # noqa: S105 - nobody's
TOKEN = "eyJhbGciOiJSUzI1NiJ9.eyJyb2xlcyI6W119.c2lnbmF0dXJl"  # noqa: S105 - nobody's


@pytest.fixture
def redacted() -> Iterator[None]:
    """Records blanked of that secret, until the end of the test."""
    before = logging.getLogRecordFactory()
    Redaction.of([SECRET, "abc"])
    yield
    logging.setLogRecordFactory(before)


def configuration(folder: Path, **parts: Any) -> dict[str, str]:
    """The variable for a logging configuration."""
    path = folder / "logging.yaml"
    path.write_text(json.dumps({"version": 1, **parts}))  # JSON is YAML
    return {"SINGER_SDK_LOG_CONFIG": str(path)}


def handled(folder: Path, logger: str) -> dict[str, str]:
    """One with a handler of its own on a logger, at DEBUG."""
    return configuration(
        folder,
        disable_existing_loggers=False,
        formatters={"all": {"format": "%(message)s %(args)s %(exc_text)s"}},
        handlers={"own": {"class": "logging.FileHandler", "filename": str(folder / "own.log"), "formatter": "all"}},
        loggers={logger: {"level": "DEBUG", "handlers": ["own"], "propagate": False}},
    )


def test_a_handler_of_ones_own_sees_no_signature_and_no_token(simulate: StartSimulator, tmp_path: Path) -> None:
    """On urllib3 at DEBUG, which logs every path with its query."""
    simulator = simulate(8)
    config = {"missing_kbs_source": "export"}
    messages = run_tap(tmp_path, simulator, config=config, environ=handled(tmp_path, "urllib3"))
    assert messages.status == 0, messages.stderr
    written = (tmp_path / "own.log").read_text()
    assert "SoftwareVulnerabilitiesExport" in written
    assert "sig=<signature>" in written
    assert written.count("sig=") == written.count("sig=<signature>")
    assert "eyJ" not in written


@pytest.mark.parametrize("logger", ["msal", "tap-mde-kbs", "singer_sdk"])
def test_nobody_logs_a_secret_to_it(simulate: StartSimulator, tmp_path: Path, logger: str) -> None:
    simulator = simulate(3, faults=[Fault("revoked", after=1)])
    messages = run_tap(tmp_path, simulator, environ=handled(tmp_path, logger))
    assert messages.status == 0, messages.stderr
    written = (tmp_path / "own.log").read_text()
    assert simulator.config["client_secret"] not in written
    assert "eyJ" not in written


@pytest.mark.parametrize(
    ("message", "args", "shown"),
    [
        (f"is {SECRET}", (), "is <secret>"),
        ("is %s and %r", (SECRET, SECRET), "is <secret> and '<secret>'"),
        ("is %(it)s", ({"it": SECRET},), "is <secret>"),
        ("in %s", ({"a": [SECRET]},), "in {'a': ['<secret>']}"),
        ("post %s", ("client_secret=s3cr3t~%2F%2B%C3%BC%22value",), "post client_secret=<secret>"),
        ("json %s", (json.dumps({"a": SECRET}),), 'json {"a": "<secret>"}'),
        ("does not fit %s %s", (SECRET,), "does not fit %s %s ('<secret>',)"),
        ("GET %s", ("https://h/f?sv=1&sig=a%2Fb&x=1",), "GET https://h/f?sv=1&sig=<signature>&x=1"),
        ("Bearer %s", (TOKEN,), "Bearer <token>"),
        ("via %s", ("http://user:pa%2Fss@proxy:1",), "via http://<credentials>@proxy:1"),
        ("abc %s", ("plain",), "abc plain"),
        (ValueError(SECRET), (), "<secret>"),
    ],
)
@pytest.mark.usefixtures("redacted")
def test_a_record_holds_no_secret(message: object, args: tuple[object, ...], shown: str) -> None:
    """However it is formatted later, by whomever."""
    record = logging.getLogger("any").makeRecord("any", logging.INFO, "f", 1, message, args, None)
    assert record.getMessage() == shown
    assert SECRET not in repr(vars(record))


@pytest.mark.usefixtures("redacted")
def test_nor_does_a_traceback_in_a_record() -> None:
    info = (ValueError, ValueError(SECRET), None)
    record = logging.getLogger("any").makeRecord("any", logging.INFO, "f", 1, "odd", (), info, sinfo=f"Stack: {SECRET}")
    assert "ValueError: <secret>" in logging.Formatter().format(record)
    assert SECRET not in logging.Formatter().format(record)
    assert record.exc_info is None


@pytest.mark.parametrize(
    "parts",
    [
        {"disable_existing_loggers": True, "root": {"level": "CRITICAL", "handlers": []}},
        {"disable_existing_loggers": False, "loggers": {"tap-mde-kbs": {"level": 60, "propagate": False}}},
        {"disable_existing_loggers": False, "loggers": {"tap-mde-kbs": {"handlers": [], "propagate": False}}},
        {
            "handlers": {"null": {"class": "logging.NullHandler"}},
            "root": {"level": "DEBUG", "handlers": ["null"]},
        },
    ],
    ids=["all disabled", "level", "no handler", "null"],
)
def test_a_failure_is_never_silent(tmp_path: Path, parts: dict[str, Any]) -> None:
    done = run_command(tmp_path, "--config=ENV", environ=configuration(tmp_path, **parts))
    assert done.status == 1
    assert "Missing settings: tenant_id" in done.stderr.splitlines()[-1]
    assert done.stderr.count("Missing settings") == 1


@pytest.mark.parametrize("text", ["{", "version: 2", "version: 1\nroot: {handlers: [nobody]}", "[]", ""])
def test_a_logging_configuration_that_is_none_is_told(tmp_path: Path, text: str) -> None:
    path = tmp_path / "logging.yaml"
    path.write_text(text)
    done = run_command(tmp_path, "--config=ENV", environ={"SINGER_SDK_LOG_CONFIG": str(path)})
    assert done.status == 1
    assert done.stderr.strip()
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["LOGLEVEL", "TAP_MDE_KBS_LOGLEVEL"])
def test_a_log_level_that_there_is_none_of_is_named(tmp_path: Path, name: str) -> None:
    done = run_command(tmp_path, "--config=ENV", environ={name: "chatty"})
    assert done.status == 1
    assert f"The environment variable {name} is no log level." in done.stderr.splitlines()[-1]


def test_what_the_sdk_itself_refuses_is_told_as_well(tmp_path: Path) -> None:
    """Flattening without a depth; it logs that, and ends the command by itself."""
    config = {"tenant_id": "a", "client_id": "b", "client_secret": "c" * 9, "flattening_enabled": True}
    parts: dict[str, Any] = {"disable_existing_loggers": True, "root": {"level": "CRITICAL", "handlers": []}}
    messages = run_tap(tmp_path, config=config, environ=configuration(tmp_path, **parts))
    assert messages.status == 1
    assert "flattening" in messages.last_line


def shell(folder: Path, command: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """A command of a shell, in which `$TAP` is the tap."""
    return subprocess.run(
        ["/bin/sh", "-c", command],
        cwd=folder,
        env={**clean_environ(folder), "TAP": str(TAP), **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def write_config(folder: Path, simulator: Simulator) -> None:
    """Write `config.json`, with the simulator's settings."""
    (folder / "config.json").write_text(json.dumps(simulator.config))


@pytest.mark.parametrize("option", ["--about", "--config=config.json"])
def test_stdout_that_is_closed_is_a_line(simulate: StartSimulator, tmp_path: Path, option: str) -> None:
    """And nothing is written into whatever is opened instead of it."""
    simulator = simulate(2)
    write_config(tmp_path, simulator)
    done = shell(tmp_path, f'"$TAP" {option} >&-', **trust(simulator))
    assert done.returncode == 1
    assert done.stderr == (
        "stdout is closed: there is nobody to write to. Start the tap with a pipe to a target, or with a file.\n"
    )
    assert list(simulator.journal) == []


def test_stderr_that_is_closed_changes_nothing_else(simulate: StartSimulator, tmp_path: Path) -> None:
    simulator = simulate(4)
    write_config(tmp_path, simulator)
    done = shell(tmp_path, '"$TAP" --config=config.json 2>&- <&-', **trust(simulator))
    assert done.returncode == 0
    assert {json.loads(line)["type"] for line in done.stdout.splitlines()} >= {"SCHEMA", "RECORD", "STATE"}
    assert shell(tmp_path, '"$TAP" --config=nowhere.json 2>&-').returncode == 1


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="only Linux has a file that is always full")  # noqa: PTH110
@pytest.mark.parametrize("option", ["--about", "--config=config.json"])
def test_stdout_that_is_full_is_a_line(simulate: StartSimulator, tmp_path: Path, option: str) -> None:
    simulator = simulate(4)
    write_config(tmp_path, simulator)
    done = shell(tmp_path, f'"$TAP" {option} > /dev/full', **trust(simulator))
    assert done.returncode == 1
    assert "No space left on device" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert shell(tmp_path, '"$TAP" --config=config.json > out 2> /dev/full', **trust(simulator)).returncode == 0


@pytest.mark.parametrize(
    "environ",
    [
        pytest.param({"PYTHONIOENCODING": "ascii"}, marks=pytest.mark.long),
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        pytest.param({"LC_ALL": "xx_YY.odd", "TZ": "Mars/Olympus"}, marks=pytest.mark.long),
        pytest.param({"PYTHONOPTIMIZE": "2", "PYTHONWARNINGS": "error"}, marks=pytest.mark.long),
        pytest.param({"HOME": "/nowhere", "TMPDIR": "/nowhere", "COLUMNS": "1"}, marks=pytest.mark.long),
    ],
    ids=" ".join,
)
def test_under_strange_environments_it_is_the_same_run(
    simulate: StartSimulator, tmp_path: Path, environ: dict[str, str]
) -> None:
    """Names with umlauts included: messages are UTF-8, whatever a terminal can show."""
    simulator = simulate(3)
    simulator.fleet.change(simulator.fleet.listed()[0], computerDnsName="Grüße-😀")
    write_config(tmp_path, simulator)
    done = shell(tmp_path, '"$TAP" --config=config.json > out; echo $? > status', **trust(simulator), **environ)
    assert (tmp_path / "status").read_text().strip() == "0", done.stderr
    assert "Traceback" not in done.stderr
    assert "Grüße-😀" in (tmp_path / "out").read_text(encoding="utf-8")
    for option in ("--about", "--discover", "--test --config=config.json"):
        assert shell(tmp_path, f'"$TAP" {option}', **trust(simulator), **environ).returncode == 0


def test_a_working_folder_that_is_gone_is_no_matter(simulate: StartSimulator, tmp_path: Path) -> None:
    simulator = simulate(2)
    write_config(tmp_path, simulator)
    done = shell(
        tmp_path, 'mkdir gone; cd gone; rmdir ../gone; "$TAP" --config="$PLACE/config.json" --config=ENV',
        PLACE=str(tmp_path), **trust(simulator),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
