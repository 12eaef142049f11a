"""Whatever is wrong: a line or two say what, where and what to do; the reason is the last line, and the status 1.

No traceback, no secret, and nothing but Singer on stdout (`Messages` reads every line of it).
"""

from __future__ import annotations

import json
import re
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mde_simulator import Fault
from tap_mde_kbs import errors
from tap_mde_kbs.cli import JsonFile
from tap_mde_kbs.tap import TapMdeKbs
from tests.support.catalogs import discovered
from tests.support.singer import HURRIED, UNLIMITED, Messages, run_tap

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mde_simulator import Simulator
    from tests.conftest import StartSimulator

SECRET = "Zk28Q~pasted-by-mistake.0123456789abcdef"  # noqa: S105 - nobody's
CONFIG: Mapping[str, Any] = {"tenant_id": "contoso.example", "client_id": "11111111-2222", "client_secret": SECRET}
LINE = re.compile(r"^\d{4}-\d\d-\d\d [\d:,]+ \| (\w+) +\| \S+ +\| (.*)$")


def assert_refused(messages: Messages, *parts: str, lines: int = 1, secrets: tuple[str, ...] = ()) -> None:
    """The run ended as a refused one should, and told these parts of a reason in its last line.

    Args:
        messages: what it wrote.
        parts: what the last line must say.
        lines: how many lines explain.
        secrets: what must be nowhere, the usual secrets aside.
    """
    told = messages.stderr
    assert messages.status == 1, told
    for part in parts:
        assert part in messages.last_line, told
    found = [LINE.match(line) for line in told.strip().splitlines()]
    assert all(found), told  # every line is a log line: no traceback, nothing of the interpreter's own
    levels = [match.group(1) for match in found if match]
    assert levels[-1] == "CRITICAL"
    assert levels.count("CRITICAL") + levels.count("ERROR") == lines, told
    assert_no_secret(messages, *secrets)


def assert_no_secret(messages: Messages, *secrets: str) -> None:
    for secret in (SECRET, *secrets):
        assert secret not in messages.stdout
        assert secret not in messages.stderr


def refused(folder: Path, config: Mapping[str, Any], **options: Any) -> Messages:
    """A run with these settings over usable ones, that never gets as far as a call."""
    return run_tap(folder, None, config={**CONFIG, **config}, **options)


def told_of(config: Mapping[str, Any]) -> str:
    """What is told of these settings over usable ones: what `refused` shows, without the half second of a process."""
    given = {name: value for name, value in {**CONFIG, **config}.items() if value is not None}
    with pytest.raises(errors.SettingsError) as caught:
        TapMdeKbs(config=given)
    assert SECRET not in str(caught.value)
    return str(caught.value)


