"""An issuer of tokens outside the tenant, as a cluster or a pipeline has one, for workload identity.

Plays the part of Kubernetes or GitHub: signs tokens and writes them where a workload reads them.
Knows nothing of who trusts it.
"""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric import rsa

from mde_simulator.entra.tokens import sign

if TYPE_CHECKING:
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey

EXCHANGE = "api://AzureADTokenExchange"
"""What Entra ID takes for an audience by default."""
SUBJECT = "system:serviceaccount:security:tap-mde-kbs"


@dataclass
class Issuer:
    """Who signs; `url` is the `iss` of its tokens."""

    url: str = "https://oidc.cluster.example/5b0d9a3c/"
    _key: RSAPrivateKey = field(default_factory=lambda: rsa.generate_private_key(65537, 2048), repr=False)

    @cached_property
    def public_key(self) -> RSAPublicKey:
        """What others check its tokens with."""
        return self._key.public_key()

    def token(self, subject: str = SUBJECT, *, audience: str = EXCHANGE, life: float = 3600) -> str:
        """A token that is valid for that many seconds; negative: it has expired already."""
        now = time.time()
        claims = {
            "iss": self.url,
            "sub": subject,
            "aud": audience,
            "iat": min(now, now + life),
            "nbf": min(now, now + life),
            "exp": now + life,
            "jti": str(uuid.uuid4()),
        }
        return sign({"typ": "JWT", "alg": "RS256"}, claims, self._key)

    def write(self, path: Path, subject: str = SUBJECT, *, audience: str = EXCHANGE, life: float = 3600) -> Path:
        """Replace the token in the file; a reader sees the old one or the new one, never half."""
        beside = path.with_name(f"{path.name}.new")
        beside.write_text(self.token(subject, audience=audience, life=life) + "\n")
        return beside.replace(path)
