"""Sign-in: tokens from Entra ID through MSAL, one application object for each tap.

What an application proves itself with comes from `credentials`; everything here is the same for all. Must not know
streams, or any call but that for a token.
"""

from __future__ import annotations

import base64
import json
import logging
import re
import threading
import time
from datetime import datetime, timezone
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import backoff
import msal
import requests
from msal.exceptions import MsalServiceError
from requests.auth import AuthBase
from typing_extensions import override

from tap_mde_kbs.api.credentials import CREDENTIALS
from tap_mde_kbs.errors import ApiError, SignInError, TryAgainError, certificate_error, printable, sign_in_error
from tap_mde_kbs.patience import Patience
from tap_mde_kbs.settings import DEFAULT_CREDENTIAL

if TYPE_CHECKING:
    from collections.abc import Callable

    from tap_mde_kbs.api.credentials import Config
    from tap_mde_kbs.settings import Endpoints

# MSAL logs answers of the authority, and with a traceback; what a person needs of them is in SignInError.
logging.getLogger("msal").setLevel(logging.CRITICAL + 1)

RENEW_BEFORE_END_SECONDS = 300
"""MSAL itself hands out a cached token only while more than this is left of its life."""

TRIES = 4
"""How often the authority is asked for a token before the run ends."""

TRANSIENT = {"temporarily_unavailable", "server_error"}
"""OAuth errors (RFC 6749 4.1.2.1, and Entra ID's) that may be gone with another try."""


class SignIn(AuthBase):
    """Puts a bearer token on calls to the API, and on nothing else; renews it before it ends and after a 401.

    Threads may share it: whoever needs a token while another fetches one waits for that one. Nothing is asked before
    the first token is wanted.

    Args:
        config: The tap's settings.
        endpoints: The URLs and the scope that they stand for.
        session: For the authority alone; MSAL would deadlock on one whose `auth` is this object.
        log: Where a try that failed is logged.
        wait: Seconds before the second try; twice as long before each further one.
        clock: Seconds on a monotonic clock.
    """

    def __init__(  # noqa: PLR0913 - two of them are for tests alone
        self,
        config: Config,
        endpoints: Endpoints,
        session: requests.Session,
        *,
        log: logging.Logger,
        wait: float = Patience.sign_in,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._endpoints = endpoints
        self._session = session
        self._log = log
        self._wait = wait
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
            ApiError: The call goes to another host, which must not get the token.
            SignInError: There is no token to be had.
        """
        if not (r.url or "").startswith(f"{self._endpoints.api_url}/"):
            msg = "A call to another host than api_url was stopped: the token goes to that host alone."
            raise ApiError(msg, "This is a defect of the tap; please report it.")
        r.headers["Authorization"] = f"Bearer {self.token()}"
        if self._renew_after_401 not in r.hooks["response"]:
            r.hooks["response"].append(self._renew_after_401)
        return r

    def token(self) -> str:
        """A token that is valid for some time yet.

        Raises:
            SignInError: Entra ID refused, or did not answer in several tries.
            SettingsError: The credential's file is not what it should be.
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
        """The application permissions in the token; None where it does not tell: a token is opaque by contract."""
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
        acquire = backoff.on_exception(
            backoff.expo,
            TryAgainError,
            max_tries=TRIES,
            factor=self._wait,
            jitter=None,
            logger=None,
            on_backoff=lambda details: self._log.warning(
                "Sign-in: %s Trying again in %.0f s.", details["exception"], details["wait"]
            ),
        )(self._acquire)
        try:
            return acquire()
        except TryAgainError as error:
            msg = f"Sign-in failed {TRIES} times: {error}"
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
            msg = f"{self.authority} could not be reached, or gave no answer of use ({reason})."
            raise TryAgainError(msg) from None
        except ValueError as error:
            raise self._refused_or_unavailable(error) from None
        if "access_token" in result:
            return result
        if result.get("error") in TRANSIENT:
            raise TryAgainError(printable(result.get("error_description") or result["error"], 200))
        raise self._refused(result)

    def _refused(self, result: dict[str, Any]) -> SignInError:
        """The error for a refusal, without a client id that is not one.

        Entra ID quotes it, and it may be the secret under the wrong name.
        """
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
        return TryAgainError(f"the answer of {self.authority} was not what it should be.")
