"""Signing in with every credential, through the real command line; renewal; a sign-in service that is ill."""

from __future__ import annotations

import threading
import time
from base64 import b64encode, encodebytes
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from mde_simulator import Fault
from mde_simulator.entra.federation import Issuer
from mde_simulator.entra.identity import BEARER_FORMS
from mde_simulator.http.certificates import make_client_certificate
from tap_mde_kbs.api import auth, credentials
from tap_mde_kbs.errors import SettingsError
from tap_mde_kbs.patience import Patience
from tests.support.proxy import Proxy
from tests.support.singer import HURRIED, Messages, run_tap
from tests.support.stumbling import STUMBLES, Stumbling

if TYPE_CHECKING:
    from pathlib import Path

    from mde_simulator import Simulator
    from tests.conftest import StartSimulator

NO_SECRET: dict[str, Any] = {"client_secret": None}


def sign_in_entries(simulator: Simulator) -> list[Any]:
    return [entry for entry in simulator.journal if entry.path.endswith("/token")]


def assert_complete(messages: Messages, simulator: Simulator) -> None:
    assert messages.status == 0, messages.stderr
    assert {row["id"] for row in messages.records("machines")} == set(simulator.fleet.listed())


@pytest.mark.parametrize(("passphrase", "pfx"), [(None, False), ("open sesame", False), (None, True), ("sesam", True)])
def test_a_certificate_signs_in_and_its_chain_is_sent(
    simulate: StartSimulator, tmp_path: Path, passphrase: str | None, *, pfx: bool
) -> None:
    simulator = simulate(8)
    path = make_client_certificate(tmp_path, passphrase, pfx=pfx)
    simulator.identity.register_certificate(path.with_suffix(".cer").read_bytes())
    config = {**NO_SECRET, "auth_method": "certificate", "certificate_file": str(path)}
    messages = run_tap(tmp_path, simulator, config={**config, "certificate_passphrase": passphrase})
    assert_complete(messages, simulator)
    [entry] = sign_in_entries(simulator)
    assert entry.assertion["x5c"]


def test_a_pem_file_may_have_the_certificate_first_and_others_besides(simulate: StartSimulator, tmp_path: Path) -> None:
    simulator = simulate(8)
    path = make_client_certificate(tmp_path)
    other = make_client_certificate(tmp_path, name="other").with_suffix(".cer").read_bytes()
    own = path.with_suffix(".cer").read_bytes()
    key = path.read_bytes().replace(own, b"")
    simulator.identity.register_certificate(own)
    path.write_bytes(other + own + key)
    config = {**NO_SECRET, "auth_method": "certificate", "certificate_file": str(path)}
    assert_complete(run_tap(tmp_path, simulator, config=config), simulator)


