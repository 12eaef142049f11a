"""What an application proves itself with: for each `auth_method` a function that returns what MSAL takes.

Reads files, and makes no call. Must not know what happens with a token afterwards: that is the same for all.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    pkcs12,
)

from tap_mde_kbs.errors import SettingsError
from tap_mde_kbs.settings import FEDERATED_TOKEN_VARIABLE

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

Config: TypeAlias = Mapping[str, Any]


def certificate(config: Config) -> dict[str, str]:
    """MSAL's credential for `auth_method: certificate`: the key, and the chain to be sent as x5c, leaf first.

    Raises:
        SettingsError: The file holds no pair of RSA key and certificate, the passphrase is wrong, or the certificate is
            not valid now.
    """
    path = Path(config["certificate_file"])
    passphrase = config.get("certificate_passphrase") or None
    try:
        content = path.read_bytes()
        read = _read_pem if b"-----BEGIN" in content else _read_pfx
        key, chain = read(content, passphrase.encode() if passphrase else None)
    except OSError as error:
        msg = f"The file {path} given as certificate_file can't be read: {error.strerror}."
        raise SettingsError(msg, "Check the path and its permissions.") from None
    except (ValueError, TypeError):
        msg = f"The file {path} given as certificate_file can't be opened" + (
            " with certificate_passphrase." if passphrase else ": it may need certificate_passphrase."
        )
        raise SettingsError(msg, "It is a PEM file with key and certificate, or a PFX file.") from None
    leaf = _leaf(path, key, chain)
    ordered = [leaf, *(other for other in chain if other != leaf)]
    return {
        "private_key": key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
        "public_certificate": "".join(each.public_bytes(Encoding.PEM).decode() for each in ordered),
    }


def federated_token(config: Config) -> dict[str, Callable[[], str]]:
    """MSAL's credential for `auth_method: federated_token`: a function that reads the file at each renewal.

    Raises:
        SettingsError: The file can't be read; MSAL, which calls the function later, gets this too.
    """
    path = Path(config.get("federated_token_file") or os.environ[FEDERATED_TOKEN_VARIABLE])

    def read() -> str:
        try:
            return path.read_text().strip()
        except OSError as error:
            msg = f"The file {path} given as federated_token_file can't be read: {error.strerror}."
            raise SettingsError(msg, "Check the path and its permissions.") from None

    read()  # so that a file that is not there is found before any call
    return {"client_assertion": read}


CREDENTIALS: Mapping[str, Callable[[Config], Any]] = {
    "client_secret": lambda config: config["client_secret"],
    "certificate": certificate,
    "federated_token": federated_token,
}
"""What MSAL takes as `client_credential`, by `auth_method`; a managed identity has none."""


def _read_pem(content: bytes, passphrase: bytes | None) -> tuple[PrivateKeyTypes, list[x509.Certificate]]:
    block = re.search(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?-----END [A-Z ]*PRIVATE KEY-----", content, re.DOTALL)
    if not block:
        raise ValueError
    encrypted = b"ENCRYPTED" in block.group()
    return (
        load_pem_private_key(block.group(), passphrase if encrypted else None),
        x509.load_pem_x509_certificates(content),
    )


def _read_pfx(content: bytes, passphrase: bytes | None) -> tuple[PrivateKeyTypes, list[x509.Certificate]]:
    key, leaf, others = pkcs12.load_key_and_certificates(content, passphrase)
    if key is None or leaf is None:
        raise ValueError
    return key, [leaf, *others]


def _leaf(path: Path, key: PrivateKeyTypes, chain: list[x509.Certificate]) -> x509.Certificate:
    """The certificate of the key, if both are what Entra ID takes."""
    if not isinstance(key, RSAPrivateKey):
        msg = f"The key in {path} (certificate_file) is not an RSA key."
        raise SettingsError(msg, "Entra ID accepts RSA keys only.")
    own = _der(key.public_key())
    leaf = next((each for each in chain if _der(each.public_key()) == own), None)
    if leaf is None:
        msg = f"No certificate in {path} (certificate_file) belongs to its key."
        raise SettingsError(msg, "Put a key and its certificate into one file.")
    now = datetime.now(timezone.utc)
    if not leaf.not_valid_before_utc <= now <= leaf.not_valid_after_utc:
        msg = f"The certificate in {path} is valid from {leaf.not_valid_before_utc} to {leaf.not_valid_after_utc}."
        raise SettingsError(msg, "Register a new one with the application, or set this machine's clock right.")
    return leaf


def _der(key: Any) -> bytes:
    return bytes(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
