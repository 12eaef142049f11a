"""The API's errors, worded as it words them (`common-errors.md`). Knows neither requests nor routes."""

from __future__ import annotations

from datetime import timedelta
from http import HTTPStatus
from typing import TYPE_CHECKING

from mde_simulator.defender.quota import DOCUMENTED
from mde_simulator.http.messages import Response

if TYPE_CHECKING:
    from collections.abc import Iterable

CODES = {400: "BadRequest", 401: "Unauthorized", 403: "Forbidden", 404: "NotFound", 500: "InternalServerError"}
"""The API's code for a status."""


def of_status(status: int, text: str) -> Response:
    """The error that belongs to a status."""
    return Response.error(status, CODES.get(status, "InternalServerError"), text)


def unauthorized() -> Response:
    """The token is not, or no longer, good."""
    response = Response.error(HTTPStatus.UNAUTHORIZED, "Unauthorized", "invalid or expired authorization header")
    response.headers["WWW-Authenticate"] = "Bearer"
    return response


def forbidden(required: Iterable[str], roles: Iterable[str]) -> Response:
    """None of the required application permissions is in the token."""
    text = (
        f"Missing application roles. API required roles: {', '.join(required)}, application roles: {', '.join(roles)}."
    )
    return Response.error(HTTPStatus.FORBIDDEN, "Forbidden", text)


def not_found(what: str, id_: str) -> Response:
    """There is no such resource."""
    return Response.error(HTTPStatus.NOT_FOUND, "ResourceNotFound", f"{what} {id_} was not found")


def no_route(path: str) -> Response:
    """The resource is known, and has nothing of that name."""
    return Response.error(
        HTTPStatus.NOT_FOUND, "NotFound", f"No HTTP resource was found that matches the request URI {path}."
    )


def bare_not_found(text: str = "") -> Response:
    """404 as it comes for a path that is none of the API's: without the API's own error."""
    return Response(HTTPStatus.NOT_FOUND, text.encode(), {"Content-Type": "text/html"})


def too_many(retry_after: str | None, limits: tuple[tuple[int, float], ...] = DOCUMENTED) -> Response:
    """429, with or without Retry-After."""
    allowed = " and ".join(f"{calls} per {timedelta(seconds=seconds)!s:0>8}" for calls, seconds in limits)
    text = f"API calls quota exceeded! Maximum allowed {allowed}."
    response = Response.error(HTTPStatus.TOO_MANY_REQUESTS, "TooManyRequests", text)
    if retry_after is not None:
        response.headers["Retry-After"] = retry_after
    return response
