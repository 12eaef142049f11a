"""The settings: their schema, what belongs together, and the table of clouds. Makes no call."""

from __future__ import annotations

import difflib
import os
import re
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from jsonschema import Draft202012Validator
from singer_sdk import typing as th

from tap_mde_kbs import addresses
from tap_mde_kbs.errors import AddressError, SettingsError, printable
from tap_mde_kbs.given import Reader

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

PACKAGE = "tap-mde-kbs"
ENVIRONMENT_PREFIX = "TAP_MDE_KBS_"


@dataclass(frozen=True)
class Endpoints:
    """Where a run signs in, whom it asks, and for which scope; URLs without a slash at the end."""

    authority_url: str
    api_url: str
    token_scope: str


# learn.microsoft.com, "Microsoft Defender for Endpoint for US Government customers", section API. The scope of gcc is
# not documented: two other clients use the API host's, so `token_scope` overrides it.
CLOUDS: Mapping[str, Endpoints] = {
    "commercial": Endpoints(
        "https://login.microsoftonline.com",
        "https://api.securitycenter.microsoft.com",
        "https://api.securitycenter.microsoft.com/.default",
    ),
    "gcc": Endpoints(
        "https://login.microsoftonline.com",
        "https://api-gcc.securitycenter.microsoft.us",
        "https://api-gcc.securitycenter.microsoft.us/.default",
    ),
    "gcc_high": Endpoints(
        "https://login.microsoftonline.us",
        "https://api-gov.securitycenter.microsoft.us",
        "https://api-gov.securitycenter.microsoft.us/.default",
    ),
    "dod": Endpoints(
        "https://login.microsoftonline.us",
        "https://api-gov.securitycenter.microsoft.us",
        "https://api-gov.securitycenter.microsoft.us/.default",
    ),
}

FEDERATED_TOKEN_VARIABLE = "AZURE_FEDERATED_TOKEN_FILE"  # noqa: S105 - the name of a variable
"""Where Azure's workload identity webhook says which file has the token."""

CREDENTIAL_SETTINGS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "client_secret": (("client_id", "client_secret"), ()),
    "certificate": (("client_id", "certificate_file"), ("certificate_passphrase",)),
    "federated_token": (("client_id",), ("federated_token_file",)),
    "managed_identity": ((), ("client_id",)),
}
"""By `auth_method`: the settings it needs, and those it may have besides."""

DEFAULT_CREDENTIAL = "client_secret"

PER_MACHINE, EXPORT, EXPORT_JSON = SOURCES = ("per_machine", "export", "export_json")
"""Where the missing KBs come from: `missing_kbs_source`."""

FEEDS = ("msrc", "kev", "epss")
"""What `advisory_feeds` may name, in the order in which they are read."""

_IN_A_HEADER = re.compile(r"[\x20-\x7e]+")

EXACT, SPACED = frozenset({"certificate_passphrase"}), frozenset({"machines_filter"})
"""Settings that may begin and end with anything, and those in which a line break is a blank."""

MOST_REQUESTS = 1_000_000
"""More calls in an hour are a slip of the pen."""

LONGEST_RUN_MINUTES = 366 * 24 * 60
"""More than a year is a slip of the pen, and more than a timer takes."""

