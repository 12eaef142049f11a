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
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import msal
import requests
from requests.auth import AuthBase
from typing_extensions import override

from tap_mde_kbs.api.credentials import CREDENTIALS
from tap_mde_kbs.api.http import seconds_to_wait
from tap_mde_kbs.api.network import network_fault
from tap_mde_kbs.errors import ApiError, SignInError, TapError, TryAgainError, printable, sign_in_error
from tap_mde_kbs.patience import Patience
from tap_mde_kbs.settings import DEFAULT_CREDENTIAL

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tap_mde_kbs.api.credentials import Config
    from tap_mde_kbs.api.session import Session
    from tap_mde_kbs.settings import Endpoints

# MSAL logs answers of the authority, and with a traceback; what a person needs of them is in SignInError.
logging.getLogger("msal").setLevel(logging.CRITICAL + 1)

RENEW_BEFORE_END_SECONDS = 300
"""MSAL itself hands out a cached token only while more than this is left of its life."""

UNKNOWN_LIFE = 600.0
"""Seconds that a token is used whose end is unknown, or past by this machine's clock; after a 401 there is another."""

LONGEST_LIFE = 10 * 86400.0
"""Seconds: Entra ID's longest lives are a day or so; more is no life of a token."""

TRIES = 4
"""How often the authority is asked for a token before the run ends."""

MANAGED_TRIES = 5
"""The same for a managed identity: 90 s in all, since its endpoint may be gone for 70 while it is updated (HTTP 410).

Source: learn.microsoft.com, "How to use managed identities on a VM to acquire an access token", section Retry guidance.
"""

PASSING_STATUS = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS}
"""What may be gone with another try, beside 5xx."""

MANAGED_PASSING_STATUS = PASSING_STATUS | {HTTPStatus.NOT_FOUND, HTTPStatus.GONE}
"""The same for a managed identity: 404 while its endpoint starts, 410 while it is updated; source as above."""

MANAGED_ADVICE = (
    "Has this machine an identity? Check IDENTITY_ENDPOINT, IDENTITY_HEADER and client_id, if they are set."
)

