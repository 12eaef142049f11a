"""The connection to the API, and the base of the streams that ask it: errors, retries, one shared session."""

from __future__ import annotations

import json
import logging
from functools import cached_property
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import backoff
import requests
from singer_sdk import metrics
from singer_sdk.exceptions import RetriableAPIError
from singer_sdk.streams import RESTStream
from typing_extensions import Self, override

from tap_mde_kbs import settings
from tap_mde_kbs.api.auth import SignIn
from tap_mde_kbs.api.governor import Governor, Stopped
from tap_mde_kbs.api.http import GovernedAdapter, Session, is_certificate_error, path_of
from tap_mde_kbs.errors import (
    API_REMEDIES,
    ApiError,
    BadRequestError,
    NoAnswerError,
    NotFoundError,
    api_reason,
    certificate_error,
)

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Mapping, Sequence

    from backoff.types import Details
    from singer_sdk.helpers.types import Context, RequestFunc
    from singer_sdk.pagination import BaseAPIPaginator
    from singer_sdk.tap_base import Tap

RETRIED = (
    RetriableAPIError,
    requests.exceptions.ConnectionError,
    requests.exceptions.Timeout,
    requests.exceptions.ChunkedEncodingError,
    requests.exceptions.ContentDecodingError,
)
"""What another try may mend. A 429 is not among them: the adapter waits it out."""

BULK_LIMITS: Mapping[str, Sequence[tuple[int, float]]] = {
    "/api/machines/SoftwareVulnerabilitiesExport": ((5, 60.0), (20, 3600.0)),
    "/api/machines/SoftwareVulnerabilitiesByMachine": ((30, 60.0), (1000, 3600.0)),
}
"""The quotas of the calls that have one of their own: learn.microsoft.com, "Export software vulnerabilities"."""


class Connection:
    """Cloud, session, governor and sign-in of one tap; made when first used, so that discovery needs no settings."""

    def __init__(self, config: Mapping[str, Any], log: logging.Logger) -> None:
        """Take the tap's settings, and where retries are told."""
        self._config = config
        self._log = log
        self._out_of_time = False
        self.retries = 0

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
        """The quota: when may the next call go out."""
        return Governor(
            (
                (int(self._config["requests_per_minute"]), 60.0),
                (int(self._config["requests_per_hour"]), 3600.0),
            )
        )

    @cached_property
    def bulk_governors(self) -> Mapping[str, Governor]:
        """Those of the calls that have quotas of their own, by path."""
        return {path: Governor(limits) for path, limits in BULK_LIMITS.items()}

    @property
    def _governors(self) -> Sequence[Governor]:
        return (self.governor, *self.bulk_governors.values())

    @property
    def calls(self) -> int:
        """How many calls of the API went out."""
        return sum(governor.calls for governor in self._governors)

    @property
    def throttled(self) -> int:
        """How many of them were answered with 429."""
        return sum(governor.throttled for governor in self._governors)

    def stop(self) -> None:
        """End the run: its time is over. Whoever waits for a quota is woken."""
        self._out_of_time = True
        for governor in self._governors:
            governor.stop()

    def go_on(self) -> None:
        """Check, between two steps that wait for no quota, that the time is not over.

        Raises:
            Stopped: it is.
        """
        if self._out_of_time:
            msg = "The time is over"
            raise Stopped(msg)

    @cached_property
    def sign_in(self) -> SignIn:
        """What puts the token on each call."""
        authority = Session(self.endpoints.authority_url, self.timeout)
        if self._config.get("auth_method") == "managed_identity":
            authority.proxies.clear()  # its endpoint is on this machine, or next to it
        return SignIn(self._config, self.endpoints, authority, log=self._log)

    @cached_property
    def session(self) -> Session:
        """The one session for the API."""
        session = Session(self.endpoints.api_url, self.timeout)
        session.mount(self.endpoints.api_url, GovernedAdapter(self.governor, self.parallel))
        for path, governor in self.bulk_governors.items():
            session.mount(f"{self.endpoints.api_url}{path}", GovernedAdapter(governor, 1))
        return session


