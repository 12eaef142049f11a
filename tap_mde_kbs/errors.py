"""What goes wrong, and what a person does about it: every exception of the package, and the advice for each case.

    TapError                    ends the run with exit status 1; its text is all that a person sees of it
      SettingsError             the settings lack or contradict something
      FileError                 a config, state or catalog file can't be used
      SignInError               Entra ID gives no token
      ApiError                  the API refuses a call, or its answer is of no use
        BadRequestError           HTTP 4xx that may be about this call alone, not about token or permission
        NotFoundError             HTTP 404, by the API's own word, or of the host that stores an export's files
        NoAnswerError             no answer of use after several tries
        ShapeError                an answer of another shape than documented
        ApiDownError              too many machines in a row give no answer
        NotInExportError          a listed machine is not in the export
        ExpiredLinkError          HTTP 403 for a file of an export: new links are needed
        BrokenFileError           a file of an export did not arrive whole
        MalformedFileError        a file of an export arrived whole, and does not hold what it should
        SupersededError           the files of an export are gone: there is a newer one
    FeedError                   an advisory feed gave nothing of use; never leaves `advisories`
    AddressError                a setting is no address; never leaves `settings`
    TryAgainError               another try may succeed; never leaves `api`
    Stopped                     the run's time is over
    Interrupted                 SIGINT or SIGTERM came

A `TapError` says in one or two sentences what happened and where, and in one more what to do. Text that came over
the wire is cut and freed of control characters before it gets here. Nothing here ever holds a secret, a token or an
authorization header.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

SHOWN_CHARACTERS = 400
"""Characters of a text from the wire that are shown."""

_TOKEN = re.compile(r"\beyJ[\w-]+(\.[\w-]*)*|(?<=Bearer )\S+", re.IGNORECASE)
"""What a server might echo and nobody should read in a log: a token, or what follows `Bearer`."""

_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]+")
"""What a terminal would act on or could not show: control characters, marks of direction, halves of surrogate pairs."""

APP_REGISTRATION = "Entra ID > App registrations > your application"
PERMISSIONS = f"{APP_REGISTRATION} > API permissions"
SECRETS = f"{APP_REGISTRATION} > Certificates & secrets"


class Remedy(NamedTuple):
    """What an error means, and what a person does about it."""

    meaning: str
    advice: str


_NO_FEDERATED_RECORD = Remedy(
    "No federated identity record of the application matches the token.",
    f"Compare issuer, subject and audience: {SECRETS} > Federated credentials.",
)

_NO_TENANT = Remedy("There is no such tenant.", "Check tenant_id, and that `cloud` is the tenant's.")

FEDERATED_FAMILY = "70021"
"""What the numbers of a federated token that matches no record begin with; new ones appear."""

SIGN_IN_REMEDIES: Mapping[int, Remedy] = {
    7000215: Remedy(
        "The client secret is wrong.",
        f"Set client_secret to the secret's Value, not its Secret ID ({SECRETS}).",
    ),
    7000222: Remedy("The client secret has expired.", f"Make a new one ({SECRETS}) and set client_secret to it."),
    700016: Remedy(
        "There is no such application in this tenant.",
        f"Compare client_id and tenant_id with {APP_REGISTRATION} > Overview.",
    ),
    90002: _NO_TENANT,
    900021: _NO_TENANT,
    900023: _NO_TENANT,
    700027: Remedy(
        "The certificate is not registered with the application, or its signature does not verify.",
        f"Upload the certificate of certificate_file: {SECRETS} > Certificates.",
    ),
    500011: Remedy(
        "The tenant has no Defender for Endpoint service for this scope.",
        "License it, or correct `cloud` (or token_scope).",
    ),
    1002012: Remedy("The scope does not ask for application permissions.", "token_scope must end in /.default."),
    7000218: Remedy(
        "The sign-in had no credential.", "Set auth_method and its settings (client_secret, certificate_file, …)."
    ),
    700025: Remedy(
        "The application is registered as a public client, and takes no credential.",
        f"Register a platform of type Web, or another application: {APP_REGISTRATION} > Authentication.",
    ),
    700024: Remedy("The client assertion is not valid yet, or no longer.", "Set this machine's clock right."),
    70021: _NO_FEDERATED_RECORD,
    65001: Remedy("Nobody has consented to the application.", f"Have an administrator grant consent: {PERMISSIONS}."),
    7000112: Remedy("The application is disabled.", "Enable it: Entra ID > Enterprise applications > Properties."),
    7000229: Remedy(
        "The application has no service principal in this tenant.",
        "Have an administrator of this tenant grant it consent there.",
    ),
    53003: Remedy(
        "Conditional access blocks the sign-in.",
        "Have the policy's administrator exempt the application, or run from an allowed network.",
    ),
}
"""By the number in `error_codes` and `AADSTSnnnnn`.

