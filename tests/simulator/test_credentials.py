"""Certificates and federated tokens: MSAL signs in with them, and what proves nothing is refused."""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509 import load_pem_x509_certificate

from mde_simulator import Issuer
from mde_simulator.entra.credentials import JWT_BEARER, THUMBPRINTS
from mde_simulator.entra.tokens import encoded, sign
from mde_simulator.http import certificates

from .door import SCOPE
from .signing import application, opens, sign_in

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from .door import Door

    Opened = Callable[..., Door]


def registered(door: Door, folder: Path, **options: Any) -> Path:
    """A certificate that the application has."""
    path = certificates.make_client_certificate(folder, **options)
    door.simulator.identity.register_certificate(path.with_suffix(".cer").read_bytes())
    return path


def post(door: Door, assertion: str, **changes: str) -> list[int]:
    """The error codes that an assertion earns; none if it earns a token."""
    config = door.simulator.config
    form = {
        "grant_type": "client_credentials",
        "scope": SCOPE,
        "client_id": config["client_id"],
        "client_assertion_type": JWT_BEARER,
        "client_assertion": assertion,
    }
    url = f"{door.simulator.url}/{config['tenant_id']}/oauth2/v2.0/token"
    codes: list[int] = door.session.post(url, data=form | changes, timeout=10).json().get("error_codes", [])
    return codes


def assertion(door: Door, path: Path, *, header: dict[str, Any] | None = None, key: Any = None, **claims: Any) -> str:
    """An assertion by hand, changed as wanted; None leaves a claim out."""
    pem = path.read_bytes()
    config, now = door.simulator.config, time.time()
    body = {
        "aud": f"{door.simulator.url}/{config['tenant_id']}/oauth2/v2.0/token",
        "iss": config["client_id"],
        "sub": config["client_id"],
        "jti": str(uuid.uuid4()),
        "nbf": now,
        "exp": now + 600,
    } | claims
    named = {"x5t": encoded(load_pem_x509_certificate(pem).fingerprint(THUMBPRINTS["x5t"]))}
    kept = {name: value for name, value in body.items() if value is not None}
    private = key or load_pem_private_key(pem, None)
    assert isinstance(private, rsa.RSAPrivateKey)
    return sign({"typ": "JWT", "alg": "RS256", **named, **(header or {})}, kept, private)


# Certificates


@pytest.mark.parametrize("passphrase", [None, "correct horse"])
@pytest.mark.parametrize("pfx", [True, False])
def test_msal_signs_in_with_a_certificate(opened: Opened, tmp_path: Path, passphrase: str | None, pfx: bool) -> None:
    door = opened()
    path = registered(door, tmp_path, passphrase=passphrase, pfx=pfx)
    credential: dict[str, Any] = {"passphrase": passphrase} if passphrase else {}
    if pfx:
        credential |= {"private_key_pfx_path": str(path), "public_certificate": True}
    else:
        credential |= {"private_key": path.read_text(), "public_certificate": path.with_suffix(".cer").read_text()}
    assert opens(door, sign_in(door, credential)["access_token"])
    entry = door.simulator.journal.token_requests[0]
    assert (entry.credential, entry.status) == ("certificate", 200)
    assert entry.assertion is not None
    assert entry.assertion["alg"] == "PS256"
    assert len(entry.assertion["x5c"]) == 1
    assert door.simulator.violations == []


def test_msal_signs_with_rs256_where_only_the_older_thumbprint_is_known(opened: Opened, tmp_path: Path) -> None:
    door = opened()
    path = certificates.make_client_certificate(tmp_path)
    thumbprint = door.simulator.identity.register_certificate(path.read_bytes())
    answer = sign_in(door, {"private_key": path.read_text(), "thumbprint": thumbprint})
    assert opens(door, answer["access_token"])
    entry = door.simulator.journal.token_requests[0]
    assert entry.assertion is not None
    assert (entry.assertion["alg"], "x5c" in entry.assertion) == ("RS256", False)


def test_a_certificate_that_is_not_registered_is_refused(opened: Opened, tmp_path: Path) -> None:
    door = opened()
    registered(door, tmp_path)
    other = certificates.make_client_certificate(tmp_path, name="other")
    credential = {"private_key": other.read_text(), "public_certificate": other.read_text()}
    answer = sign_in(door, credential)
    assert answer["error_codes"] == [700027]
    assert "The key was not found" in answer["error_description"]
    assert door.simulator.identity.given == 0
    entry = door.simulator.journal.token_requests[0]
    assert entry.assertion is not None
    assert entry.assertion["iss"] == door.simulator.config["client_id"]


def test_several_certificates_may_be_registered(opened: Opened, tmp_path: Path) -> None:
    door = opened()
    paths = [registered(door, tmp_path, name=name) for name in ("old", "new")]
    assert [post(door, assertion(door, path)) for path in paths] == [[], []]


def test_another_key_under_a_registered_name_does_not_verify(opened: Opened, tmp_path: Path) -> None:
    door = opened()
    path = registered(door, tmp_path)
    assert post(door, assertion(door, path)) == []
    assert post(door, assertion(door, path, key=rsa.generate_private_key(65537, 2048))) == [700027]
    first, second, third = assertion(door, path).split(".")
    assert post(door, f"{first}.{second}.{third[::-1]}") == [700027]
    header = encoded(b'{"alg": "none", "x5t": "' + first.encode() + b'"}')
    assert post(door, f"{header}.{second}.") == [700027]