def bad_certificates(folder: Path) -> dict[str, tuple[Path, str | None, str]]:
    """Files that can't be signed in with: the file, the passphrase given, and what is said."""
    good = make_client_certificate(folder, name="good")
    alone = good.with_suffix(".cer").read_bytes()
    key = good.read_bytes().replace(alone, b"")
    second = make_client_certificate(folder, name="second").with_suffix(".cer").read_bytes()
    locked = make_client_certificate(folder, "sesame", name="locked")
    pfx = make_client_certificate(folder, "sesame", pfx=True, name="pfx")

    def file(name: str, content: bytes) -> Path:
        path = folder / name
        path.write_bytes(content)
        return path

    der = x509.load_pem_x509_certificate(alone).public_bytes(Encoding.DER)
    return {
        "no file": (folder / "nowhere.pem", None, "can't be read: No such file"),
        "a folder": (folder, None, "can't be read: Is a directory"),
        "empty": (file("empty.pfx", b" \n"), None, "is empty"),
        "no key": (file("alone.pem", alone), None, "holds a certificate, and no private key"),
        "no certificate": (file("key.pem", key), "sesame", "holds a private key, and no certificate"),
        "half a key": (file("half.pem", key[:200] + alone), None, "holds a private key that has no end"),
        "a damaged key": (file("damaged.pem", key[:200] + b"!!!!" + key[204:] + alone), None, "key that is damaged"),
        "a damaged certificate": (
            file("bad.pem", key + alone[:200] + b"!!!!" + alone[204:]),
            None,
            "certificate that is damaged",
        ),
        "neither": (file("csr.pem", b"-----BEGIN CERTIFICATE REQUEST-----\n"), None, "holds neither a private key nor"),
        "a certificate as DER": (file("alone.cer", der), None, "holds a certificate alone (DER), and no private key"),
        "base64": (file("vault.pfx", b64encode(pfx.read_bytes())), "sesame", "is base64, as Key Vault exports a PFX"),
        "base64 in lines": (file("lines.pfx", encodebytes(pfx.read_bytes())), "sesame", "is base64"),
        "UTF-16": (file("wide.pem", good.read_text().encode("utf-16")), None, "is PEM in UTF-16"),
        "another's certificate": (file("mixed.pem", key + second), None, "No certificate in"),
        "wrong passphrase": (locked, "simsim", "can't be opened with certificate_passphrase"),
        "no passphrase": (locked, None, "can't be opened: it may need certificate_passphrase"),
        "a PFX's wrong passphrase": (pfx, "simsim", "can't be opened with certificate_passphrase"),
        "expired": (make_client_certificate(folder, days=-3, name="old"), None, "is valid from"),
        "elliptic": (make_client_certificate(folder, key="ec", name="ec"), None, "is not an RSA key"),
        "no certificate at all": (file("config.txt", b"{}"), None, "is neither PEM nor PFX"),
    }


def test_a_file_that_is_no_pair_is_named_before_any_call(simulate: StartSimulator, tmp_path: Path) -> None:
    simulator = simulate(3)
    path, passphrase, said = bad_certificates(tmp_path)["no key"]
    config = {**NO_SECRET, "auth_method": "certificate", "certificate_file": str(path)}
    messages = run_tap(tmp_path, simulator, config={**config, "certificate_passphrase": passphrase})
    assert messages.status == 1
    assert said in messages.last_line
    assert str(path) in messages.last_line
    assert "Traceback" not in messages.stderr
    assert list(simulator.journal) == []


def test_of_a_file_that_is_no_pair_it_is_said_what_is_in_it_and_what_is_lacking(tmp_path: Path) -> None:
    for kind, (path, passphrase, said) in bad_certificates(tmp_path).items():
        with pytest.raises(SettingsError) as told:
            credentials.certificate({"certificate_file": str(path), "certificate_passphrase": passphrase})
        assert said in str(told.value), kind
        assert str(path) in str(told.value), kind


