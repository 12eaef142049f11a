"""Throw-away certificates: an authority and the loopback host's, and a client's to sign in with.

Nothing in it is secret: authority and host are made anew for each simulator, and their keys are gone
with it; a client's certificate opens nothing but the simulator that it was registered with.
"""

from __future__ import annotations

import os
import ssl
from datetime import datetime, timedelta, timezone
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import pkcs12
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

if TYPE_CHECKING:
    from collections.abc import Mapping

LIFE = timedelta(days=397)
CLIENT = "tap-mde-kbs, a throw-away client"
NAMES = [
    x509.DNSName("localhost"),
    x509.IPAddress(ip_address("127.0.0.1")),
    x509.IPAddress(ip_address("::1")),
]


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _builder(key: ec.EllipticCurvePrivateKey, signer: ec.EllipticCurvePrivateKey, name: str) -> x509.CertificateBuilder:
    """What authority and host have in common, as strict verification wants it."""
    now = datetime.now(timezone.utc)
    authority = key is signer
    return (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .issuer_name(_name("mde-simulator, a throw-away authority"))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + LIFE - timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(_usage(authority=authority), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )


def make(folder: Path) -> ssl.SSLContext:
    """Write `ca.pem` into the folder, and give the context a server uses."""
    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca = _builder(ca_key, ca_key, "mde-simulator, a throw-away authority")
    key = ec.generate_private_key(ec.SECP256R1())
    host = (
        _builder(key, ca_key, "localhost")
        .add_extension(x509.SubjectAlternativeName(NAMES), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    )
    (folder / "ca.pem").write_bytes(_pem(ca.sign(ca_key, hashes.SHA256())))
    chain = folder / "host.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    chain.write_bytes(private + _pem(host.sign(ca_key, hashes.SHA256())))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(chain)
    chain.unlink()
    return context


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def write_bundle(folder: Path, environment: Mapping[str, str] = os.environ) -> Path:
    """Write `bundle.pem`: the throw-away authority and those trusted so far.

    `REQUESTS_CA_BUNDLE` replaces what requests trusts, so that a shell which exports it could no
    longer install packages with the throw-away authority alone.
    """
    trusted = [(folder / "ca.pem").read_bytes()]
    present = environment.get("REQUESTS_CA_BUNDLE", "")
    if Path(present).is_file():
        trusted.append(Path(present).read_bytes())
    else:
        try:
            import certifi  # noqa: PLC0415 - comes with requests; the simulator runs without it
        except ImportError:
            pass
        else:
            trusted.append(Path(certifi.where()).read_bytes())
    bundle = folder / "bundle.pem"
    bundle.write_bytes(b"\n".join(trusted))
    return bundle


def make_client_certificate(  # noqa: PLR0913 - what such files differ in, each by its name
    folder: Path,
    passphrase: str | None = None,
    *,
    pfx: bool = False,
    days: float = 365,
    key: str = "rsa",
    name: str = "client",
) -> Path:
    """Write a self-signed certificate and its key as one file, as an application signs in with.

    Beside it goes `<name>.cer`, the certificate alone, for `Identity.register_certificate`.

    Args:
        folder: Where to.
        passphrase: Encrypts the key if given.
        pfx: PKCS #12, `<name>.pfx`, instead of PEM, `<name>.pem`.
        days: How long it is valid; negative: how long ago it expired.
        key: "rsa", or "ec", which Entra ID does not take.
        name: Of the files, without their endings.
    """
    private = ec.generate_private_key(ec.SECP256R1()) if key == "ec" else rsa.generate_private_key(65537, 2048)
    now = datetime.now(timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(_name(CLIENT))
        .issuer_name(_name(CLIENT))
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + timedelta(days=min(days, 0) - 1))
        .not_valid_after(now + timedelta(days=days))
        .sign(private, hashes.SHA256())
    )
    (folder / f"{name}.cer").write_bytes(_pem(certificate))
    encryption = _encryption(passphrase)
    if pfx:
        path = folder / f"{name}.pfx"
        data = pkcs12.serialize_key_and_certificates(CLIENT.encode(), private, certificate, None, encryption)
    else:
        path = folder / f"{name}.pem"
        encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        data = private.private_bytes(encoding, form, encryption) + _pem(certificate)
    path.touch(mode=0o600)
    path.write_bytes(data)
    return path


def _encryption(passphrase: str | None) -> serialization.KeySerializationEncryption:
    if passphrase is None:
        return serialization.NoEncryption()
    return serialization.BestAvailableEncryption(passphrase.encode())