class TestSettings:
    def test_an_unknown_one_is_named_with_its_nearest(self, tmp_path: Path) -> None:
        assert_refused(refused(tmp_path, {"tenantid": "x"}), "no setting 'tenantid'", "Did you mean tenant_id?")

    def test_an_unknown_one_like_no_other_points_to_the_list(self) -> None:
        told = told_of({"frobnicate": 1})
        assert told == "There is no setting 'frobnicate'. `tap-mde-kbs --about` lists them."

    @pytest.mark.parametrize("name", ["tenant_id", "client_id", "client_secret"])
    @pytest.mark.parametrize("value", [None, " "])
    def test_a_missing_one_is_named_with_its_variable(self, name: str, value: str | None) -> None:
        told = told_of({name: value})
        assert told.startswith(f"Missing setting: {name}.")
        assert f"TAP_MDE_KBS_{name.upper()}" in told
        assert "\n" not in told

    def test_all_that_are_missing_are_named(self, tmp_path: Path) -> None:
        """The first thing that people run is the bare command."""
        messages = run_tap(tmp_path)
        assert_refused(messages, "Missing settings: tenant_id, client_id, client_secret.", "--config=ENV")

    @pytest.mark.parametrize(
        ("name", "value", "rule"),
        [
            ("requests_per_minute", "many", "integer"),
            ("requests_per_minute", 0, "minimum 1"),
            ("max_parallel_requests", 65, "maximum 64"),
            ("request_timeout_seconds", 1.5, "integer"),
            ("time_limit_minutes", 0, "Minimum 0"),
            ("max_shrink_percent", 101, "maximum 100"),
            ("include_not_onboarded", "perhaps", "boolean"),
            ("client_id", 7, "string"),
            ("stream_maps", [], "object"),
            ("cloud", "mars", "one of commercial, gcc, gcc_high, dod"),
            ("token_scope", "https://api.securitycenter.microsoft.com", "must end in /.default"),
            ("tenant_id", "../other", "GUID, or one of its domains"),
        ],
    )
    def test_one_of_a_wrong_kind_is_named_with_the_rule(self, name: str, value: object, rule: str) -> None:
        told = told_of({name: value})
        assert told.startswith(f"The setting {name} ")
        assert rule in told
        assert "\n" not in told

    @pytest.mark.parametrize("name", ["api_url", "authority_url"])
    @pytest.mark.parametrize(
        "url",
        [
            "http://api.example",
            f"https://user:{SECRET}@api.example",
            "https://api.example/?tenant=1",
            "https://api.example/#top",
            "https://",
            "api.example",
            "https://[::1",
            "https://api.example:port",
        ],
    )
    def test_a_url_that_is_not_plain_https_is_refused(self, name: str, url: str) -> None:
        assert told_of({name: url}).startswith(f"The setting {name} must be an https:// URL of a host")

    def test_a_url_without_tls_ends_the_run_before_any_call(self, tmp_path: Path, simulate: StartSimulator) -> None:
        simulator = simulate(1)
        messages = run_tap(tmp_path, simulator, config={"api_url": simulator.url.replace("https", "http")})
        assert_refused(messages, "setting api_url", "https")
        assert list(simulator.journal) == []

    @pytest.mark.parametrize("level", ["INFO", "DEBUG"])
    def test_a_secret_under_wrong_names_is_not_shown(self, tmp_path: Path, level: str) -> None:
        names = ["client_secretx", "cloud", "token_scope", "api_url", "tenant_id", "user_agents", "stream_maps"]
        messages = refused(tmp_path, dict.fromkeys(names, SECRET), environ={"LOGLEVEL": level})
        assert messages.status == 1
        assert [name for name in names if f"setting {name} " in messages.stderr.replace("'", "").replace(".", " ")] == (
            names
        )
        assert_no_secret(messages)

    def test_a_number_of_the_environment_that_is_none_is_named(self, tmp_path: Path) -> None:
        environ = {"TAP_MDE_KBS_REQUESTS_PER_MINUTE": SECRET}
        messages = run_tap(tmp_path, None, "--config=ENV", config=CONFIG, environ=environ)
        assert_refused(messages, "TAP_MDE_KBS_REQUESTS_PER_MINUTE", "integer")

    def test_an_object_of_the_environment_that_is_not_json_is_named(self, tmp_path: Path) -> None:
        environ = {"TAP_MDE_KBS_STREAM_MAPS": "{machines: null}"}
        messages = run_tap(tmp_path, None, "--config=ENV", config=CONFIG, environ=environ)
        assert_refused(messages, "TAP_MDE_KBS_STREAM_MAPS", "JSON")

    @pytest.mark.parametrize(
        "stream_maps",
        [
            {"machines": {"__filter__": "os_platform =="}},
            {"machines": {"__filter__": "no_such_column == 1"}},
            {"machines": {"id": None}},
            {"machines": {"__key_properties__": ["no_such_column"]}},
            {"machines": 7},
        ],
        ids=["syntax", "unknown column", "key removed", "unknown key", "number"],
    )
    def test_a_stream_map_that_makes_no_sense_is_told(
        self, tmp_path: Path, simulate: StartSimulator, stream_maps: dict[str, Any]
    ) -> None:
        messages = run_tap(tmp_path, simulate(1), config={"stream_maps": stream_maps})
        assert_refused(messages)
        assert re.search("stream_?map|MapExpression", messages.last_line, re.IGNORECASE)
        assert len(messages.last_line) < 400