Source: learn.microsoft.com, "Microsoft Entra authentication and authorization error codes".
"""

API_REMEDIES: Mapping[str, Remedy] = {
    "filter": Remedy("HTTP 400 for the machine list.", "Correct machines_filter (an OData $filter), or leave it out."),
    "token": Remedy(
        "HTTP 401.",
        "The token was renewed once and refused again: check `cloud`, api_url and token_scope; it must be for the "
        "tenant's Defender API.",
    ),
    "licence": Remedy(
        "HTTP 401 or 403 with `No Tvm license`: the tenant has no vulnerability management.",
        "License Defender for Endpoint Plan 2, or Defender Vulnerability Management, or check tenant_id.",
    ),
    "permission": Remedy(
        "HTTP 403, or a token without the permission.",
        "Grant the application permission {permission} of WindowsDefenderATP, with admin consent: " + PERMISSIONS + ".",
    ),
    "redirect": Remedy(
        "HTTP 3xx.", "Redirects are not followed, since the token would go along: set api_url to the host itself."
    ),
    "address": Remedy(
        "HTTP 404 without the API's own error, so not from the API.",
        "Check api_url: the API's host alone, without /api behind it, and reached without a gateway of another's.",
    ),
    "refused": Remedy("Any other HTTP 4xx.", "Check api_url and the settings."),
    "shape": Remedy(
        "An answer of another shape than documented.",
        "Check that api_url is the Defender API's host; nothing was deleted in the target.",
    ),
    "no answer": Remedy(
        "No answer of use after several tries: 5xx, a timeout, a broken connection, a body cut short.",
        "Check api_url, the network and its proxy (HTTPS_PROXY), and run again: it goes on from where it was.",
    ),
    "export": Remedy(
        "A file of the export is missing, cut or malformed, or its links are refused, again and again.",
        "Run again later; let the storage host through the proxy, or set missing_kbs_source to export_json. "
        "Nothing was deleted in the target.",
    ),
    "no files": Remedy(
        "An export that lists no files.",
        "Run again later; if that goes on, see whether the tenant's devices are assessed, or set missing_kbs_source to "
        "export_json or per_machine. Nothing was deleted in the target.",
    ),
    "certificate": Remedy(
        "The server's certificate was not accepted.",
        "Behind a proxy, or with a private CA, set REQUESTS_CA_BUNDLE to a file with its certificates.",
    ),
}
"""By what happened at the API; `{permission}` is filled in.

Source: learn.microsoft.com, "Common REST API error codes".
"""


NOT_FOUND_CODES = {"notfound", "resourcenotfound"}
"""What the API calls a 404; one with another code is a gateway's, or of another API.

Source: learn.microsoft.com, "Common REST API error codes".
"""


class TapError(Exception):
    """Ends the run with exit status 1; its text is all that a person sees of it."""

    def __init__(self, what: str, advice: str = "") -> None:
        """Say what happened and where, then what to do about it."""
        super().__init__(f"{what} {advice}".strip())


class SettingsError(TapError):
    """The settings lack or contradict something; found before any call."""


class FileError(TapError):
    """A config, state or catalog file that can't be used."""


class SignInError(TapError):
    """Entra ID refused to give a token, or could not be reached."""


class ApiError(TapError):
    """The API refused a call, or gave an answer that no other try will improve."""


class BadRequestError(ApiError):
    """HTTP 4xx that does not say that token or permission is at fault: this call is refused; others may be fine."""


class NotFoundError(ApiError):
    """HTTP 404: the API says so, or the host that stores an export's files. A 404 of a wrong path is no such word."""


class NoAnswerError(ApiError):
    """No answer of use after several tries: 5xx, a timeout, a broken connection, a body cut short or not JSON."""


class ShapeError(ApiError):
    """An answer of another shape than documented."""


class ApiDownError(ApiError):
    """Too many machines gave no answer: asking the others is of no use."""


class NotInExportError(ApiError):
    """A machine that was listed is not in the export."""


class ExpiredLinkError(ApiError):
    """HTTP 403 for a file of an export: the link's signature has expired, or was never valid."""


class BrokenFileError(ApiError):
    """A file of an export did not arrive whole; another try may succeed."""


class MalformedFileError(ApiError):
    """A file of an export is not JSON objects with a `deviceId`; the text says what was found instead."""


