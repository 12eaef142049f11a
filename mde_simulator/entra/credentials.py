"""Signed assertions: the certificates and federated identities of an application, and who proves to be it.

Facts from Microsoft's pages on certificate credentials and workload identity federation, and RFC
7523. Entra ID allows the clocks five minutes (`skew`); here they agree, so that a test need not wait.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from mde_simulator.entra.entra import Refused
from mde_simulator.entra.federation import EXCHANGE, SUBJECT, Issuer
from mde_simulator.entra.tokens import Jwt, decoded

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

    from mde_simulator.http.journal import Entry

JWT_BEARER = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
THUMBPRINTS: dict[str, hashes.HashAlgorithm] = {
    "x5t": hashes.SHA1(),  # noqa: S303 - names a certificate, protects nothing
    "x5t#S256": hashes.SHA256(),
}
"""How a header names a certificate (RFC 7515 4.1.7 and 4.1.8)."""


@dataclass(frozen=True)
class Federated:
    """A federated identity record: whose token, about whom, and for whom it is."""

    issuer: str
    subject: str
    audience: str
    key: RSAPublicKey = field(repr=False)


@dataclass
class Assertions:
    """What an application has registered besides its secret."""

    skew: float = 0.0
    _certificates: list[tuple[Certificate, RSAPublicKey]] = field(default_factory=list, repr=False)
    _federated: list[Federated] = field(default_factory=list, repr=False)
    _used: dict[str, bytes] = field(default_factory=dict, repr=False)

    def register(self, pem: bytes) -> str:
        """Register a certificate; the SHA-1 thumbprint that the portal would show. See `Identity`."""
        certificate = x509.load_pem_x509_certificate(pem)
        key = certificate.public_key()
        if not isinstance(key, RSAPublicKey):
            msg = "Entra ID takes certificates with RSA keys alone."
            raise ValueError(msg)  # noqa: TRY004 - of the file, not of the argument
        self._certificates.append((certificate, key))
        return certificate.fingerprint(hashes.SHA1()).hex().upper()  # noqa: S303 - a name

    def federate(self, issuer: Issuer, subject: str = SUBJECT, audience: str = EXCHANGE) -> None:
        """Trust an issuer's tokens about this subject."""
        self._federated.append(Federated(issuer.url, subject, audience, issuer.public_key))

    def check(self, form: dict[str, str], endpoint: str, now: float, entry: Entry) -> None:
        """Check the assertion of a sign-in, and write into the journal what it said.

        Args:
            form: What was posted.
            endpoint: The token endpoint, for which a certificate's assertion has to be.
            now: Seconds since 1970.
            entry: The sign-in's.

        Raises:
            Refused: It proves nothing.
        """
        if form.get("client_assertion_type") != JWT_BEARER:
            raise Refused(900144, "client_assertion_type")
        try:
            jwt = Jwt.read(form["client_assertion"])
        except ValueError as error:
            raise Refused(50027) from error
        entry.assertion = jwt.header | jwt.claims
        client = form.get("client_id", "")
        if jwt.claims.get("iss") == client or jwt.header.keys() & THUMBPRINTS.keys():
            entry.credential = "certificate"
            self._check_signed(jwt, now)
            self._check_claims(jwt, client, endpoint)
        else:
            entry.credential = "federated_token"
            self._check_federated(jwt)
        self._check_times(jwt, now)
        if entry.credential == "certificate":
            self._check_id(jwt)

    def _check_signed(self, jwt: Jwt, now: float) -> None:
        """By a certificate that is registered and in force, and named by the header."""
        named = {name: str(jwt.header[name]) for name in THUMBPRINTS if name in jwt.header}
        found = [each for each in self._certificates if named and _is_named(each[0], named)]
        if not found:
            thumbprint = ", ".join(named.values())
            detail = f"[Reason - The key was not found., Thumbprint of key used by client: '{thumbprint}']"
            raise Refused(700027, detail=detail)
        certificate, key = found[0]
        if not jwt.verifies(key):
            detail = "[Reason - The key was found, but use of the key to verify the signature failed.]"
            raise Refused(700027, detail=detail)
        since, until = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        if not since.timestamp() <= now < until.timestamp():
            raise Refused(700027, detail="[Reason - The key used is expired.]")

    def _check_claims(self, jwt: Jwt, client: str, endpoint: str) -> None:
        if jwt.claims.get("iss") != client or jwt.claims.get("sub") != client:
            raise Refused(700021)
        audience = jwt.claims.get("aud")
        if not isinstance(audience, str) or audience.lower() != endpoint.lower():
            raise Refused(700023)

    def _check_federated(self, jwt: Jwt) -> None:
        claims = jwt.claims
        audience = claims.get("aud")
        audiences = audience if isinstance(audience, list) else [audience]
        presented = (
            f"Assertion Issuer: '{claims.get('iss')}'. Assertion Subject: '{claims.get('sub')}'. "
            f"Assertion Audience: '{audience}'."
        )
        known = [each for each in self._federated if each.issuer == claims.get("iss") and each.audience in audiences]
        if not known:
            raise Refused(70021, detail=presented)
        records = [each for each in known if each.subject == claims.get("sub")]
        if not records:
            raise Refused(700213, detail=presented)
        if not any(jwt.verifies(record.key) for record in records):
            raise Refused(50013)

    def _check_times(self, jwt: Jwt, now: float) -> None:
        """`exp` must be there; `nbf` and `iat` may be (MSAL sends no `nbf`)."""
        ends, *begins = (jwt.claims.get(name) for name in ("exp", "nbf", "iat"))
        starts = [moment for moment in begins if moment is not None]
        moments = [moment for moment in (ends, *starts) if isinstance(moment, (int, float))]
        if len(moments) != 1 + len(starts) or not max(starts, default=now) - self.skew <= now < moments[0] + self.skew:
            raise Refused(700024, detail=f"Current time: {now:.0f}, expiry time of assertion: {ends}.")

    def _check_id(self, jwt: Jwt) -> None:
        """A `jti` is there, and that of one assertion alone; MSAL sends one assertion several times."""
        id_ = jwt.claims.get("jti")
        if not isinstance(id_, str) or self._used.setdefault(id_, jwt.signed) != jwt.signed:
            raise Refused(50027)


def _is_named(certificate: Certificate, named: dict[str, str]) -> bool:
    try:
        return all(decoded(text) == certificate.fingerprint(THUMBPRINTS[name]) for name, text in named.items())
    except ValueError:
        return False