@pytest.mark.parametrize("content", ["", " \n", "\x00", "not a token", "a.b", "{}"])
@pytest.mark.parametrize("by_variable", [False, True])
def test_a_file_without_a_token_is_named_before_any_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, *, by_variable: bool
) -> None:
    path = tmp_path / "token"
    path.write_text(content)
    monkeypatch.setenv("AZURE_FEDERATED_TOKEN_FILE", str(path))
    name = "AZURE_FEDERATED_TOKEN_FILE" if by_variable else "federated_token_file"
    with pytest.raises(SettingsError, match=rf"{path} given as {name} (is empty|holds no token)"):
        credentials.federated_token({} if by_variable else {"federated_token_file": str(path)})


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "ascii"])
def test_a_token_is_read_in_whatever_encoding_windows_wrote_it(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "token"
    path.write_text("\r\neyJh.eyJi.c_-\r\n", encoding=encoding)
    assert credentials.federated_token({"federated_token_file": str(path)})["client_assertion"]() == "eyJh.eyJi.c_-"


def test_a_certificate_nobody_registered_is_refused_with_the_way_to_register_it(
    simulate: StartSimulator, tmp_path: Path
) -> None:
    path = make_client_certificate(tmp_path)
    config = {**NO_SECRET, "auth_method": "certificate", "certificate_file": str(path)}
    messages = run_tap(tmp_path, simulate(3), config=config, environ={"LOGLEVEL": "DEBUG"})
    assert messages.status == 1
    assert "AADSTS700027" in messages.last_line
    assert "PRIVATE KEY" not in messages.stderr
    assert "eyJ" not in messages.stderr
    assert "Upload the certificate" in messages.last_line


@pytest.mark.parametrize("by_variable", [False, True])
def test_a_federated_token_signs_in(simulate: StartSimulator, tmp_path: Path, *, by_variable: bool) -> None:
    simulator, issuer = simulate(8), Issuer()
    simulator.identity.federate(issuer)
    path = str(issuer.write(tmp_path / "token"))
    config = {**NO_SECRET, "auth_method": "federated_token"}
    config |= {} if by_variable else {"federated_token_file": path}
    environ = {"AZURE_FEDERATED_TOKEN_FILE": path} if by_variable else {}
    assert_complete(run_tap(tmp_path, simulator, config=config, environ=environ), simulator)


def test_the_federated_token_is_read_again_at_each_renewal(simulate: StartSimulator, tmp_path: Path) -> None:
    """Access tokens live two seconds, and the file is written anew all the time: no assertion is sent twice."""
    simulator, issuer = simulate(40, token_life=2, latency=0.2), Issuer()
    simulator.identity.federate(issuer)
    path = issuer.write(tmp_path / "token")
    over = threading.Event()

    def rewrite() -> None:
        while not over.wait(0.2):
            issuer.write(path)

    writer = threading.Thread(target=rewrite)
    writer.start()
    try:
        config = {**NO_SECRET, "auth_method": "federated_token", "federated_token_file": str(path)}
        messages = run_tap(tmp_path, simulator, config={**config, "max_parallel_requests": 2})
    finally:
        over.set()
        writer.join()
    assert_complete(messages, simulator)
    sent = [entry.assertion["jti"] for entry in sign_in_entries(simulator)]
    assert len(sent) > 1
    assert len(set(sent)) == len(sent)


def test_a_token_of_another_subject_is_refused_with_where_to_compare(simulate: StartSimulator, tmp_path: Path) -> None:
    simulator, issuer = simulate(3), Issuer()
    simulator.identity.federate(issuer)
    path = issuer.write(tmp_path / "token", "system:serviceaccount:else:where")
    config = {**NO_SECRET, "auth_method": "federated_token", "federated_token_file": str(path)}
    messages = run_tap(tmp_path, simulator, config=config, environ={"LOGLEVEL": "DEBUG"})
    assert messages.status == 1
    assert "Federated credentials" in messages.last_line
    assert path.read_text().strip() not in messages.stderr


@pytest.mark.parametrize("kind", ["app_service", "vm"])
@pytest.mark.parametrize("user_assigned", [False, True])
def test_a_managed_identity_signs_in_past_every_proxy(
    simulate: StartSimulator, tmp_path: Path, kind: str, *, user_assigned: bool
) -> None:
    simulator = simulate(8, managed_identity=True)
    assert simulator.managed
    config = {**NO_SECRET, "auth_method": "managed_identity"}
    config["client_id"] = simulator.managed.client_id if user_assigned else None
    environ = {**simulator.managed_identity_environment(kind), "HTTP_PROXY": "http://127.0.0.1:1"}
    assert_complete(run_tap(tmp_path, simulator, config=config, environ=environ), simulator)


def test_an_identity_the_machine_does_not_have_is_refused(simulate: StartSimulator, tmp_path: Path) -> None:
    simulator = simulate(3, managed_identity=True)
    config = {**NO_SECRET, "auth_method": "managed_identity", "client_id": "00000000-0000-0000-0000-000000000000"}
    environ = simulator.managed_identity_environment("vm")
    messages = run_tap(tmp_path, simulator, config=config, environ=environ)
    assert messages.status == 1
    assert messages.last_line.startswith("Sign-in failed: ")


def test_several_threads_renew_an_expired_token_once(simulate: StartSimulator, tmp_path: Path) -> None:
    """One token is revoked while eight calls are in flight: eight 401s, one new token."""
    simulator = simulate(60, latency=0.1, faults=[Fault("revoked", path="*/getmissingkbs", after=20)])
    messages = run_tap(tmp_path, simulator, config={"max_parallel_requests": 8})
    assert_complete(messages, simulator)
    assert len(sign_in_entries(simulator)) == 2
    assert sum(entry.status == 401 for entry in simulator.journal) > 1


def test_a_second_401_stops_with_the_reason(simulate: StartSimulator, tmp_path: Path) -> None:
    simulator = simulate(10, faults=[Fault("revoked", path="*/getmissingkbs", times=1_000, after=3)])
    messages = run_tap(tmp_path, simulator)
    assert messages.status == 1
    assert "HTTP 401" in messages.last_line
    assert not messages.of("ACTIVATE_VERSION", "missing_kbs")


@pytest.mark.parametrize("kind", ["sign_in_down", "sign_in_throttled", "sign_in_html"])
def test_a_sign_in_service_that_is_ill_is_asked_again_later(
    simulate: StartSimulator, tmp_path: Path, kind: str
) -> None:
    """Not before MSAL's own cache of failures lets a try through: each try is a request."""
    simulator = simulate(5, faults=[Fault(kind, path="*/token", times=1, seconds=1)])
    messages = run_tap(tmp_path, simulator)
    assert_complete(messages, simulator)
    assert len(sign_in_entries(simulator)) == 2
    assert "Trying again" in messages.stderr


@pytest.mark.parametrize("form", [form for form in BEARER_FORMS if form not in {"jwt", "text_roles"}])
def test_roles_that_cannot_be_read_stop_nothing(simulate: StartSimulator, tmp_path: Path, form: str) -> None:
    simulator = simulate(8)
    simulator.identity.bearer_form = form
    assert_complete(run_tap(tmp_path, simulator), simulator)


def test_a_role_that_is_a_text_is_one_role(simulate: StartSimulator, tmp_path: Path) -> None:
    simulator = simulate(8, roles=("Machine.Read.All",))
    simulator.identity.bearer_form = "text_roles"
    messages = run_tap(tmp_path, simulator)
    assert messages.status == 1
    assert "lacks the permission Software.Read.All (its token has: Machine.Read.All)" in messages.last_line


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("app_service", 404),
        *(pytest.param("vm", status, marks=pytest.mark.long) for status in (404, 410, 429, 503)),
        *(pytest.param("app_service", status, marks=pytest.mark.long) for status in (410, 429, 500)),
    ],
)
def test_an_identity_endpoint_that_is_not_up_yet_is_asked_again(
    simulate: StartSimulator, tmp_path: Path, kind: str, status: int
) -> None:
    """As Microsoft's guidance says. Each try is a request: it does not end in a cache of MSAL's."""
    simulator = simulate(
        5, managed_identity=True, faults=[Fault("sign_in_status", path="*/token", status=status, times=1)]
    )
    assert simulator.managed
    config = {**NO_SECRET, "auth_method": "managed_identity", "client_id": None}
    messages = run_tap(tmp_path, simulator, config=config, environ=simulator.managed_identity_environment(kind))
    assert_complete(messages, simulator)
    assert len(sign_in_entries(simulator)) == 2
    assert f"HTTP {status}" in messages.stderr
    assert "Trying again in" in messages.stderr