def test_an_expired_certificate_is_refused(opened: Opened, tmp_path: Path) -> None:
    door = opened()
    path = registered(door, tmp_path, days=-2)
    assert post(door, assertion(door, path)) == [700027]


@pytest.mark.parametrize(
    ("claims", "code"),
    [
        ({"exp": 1_000_000_000}, 700024),
        ({"exp": None}, 700024),
        ({"exp": "soon"}, 700024),
        ({"nbf": 4_000_000_000, "exp": 4_000_000_600}, 700024),
        ({"iat": 4_000_000_000}, 700024),
        ({"aud": "https://login.microsoftonline.com/common"}, 700023),
        ({"aud": None}, 700023),
        ({"iss": "another"}, 700021),
        ({"sub": "another"}, 700021),
        ({"jti": None}, 50027),
    ],
)
def test_every_claim_has_to_be_right(opened: Opened, tmp_path: Path, claims: dict[str, Any], code: int) -> None:
    door = opened()
    assert post(door, assertion(door, registered(door, tmp_path), **claims)) == [code]


def test_clocks_may_differ_by_what_the_tenant_allows(opened: Opened, tmp_path: Path) -> None:
    door = opened()
    path = registered(door, tmp_path)
    door.simulator.identity.assertions.skew = 300
    now = time.time()
    assert post(door, assertion(door, path, exp=now - 200, nbf=None)) == []
    assert post(door, assertion(door, path, nbf=now + 200)) == []
    assert post(door, assertion(door, path, exp=now - 400, nbf=None)) == [700024]


def test_a_jti_is_for_one_assertion_which_may_come_again(opened: Opened, tmp_path: Path) -> None:
    door = opened()
    path = registered(door, tmp_path)
    first = assertion(door, path, jti="one")
    assert [post(door, first), post(door, first)] == [[], []]
    assert post(door, assertion(door, path, jti="one", exp=time.time() + 60)) == [50027]


def test_what_is_no_assertion_is_refused(opened: Opened, tmp_path: Path) -> None:
    door = opened()
    path = registered(door, tmp_path)
    nested = encoded(b"[" * 100_000)
    for text in ("", "a.b", "a.b.c", f"{encoded(b'[]')}.{encoded(b'{}')}.", f"{nested}.{nested}.", "é.é.é"):
        assert post(door, text) == [50027]
    assert post(door, assertion(door, path), client_assertion_type="something else") == [900144]
    assert post(door, assertion(door, path), client_id=str(uuid.uuid4())) == [700016]


def test_no_signature_is_in_the_journal(opened: Opened, tmp_path: Path) -> None:
    door = opened()
    signed = assertion(door, registered(door, tmp_path))
    post(door, signed)
    entry = door.simulator.journal.token_requests[0]
    assert signed.split(".")[2] not in f"{entry} {entry.headers} {entry.assertion}"


@pytest.mark.parametrize("pem", [b"", b"nonsense", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_only_a_certificate_can_be_registered(opened: Opened, pem: bytes) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        opened().simulator.identity.register_certificate(pem)


def test_a_certificate_with_an_elliptic_key_cannot_be_registered(opened: Opened, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="RSA"):
        registered(opened(), tmp_path, key="ec")


# Federated tokens


def test_msal_signs_in_with_a_federated_token_and_reads_the_file_at_each_renewal(
    opened: Opened, tmp_path: Path
) -> None:
    door = opened(token_life=1)
    issuer, path = Issuer(), tmp_path / "token"
    door.simulator.identity.federate(issuer)
    issuer.write(path, life=60)
    app = application(door, {"client_assertion": lambda: path.read_text().strip()})
    assert opens(door, app.acquire_token_for_client([SCOPE])["access_token"])
    issuer.write(path, life=-1)
    assert app.acquire_token_for_client([SCOPE])["error_codes"] == [700024]
    issuer.write(path)
    assert opens(door, app.acquire_token_for_client([SCOPE])["access_token"])
    asked = door.simulator.journal.token_requests
    assert {entry.credential for entry in asked} == {"federated_token"}
    assert len({entry.assertion["jti"] for entry in asked if entry.assertion}) == 3
    assert door.simulator.identity.given == 2
    assert list(tmp_path.iterdir()) == [path]


def test_issuer_subject_and_audience_have_to_match_a_record(opened: Opened) -> None:
    door = opened()
    issuer = Issuer()
    assert post(door, issuer.token()) == [70021]
    door.simulator.identity.federate(issuer, "repo:us/tap:ref:refs/heads/main")
    assert post(door, issuer.token("repo:us/tap:ref:refs/heads/main")) == []
    assert post(door, issuer.token("repo:us/tap:ref:refs/heads/other")) == [700213]
    assert post(door, issuer.token("repo:us/tap:ref:refs/heads/main", audience="api://else")) == [70021]
    assert post(door, Issuer("https://else.example/").token("repo:us/tap:ref:refs/heads/main")) == [70021]
    forged = Issuer(issuer.url)
    assert post(door, forged.token("repo:us/tap:ref:refs/heads/main")) == [50013]


def test_the_refusal_says_what_was_presented(opened: Opened) -> None:
    door = opened()
    answer = sign_in(door, {"client_assertion": lambda: Issuer().token("me")})
    assert "Assertion Subject: 'me'" in answer["error_description"]
