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
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
    load_pem_private_key,
    pkcs12,
)

from tap_mde_kbs.errors import SettingsError
from tap_mde_kbs.given import decoded
from tap_mde_kbs.settings import FEDERATED_TOKEN_VARIABLE

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

Config: TypeAlias = Mapping[str, Any]

_JWT = re.compile(r"[\w-]+\.[\w-]+\.[\w-]*", re.ASCII)
_BASE64 = re.compile(r"MII[A-Za-z0-9+/=\s]+")
"""What base64 makes of the beginning of a PFX."""

_ASN1_SEQUENCE = b"\x30"
"""What a PFX begins with."""


def certificate(config: Config) -> dict[str, str]:
    """MSAL's credential for `auth_method: certificate`: the key, and the chain to be sent as x5c, leaf first.

    Raises:
        SettingsError: The file holds no pair of RSA key and certificate, the passphrase is wrong, or the certificate is
            not valid now. The text says what is in the file, and what is lacking.
    """
    path = Path(config["certificate_file"])
    passphrase = (config.get("certificate_passphrase") or "").encode() or None
    content = _read(path, "certificate_file")
    read = _read_pem if b"-----BEGIN" in content else _read_pfx
    try:
        key, chain = read(content, passphrase)
    except _LackingError as lacking:
        msg = f"The file {path} given as certificate_file {lacking}."
        raise SettingsError(msg, "It must be a PEM file with key and certificate, or a PFX file.") from None
    except (ValueError, TypeError, UnsupportedAlgorithm):
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
        SettingsError: The file can't be read, or holds no token; MSAL, which calls the function later, gets this too.
    """
    by_setting = config.get("federated_token_file")
    path = Path(by_setting or os.environ[FEDERATED_TOKEN_VARIABLE].strip())
    name = "federated_token_file" if by_setting else FEDERATED_TOKEN_VARIABLE

    def read() -> str:
        content = _read(path, name)
        if not content.strip():
            msg = f"The file {path} given as {name} is empty."
            raise SettingsError(msg, "Whoever issues the token has not written it yet, or elsewhere.")
        token = _text(content).strip()
        if not _JWT.fullmatch(token):
            msg = f"The file {path} given as {name} holds no token: three parts in base64url with dots between them."
            raise SettingsError(msg, "Correct the path, or have the token written alone, as plain text.")
        return token

    read()  # so that a file that is not there is found before any call
    return {"client_assertion": read}


CREDENTIALS: Mapping[str, Callable[[Config], Any]] = {
    "client_secret": lambda config: config["client_secret"],
    "certificate": certificate,
    "federated_token": federated_token,
}
"""What MSAL takes as `client_credential`, by `auth_method`; a managed identity has none."""


class _LackingError(Exception):
    """Of a file that was read: what is in it, and what is lacking, as a clause."""


def _read(path: Path, name: str) -> bytes:
    """The content of a credential's file.

    Raises:
        SettingsError: It can't be read.
    """
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:  # a path with a null character is a ValueError
        reason = error.strerror if isinstance(error, OSError) else "that is no path"
        msg = f"The file {path} given as {name} can't be read: {reason}."
        raise SettingsError(msg, "Check the path and its permissions.") from None


def _text(content: bytes) -> str:
    """What a text file says, whatever Windows or an editor made of it; nothing where it is none."""
    try:
        return decoded(content)
    except UnicodeDecodeError:
        return ""


def _read_pem(content: bytes, passphrase: bytes | None) -> tuple[PrivateKeyTypes, list[x509.Certificate]]:
    block = re.search(rb"-----BEGIN ([A-Z ]*)PRIVATE KEY-----.*?-----END \1PRIVATE KEY-----", content, re.DOTALL)
    has_certificate = b"-----BEGIN CERTIFICATE-----" in content
    if not block:
        if b"PRIVATE KEY-----" in content:
            msg = "holds a private key that has no end"
        elif has_certificate:
            msg = "holds a certificate, and no private key"
        else:
            msg = "holds neither a private key nor a certificate"
        raise _LackingError(msg)
    if not has_certificate:
        msg = "holds a private key, and no certificate"
        raise _LackingError(msg)
    encrypted = b"ENCRYPTED" in block.group()
    try:
        key = load_pem_private_key(block.group(), passphrase if encrypted else None)
    except (ValueError, TypeError):
        if encrypted:
            raise  # by the passphrase
        msg = "holds a private key that is damaged"
        raise _LackingError(msg) from None
    try:
        return key, x509.load_pem_x509_certificates(content)
    except ValueError:
        msg = "holds a certificate that is damaged"
        raise _LackingError(msg) from None


def _read_pfx(content: bytes, passphrase: bytes | None) -> tuple[PrivateKeyTypes, list[x509.Certificate]]:
    """Read a PFX file, or say what the file is instead."""
    if not content.strip():
        msg = "is empty"
        raise _LackingError(msg)
    text = _text(content).strip()
    if "-----BEGIN" in text:
        msg = "is PEM in UTF-16: save it as UTF-8"
        raise _LackingError(msg)
    if _BASE64.fullmatch(text):
        msg = "is base64, as Key Vault exports a PFX: decode it into a file first (base64 --decode)"
        raise _LackingError(msg)
    if _is_der(content, x509.load_der_x509_certificate):
        msg = "holds a certificate alone (DER), and no private key"
        raise _LackingError(msg)
    if _is_der(content, lambda key: load_der_private_key(key, None)):
        msg = "holds a private key alone (DER), and no certificate"
        raise _LackingError(msg)
    if not content.startswith(_ASN1_SEQUENCE):
        msg = "is neither PEM nor PFX"
        raise _LackingError(msg)
    key, leaf, others = pkcs12.load_key_and_certificates(content, passphrase)
    if key is None or leaf is None:
        msg = f"is a PFX without a {'private key' if key is None else 'certificate of its key'}"
        raise _LackingError(msg)
    return key, [leaf, *others]


def _is_der(content: bytes, load: Callable[[bytes], object]) -> bool:
    try:
        load(content)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return False
    return True


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