LONGEST_WAIT = 300.0
"""Seconds that are waited for a Retry-After at most; whoever asks for more is asked again then all the same."""

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
        session: Session,
        *,
        log: logging.Logger,
        wait: float = Patience.sign_in,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._endpoints = endpoints
        self._witness = Witness(session)
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
        return "this machine's managed identity endpoint" if self._is_managed else self._endpoints.authority_url

    @property
    def _is_managed(self) -> bool:
        return self.method == "managed_identity"

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
                life = _seconds(result.get("expires_in"))
                self._token = result["access_token"]
                self._reuse_until = self._clock() + (max(life - RENEW_BEFORE_END_SECONDS, life / 2) or UNKNOWN_LIFE)
                self.valid_until = datetime.fromtimestamp(time.time() + life, timezone.utc) if life else None
            return self._token

    def roles(self) -> frozenset[str] | None:
        """The application permissions in the token; None where it does not tell: a token is opaque by contract."""
        token = self.token()
        try:
            payload = token.split(".")[1]
            roles = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["roles"]
            return frozenset([roles] if isinstance(roles, str) else [str(role) for role in roles])
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
        if self._is_managed:
            identity = (
                msal.UserAssignedManagedIdentity(client_id=config["client_id"])
                if config.get("client_id")
                else msal.SystemAssignedManagedIdentity()
            )
            client = msal.ManagedIdentityClient(identity, http_client=self._witness, token_cache=self._cache)
            return partial(client.acquire_token_for_client, resource=scope.removesuffix("/.default"))
        application = msal.ConfidentialClientApplication(
            config["client_id"],
            client_credential=CREDENTIALS[self.method](config),
            authority=f"{self._endpoints.authority_url}/{config['tenant_id'].strip()}",
            # The authority is the one in the settings; Microsoft's public host need not be asked about it.
            instance_discovery=False,
            http_client=self._witness,
            token_cache=self._cache,
        )
        return partial(application.acquire_token_for_client, [scope])

    def _acquire_with_retries(self) -> dict[str, Any]:
        self._witness.outcome = None
        tries = MANAGED_TRIES if self._is_managed else TRIES
        for tried in range(1, tries + 1):
            try:
                return self._acquire()
            except TryAgainError as error:
                failure = error
            if tried < tries:
                wait = max(self._wait * 2 ** (tried - 1), min(failure.wait or 0.0, LONGEST_WAIT))
                self._log.warning("Sign-in: %s Trying again in %.0f s.", failure, wait)
                time.sleep(wait)
        msg = f"Sign-in failed {tries} times: {failure}"
        advice = f"Check that {self.authority} can be reached from here (auth_method, proxy, firewall)."
        raise SignInError(msg, failure.advice or advice)

    def _acquire(self) -> dict[str, Any]:
        """Ask for a token once.

        Raises:
            TryAgainError: Another try may bring one.
            TapError: None will.
        """
        try:
            result = self._ask()
        except TapError:  # of a credential's file, which MSAL has us read
            raise
        except Exception as error:  # noqa: BLE001 - whatever MSAL makes of it: what happened, the session saw
            raise self._why({}, error) from None
        if isinstance(result.get("access_token"), str) and result["access_token"]:
            return dict(result)
        raise self._why(result, None)

    def _why(self, result: Mapping[str, Any], error: Exception | None) -> Exception:
        """Why there is no token, by what the session saw last.

        Args:
            result: What MSAL returned instead.
            error: What it raised.
        """
        outcome = self._witness.outcome
        if isinstance(outcome, requests.Response):
            return self._why_answered(outcome, result, error)
        if outcome is not None:
            fault = network_fault(outcome, self.authority, self._witness.session)
            if fault.may_pass:
                return TryAgainError(fault.what, advice=fault.advice)
            return SignInError(fault.what, fault.advice or (MANAGED_ADVICE if self._is_managed else ""))
        said = result.get("error_description") or result.get("error") or f"{type(error).__name__}: {error}"
        msg = f"Sign-in failed before any call was made: {printable(said, 200)}."
        return SignInError(msg, f"Check the settings of auth_method {self.method}.")

    def _why_answered(
        self, response: requests.Response, result: Mapping[str, Any], error: Exception | None
    ) -> Exception:
        """The same, where there was an answer: its status and its body decide, not what MSAL makes of them."""
        status, document = response.status_code, _document(response)
        if self._is_managed and status == HTTPStatus.UNAUTHORIZED and error is not None:
            # Azure Arc: MSAL is told of a file with a key, and can't read it.
            msg = f"{self.authority} answered HTTP 401: {printable(error, 200)}."
            return SignInError(msg, "On Azure Arc, run as a user who may read its key: of the group himds, or root.")
        passing = MANAGED_PASSING_STATUS if self._is_managed else PASSING_STATUS
        refusal = document if "error" in document else result
        if status in passing or status >= HTTPStatus.INTERNAL_SERVER_ERROR or str(refusal.get("error")) in TRANSIENT:
            said = refusal.get("error_description") or refusal.get("error") or response.reason or ""
            what = f"{self.authority} answered HTTP {status}: {printable(said, 200).rstrip('.')}."
            return TryAgainError(what, wait=seconds_to_wait(response.headers))
        if status >= HTTPStatus.MULTIPLE_CHOICES:
            has_said_why = status >= HTTPStatus.BAD_REQUEST and "error" in refusal
            return self._refused(refusal) if has_said_why else self._turned_away(status)
        if error is not None and "token_endpoint" in document:
            # The authority has said where it gives tokens, and was not asked for one.
            msg = f"Sign-in failed before a token was asked for: {printable(f'{type(error).__name__}: {error}', 200)}."
            return SignInError(msg, f"Check the settings of auth_method {self.method}.")
        return TryAgainError(f"the answer of {self.authority} was not what it should be.")

    def _turned_away(self, status: int) -> SignInError:
        """The error for HTTP 3xx and 4xx without a word of Entra ID's."""
        if self._is_managed:
            return SignInError(f"{self.authority} answered HTTP {status}.", MANAGED_ADVICE)
        msg = f"{self.authority} answered HTTP {status}"
        if status < HTTPStatus.BAD_REQUEST:
            msg = f"{msg}: redirects are not followed, since the secret would go along."
            advice = "Set authority_url to the host itself, or sign in at the network's own portal first."
        elif status in {HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND}:
            msg, advice = (
                f"Sign-in failed: {msg}, and does not know the tenant.",
                "Check tenant_id, cloud and authority_url.",
            )
        else:
            msg = f"Sign-in failed: {msg}, without a word of Entra ID's."
            advice = "Is there a filter or a proxy in between? Check authority_url and cloud."
        return SignInError(msg, advice)

    def _refused(self, result: Mapping[str, Any]) -> SignInError:
        """The error for a refusal, without a client id that is not one.

        Entra ID quotes it, and it may be the secret under the wrong name.
        """
        client_id, description = self._config.get("client_id") or "", str(result.get("error_description") or "")
        if client_id and not re.fullmatch(r"[0-9a-fA-F-]{36}", client_id):
            description = description.replace(client_id, "…")
        return sign_in_error({**result, "error_description": description})


class Witness:
    """The session as MSAL sees it; remembers what became of the last call.

    MSAL wraps what it meets in exceptions of many types, and keeps failures in a cache of its own: only here is it
    known what happened.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self.outcome: requests.Response | Exception | None = None

    def get(self, url: str, **kwargs: Any) -> requests.Response:
        """As requests does it."""
        return self._noted("GET", url, kwargs)

    def post(self, url: str, **kwargs: Any) -> requests.Response:
        """As requests does it."""
        return self._noted("POST", url, kwargs)

    def close(self) -> None:
        """As requests does it."""
        self.session.close()

    def _noted(self, method: str, url: str, kwargs: dict[str, Any]) -> requests.Response:
        try:
            self.outcome = response = self.session.request(method, url, **kwargs)
        except Exception as error:
            self.outcome = error
            raise
        return response


def _document(response: requests.Response) -> Mapping[str, Any]:
    """The JSON object of an answer; empty where there is none."""
    try:
        document = response.json()
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _seconds(value: object) -> float:
    """The life of a token, as an answer says it; 0.0 where it says none that can be."""
    try:
        seconds = float(str(value))
    except ValueError:
        return 0.0
    return seconds if 0 < seconds <= LONGEST_LIFE else 0.0