class _Uncounted(metrics.Counter):
    """Writes no METRIC line for each call: the governor counts them, and the summary tells."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Write nothing."""

    @override
    def with_context(self, value: Context | None) -> None:
        """One for all calls: it is of none."""

    @override
    def increment(self, value: int = 1) -> None:
        """Count nothing."""


class DefenderStream(RESTStream[Any]):
    """Base of the streams: one call in, an answer of the documented shape out, or an error a person can use."""

    allow_redirects = False
    permission: str
    """The application permission that the stream's calls need."""

    _LOG_REQUEST_METRICS = False

    def __init__(self, tap: Tap, connection: Connection) -> None:
        """Take the connection that all streams share."""
        super().__init__(tap)
        self.connection = connection
        self._retrying: RequestFunc | None = None
        self._uncounted = _Uncounted(metrics.Metric.HTTP_REQUEST_COUNT)

    @property
    @override
    def url_base(self) -> str:
        return self.connection.endpoints.api_url

    @property
    @override
    def requests_session(self) -> requests.Session:
        return self.connection.session

    @property
    @override
    def authenticator(self) -> SignIn:
        return self.connection.sign_in

    @property
    @override
    def http_headers(self) -> dict[str, str]:
        return {"Accept": "application/json"}

    @property
    @override
    def timeout(self) -> int:
        return self.connection.timeout

    @property
    @override
    def emit_activate_version_messages(self) -> bool:
        """False: the SDK writes them at the start, which deletes what is about to be written again."""
        return False

    def ask(self, context: Mapping[str, Any]) -> Any:
        """What `read` makes of the answer to one call.

        Args:
            context: what the URL and the query are made of.

        Raises:
            NotFoundError: HTTP 404.
            NoAnswerError: no answer of use in several tries.
            ApiError: any other refusal, or an answer of another shape than documented.
            SignInError: no token.
        """
        try:
            [content] = self.request_records(dict(context))
        except RETRIED as error:
            raise NoAnswerError(
                self._told(error),
                f"Tried {self.backoff_max_tries()} times. {API_REMEDIES['no answer'].advice}",
            ) from None
        return content

    def read(self, document: object, path: str) -> Any:
        """What is of use in an answer: its records, each an object with an `id`.

        Args:
            document: the JSON of the answer.
            path: what was asked, for messages.

        Raises:
            ApiError: it has another shape than documented.
        """
        return records_of(document, path, has_id=True)

    @override
    def get_new_paginator(self) -> BaseAPIPaginator[Any] | None:
        return None

    @override
    def parse_response(self, response: requests.Response) -> Iterable[Any]:
        """Yield the whole answer as one item: the SDK logs a line for every answer without any."""
        yield self._content(response)

    @override
    def validate_response(self, response: requests.Response) -> None:
        """Raise for anything that is no answer of the documented shape; inside the retry, so that a cut body is one."""
        status = response.status_code
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status == HTTPStatus.REQUEST_TIMEOUT:
            raise RetriableAPIError(self.response_error_message(response), response)
        if status == HTTPStatus.NOT_FOUND:
            raise NotFoundError(self.response_error_message(response))
        if status >= HTTPStatus.MULTIPLE_CHOICES:
            known = status < HTTPStatus.BAD_REQUEST or status in {
                HTTPStatus.UNAUTHORIZED,
                HTTPStatus.FORBIDDEN,
            }
            error = ApiError if known else BadRequestError
            told = self.response_error_message(response)
            raise error(told, self.advice(status, told))
        self._content(response)

    def _content(self, response: requests.Response) -> Any:
        """What `read` says, parsed and checked once and then kept with the response.

        Raises:
            RetriableAPIError: the body is not JSON: cut, or a gateway's page.
            ApiError: it is JSON of another shape.
        """
        kept = vars(response)
        if "content_read" not in kept:
            try:
                document = _parsed(response)
            except ValueError:
                msg = f"GET {path_of(response)} answered HTTP {response.status_code} with a body that is not JSON."
                raise RetriableAPIError(msg, response) from None
            kept["content_read"] = self.read(document, path_of(response))
        return kept["content_read"]

    @override
    def response_error_message(self, response: requests.Response) -> str:
        try:
            reason = api_reason(_parsed(response))
        except ValueError:
            reason = ""
        return f"GET {path_of(response)} answered HTTP {response.status_code}: {reason or response.reason}."

    def advice(self, status: int, reason: str) -> str:
        """What a person does about a refusal with this status and reason."""
        if status < HTTPStatus.BAD_REQUEST:
            return API_REMEDIES["redirect"].advice
        if "no tvm license" in reason.lower():
            return API_REMEDIES["licence"].advice
        if status == HTTPStatus.UNAUTHORIZED:
            return API_REMEDIES["token"].advice
        if status == HTTPStatus.FORBIDDEN:
            return API_REMEDIES["permission"].advice.format(permission=self.permission)
        return API_REMEDIES["refused"].advice

    @override
    def request_decorator(self, func: RequestFunc) -> RequestFunc:
        """Retry with backoff what another try may mend, silently: the SDK's logs a line for each."""
        if self._retrying is None:  # `func` is the same for every call
            self._retrying = backoff.on_exception(
                self.backoff_wait_generator,
                RETRIED,
                max_tries=self.backoff_max_tries,
                on_backoff=self.backoff_handler,
                jitter=self.backoff_jitter,
                giveup=is_certificate_error,
                logger=None,
            )(func)
        return self._retrying

    @override
    def get_http_request_counter(self) -> metrics.Counter:
        return self._uncounted

    @override
    def backoff_wait_generator(self) -> Generator[float, Any, None]:
        return backoff.expo(factor=1)

    @override
    def backoff_handler(self, details: Details) -> None:
        self.connection.retries += 1
        error = details.get("exception")
        self.log(
            "Trying again in %.1f s: %s",
            details.get("wait", 0.0),
            self._told(error),
            level=logging.DEBUG,
        )

    def _told(self, error: BaseException | None) -> str:
        if isinstance(error, RetriableAPIError):
            return str(error)
        if isinstance(error, requests.exceptions.Timeout):
            return f"{self.url_base} gave no answer within {self.timeout} s (request_timeout_seconds)."
        if error is not None and is_certificate_error(error):
            return certificate_error(self.url_base, error)
        return f"The connection to {self.url_base} broke or could not be made ({type(error).__name__})."


