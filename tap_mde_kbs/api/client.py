"""The client: makes a call to the API, and returns the JSON of the answer or raises an error that says what to do.

What an answer means is decided here: whether to ask again, and if not, which error it is. Must not know Singer,
streams, or what is in a record.
"""

from __future__ import annotations

import json
import re
from functools import cached_property
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import backoff
import requests

from tap_mde_kbs import settings
from tap_mde_kbs.api.auth import SignIn
from tap_mde_kbs.api.governor import Governor
from tap_mde_kbs.api.http import GovernedAdapter, path_of, shown_path
from tap_mde_kbs.api.network import network_fault
from tap_mde_kbs.api.session import Session
from tap_mde_kbs.errors import (
    API_REMEDIES,
    ApiError,
    BadRequestError,
    NoAnswerError,
    NotFoundError,
    ShapeError,
    Stopped,
    TryAgainError,
    api_reason,
    is_own_404,
)

if TYPE_CHECKING:
    import logging
    from collections.abc import Mapping, Sequence

    from backoff.types import Details

    from tap_mde_kbs.patience import Patience

REMEDIES: Mapping[int, str] = {
    HTTPStatus.UNAUTHORIZED: "token",
    HTTPStatus.FORBIDDEN: "permission",
    HTTPStatus.NOT_FOUND: "address",
}
"""The key of `API_REMEDIES`, by HTTP status; "refused" for the others."""

_UNLICENSED = re.compile(r"no tvm license", re.IGNORECASE)
_OF_ALL_CALLS = re.compile(r"\brole|\blicen[cs]e", re.IGNORECASE)
"""What a 403 says that is about the application or the tenant, so about all calls."""

_NO_SUCH_PATH = re.compile(r"\bno http resource\b", re.IGNORECASE)
"""What a 404 says that is about the path, not about what was asked for."""

TRIES = 6
"""How often a call is made until `NoAnswerError` is raised, unless its caller says otherwise."""


class Client:
    """Makes the calls; one client for each tap, shared by its threads.

    Its parts are made when they are first used, so that discovery works without settings.

    Args:
        config: The tap's settings.
        log: Where tries that failed are logged.
        patience: How long to wait before another try.
    """

    def __init__(self, config: Mapping[str, Any], log: logging.Logger, patience: Patience) -> None:
        self.patience = patience
        self.retries = 0
        self._config = config
        self._log = log
        self._stopped = False
        self._own_quotas: dict[str, Governor] = {}

    @cached_property
    def endpoints(self) -> settings.Endpoints:
        """Where the run signs in, and whom it asks."""
        return settings.endpoints(self._config)

    @cached_property
    def timeout(self) -> int:
        """Seconds to wait for a connection, and for each next piece of an answer."""
        return int(self._config["request_timeout_seconds"])

    @cached_property
    def parallel(self) -> int:
        """How many calls may be in flight."""
        return int(self._config["max_parallel_requests"])

    @cached_property
    def governor(self) -> Governor:
        """The quota of all calls that have no quota of their own."""
        return Governor(
            (
                (int(self._config["requests_per_minute"]), 60.0),
                (int(self._config["requests_per_hour"]), 3600.0),
            )
        )

    @property
    def _governors(self) -> Sequence[Governor]:
        return (self.governor, *self._own_quotas.values())

    @property
    def calls(self) -> int:
        """How many calls went out."""
        return sum(governor.calls for governor in self._governors)

    @property
    def throttled(self) -> int:
        """How many calls were answered with 429."""
        return sum(governor.throttled for governor in self._governors)

    @cached_property
    def sign_in(self) -> SignIn:
        """Puts the token on each call."""
        authority = Session(self.endpoints.authority_url, self.timeout)
        if self._config.get("auth_method") == "managed_identity":
            authority.proxies.clear()  # its endpoint is on this machine, or next to it
        return SignIn(self._config, self.endpoints, authority, log=self._log, wait=self.patience.sign_in)

    @cached_property
    def session(self) -> Session:
        """The one session for the API."""
        session = Session(self.endpoints.api_url, self.timeout)
        session.auth = self.sign_in
        session.headers.update({"Accept": "application/json", "User-Agent": str(self._config["user_agent"])})
        session.mount(self.endpoints.api_url, GovernedAdapter(self.governor, self.parallel, self._log.warning))
        for path, governor in self._own_quotas.items():
            self._mount(session, path, governor)
        return session

    def limit(self, path: str, limits: Sequence[tuple[int, float]]) -> None:
        """Give the calls of a path a quota of their own.

        Args:
            path: What the paths of these calls begin with.
            limits: Pairs of a number of calls and the seconds in which they may go out. All are kept.
        """
        governor = self._own_quotas[path] = Governor(limits)
        if self._stopped:
            governor.stop()
        if "session" in vars(self):  # in use already
            self._mount(self.session, path, governor)

    def _mount(self, session: Session, path: str, governor: Governor) -> None:
        session.mount(f"{self.endpoints.api_url}{path}", GovernedAdapter(governor, 1, self._log.warning))

    def stop(self) -> None:
        """End the run: its time is over. Whoever waits for a quota is woken."""
        self._stopped = True
        for governor in self._governors:
            governor.stop()

    def check_time(self) -> None:
        """Check, between two steps that wait for no quota, that the run's time is not over.

        Raises:
            Stopped: It is.
        """
        if self._stopped:
            msg = "The time is over"
            raise Stopped(msg)

    def get(
        self,
        path: str,
        params: Mapping[str, Any] | None = None,
        *,
        permission: str,
        tries: int = TRIES,
        advice: str | None = None,
    ) -> Any:
        """Make a call, again if need be, and return the JSON of its answer.

        Args:
            path: The path at the API's host, quoted as a URL needs it; it may have a query.
            params: A query, to be quoted; what is None is left out.
            permission: The application permission that the call needs, for the advice.
            tries: How often the call is made at most.
            advice: What to do about HTTP 400, instead of the usual advice.

        Raises:
            NotFoundError: HTTP 404, with the API's own error.
            BadRequestError: Another HTTP 4xx that does not say that token or permission is at fault.
            NoAnswerError: No answer of use in that many tries.
            ApiError: Any other refusal.
            SignInError: No token.
            Stopped: The run's time is over.
        """
        ask = backoff.on_exception(
            backoff.expo,
            TryAgainError,
            max_tries=tries,
            factor=self.patience.retry,
            jitter=backoff.full_jitter,
            on_backoff=self._count_retry,
            logger=None,
        )(self._get)
        try:
            return ask(path, params, permission, advice)
        except TryAgainError as error:
            msg = str(error) if tries == 1 else f"{error} Tried {tries} times."
            raise NoAnswerError(msg, error.advice or API_REMEDIES["no answer"].advice) from None

    def _get(self, path: str, params: Mapping[str, Any] | None, permission: str, advice: str | None) -> Any:
        """Make a call once; its body is read and parsed within a try, so that one that is cut is asked for again."""
        api_url = self.endpoints.api_url
        try:
            response = self.session.get(f"{api_url}{path}", params=params)
        except requests.RequestException as error:
            fault = network_fault(error, api_url, self.session)
            if fault.may_pass:
                raise TryAgainError(fault.what, advice=fault.advice) from None
            raise NoAnswerError(fault.what, fault.advice) from None
        status = response.status_code
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status == HTTPStatus.REQUEST_TIMEOUT:
            raise TryAgainError(_refusal(response))
        if status >= HTTPStatus.MULTIPLE_CHOICES:
            raise _refused(response, permission, advice)
        try:
            return _parsed(response)
        except ValueError:
            msg = f"GET {path_of(response)} answered HTTP {status} with a body that is not JSON."
            raise TryAgainError(msg) from None

    def _count_retry(self, details: Details) -> None:
        self.retries += 1
        self._log.debug("Trying again in %.1f s: %s", details.get("wait", 0.0), details.get("exception"))


