"""`mde-simulator`, as a process."""

from __future__ import annotations

import re
import shlex
import signal
import socket
import subprocess
import sys
from collections import Counter
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import requests

from mde_simulator import Fleet
from mde_simulator.entra.identity import BEARER_FORMS
from mde_simulator.faults.fault import KINDS
from mde_simulator.http.certificates import make_client_certificate

if TYPE_CHECKING:
    from collections.abc import Iterator

COMMAND = [sys.executable, "-m", "mde_simulator"]


class Running:
    """The command, up and ready."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []
        for line in process.stdout or ():
            self.lines.append(line.rstrip("\n"))
            if line.startswith("# ready"):
                break
        self.environment = dict(shlex.split(line)[1].split("=", 1) for line in self.lines if line.startswith("export "))

    def session(self, *, signed_in: bool = True) -> requests.Session:
        """A client that knows nothing but the environment."""
        session = requests.Session()
        session.trust_env = False
        session.verify = self.environment["REQUESTS_CA_BUNDLE"]
        if signed_in:
            tenant = self.environment["TAP_MDE_KBS_TENANT_ID"]
            url = f"{self.environment['TAP_MDE_KBS_AUTHORITY_URL']}/{tenant}/oauth2/v2.0/token"
            form = {
                "grant_type": "client_credentials",
                "client_id": self.environment["TAP_MDE_KBS_CLIENT_ID"],
                "client_secret": self.environment["TAP_MDE_KBS_CLIENT_SECRET"],
                "scope": "https://api.securitycenter.microsoft.com/.default",
            }
            token = session.post(url, data=form, timeout=10).json()["access_token"]
            session.headers["Authorization"] = f"Bearer {token}"
        return session

    def get(self, path: str) -> requests.Response:
        """One call."""
        with self.session() as session:
            return session.get(f"{self.environment['TAP_MDE_KBS_API_URL']}{path}", timeout=10)


@contextmanager
def running(*options: str) -> Iterator[Running]:
    """Run the command with these options."""
    process = subprocess.Popen([*COMMAND, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with process:
        try:
            yield Running(process)
        finally:
            process.kill()


def test_it_prints_exports_and_ready_and_serves_what_it_prints() -> None:
    with running("--machines", "12", "--seed", "3", "--port", "0") as command:
        *exports, ready = command.lines
        assert all(re.fullmatch(r"export [A-Z_]+='[^']+'", line) for line in exports)
        assert set(command.environment) == {
            *("TAP_MDE_KBS_TENANT_ID", "TAP_MDE_KBS_CLIENT_ID", "TAP_MDE_KBS_CLIENT_SECRET"),
            *("TAP_MDE_KBS_API_URL", "TAP_MDE_KBS_AUTHORITY_URL", "REQUESTS_CA_BUNDLE"),
        }
        assert ready.startswith("# ready")
        ids = [machine["id"] for machine in command.get("/api/machines").json()["value"]]
        assert ids == Fleet(12, seed=3).listing()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_status_0_and_a_word_about_what_happened(number: int) -> None:
    with running("--machines", "3") as command:
        command.get("/api/machines")
        command.process.send_signal(number)
        out, err = command.process.communicate(timeout=10)
        assert (command.process.returncode, out) == (0, "")
        assert err == "1 calls, 0 violations\n"


def test_the_documented_quota_is_the_default_and_can_be_changed_or_switched_off() -> None:
    for options, admitted in (((), 100), (("--requests-per-minute", "5"), 5), (("--no-quota",), 110)):
        with running("--machines", "1", *options) as command, command.session() as session:
            url = f"{command.environment['TAP_MDE_KBS_API_URL']}/api/machines"
            statuses = [session.get(url, timeout=10).status_code for _ in range(110)]
            assert statuses == [200] * admitted + [429] * (110 - admitted)


def test_night_faults_roles_and_page_size_can_be_chosen() -> None:
    options = ["--machines", "50", "--night", "40", "--page-size", "7", "--role", "Machine.Read.All"]
    with running(*options, "--fault", "500:times=1", "--latency", "0.01") as command:
        assert command.get("/api/machines").status_code == 500
        body = command.get("/api/machines").json()
        assert [machine["id"] for machine in body["value"]] == Fleet(50, night=40).listing()[:7]
        assert command.get("/api/Software").status_code == 403


def test_the_fleet_can_be_that_of_today() -> None:
    """So that what is not seen for a week is not everything."""
    with running("--machines", "30", "--silent", "0", "--day", "today") as command:
        newest = max(each["lastSeen"] or "" for each in command.get("/api/machines").json()["value"])
        assert abs((datetime.fromisoformat(newest[:10]).date() - datetime.now(timezone.utc).date()).days) <= 1


def test_how_many_devices_are_excluded_or_silent_can_be_chosen() -> None:
    with running("--machines", "30", "--excluded", "1", "--silent", "0", "--discovered", "0") as command:
        machines = command.get("/api/machines").json()["value"]
        assert [machine["isExcluded"] for machine in machines].count(False) == 1
        assert command.get(f"/api/machines/{machines[-1]['id']}/getmissingkbs").json()["value"] == []


def test_a_fleet_that_installs_nothing_lacks_some_twenty_five_updates_after_five_months() -> None:
    options = ["--machines", "40", "--excluded", "0", "--silent", "0", "--discovered", "0", "--night", "150"]
    lacking = []
    for behind in ("0", "1"):
        with running(*options, "--behind", behind) as command, command.session() as session:
            url = f"{command.environment['TAP_MDE_KBS_API_URL']}/api/machines"
            windows = [each for each in session.get(url).json()["value"] if "Windows" in each["osPlatform"]]
            asked = [session.get(f"{url}/{each['id']}/getmissingkbs").json()["value"] for each in windows]
            lacking.append(sum(map(len, asked)) / len(asked))
    assert lacking[0] < 10
    assert 20 < lacking[1] < 30


def test_the_export_has_the_size_asked_for_and_a_quota_of_its_own() -> None:
    options = ["--export-records", "50", "--export-files", "2", "--export-width", "0", "--export-now"]
    path = "/api/machines/SoftwareVulnerabilities"
    with running("--machines", "5", *options) as command, command.session() as session:
        url = f"{command.environment['TAP_MDE_KBS_API_URL']}{path}"
        answers = [session.get(f"{url}Export", timeout=10) for _ in range(6)]
        assert [answer.status_code for answer in answers] == [200] * 5 + [429]
        assert len(answers[0].json()["exportFiles"]) == 2
        rows = session.get(f"{url}ByMachine", timeout=10).json()["value"]
        assert max(Counter(row.get("deviceId") for row in rows).values()) >= 50
        assert all("deviceName" not in row for row in rows)
        statuses = [session.get(f"{url}ByMachine?pageSize=1", timeout=10).status_code for _ in range(30)]
        assert statuses == [200] * 29 + [429]


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--machines", "many"], "--machines"),
        (["--machines", "1000001"], "1000000"),
        (["--day", "yesterday"], "--day"),
        (["--port", "-1"], "--port"),
        (["--latency", "slow"], "--latency"),
        (["--fault", "nonsense"], "nonsense"),
        (["--fault", "500:times=x"], "times"),
        (["--nonsense"], "--nonsense"),
        (["--seed", "x"], "--seed"),
        (["--page-size", "0"], "--page-size"),
        (["--export-files", "0"], "--export-files"),
        (["surplus"], "surplus"),
    ],
)
def test_a_wrong_option_is_one_line_and_status_2(options: list[str], word: str) -> None:
    done = subprocess.run([*COMMAND, *options], capture_output=True, text=True, check=False, timeout=20)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"mde-simulator: .*\n", done.stderr)
    assert word in done.stderr


def test_a_port_in_use_is_one_line_and_status_1() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = subprocess.run([*COMMAND, "--port", port], capture_output=True, text=True, check=False, timeout=20)
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(rf"mde-simulator: cannot listen on port {port}: .*\n", done.stderr)


def test_help_names_every_fault_and_bearer_form() -> None:
    done = subprocess.run([*COMMAND, "--help"], capture_output=True, text=True, check=True, timeout=20)
    assert all(kind in done.stdout for kind in [*KINDS, *BEARER_FORMS])


@pytest.mark.parametrize(
    ("options", "own"),
    [
        (["--auth-method", "certificate"], {"CLIENT_ID", "CERTIFICATE_FILE"}),
        (["--auth-method", "federated_token"], {"CLIENT_ID", "FEDERATED_TOKEN_FILE"}),
        (["--auth-method", "managed_identity"], {"AZURE_POD_IDENTITY_AUTHORITY_HOST"}),
        (["--auth-method", "managed_identity", "--host", "app_service"], {"IDENTITY_ENDPOINT", "IDENTITY_HEADER"}),
    ],
)
def test_every_credential_can_be_exported(options: list[str], own: set[str]) -> None:
    with running("--machines", "1", "--bearer-form", "opaque", *options) as command:
        names = {name.removeprefix("TAP_MDE_KBS_") for name in command.environment}
        assert names == {"AUTH_METHOD", "TENANT_ID", "API_URL", "AUTHORITY_URL", "REQUESTS_CA_BUNDLE", *own}
        assert command.environment["TAP_MDE_KBS_AUTH_METHOD"] == options[1]
        for name in ("CERTIFICATE_FILE", "FEDERATED_TOKEN_FILE"):
            assert name not in own or Path(command.environment[f"TAP_MDE_KBS_{name}"]).is_file()
        if "IDENTITY_ENDPOINT" in own:
            query = {"api-version": "2019-08-01", "resource": "https://api.securitycenter.microsoft.com"}
            headers = {"X-IDENTITY-HEADER": command.environment["IDENTITY_HEADER"]}
            answer = requests.get(command.environment["IDENTITY_ENDPOINT"], query, headers=headers, timeout=10)
            assert "." not in answer.json()["access_token"]


def test_a_certificate_of_ones_own_is_exported_and_a_file_without_one_is_a_line(tmp_path: Path) -> None:
    path = make_client_certificate(tmp_path)
    with running("--machines", "1", "--certificate", str(path)) as command:
        assert command.environment["TAP_MDE_KBS_CERTIFICATE_FILE"] == str(path)
        assert command.environment["TAP_MDE_KBS_AUTH_METHOD"] == "certificate"
        assert "TAP_MDE_KBS_CLIENT_SECRET" not in command.environment
    for wrong in (tmp_path, tmp_path / "nothing", Path(__file__)):
        arguments = [*COMMAND, "--machines", "1", "--certificate", str(wrong)]
        done = subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=20)
        assert (done.returncode, done.stdout) == (1, "")
        assert re.fullmatch(r"mde-simulator: cannot use the certificate .*\n", done.stderr)