STATE = {"bookmarks": {"machines": {"version": 7}}}


def told_of_file(path: Path, option: str) -> str:
    """What is told of a file given as that option."""
    with pytest.raises(errors.FileError) as caught:
        JsonFile(option).convert(str(path), None, None)
    assert "\n" not in str(caught.value)
    return str(caught.value)


class TestFiles:
    @pytest.mark.parametrize("option", ["config", "state", "catalog"])
    def test_one_that_is_not_json_ends_the_run(self, tmp_path: Path, option: str) -> None:
        path = tmp_path / "the-file.json"
        path.write_text("{'single': 'quotes'}")
        config = None if option == "config" else CONFIG
        messages = run_tap(tmp_path, None, f"--{option}", str(path), config=config)
        assert_refused(messages, f"The file {path} given as --{option} is not JSON (line 1, column 2)")

    @pytest.mark.parametrize("option", ["config", "state", "catalog"])
    def test_one_that_is_not_there_ends_the_run(self, tmp_path: Path, option: str) -> None:
        config = None if option == "config" else CONFIG
        messages = run_tap(tmp_path, None, f"--{option}", "nowhere.json", config=config)
        assert_refused(messages, f"The file nowhere.json given as --{option} can't be read", "Check the path")

    @pytest.mark.parametrize("option", ["state", "catalog"])
    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            (b'{\n "a": 1,\n}', "is not JSON (line 3, column 1)"),
            (b"\xff\xfe\x00", "is no text in UTF-8 or UTF-16"),
            ('{"a": "\xfc"}'.encode("cp1252"), "is no text in UTF-8 or UTF-16"),
            (b"[" * 100_000, "is not JSON"),
            (b"[]", "holds no JSON object"),
            (b"1", "holds no JSON object"),
        ],
        ids=["comma", "binary", "cp1252", "deep", "list", "number"],
    )
    def test_one_that_is_no_object_of_json_is_named(
        self, tmp_path: Path, option: str, content: bytes, reason: str
    ) -> None:
        path = tmp_path / "the-file.json"
        path.write_bytes(content)
        assert f"The file {path} given as --{option} {reason}" in told_of_file(path, option)

    @pytest.mark.parametrize("content", [b"", b"null"])
    def test_an_empty_catalog_is_named(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "the-file.json"
        path.write_bytes(content)
        assert f"The file {path} given as --catalog" in told_of_file(path, "catalog")

    @pytest.mark.parametrize(
        "text",
        [
            json.dumps(STATE),
            json.dumps(STATE, indent=2),
            json.dumps({"type": "STATE", "value": STATE}) + "\n",
            json.dumps({"completed": {"singer_state": STATE}, "partial": {}}),
            json.dumps({"singer_state": STATE}, indent=2),
            json.dumps({"bookmarks": {}}) + "\n\n" + json.dumps(STATE) + "\r\n",
            json.dumps({"bookmarks": {}}) + "\n" + json.dumps({"type": "STATE", "value": STATE}),
            json.dumps(STATE) + "\n" + json.dumps(STATE)[:20],
        ],
        ids=["plain", "indented", "message", "meltano", "singer_state", "lines", "messages", "cut"],
    )
    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
    def test_a_state_is_read_as_targets_and_meltano_write_it(self, tmp_path: Path, text: str, encoding: str) -> None:
        path = tmp_path / "states.jsonl"
        path.write_text(text, encoding=encoding)
        assert json.load(JsonFile("state").convert(str(path), None, None)) == STATE

    @pytest.mark.parametrize("text", ["", "\n \n", "\ufeff", "null\n", "{}"])
    def test_an_empty_file_is_no_state(self, tmp_path: Path, text: str) -> None:
        """So a shell leaves it after a night that wrote none."""
        path = tmp_path / "state.json"
        path.write_text(text)
        assert json.load(JsonFile("state").convert(str(path), None, None)) == {}

    @pytest.mark.parametrize("text", ['{"bookmarks": {}}\nodd\n{"bookmarks": {}}', '{"bookmarks"', "{}\n[]"])
    def test_a_state_that_is_odd_in_the_middle_is_named(self, tmp_path: Path, text: str) -> None:
        path = tmp_path / "states.jsonl"
        path.write_text(text)
        assert f"The file {path} given as --state is not JSON" in told_of_file(path, "state")

    def test_a_folder_is_no_file(self, tmp_path: Path) -> None:
        assert_refused(run_tap(tmp_path, None, "--config", str(tmp_path)), str(tmp_path), "directory")

    @pytest.mark.parametrize(
        "state",
        [
            {"bookmarks": []},
            {"bookmarks": {"machines": []}},
            {"bookmarks": {"missing_kbs": "x"}},
            {"bookmarks": 1},
            {"type": "STATE", "value": {"bookmarks": 1}},
            {"type": "RECORD", "record": {"id": 1}},
        ],
    )
    def test_a_state_of_another_shape_is_refused(self, tmp_path: Path, state: dict[str, Any]) -> None:
        path = tmp_path / "state.json"
        path.write_text(json.dumps(state))
        told = told_of_file(path, "state")
        assert "`bookmarks`" in told
        assert "Give the value of the last STATE message" in told
        assert "last STATE message" in told

    @pytest.mark.parametrize(
        ("catalog", "fault"),
        [
            ({}, "no list `streams`"),
            ({"streams": {}}, "no list `streams`"),
            ({"streams": ["machines"]}, "no tap_stream_id"),
            ({"streams": [{"stream": "machines"}]}, "no tap_stream_id"),
            ({"streams": [{"tap_stream_id": "machines"}]}, "no schema"),
            ({"streams": [{"tap_stream_id": "machines", "schema": {}, "metadata": {}}]}, "no list of metadata"),
            ({"streams": [{"tap_stream_id": "machines", "schema": {}, "metadata": [{}]}]}, "of another shape"),
            (
                {"streams": [{"tap_stream_id": "machines", "schema": {}, "metadata": [{"breadcrumb": []}]}]},
                "of another shape",
            ),
            ({"streams": [{"tap_stream_id": "machines", "schema": {"properties": []}}]}, "of another shape"),
        ],
    )
    def test_a_catalog_of_another_shape_is_refused(self, tmp_path: Path, catalog: dict[str, Any], fault: str) -> None:
        path = tmp_path / "catalog.json"
        path.write_text(json.dumps(catalog))
        told = told_of_file(path, "catalog")
        assert fault in told
        assert "--discover" in told

    def test_a_file_of_another_shape_ends_the_run(self, tmp_path: Path) -> None:
        messages = run_tap(tmp_path, None, config=CONFIG, catalog={"streams": {}})
        assert_refused(messages, "catalog.json given as --catalog is not a catalog")
        messages = run_tap(tmp_path, None, config=CONFIG, state={"bookmarks": []})
        assert_refused(messages, "state.json given as --state is not a state")

    def test_a_stream_that_this_tap_does_not_have_is_left_alone(self, tmp_path: Path, simulate: StartSimulator) -> None:
        """A catalog may be older or newer than the tap."""
        catalog = discovered()
        catalog["streams"].append({**catalog["streams"][0], "tap_stream_id": "software", "stream": "software"})
        messages = run_tap(tmp_path, simulate(2), catalog=catalog)
        assert messages.status == 0, messages.stderr

    def test_an_unknown_option_is_named(self, tmp_path: Path) -> None:
        messages = run_tap(tmp_path, None, "--catalogue=x", config=CONFIG)
        assert messages.status == 2
        assert "--catalogue" in messages.last_line
        assert "Traceback" not in messages.stderr


class TestSignIn:
    @pytest.mark.parametrize(
        ("config", "parts"),
        [
            ({"client_secret": SECRET}, ("AADSTS7000215", "Value, not its Secret ID")),
            ({"client_id": "22222222-0000-0000-0000-000000000000"}, ("AADSTS700016", "client_id")),
            ({"tenant_id": "22222222-0000-0000-0000-000000000000"}, ("AADSTS90002", "tenant_id")),
            ({"token_scope": "https://elsewhere.example/.default"}, ("AADSTS500011", "token_scope")),
        ],
        ids=["secret", "client", "tenant", "scope"],
    )
    def test_what_entra_id_refuses_is_told_with_what_to_do(
        self, tmp_path: Path, simulate: StartSimulator, config: dict[str, str], parts: tuple[str, ...]
    ) -> None:
        simulator = simulate(1)
        messages = run_tap(tmp_path, simulator, config=config)
        assert_refused(messages, "Sign-in failed", *parts, secrets=(simulator.config["client_secret"],))
        assert simulator.calls == 0
        assert messages.of("RECORD") == []

    def test_a_wrong_secret_is_not_shown_when_debugged_either(self, tmp_path: Path, simulate: StartSimulator) -> None:
        messages = run_tap(tmp_path, simulate(1), config={"client_secret": SECRET}, environ={"LOGLEVEL": "DEBUG"})
        assert messages.status == 1
        assert_no_secret(messages)

    @pytest.mark.parametrize("code", [7000222, 53003])
    def test_each_number_has_its_advice(self, tmp_path: Path, simulate: StartSimulator, code: int) -> None:
        simulator = simulate(1, faults=[Fault("sign_in", code=code)])
        assert_refused(run_tap(tmp_path, simulator), f"AADSTS{code}", errors.SIGN_IN_REMEDIES[code].advice)
        assert len([entry for entry in simulator.journal if entry.path.endswith("/token")]) == 1  # asking again is vain

    @pytest.mark.parametrize("code", sorted(errors.SIGN_IN_REMEDIES))
    def test_advice_is_found_by_the_description_or_by_the_list_of_numbers(self, code: int) -> None:
        advice = " ".join(errors.SIGN_IN_REMEDIES[code])
        said = errors.sign_in_error({"error_description": f"AADSTS{code}: No.\r\nTrace ID: x\r\nTimestamp: y"})
        assert str(said) == f"Sign-in failed: AADSTS{code}: No (trace x). {advice}"
        assert advice in str(errors.sign_in_error({"error": "invalid", "error_codes": [1, code]}))

    def test_a_number_without_advice_is_shown_by_its_first_line(self) -> None:
        said = errors.sign_in_error({"error_description": "AADSTS999: Odd.\r\nTrace ID: x", "error_codes": [999]})
        assert str(said) == "Sign-in failed: AADSTS999: Odd (trace x)."

    def test_a_secret_pasted_as_the_client_id_is_not_shown(self, tmp_path: Path, simulate: StartSimulator) -> None:
        """Entra ID quotes the client id that it does not know."""
        messages = run_tap(tmp_path, simulate(1), config={"client_id": SECRET})
        assert_refused(messages, "AADSTS700016", "client_id")


class TestTheApi:
    def test_a_filter_that_it_refuses(self, tmp_path: Path, simulate: StartSimulator) -> None:
        messages = run_tap(tmp_path, simulate(3), config={"machines_filter": "osPlatform equals Windows"})
        assert_refused(messages, "GET /api/machines", "HTTP 400", "Correct machines_filter")
        assert messages.of("RECORD") == []

    @pytest.mark.parametrize(
        ("missing", "where"), [("Machine.Read.All", "/api/machines"), ("Software.Read.All", "/getmissingkbs")]
    )
    def test_a_missing_permission_is_named_with_where_to_grant_it(
        self, tmp_path: Path, simulate: StartSimulator, missing: str, where: str
    ) -> None:
        """The API itself says it, where the token does not tell its roles."""
        roles = {"Machine.Read.All", "Software.Read.All"} - {missing}
        simulator = simulate(3, roles=roles)
        simulator.identity.bearer_form = "opaque"
        messages = run_tap(tmp_path, simulator)
        assert_refused(
            messages, where, "HTTP 403", f"API required roles: {missing}", f"permission {missing}", "API permissions"
        )
        assert "missing_kbs" not in {message["stream"] for message in messages.of("ACTIVATE_VERSION")}

    def test_a_tenant_without_the_licence(self, tmp_path: Path, simulate: StartSimulator) -> None:
        messages = run_tap(tmp_path, simulate(1, faults=[Fault("unlicensed")]))
        assert_refused(messages, "HTTP 403", "No Tvm license")

    def test_a_list_of_another_shape(self, tmp_path: Path, simulate: StartSimulator) -> None:
        messages = run_tap(tmp_path, simulate(2, faults=[Fault("not_a_list", path="/api/machines")]))
        assert_refused(messages, "GET /api/machines", "another shape than documented", "nothing was deleted")
        assert messages.of("ACTIVATE_VERSION") == []

    @pytest.mark.parametrize("kind", ["not_an_object", "no_id"])
    def test_an_entry_of_the_list_without_an_id_costs_nobody_else(
        self, tmp_path: Path, simulate: StartSimulator, kind: str
    ) -> None:
        """It cannot be asked for: it is dropped, and said so."""
        simulator = simulate(4, faults=[Fault(kind, path="/api/machines", times=1)])
        messages = run_tap(tmp_path, simulator)
        assert messages.status == 0, messages.stderr
        assert "1 entries without an id" in messages.stderr
        assert len(messages.records("machines")) >= 3
        assert {row["id"] for row in messages.records("machines")} <= set(simulator.fleet.listed())

    @pytest.mark.parametrize("kind", ["not_a_list", "not_an_object", "no_id"])
    def test_answers_of_another_shape(self, tmp_path: Path, simulate: StartSimulator, kind: str) -> None:
        """Each is its machine's own; that nobody answers is the run's."""
        messages = run_tap(tmp_path, simulate(2, faults=[Fault(kind, path="/api/machines/*/getmissingkbs")]))
        assert_refused(messages, "None of the 2 machines asked answered", "nothing was deleted")
        assert messages.stderr.count("another shape than documented") == 2
        assert {row["outcome"] for row in messages.records("missing_kbs_checks")} == {"failed"}
        assert all("another shape" in row["reason"] for row in messages.records("missing_kbs_checks"))
        assert "missing_kbs" not in {message["stream"] for message in messages.of("ACTIVATE_VERSION")}

    def test_an_error_in_an_answer_that_claims_to_be_good(self, tmp_path: Path, simulate: StartSimulator) -> None:
        text = json.dumps({"error": {"code": "Odd", "message": "all is\x1b[31m lost", "target": "t-1"}})
        messages = run_tap(tmp_path, simulate(1, faults=[Fault("garbage", path="/api/machines", text=text)]))
        assert_refused(messages, "all is [31m lost", "code Odd", "target t-1")

    def test_what_microsofts_support_asks_for_is_shown(self, tmp_path: Path, simulate: StartSimulator) -> None:
        messages = run_tap(tmp_path, simulate(1, faults=[Fault("forbidden")]))
        assert re.search(r"code Forbidden, target [0-9a-f-]{36}", messages.last_line)

    @pytest.mark.parametrize("path", ["/api/machines", "/api/machines/*/getmissingkbs"])
    def test_a_redirect_is_not_followed(self, tmp_path: Path, simulate: StartSimulator, path: str) -> None:
        elsewhere = simulate(1)
        simulator = simulate(1, faults=[Fault("redirect", path=path, text=f"{elsewhere.url}/api/machines")])
        messages = run_tap(tmp_path, simulator, environ=trusting(tmp_path, simulator, elsewhere))
        assert_refused(messages, "HTTP 302", "Redirects are not followed", "api_url")
        assert list(elsewhere.journal) == []

    def test_a_redirect_of_the_authority_takes_the_secret_nowhere(
        self, tmp_path: Path, simulate: StartSimulator
    ) -> None:
        elsewhere = simulate(1)
        target = f"{elsewhere.url}/{elsewhere.identity.tenant_id}/oauth2/v2.0/token"
        simulator = simulate(1, faults=[Fault("redirect", path="*/token", text=target)])
        messages = run_tap(tmp_path, simulator, environ=trusting(tmp_path, simulator, elsewhere), patience=HURRIED)
        assert messages.status == 1
        assert "Traceback" not in messages.stderr
        assert list(elsewhere.journal) == []


def trusting(folder: Path, *simulators: Simulator) -> dict[str, str]:
    """The environment that makes clients trust several simulators."""
    bundle = folder / "all.pem"
    bundle.write_text("\n".join(Path(simulator.ca_file).read_text() for simulator in simulators))
    return {"REQUESTS_CA_BUNDLE": str(bundle)}


class TestTheConnection:
    def test_a_ca_bundle_that_is_not_there(self, tmp_path: Path, simulate: StartSimulator) -> None:
        environ = {"REQUESTS_CA_BUNDLE": "/nowhere/ca.pem"}
        messages = run_tap(tmp_path, simulate(1), environ=environ)
        assert_refused(messages, "REQUESTS_CA_BUNDLE", "/nowhere/ca.pem")

    def test_an_authority_that_nobody_vouches_for(self, tmp_path: Path, simulate: StartSimulator) -> None:
        simulator = simulate(1)
        messages = run_tap(tmp_path, None, config={**simulator.config, **UNLIMITED})
        assert_refused(messages, "certificate of", simulator.url, "REQUESTS_CA_BUNDLE")
        assert list(simulator.journal) == []

    def test_an_api_that_nobody_vouches_for(self, tmp_path: Path, simulate: StartSimulator) -> None:
        """The authority is trusted, the API is not; no retry mends that."""
        authority, api = simulate(1), simulate(1)
        messages = run_tap(tmp_path, authority, config={"api_url": api.url, "token_scope": scope(authority)})
        assert_refused(messages, "certificate of", api.url, "REQUESTS_CA_BUNDLE")
        assert list(api.journal) == []

    def test_nobody_listens_at_the_api(self, tmp_path: Path, simulate: StartSimulator) -> None:
        authority = simulate(1)
        url = f"https://127.0.0.1:{free_port()}"
        config = {"api_url": url, "token_scope": scope(authority)}
        messages = run_tap(tmp_path, authority, config=config, patience=HURRIED)
        assert_refused(messages, url, "could not be made")

    def test_nobody_listens_at_the_authority(self, tmp_path: Path, simulate: StartSimulator) -> None:
        url = f"https://127.0.0.1:{free_port()}"
        messages = run_tap(tmp_path, simulate(1), config={"authority_url": url}, patience=HURRIED)
        assert_refused(messages, "Sign-in failed 4 times", url, "proxy, firewall")

    def test_a_host_that_does_not_exist(self, tmp_path: Path, simulate: StartSimulator) -> None:
        authority = simulate(1)
        config = {"api_url": "https://api.invalid", "token_scope": scope(authority)}
        messages = run_tap(tmp_path, authority, config=config, patience=HURRIED)
        assert_refused(messages, "https://api.invalid")


def scope(authority: Simulator) -> str:
    """A scope that the authority gives tokens for."""
    return f"{authority.url}/.default"


def free_port() -> int:
    """A port where nobody listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def test_a_whole_run_shows_no_secret_and_no_token_even_when_debugged(tmp_path: Path, simulate: StartSimulator) -> None:
    simulator = simulate(5, faults=[Fault("revoked", after=3), Fault("500", times=1, after=2)])
    messages = run_tap(tmp_path, simulator, environ={"LOGLEVEL": "DEBUG"}, patience=HURRIED)
    assert messages.status == 0, messages.stderr
    tokens = [*simulator.identity._tokens]  # noqa: SLF001 - the simulator shows them to nobody
    assert len(tokens) == 2
    assert_no_secret(messages, simulator.config["client_secret"], *tokens, *(token.split(".")[1] for token in tokens))