class SupersededError(ApiError):
    """The files of an export are gone: there is a newer one."""

    def __init__(self, newer: Any) -> None:
        """Take the newer `export.calls.Export`."""
        super().__init__("The files of the export are gone: there is a newer one.")
        self.newer = newer


class FeedError(Exception):
    """An advisory feed gave nothing of use; it ends no run. The text says what happened and where, as a clause.

    Attributes:
        advice: What to do.
        status: The HTTP status, where there was an answer; 404 for a file that is not there.
        may_pass: Another try may help.
        is_gone: The host can't be reached, or takes too long: it is not asked for anything else.
    """

    def __init__(
        self, what: str, advice: str, *, status: int | None = None, may_pass: bool = False, is_gone: bool = False
    ) -> None:
        """Say what happened and where, and what to do about it."""
        super().__init__(what)
        self.advice = advice
        self.status = status
        self.may_pass = may_pass
        self.is_gone = is_gone


class AddressError(ValueError):
    """What was given is no address; the text is what it must be, and never quotes it: it may hold a password."""


class TryAgainError(Exception):
    """No answer of use, but another try may bring one; the text says what happened.

    After the last try `api` raises `NoAnswerError` or `SignInError` instead.

    Attributes:
        advice: What to do if no try brings one; empty where the caller knows better.
        wait: Seconds that the server asks to wait before the next one; None where it does not say.
    """

    def __init__(self, what: str, *, advice: str = "", wait: float | None = None) -> None:
        """Say what happened, and what is known of the next try."""
        super().__init__(what)
        self.advice = advice
        self.wait = wait


class Stopped(Exception):  # noqa: N818 - not an error: the run was told to end
    """The run's time is over: no further call goes out."""


class Interrupted(BaseException):
    """SIGINT or SIGTERM came; `exit_status` is what a shell expects after it."""

    def __init__(self, signum: int) -> None:
        """Take the number of the signal."""
        super().__init__(f"signal {signum}")
        self.exit_status = 128 + signum


def printable(text: object, limit: int = SHOWN_CHARACTERS) -> str:
    """Text from the wire as it may be shown in a terminal: one line, no control characters, cut at `limit`."""
    line = _TOKEN.sub("<token>", _UNPRINTABLE.sub(" ", str(text)[: 4 * limit])).strip()
    return line if len(line) <= limit else line[: limit - 1] + "…"


def sign_in_error(result: Mapping[str, Any]) -> SignInError:
    """The error for what MSAL returned instead of a token.

    Source: RFC 6749 5.2; Entra ID adds `error_codes`, `trace_id` and an `error_description` of several lines.
    """
    description = str(result.get("error_description") or result.get("error") or "no reason given")
    reason, _, trace = printable(description).partition(" Trace ID: ")
    found = re.search(r"AADSTS(\d{1,9})", description)
    said = result.get("error_codes")
    codes = [found.group(1)] if found else [str(code) for code in said] if isinstance(said, list) else []
    remedy = next((remedy for code in codes if (remedy := _remedy(code))), None)
    shown = f"{reason.rstrip('.')}{trace and f' (trace {trace.split()[0]})'}."
    return SignInError(f"Sign-in failed: {shown}", f"{remedy.meaning} {remedy.advice}" if remedy else "")


def _remedy(code: str) -> Remedy | None:
    """What a number of Entra ID's means."""
    if code.startswith(FEDERATED_FAMILY):
        return _NO_FEDERATED_RECORD
    return next((remedy for number, remedy in SIGN_IN_REMEDIES.items() if str(number) == code), None)


def missing_permission(needed: str, roles: Collection[str]) -> ApiError | None:
    """The error for a token without an application permission; `ReadWrite` serves for `Read`."""
    if {needed, needed.replace(".Read.", ".ReadWrite.")} & set(roles):
        return None
    has = ", ".join(printable(role, 60) for role in sorted(roles)) or "none"
    msg = f"The application lacks the permission {needed} (its token has: {has})."
    return ApiError(msg, API_REMEDIES["permission"].advice.format(permission=needed))


def certificate_error(host: str, error: BaseException) -> str:
    """What to say when the certificate of `host` was refused, and what to do."""
    found = re.search(r"certificate verify failed: ([^(\'\"]+)", str(error))
    reason = f" ({found.group(1).strip()})" if found else ""
    return f"The certificate of {host} was not accepted{reason}. {API_REMEDIES['certificate'].advice}"


def is_own_404(document: object) -> bool:
    """Whether a 404 is the API's own word that there is no such machine, or none at all."""
    error = document.get("error") if isinstance(document, dict) else None
    return isinstance(error, dict) and str(error.get("code")).casefold() in NOT_FOUND_CODES


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