SCHEMA: dict[str, Any] = th.PropertiesList(
    th.Property(
        "tenant_id",
        th.StringType,
        required=True,
        title="Tenant ID",
        description="Directory (tenant) id: a GUID, or a domain of the tenant.",
    ),
    th.Property(
        "client_id",
        th.StringType,
        title="Client ID",
        description=(
            "Application (client) id of the app registration, or of a user-assigned managed identity. "
            "Required unless a managed identity is system-assigned."
        ),
    ),
    th.Property(
        "auth_method",
        th.StringType,
        allowed_values=list(CREDENTIAL_SETTINGS),
        default=DEFAULT_CREDENTIAL,
        title="Sign-in method",
        description="Credential to sign in with.",
    ),
    th.Property(
        "client_secret",
        th.StringType,
        secret=True,
        title="Client secret",
        description="For auth_method client_secret: the secret's Value (not its Secret ID).",
    ),
    th.Property(
        "certificate_file",
        th.StringType,
        title="Certificate file",
        description="For auth_method certificate: a PEM file with key and certificate, or a PFX file.",
    ),
    th.Property(
        "certificate_passphrase",
        th.StringType,
        secret=True,
        title="Certificate passphrase",
        description="Passphrase of the key in certificate_file, if it has one.",
    ),
    th.Property(
        "federated_token_file",
        th.StringType,
        title="Federated token file",
        description=(
            "For auth_method federated_token (workload identity): the file with the token, read again at each "
            f"renewal. Without it, what ${FEDERATED_TOKEN_VARIABLE} names."
        ),
    ),
    th.Property(
        "cloud",
        th.StringType,
        allowed_values=list(CLOUDS),
        default="commercial",
        title="Cloud",
        description="The tenant's cloud: sets login authority, API host and token scope in one.",
    ),
    th.Property(
        "api_url",
        th.StringType,
        title="API URL",
        description=(
            "API host instead of the cloud's: a regional host, a gateway, the simulator. "
            "https only. Stay with one host: another one begins a new sweep."
        ),
    ),
    th.Property(
        "authority_url",
        th.StringType,
        title="Authority URL",
        description="Login authority instead of the cloud's, without the tenant. https only.",
    ),
    th.Property(
        "token_scope",
        th.StringType,
        title="Token scope",
        description="Scope to ask a token for instead of the cloud's; ends in /.default.",
    ),
    th.Property(
        "machines_filter",
        th.StringType,
        title="Machines filter",
        description="OData $filter for the machine list, for example: osPlatform eq 'Windows11'",
    ),
    th.Property(
        "include_not_onboarded",
        th.BooleanType,
        default=False,
        title="Include machines that are not onboarded",
        description=(
            "Ask for the missing KBs of devices that Defender has only discovered, too. Each costs a call of the "
            "quota, and vulnerability management assesses only onboarded ones."
        ),
    ),
    th.Property(
        "include_excluded",
        th.BooleanType,
        default=False,
        title="Include excluded machines",
        description=(
            "Ask for the missing KBs of machines that people excluded from vulnerability management, too. Defender "
            "shows no vulnerabilities of them, so an empty answer says nothing."
        ),
    ),
    th.Property(
        "silent_after_days",
        th.NumberType(minimum=0, maximum=3650),
        default=30,
        title="Silent after days",
        description=(
            "Do not ask machines that have not reported for so many days: Defender drops what it knows of them after "
            "30, and an empty answer says nothing. 0: ask everybody."
        ),
    ),
    th.Property(
        "requests_per_minute",
        th.IntegerType(minimum=1, maximum=MOST_REQUESTS),
        default=100,
        title="Requests per minute",
        description="Share of the API's quota of 100 calls a minute that this tap may use.",
    ),
    th.Property(
        "requests_per_hour",
        th.IntegerType(minimum=1, maximum=MOST_REQUESTS),
        default=1500,
        title="Requests per hour",
        description="Share of the API's quota of 1,500 calls an hour that this tap may use.",
    ),
    th.Property(
        "max_parallel_requests",
        th.IntegerType(minimum=1, maximum=64),
        default=4,
        title="Parallel requests",
        description="Calls in flight at once; four or five fill 100 a minute at the API's usual latency.",
    ),
    th.Property(
        "request_timeout_seconds",
        th.IntegerType(minimum=1, maximum=3600),
        default=60,
        title="Request timeout",
        description="Seconds to wait for a connection, and for each next piece of an answer.",
    ),
    th.Property(
        "time_limit_minutes",
        th.NumberType(exclusive_minimum=0, maximum=LONGEST_RUN_MINUTES),
        title="Time limit",
        description="Stop cleanly after so many minutes, exit status 0; the next run goes on from there.",
    ),
    th.Property(
        "max_shrink_percent",
        th.NumberType(minimum=0, maximum=100),
        default=5,
        title="Largest believed shrink",
        description=(
            "Delete nothing in the target when this many per cent fewer machines than last time were listed, or "
            "answered; a second consecutive run at about that level is accepted."
        ),
    ),
    th.Property(
        "missing_kbs_source",
        th.StringType,
        allowed_values=list(SOURCES),
        default=PER_MACHINE,
        title="Source of missing KBs",
        description=(
            "per_machine: a call for each machine. export: the vulnerability export, for large tenants; export_json: "
            "the same facts as pages of JSON. Both need the permission Vulnerability.Read.All, and the extra "
            "tap-mde-kbs[export]."
        ),
    ),
    th.Property(
        "advisory_feeds",
        th.ArrayType(th.StringType(allowed_values=list(FEEDS))),
        default=[],
        title="Advisory feeds",
        description=(
            "Public feeds to read after the missing KBs: msrc (what updates close and replace), kev (what is attacked) "
            "and epss (how likely that is). They are other hosts, and get no token."
        ),
    ),
    th.Property(
        "msrc_url",
        th.StringType,
        default="https://api.msrc.microsoft.com/cvrf/v3.0",
        title="MSRC URL",
        description=(
            "Where MSRC's documents are: another https URL (a mirror), or a folder with updates.json and 2026-Jun.json."
        ),
    ),
    th.Property(
        "kev_url",
        th.StringType,
        default="https://www.cisa.gov/sites/default/files/feeds/known_exploited_vulnerabilities.json",
        title="KEV URL",
        description="Where CISA's catalogue is: another https URL (a mirror), or a file.",
    ),
    th.Property(
        "epss_url",
        th.StringType,
        default="https://epss.empiricalsecurity.com/epss_scores-current.csv.gz",
        title="EPSS URL",
        description="Where FIRST's scores are: another https URL (a mirror), or a file.",
    ),
    th.Property(
        "msrc_months",
        th.IntegerType(minimum=1, maximum=600),
        default=60,
        title="MSRC months",
        description="Read MSRC's documents of so many months. STATE has room for 60: more are read every time.",
    ),
    th.Property(
        "epss_min",
        th.NumberType(minimum=0, maximum=1),
        default=0.1,
        title="Lowest EPSS score",
        description="Leave out lower scores: of 345,000 CVEs, some 17,000 have 0.1 or more.",
    ),
    th.Property(
        "emit_activate_version_messages",
        th.BooleanType,
        default=True,
        title="Emit ACTIVATE_VERSION messages",
        description=(
            "Tell the target at the end of a complete sweep to delete what is no longer there: machines that "
            "left, updates that were installed. Turn it off where several tenants share one table."
        ),
    ),
    th.Property(
        "user_agent",
        th.StringType,
        default=f"{PACKAGE}/{version(PACKAGE)}",
        title="User agent",
        description="User-Agent header of every call.",
    ),
    additional_properties=False,
).to_dict()


