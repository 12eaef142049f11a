"""What goes wrong, and what a person does about it.

Every error that ends a run is a `TapError`: one or two sentences that say what happened and where, and
one that says what to do. Text that came over the wire is cut and freed of control characters before it
gets here, and never is a secret, a token or an authorization header.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

SHOWN_CHARACTERS = 400
"""How much of a text from the wire is shown."""

_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]+")

APP_REGISTRATION = "Entra ID > App registrations > your application"

# By the number in `error_codes` / `AADSTSnnnnn` (learn.microsoft.com, "Microsoft Entra authentication and
# authorization error codes").
SIGN_IN_ADVICE: Mapping[int, str] = {
    7000215: (
        "The client secret is wrong. Set client_secret to the secret's Value, not its Secret ID "
        f"({APP_REGISTRATION} > Certificates & secrets)."
    ),
    7000222: f"The client secret has expired. Make a new one: {APP_REGISTRATION} > Certificates & secrets.",
    700016: (
        "There is no such application in this tenant. Compare client_id and tenant_id with "
        f"{APP_REGISTRATION} > Overview."
    ),
    90002: "There is no such tenant. Check tenant_id, and that `cloud` is the tenant's.",
    700027: (
        "The certificate is not registered with the application. Upload it: "
        f"{APP_REGISTRATION} > Certificates & secrets > Certificates."
    ),
    500011: (
        "The tenant has no Defender for Endpoint service for this scope: it is not licensed, or `cloud` "
        "(or token_scope) is another one's."
    ),
    1002012: "token_scope must end in /.default.",
    700024: "The client assertion is outside its validity. Check this machine's clock.",
    70021: (
        "No federated identity record matches the token. Compare issuer, subject and audience: "
        f"{APP_REGISTRATION} > Certificates & secrets > Federated credentials."
    ),
    65001: f"An administrator has to grant consent: {APP_REGISTRATION} > API permissions.",
    7000112: "The application is disabled. Enable it: Entra ID > Enterprise applications > Properties.",
    7000229: "The application has no service principal in this tenant. Grant it admin consent there.",
    53003: "Conditional access blocks the sign-in. Ask who administers the policy to except the application.",
}
SIGN_IN_ADVICE = {**SIGN_IN_ADVICE, 700213: SIGN_IN_ADVICE[70021]}


class TapError(Exception):
    """Ends the run with exit status 1; its text is all that a person sees of it."""

    def __init__(self, what: str, advice: str = "") -> None:
        """Say what happened and where, then what to do about it."""
        super().__init__(f"{what} {advice}".strip())


class SettingsError(TapError):
    """The settings miss or contradict something; found before any call."""


class FileError(TapError):
    """A config, state or catalog file that can't be used."""


class SignInError(TapError):
    """Entra ID refused to give a token, or could not be reached."""


class ApiError(TapError):
    """The API refused a call, or gave an answer that no retry will better."""


class BadRequestError(ApiError):
    """HTTP 4xx that says nothing of token or permission: the API does not take what it was asked."""


class NotFoundError(TapError):
    """HTTP 404: the API does not know what it was asked about, or says so."""


class NoAnswerError(TapError):
    """No answer of use after several tries: 5xx, a timeout, a broken connection, a body cut short or not JSON."""


class Interrupted(BaseException):
    """SIGINT or SIGTERM came; `exit_status` is what a shell expects after it."""

    def __init__(self, signum: int) -> None:
        """Take the number of the signal."""
        super().__init__(f"signal {signum}")
        self.exit_status = 128 + signum


def printable(text: object, limit: int = SHOWN_CHARACTERS) -> str:
    """Text from the wire as it may be shown in a terminal: one line, no control characters, cut at `limit`."""
    line = _UNPRINTABLE.sub(" ", str(text)[: 4 * limit]).strip()
    return line if len(line) <= limit else line[: limit - 1] + "…"


def sign_in_error(result: Mapping[str, Any]) -> SignInError:
    """The error for what MSAL returned instead of a token.

    Source: RFC 6749 5.2; Entra ID adds `error_codes`, `trace_id` and an `error_description` of several lines.
    """
    description = str(result.get("error_description") or result.get("error") or "no reason given")
    reason, _, trace = printable(description).partition(" Trace ID: ")
    found = re.search(r"AADSTS(\d+)", description)
    codes = [found.group(1)] if found else result.get("error_codes") or []
    advice = next((SIGN_IN_ADVICE[int(code)] for code in codes if int(code) in SIGN_IN_ADVICE), "")
    return SignInError(f"Sign-in failed: {reason.rstrip('.')}{trace and f' (trace {trace.split()[0]})'}.", advice)


def certificate_error(host: str, error: BaseException) -> str:
    """What to say when the certificate of `host` was refused, and what to do."""
    found = re.search(r"certificate verify failed: ([^(\'\"]+)", str(error))
    reason = f" ({found.group(1).strip()})" if found else ""
    return (
        f"The certificate of {host} was not accepted{reason}. Behind a proxy, or with a private CA, set "
        "REQUESTS_CA_BUNDLE to a file with its certificates."
    )


def api_reason(document: object) -> str:
    """The `error` object of an answer in one line: message, code and the `target` that Microsoft's support asks for."""
    error = document.get("error") if isinstance(document, dict) else None
    if not isinstance(error, dict):
        return ""
    details = ", ".join(
        f"{label}{printable(error[key], 80)}"
        for label, key in (("code ", "code"), ("target ", "target"))
        if error.get(key)
    )
    message = printable(error.get("message") or "no message").rstrip(".")
    return f"{message} ({details})" if details else message