def records_of(document: object, path: str, *, has_id: bool) -> list[dict[str, Any]]:
    """The objects in the list `value` of an answer.

    Args:
        document: The JSON of the answer.
        path: What was asked, for the error.
        has_id: Whether each must have an id.

    Raises:
        ShapeError: They are not there, or not as they should be.
    """
    records = entries_of(document, path)
    if not all(isinstance(record, dict) for record in records):
        raise shape_error(document, path, "an entry of `value` is no object")
    if has_id and not all(is_id(record.get("id")) for record in records):
        raise shape_error(document, path, "an entry of `value` has no id")
    return records


def entries_of(document: object, path: str) -> list[Any]:
    """What is in the list `value` of an answer.

    Raises:
        ShapeError: There is no such list.
    """
    entries = document.get("value") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise shape_error(document, path, "there is no list `value` in it")
    return entries


def is_id(value: object) -> bool:
    """Whether it can be a record's id, and a segment of a URL's path."""
    return isinstance(value, (str, int)) and not isinstance(value, bool) and str(value).strip(" .") != ""


def shape_error(document: object, path: str, fault: str) -> ShapeError:
    """The error for an answer of another shape than documented; `fault` is a clause that says what is wrong."""
    reason = api_reason(document)
    what = f"{fault} ({reason})" if reason else fault
    msg = f"GET {shown_path(path)} answered with JSON of another shape than documented: {what}."
    return ShapeError(msg, API_REMEDIES["shape"].advice)


def _refused(response: requests.Response, permission: str, advice: str | None) -> ApiError:
    """The error for HTTP 3xx and 4xx: `BadRequestError` where it may be about this call alone."""
    status, document, refusal = response.status_code, _document(response), _refusal(response)
    if status == HTTPStatus.NOT_FOUND and is_own_404(document) and not _NO_SUCH_PATH.search(refusal):
        return NotFoundError(refusal)
    if status == HTTPStatus.BAD_REQUEST and advice:
        return BadRequestError(refusal, advice)
    reason = api_reason(document)
    if status < HTTPStatus.BAD_REQUEST:
        remedy = "redirect"
    elif _UNLICENSED.search(reason):
        remedy = "licence"
    else:
        remedy = REMEDIES.get(status, "refused")
    says_all = status == HTTPStatus.FORBIDDEN and _OF_ALL_CALLS.search(reason)
    is_of_all = says_all or status < HTTPStatus.BAD_REQUEST or status == HTTPStatus.UNAUTHORIZED
    error = ApiError if is_of_all else BadRequestError
    return error(refusal, API_REMEDIES[remedy].advice.format(permission=permission))


def _refusal(response: requests.Response) -> str:
    """What was asked and how it was refused, as a sentence."""
    reason = api_reason(_document(response)) or response.reason
    return f"GET {path_of(response)} answered HTTP {response.status_code}: {reason}."


def _document(response: requests.Response) -> Any:
    """The JSON of a refusal; None if there is none."""
    try:
        return _parsed(response)
    except ValueError:
        return None


def _parsed(response: requests.Response) -> Any:
    """The body's JSON. A string that no text can hold is mended: bytes that are no UTF-8 become U+FFFD.

    Raises:
        ValueError: It is not JSON, or nested more deeply than a parser takes.
    """
    try:
        try:
            return json.loads(response.content)
        except UnicodeDecodeError:
            return json.loads(response.content.decode(errors="replace"))
    except RecursionError:
        msg = "nested too deeply"
        raise ValueError(msg) from None
