"""Sign-in: tokens from Entra ID through MSAL, one application object for each tap.

Knows nothing of streams. Every credential kind is a function that makes MSAL's application; what happens
with a token afterwards is the same for all.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from functools import cached_property
from typing import TYPE_CHECKING, Any

import backoff
import msal
import requests
from msal.exceptions import MsalServiceError
from requests.auth import AuthBase
from typing_extensions import override

from tap_mde_kbs.errors import ApiError, SignInError, certificate_error, printable, sign_in_error

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tap_mde_kbs.settings import Endpoints

# MSAL logs answers of the authority, and with a traceback; what a person needs of them is in SignInError.
logging.getLogger("msal").setLevel(logging.CRITICAL + 1)

RENEW_BEFORE_END_SECONDS = 300
"""MSAL itself hands out a cached token only while more than this is left of its life."""

SIGN_IN_TRIES = 4
FIRST_WAIT_SECONDS = 6
"""MSAL answers from a cache of failures for Retry-After, 5 s by default: an earlier try would not be one."""


class _UnavailableError(Exception):
    """The sign-in service did not answer, or not with anything of use; another try may do."""


def client_secret_application(
    config: Mapping[str, Any], endpoints: Endpoints, session: requests.Session
) -> msal.ConfidentialClientApplication:
    """MSAL's application for `auth_method: client_secret`. Asks the authority for its configuration at once."""
    return msal.ConfidentialClientApplication(
        config["client_id"],
        client_credential=config["client_secret"],
        authority=f"{endpoints.authority_url}/{config['tenant_id'].strip()}",
        # The authority is the one in the settings; Microsoft's public host need not be asked about it.
        instance_discovery=False,
        http_client=session,
    )


class SignIn(AuthBase):
    """Puts a bearer token on calls to the API, and on nothing else; renews it before it ends and after a 401.

    Threads may share it: whoever needs a token while another fetches one waits for that one.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
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
        self._token: str | None = None
        self._reuse_until = 0.0

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
        """
        with self._lock:
            if self._token is None or self._clock() >= self._reuse_until:
                result = self._acquire_with_retries()
                life = float(result.get("expires_in") or 0)
                self._token = result["access_token"]
                self._reuse_until = self._clock() + max(life - RENEW_BEFORE_END_SECONDS, life / 2)
            return self._token

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
                self._application.remove_tokens_for_client()
                self._token = None

    @cached_property
    def _application(self) -> msal.ConfidentialClientApplication:
        return client_secret_application(self._config, self._endpoints, self._session)

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
                msg,
                f"Check that {self._endpoints.authority_url} can be reached from here (proxy, firewall).",
            ) from None

    def _acquire(self) -> dict[str, Any]:
        try:
            result: dict[str, Any] = self._application.acquire_token_for_client([self._endpoints.token_scope])
        except requests.exceptions.SSLError as error:
            raise SignInError(certificate_error(self._endpoints.authority_url, error)) from None
        except (requests.RequestException, MsalServiceError) as error:
            msg = f"the authority did not answer ({type(error).__name__}: {printable(error, 200)})."
            raise _UnavailableError(msg) from None
        except ValueError as error:
            raise self._refused_or_unavailable(error) from None
        if "access_token" in result:
            return result
        if result.get("error") == "temporarily_unavailable":
            raise _UnavailableError(printable(result.get("error_description"), 200))
        raise self._refused(result)

    def _refused(self, result: dict[str, Any]) -> SignInError:
        """Leave out a client id that is none: Entra ID quotes it, and it may be the secret under the wrong name."""
        client_id, description = self._config["client_id"], str(result.get("error_description") or "")
        if not re.fullmatch(r"[0-9a-fA-F-]{36}", client_id):
            description = description.replace(client_id, "…")
        return sign_in_error({**result, "error_description": description})

    @staticmethod
    def _refused_or_unavailable(error: ValueError) -> Exception:
        """What MSAL's ValueError means: it hides the authority's answer in its context."""
        answer = str(error.__context__ or error)
        if found := re.search(r"AADSTS\d+[^\"\\\r\n]*", answer):
            return sign_in_error({"error_description": found.group()})
        if "HTTP status: 4" in answer:
            return SignInError(
                "Sign-in failed: the authority does not know the tenant.",
                "Check tenant_id, cloud and authority_url.",
            )
        return _UnavailableError("the authority's answer was not what it should be.")
