"""The throw-away certificates and the bundle of who is trusted."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.hazmat.primitives.serialization.pkcs12 import load_key_and_certificates
from cryptography.x509 import load_pem_x509_certificate

from mde_simulator.http import certificates

if TYPE_CHECKING:
    from pathlib import Path


def test_no_private_key_stays_on_the_disk(tmp_path: Path) -> None:
    certificates.make(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["ca.pem"]
    assert "PRIVATE" not in (tmp_path / "ca.pem").read_text()


def test_every_simulator_has_an_authority_of_its_own(tmp_path: Path) -> None:
    found = set()
    for _ in range(2):
        certificates.make(tmp_path)
        found.add((tmp_path / "ca.pem").read_text())
    assert len(found) == 2


def test_the_bundle_holds_what_the_shell_trusted_before(tmp_path: Path) -> None:
    certificates.make(tmp_path)
    company = tmp_path / "company.pem"
    company.write_text("the company's authority\n")
    bundle = certificates.write_bundle(tmp_path, {"REQUESTS_CA_BUNDLE": str(company)})
    text = bundle.read_text()
    assert text.startswith((tmp_path / "ca.pem").read_text())
    assert "the company's authority" in text


def test_the_bundle_holds_the_public_authorities_else(tmp_path: Path) -> None:
    certificates.make(tmp_path)
    for environment in ({}, {"REQUESTS_CA_BUNDLE": "/no/such/file"}):
        bundle = certificates.write_bundle(tmp_path, environment)
        assert bundle.read_text().count("BEGIN CERTIFICATE") > 50


@pytest.mark.parametrize("passphrase", [None, "correct horse"])
@pytest.mark.parametrize("key", ["rsa", "ec"])
def test_a_clients_pem_has_key_and_certificate(tmp_path: Path, passphrase: str | None, key: str) -> None:
    path = certificates.make_client_certificate(tmp_path, passphrase, key=key, days=10)
    pem, secret = path.read_bytes(), passphrase.encode() if passphrase else None
    certificate = load_pem_x509_certificate(pem)
    private = load_pem_private_key(pem, secret)
    assert private.public_key() == certificate.public_key()
    assert (b"ENCRYPTED" in pem) is bool(passphrase)
    assert isinstance(private, EllipticCurvePrivateKey) is (key == "ec")
    left = certificate.not_valid_after_utc - datetime.now(timezone.utc)
    assert timedelta(days=9) < left <= timedelta(days=10)
    assert (tmp_path / "client.cer").read_bytes() in pem
    assert path.stat().st_mode & 0o077 == 0


def test_a_clients_pfx_opens_with_its_passphrase_alone(tmp_path: Path) -> None:
    path = certificates.make_client_certificate(tmp_path, "correct horse", pfx=True, name="mine", days=-1)
    private, certificate, _ = load_key_and_certificates(path.read_bytes(), b"correct horse")
    assert private is not None
    assert certificate is not None
    assert certificate.not_valid_before_utc < certificate.not_valid_after_utc < datetime.now(timezone.utc)
    with pytest.raises(ValueError, match=r"\w"):
        load_key_and_certificates(path.read_bytes(), b"wrong")
    assert {each.name for each in tmp_path.iterdir()} == {"mine.pfx", "mine.cer"}