DEFAULTS: Mapping[str, Any] = {
    name: setting["default"] for name, setting in SCHEMA["properties"].items() if "default" in setting
}
"""The settings' defaults, by name."""

RENAMED: Mapping[str, str] = {}
"""Earlier names of settings, and what each is called now. An entry stays for a year: docs/reference.md promises it."""

SECRETS = tuple(name for name, setting in SCHEMA["properties"].items() if setting.get("secret"))
"""The settings whose values nobody should read."""


def read(
    config: Mapping[str, Any], schema: Mapping[str, Any], warn: Callable[[str], object], *, with_environment: bool
) -> tuple[dict[str, Any], dict[str, str]]:
    """The settings with their values, however they are written; what the environment gives goes before `config`.

    Args:
        config: What config files give, or a program.
        schema: Of all settings, those of the SDK included.
        warn: Takes a line for each setting that is given by an earlier name, and for each variable that is of none.
        with_environment: Whether the environment and a `.env` in the working folder are read, too.

    Returns:
        The settings, and those whose values can't be read: by name, what they must be.

    Raises:
        FileError: There is a `.env`, and it can't be read.
    """
    reader = Reader(schema, exact=EXACT, spaced=SPACED, prefix=ENVIRONMENT_PREFIX, earlier=RENAMED)
    variables, others = reader.environment() if with_environment else ({}, [])
    for name in sorted(others):
        if name != variable("loglevel") and not name.startswith(ENVIRONMENT_PREFIX + "_"):
            warn(_ignored(name, schema))
    return reader.read(_renamed({**config, **variables}, warn))


def _ignored(name: str, schema: Mapping[str, Any]) -> str:
    """What to say of a variable that is of no setting; an error it is not, since an environment is often shared."""
    near = _nearest(name[len(ENVIRONMENT_PREFIX) :].lower(), schema)
    advice = f"Did you mean {variable(near)}?" if near else "`tap-mde-kbs --about` lists the settings."
    return f"The environment variable {printable(name, 80)} is of no setting, and ignored. {advice}"


def _renamed(config: Mapping[str, Any], warn: Callable[[str], object]) -> dict[str, Any]:
    """The settings by the names of today; what is given by both counts by that one."""
    today = {name: value for name, value in config.items() if name not in RENAMED}
    for name, new in RENAMED.items():
        if config.get(name) is None:
            continue
        if today.get(new) is None:
            today[new] = config[name]
        warn(
            f"The setting {name} ({variable(name)} in the environment) is called {new} ({variable(new)}) now. "
            "The old name is still read, but not for ever: change it."
        )
    return today


def check(config: Mapping[str, Any], schema: Mapping[str, Any], unreadable: Mapping[str, str]) -> None:
    """Refuse settings that are unknown, missing, of a wrong type, or that do not belong together.

    Values are never quoted: one of them may be a secret that was put under the wrong name.

    Args:
        config: The settings that could be read.
        schema: Of all settings.
        unreadable: The others, by name: what they must be.

    Raises:
        SettingsError: names each, with what to do.
    """
    problems = [
        f"The setting {name} ({variable(name)} in the environment) is not valid: it must be {rule}."
        for name, rule in unreadable.items()
    ]
    problems += _problems(config, schema, unreadable)
    if problems:
        raise SettingsError("\n".join(problems))


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return ENVIRONMENT_PREFIX + name.upper()