def _parsed(response: requests.Response) -> Any:
    """The body's JSON.

    Raises:
        ValueError: it is none, or nested beyond what a parser takes.
    """
    try:
        return json.loads(response.content)
    except RecursionError:
        msg = "nested too deeply"
        raise ValueError(msg) from None


def records_of(document: object, path: str, *, has_id: bool) -> list[dict[str, Any]]:
    """The objects in `value`; with `has_id`, each has an id.

    Raises:
        ApiError: there are none such.
    """
    records = document.get("value") if isinstance(document, dict) else None
    if not isinstance(records, list):
        fault = "there is no list `value` in it"
    elif not all(isinstance(record, dict) for record in records):
        fault = "an entry of `value` is no object"
    elif has_id and not all(_is_id(record.get("id")) for record in records):
        fault = "an entry of `value` has no id"
    else:
        return records
    raise other_shape(document, path, fault)


def other_shape(document: object, path: str, fault: str) -> ApiError:
    """The error for an answer of another shape than documented."""
    reason = api_reason(document)
    msg = f"GET {path} answered with JSON of another shape than documented: {fault}{reason and f' ({reason})'}."
    return ApiError(msg, API_REMEDIES["shape"].advice)


def _is_id(value: object) -> bool:
    """Whether it can be a record's id, and a segment of a URL's path."""
    return isinstance(value, (str, int)) and not isinstance(value, bool) and str(value).strip(" .") != ""
