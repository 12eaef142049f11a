"""Signing in with every credential, through the real command line; renewal; a sign-in service that is ill."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

from mde_simulator import Fault
from mde_simulator.entra.federation import Issuer
from mde_simulator.entra.identity import BEARER_FORMS
from mde_simulator.http.certificates import make_client_certificate
from tests.support.singer import Messages, run_tap

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
    alone = folder / "alone.pem"
    alone.write_bytes(good.with_suffix(".cer").read_bytes())
    mixed = folder / "mixed.pem"
    key = good.read_bytes().replace(alone.read_bytes(), b"")
    mixed.write_bytes(key + make_client_certificate(folder, name="second").with_suffix(".cer").read_bytes())
    locked = make_client_certificate(folder, "sesame", name="locked")
    return {
        "no file": (folder / "nowhere.pem", None, "can't be read: No such file"),
        "no key": (alone, None, "can't be opened: it may need certificate_passphrase"),
        "another's certificate": (mixed, None, "No certificate in"),
        "wrong passphrase": (locked, "simsim", "can't be opened with certificate_passphrase"),
        "no passphrase": (locked, None, "can't be opened: it may need certificate_passphrase"),
        "expired": (make_client_certificate(folder, days=-3, name="old"), None, "is valid from"),
        "elliptic": (make_client_certificate(folder, key="ec", name="ec"), None, "is not an RSA key"),
        "no certificate at all": (folder / "config.json", None, "can't be opened"),
    }


def test_a_file_that_is_no_pair_is_named_before_any_call(simulate: StartSimulator, tmp_path: Path) -> None:
    simulator = simulate(3)
    for path, passphrase, said in bad_certificates(tmp_path).values():
        config = {**NO_SECRET, "auth_method": "certificate", "certificate_file": str(path)}
        messages = run_tap(tmp_path, simulator, config={**config, "certificate_passphrase": passphrase})
        assert messages.status == 1
        assert said in messages.last_line
        assert str(path) in messages.last_line
        assert "Traceback" not in messages.stderr
    assert list(simulator.journal) == []


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


@pytest.mark.parametrize("form", [form for form in BEARER_FORMS if form != "jwt"])
def test_roles_that_cannot_be_read_stop_nothing(simulate: StartSimulator, tmp_path: Path, form: str) -> None:
    simulator = simulate(8)
    simulator.identity.bearer_form = form
    assert_complete(run_tap(tmp_path, simulator), simulator)
