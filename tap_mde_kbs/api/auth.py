"""Sign-in: tokens from Entra ID through MSAL, one application object for each tap.

Knows nothing of streams. Every credential kind is a function that gives MSAL what it takes; what happens
with a token afterwards is the same for all.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import re
import threading
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import backoff
import msal
import requests
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
from msal.exceptions import MsalServiceError
from requests.auth import AuthBase
from typing_extensions import override

from tap_mde_kbs.errors import ApiError, SettingsError, SignInError, certificate_error, printable, sign_in_error
from tap_mde_kbs.settings import DEFAULT_CREDENTIAL, FEDERATED_TOKEN_VARIABLE

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

    from tap_mde_kbs.settings import Endpoints

Config: TypeAlias = Mapping[str, Any]

# MSAL logs answers of the authority, and with a traceback; what a person needs of them is in SignInError.
logging.getLogger("msal").setLevel(logging.CRITICAL + 1)

RENEW_BEFORE_END_SECONDS = 300
"""MSAL itself hands out a cached token only while more than this is left of its life."""

SIGN_IN_TRIES = 4
FIRST_WAIT_SECONDS = 6
"""MSAL answers from a cache of failures for Retry-After, 5 s by default: an earlier try would not be one."""

TRANSIENT = {"temporarily_unavailable", "server_error"}
"""OAuth errors (RFC 6749 4.1.2.1, and Entra ID's) that another try may mend."""


class _UnavailableError(Exception):
    """The sign-in service did not answer, or not with anything of use; another try may do."""


def certificate(config: Config) -> dict[str, str]:
    """MSAL's credential for `auth_method: certificate`: the key, and the chain to be sent as x5c, leaf first.

    Raises:
        SettingsError: the file holds no pair of RSA key and certificate, the passphrase is wrong, or it is not
            valid now.
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
    """MSAL's credential for `auth_method: federated_token`: the file is read again at each renewal."""
    path = Path(config.get("federated_token_file") or os.environ[FEDERATED_TOKEN_VARIABLE])

    def read() -> str:
        try:
            return path.read_text().strip()
        except OSError as error:
            msg = f"The file {path} given as federated_token_file can't be read: {error.strerror}."
            raise SettingsError(msg, "Check the path and its permissions.") from None

    read()
    return {"client_assertion": read}


CREDENTIALS: Mapping[str, Callable[[Config], Any]] = {
    "client_secret": lambda config: config["client_secret"],
    "certificate": certificate,
    "federated_token": federated_token,
}
"""What MSAL takes as `client_credential`, by `auth_method`; a managed identity has none."""


class SignIn(AuthBase):
    """Puts a bearer token on calls to the API, and on nothing else; renews it before it ends and after a 401.

    Threads may share it: whoever needs a token while another fetches one waits for that one.
    """

    def __init__(
        self,
        config: Config,
        endpoints: Endpoints,
        session: requests.Session,
        *,
        log: logging.Logger,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take the settings; nothing is asked before the first token is wanted.

        Args:
            config: the tap's settings.
            endpoints: what they resolve to.
            session: for the authority alone; MSAL would deadlock on one whose `auth` is this object.
            log: where a try that failed is told.
            clock: monotonic seconds.
        """
        self._config = config
        self._endpoints = endpoints
        self._session = session
        self._log = log
        self._clock = clock
        self._lock = threading.Lock()
        self._cache = msal.TokenCache()
        self._token: str | None = None
        self._reuse_until = 0.0
        self.valid_until: datetime | None = None
        """When the newest token ends."""

    @property
    def method(self) -> str:
        """Which credential signs in: the setting `auth_method`."""
        return str(self._config.get("auth_method") or DEFAULT_CREDENTIAL)

    @property
    def authority(self) -> str:
        """Who gives the tokens, for messages."""
        managed = self.method == "managed_identity"
        return "this machine's managed identity endpoint" if managed else self._endpoints.authority_url

    @override
    def __call__(self, r: requests.PreparedRequest) -> requests.PreparedRequest:
        """Authorize a call to the API.

        Raises:
            ApiError: the call goes elsewhere, and the token must not.
            SignInError: there is no token to be had.
        """
        if not (r.url or "").startswith(f"{self._endpoints.api_url}/"):
            msg = "A call to another host than api_url was stopped: the token goes to that host alone."
            raise ApiError(msg, "This is a defect of the tap; please report it.")
        r.headers["Authorization"] = f"Bearer {self.token()}"
        if self._renew_after_401 not in r.hooks["response"]:
            r.hooks["response"].append(self._renew_after_401)
        return r

    def token(self) -> str:
        """A token with some life left.

        Raises:
            SignInError: Entra ID refused, or did not answer in several tries.
            SettingsError: the credential's file is not what it should be.
        """
        with self._lock:
            if self._token is None or self._clock() >= self._reuse_until:
                result = self._acquire_with_retries()
                life = float(result.get("expires_in") or 0)
                self._token = result["access_token"]
                self._reuse_until = self._clock() + max(life - RENEW_BEFORE_END_SECONDS, life / 2)
                self.valid_until = datetime.fromtimestamp(time.time() + life, timezone.utc)
            return self._token

    def roles(self) -> frozenset[str] | None:
        """The application permissions in the token; None where it does not say: a token is opaque by contract."""
        try:
            payload = self.token().split(".")[1]
            claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
            return frozenset(str(role) for role in claims["roles"])
        except (IndexError, ValueError, KeyError, TypeError, RecursionError):
            return None

    def _renew_after_401(self, response: requests.Response, **kwargs: Any) -> requests.Response:
        """Ask once more with a new token when one was refused (revoked, or this machine's clock is wrong)."""
        if response.status_code != requests.codes.unauthorized:
            return response
        _ = response.content  # so that the connection can be used again
        response.close()
        self._forget(response.request.headers["Authorization"])
        again = response.request.copy()
        again.headers["Authorization"] = f"Bearer {self.token()}"
        renewed: requests.Response = response.connection.send(again, **kwargs)
        renewed.history.append(response)
        renewed.request = again
        return renewed

    def _forget(self, authorization: str) -> None:
        """Drop the token that was refused, unless another thread has renewed it since."""
        with self._lock:
            if authorization == f"Bearer {self._token}":
                for kept in list(self._cache.search(msal.TokenCache.CredentialType.ACCESS_TOKEN)):
                    self._cache.remove_at(kept)
                self._token = None

    @cached_property
    def _ask(self) -> Callable[[], dict[str, Any]]:
        """How MSAL is asked for a token. Making a confidential application asks the authority for its configuration."""
        config, scope = self._config, self._endpoints.token_scope
        if self.method == "managed_identity":
            identity = (
                msal.UserAssignedManagedIdentity(client_id=config["client_id"])
                if config.get("client_id")
                else msal.SystemAssignedManagedIdentity()
            )
            client = msal.ManagedIdentityClient(identity, http_client=self._session, token_cache=self._cache)
            return partial(client.acquire_token_for_client, resource=scope.removesuffix("/.default"))
        application = msal.ConfidentialClientApplication(
            config["client_id"],
            client_credential=CREDENTIALS[self.method](config),
            authority=f"{self._endpoints.authority_url}/{config['tenant_id'].strip()}",
            # The authority is the one in the settings; Microsoft's public host need not be asked about it.
            instance_discovery=False,
            http_client=self._session,
            token_cache=self._cache,
        )
        return partial(application.acquire_token_for_client, [scope])

    def _acquire_with_retries(self) -> dict[str, Any]:
        tries = backoff.on_exception(
            backoff.expo,
            _UnavailableError,
            max_tries=SIGN_IN_TRIES,
            factor=FIRST_WAIT_SECONDS,
            jitter=None,
            logger=None,
            on_backoff=lambda details: self._log.warning(
                "Sign-in: %s Trying again in %.0f s.", details["exception"], details["wait"]
            ),
        )(self._acquire)
        try:
            return tries()
        except _UnavailableError as error:
            msg = f"Sign-in failed {SIGN_IN_TRIES} times: {error}"
            raise SignInError(
                msg, f"Check that {self.authority} can be reached from here (auth_method, proxy, firewall)."
            ) from None

    def _acquire(self) -> dict[str, Any]:
        try:
            result = self._ask()
        except requests.exceptions.SSLError as error:
            raise SignInError(certificate_error(self.authority, error)) from None
        except (requests.RequestException, MsalServiceError) as error:
            reason = str(error) if isinstance(error, MsalServiceError) else type(error).__name__
            msg = f"{self.authority} could not be reached, or had no answer of use ({reason})."
            raise _UnavailableError(msg) from None
        except ValueError as error:
            raise self._refused_or_unavailable(error) from None
        if "access_token" in result:
            return result
        if result.get("error") in TRANSIENT:
            raise _UnavailableError(printable(result.get("error_description") or result["error"], 200))
        raise self._refused(result)

    def _refused(self, result: dict[str, Any]) -> SignInError:
        """Leave out a client id that is none: Entra ID quotes it, and it may be the secret under the wrong name."""
        client_id, description = self._config.get("client_id") or "", str(result.get("error_description") or "")
        if client_id and not re.fullmatch(r"[0-9a-fA-F-]{36}", client_id):
            description = description.replace(client_id, "…")
        return sign_in_error({**result, "error_description": description})

    def _refused_or_unavailable(self, error: ValueError) -> Exception:
        """What MSAL's ValueError means: it hides the authority's answer in its context."""
        answer = str(error.__context__ or error)
        if found := re.search(r"AADSTS\d+[^\"\\\r\n]*", answer):
            return sign_in_error({"error_description": found.group()})
        if "HTTP status: 4" in answer:
            return SignInError(
                "Sign-in failed: the authority does not know the tenant.", "Check tenant_id, cloud and authority_url."
            )
        return _UnavailableError(f"the answer of {self.authority} was not what it should be.")


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
        raise SettingsError(msg, "Entra ID takes RSA keys alone.")
    own = _der(key.public_key())
    leaf = next((each for each in chain if _der(each.public_key()) == own), None)
    if leaf is None:
        msg = f"No certificate in {path} (certificate_file) belongs to its key."
        raise SettingsError(msg, "Put key and certificate of one pair into one file.")
    now = datetime.now(timezone.utc)
    if not leaf.not_valid_before_utc <= now <= leaf.not_valid_after_utc:
        msg = f"The certificate in {path} is valid from {leaf.not_valid_before_utc} to {leaf.not_valid_after_utc}."
        raise SettingsError(msg, "Make a new one and register it with the application; or check the clock.")
    return leaf


def _der(key: Any) -> bytes:
    return bytes(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