def test_an_identity_endpoint_is_waited_for_as_long_as_an_update_of_it_takes() -> None:
    """Seventy seconds of HTTP 410, by Microsoft's guidance."""
    assert sum(Patience.sign_in * 2**tried for tried in range(auth.MANAGED_TRIES - 1)) > 70


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_clock_an_hour_off_costs_no_token_for_each_call(simulate: StartSimulator, tmp_path: Path, hours: int) -> None:
    """App Service says when a token ends, by its own clock: by ours it may have ended before it came."""
    simulator = simulate(20, managed_identity=True, clock=lambda: time.time() + hours * 3600)
    config = {**NO_SECRET, "auth_method": "managed_identity", "client_id": None}
    environ = simulator.managed_identity_environment("app_service")
    assert_complete(run_tap(tmp_path, simulator, config=config, environ=environ), simulator)
    assert len(sign_in_entries(simulator)) <= 2


@pytest.mark.parametrize("how", STUMBLES)
def test_a_connection_that_breaks_once_is_made_again(simulate: StartSimulator, tmp_path: Path, how: str) -> None:
    """A reset, an end in the TLS handshake, an alert, an answer without TLS: none is a certificate's fault."""
    simulator = simulate(4)
    with Stumbling(simulator.port, how) as door, Proxy(leads={"127.0.0.1": door.place}) as proxy:
        messages = run_tap(tmp_path, simulator, environ={"HTTPS_PROXY": proxy.url}, patience=HURRIED)
    assert_complete(messages, simulator)
    assert "Trying again" in messages.stderr
    assert "CA_BUNDLE" not in messages.stderr


