"""JSON Web Tokens: written, read, and their signature checked.

With `cryptography` alone: what a client's library signs is not to be checked by the same library.
Knows nothing of who may sign what.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey

Part: TypeAlias = dict[str, Any]
PADDINGS: dict[str, padding.AsymmetricPadding] = {
    "RS256": padding.PKCS1v15(),
    "PS256": padding.PSS(padding.MGF1(hashes.SHA256()), hashes.SHA256.digest_size),
}


def encoded(data: bytes) -> str:
    """Base64 for URLs, without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decoded(text: str) -> bytes:
    """The same back; with padding too.

    Raises:
        ValueError: It is none.
    """
    return base64.urlsafe_b64decode(text.rstrip("=") + "=" * (-len(text.rstrip("=")) % 4))


@dataclass(frozen=True)
class Jwt:
    """A token taken apart; whether it is genuine is another question."""

    header: Part
    claims: Part
    signed: bytes
    signature: bytes

    @classmethod
    def read(cls, text: str) -> Jwt:
        """Take a token apart.

        Raises:
            ValueError: It is no token of that kind.
        """
        first, second, third = text.split(".")
        try:
            header, claims = (json.loads(decoded(part)) for part in (first, second))
        except RecursionError as error:
            msg = "nested too deep"
            raise ValueError(msg) from error
        if not isinstance(header, dict) or not isinstance(claims, dict):
            msg = "header and claims are objects"
            raise ValueError(msg)  # noqa: TRY004 - a text of the wrong form, not an argument of the wrong type
        return cls(header, claims, f"{first}.{second}".encode(), decoded(third))

    def verifies(self, key: RSAPublicKey) -> bool:
        """Whether the owner of that key signed it, with RS256 or PS256."""
        scheme = PADDINGS.get(str(self.header.get("alg")))
        if scheme is None:
            return False
        try:
            key.verify(self.signature, self.signed, scheme, hashes.SHA256())
        except InvalidSignature:
            return False
        return True


def unsigned(header: Part, claims: Part) -> str:
    """The two parts that a signature is made over."""
    return ".".join(encoded(json.dumps(part).encode()) for part in (header, claims))


def sign(header: Part, claims: Part, key: RSAPrivateKey) -> str:
    """A token with the signature that its header's `alg` names.

    Raises:
        KeyError: `alg` is neither RS256 nor PS256.
    """
    text = unsigned(header, claims)
    return f"{text}.{encoded(key.sign(text.encode(), PADDINGS[header['alg']], hashes.SHA256()))}"