def endpoints(config: Mapping[str, Any]) -> Endpoints:
    """The one place where `cloud` and what overrides it become URLs.

    Raises:
        AddressError: One of them is none; `check` has refused it before.
    """
    cloud = CLOUDS[config.get("cloud") or "commercial"]
    return Endpoints(
        authority_url=addresses.authority_url(
            config.get("authority_url") or cloud.authority_url, config.get("tenant_id") or ""
        ),
        api_url=addresses.api_url(config.get("api_url") or cloud.api_url),
        token_scope=config.get("token_scope") or cloud.token_scope,
    )


def _problems(config: Mapping[str, Any], schema: Mapping[str, Any], unreadable: Collection[str]) -> Iterator[str]:
    for error in Draft202012Validator(dict(schema)).iter_errors(dict(config)):
        name = ".".join(str(part) for part in error.absolute_path)
        if error.validator == "additionalProperties" and not name:
            yield from (_unknown(key, schema) for key in sorted(set(config) - set(schema["properties"])))
        elif error.validator == "required" and not name:
            continue  # told below, with what the credential misses
        else:
            yield f"The setting {name or 'config'} is not valid: it must be {_rule(error)}."
    yield from _missing(config, unreadable)
    yield from _misplaced(config)
    if isinstance(config.get("tenant_id"), str) and not _is_path_segment(config["tenant_id"]):
        yield "The setting tenant_id must be the tenant's GUID, or one of its domains."
    yield from _misdirected(config)
    if not _IN_A_HEADER.fullmatch(str(config.get("user_agent") or "x")):
        yield "The setting user_agent must be of printable ASCII characters, as a header is."
    scope = config.get("token_scope")
    if scope and not str(scope).endswith("/.default"):
        yield "The setting token_scope must end in /.default."


def _missing(config: Mapping[str, Any], unreadable: Collection[str]) -> Iterator[str]:
    """What is required, by the credential too, and not there: in one line."""
    needed = ["tenant_id", *CREDENTIAL_SETTINGS.get(config.get("auth_method") or DEFAULT_CREDENTIAL, ((), ()))[0]]
    if config.get("auth_method") == "federated_token" and not os.environ.get(FEDERATED_TOKEN_VARIABLE, "").strip():
        needed.append("federated_token_file")
    missing = [key for key in needed if config.get(key) is None and key not in unreadable]
    if missing:
        names, variables = ", ".join(missing), ", ".join(map(variable, missing))
        yield (
            f"Missing setting{'s' if len(missing) > 1 else ''}: {names}. Set {'them' if len(missing) > 1 else 'it'} in "
            f"the config file, or {variables} with --config=ENV."
        )


def _misplaced(config: Mapping[str, Any]) -> Iterator[str]:
    """What belongs to another credential than `auth_method` says."""
    method = config.get("auth_method") or DEFAULT_CREDENTIAL
    if method not in CREDENTIAL_SETTINGS:
        return  # the schema check names it
    own = {*CREDENTIAL_SETTINGS[method][0], *CREDENTIAL_SETTINGS[method][1]}
    for other, (theirs, also) in CREDENTIAL_SETTINGS.items():
        for key in (*theirs, *also):
            if key not in own and config.get(key):
                yield (
                    f"The setting {key} does not belong to auth_method {method}. "
                    f"Set auth_method to {other}, or leave {key} out."
                )


def _misdirected(config: Mapping[str, Any]) -> Iterator[str]:
    """Addresses that are none."""
    tenant = str(config.get("tenant_id") or "")
    for key, read in (
        ("api_url", addresses.api_url),
        ("authority_url", lambda url: addresses.authority_url(url, tenant)),
        *((f"{feed}_url", addresses.url_or_path) for feed in FEEDS),
    ):
        if isinstance(config.get(key), str) and config[key]:
            try:
                read(config[key])
            except AddressError as error:
                yield f"The setting {key} must be {error}."


def _unknown(key: str, schema: Mapping[str, Any]) -> str:
    near = _nearest(key, schema)
    advice = f"Did you mean {near}?" if near else "`tap-mde-kbs --about` lists them."
    return f"There is no setting {key[:80]!r}. {advice}"


def _nearest(key: str, schema: Mapping[str, Any]) -> str:
    """The setting whose name is most like it; none where no one's is."""
    return next(iter(difflib.get_close_matches(key, schema["properties"], n=1)), "")


def _rule(error: Any) -> str:
    if error.validator == "enum":
        return "one of " + ", ".join(map(str, error.validator_value))
    if error.validator == "type":
        return "of type " + " or ".join(kind for kind in error.validator_value if kind != "null")
    if isinstance(error.validator_value, (dict, list)):  # a schema inside: too long to be read here
        return "of the shape that `tap-mde-kbs --about --format=json` shows"
    return f"such that {error.validator} {error.validator_value} holds"


def _is_path_segment(tenant: str) -> bool:
    return all(character.isalnum() or character in "-._" for character in tenant.strip()) and bool(tenant.strip("."))