@pytest.mark.parametrize("status", [301, 307, 404, 405])
def test_what_an_authority_will_not_say_otherwise_is_said_at_once(
    simulate: StartSimulator, tmp_path: Path, status: int
) -> None:
    simulator = simulate(4, faults=[Fault("sign_in_status", path="*/openid-configuration", status=status)])
    messages = run_tap(tmp_path, simulator)
    assert messages.status == 1
    assert f"HTTP {status}" in messages.last_line
    assert "authority_url" in messages.last_line
    assert "Trying again" not in messages.stderr


@pytest.mark.parametrize("variables", [{"IDENTITY_ENDPOINT": "localhost:1/msi"}, {"IDENTITY_HEADER": "x\n"}])
@pytest.mark.parametrize("proxy", [{}, {"HTTPS_PROXY": "http://127.0.0.1:1"}])
def test_a_malformed_identity_endpoint_is_named_at_once(
    simulate: StartSimulator, tmp_path: Path, variables: dict[str, str], proxy: dict[str, str]
) -> None:
    """And no proxy is blamed: none is asked."""
    simulator = simulate(3, managed_identity=True)
    config = {**NO_SECRET, "auth_method": "managed_identity", "client_id": None}
    environ = {**simulator.managed_identity_environment("app_service"), **variables, **proxy}
    messages = run_tap(tmp_path, simulator, config=config, environ=environ)
    assert messages.status == 1
    assert "IDENTITY_ENDPOINT, IDENTITY_HEADER" in messages.last_line
    assert "Trying again" not in messages.stderr
    assert "PROXY" not in messages.last_line


@pytest.mark.parametrize("status", [403, 413, 451])
def test_a_filter_in_between_is_not_taken_for_a_tenant_that_is_not_known(
    simulate: StartSimulator, tmp_path: Path, status: int
) -> None:
    messages = run_tap(tmp_path, simulate(3, faults=[Fault("sign_in_status", path="*/token", status=status)]))
    assert messages.status == 1
    assert f"HTTP {status}" in messages.last_line
    assert "filter or a proxy in between" in messages.last_line
    assert "tenant" not in messages.last_line


def test_an_empty_variable_is_no_token_file(tmp_path: Path) -> None:
    config = {"tenant_id": "a.example", "client_id": "b", "auth_method": "federated_token"}
    messages = run_tap(tmp_path, config=config, environ={"AZURE_FEDERATED_TOKEN_FILE": " "})
    assert messages.status == 1
    assert "Missing setting: federated_token_file" in messages.last_line
