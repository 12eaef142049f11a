"""The schemas of the streams, the naming, and the API's objects made to fit them. Knows no HTTP.

Names are the API's in snake_case at every level: target-postgres creates columns exactly as named,
target-snowflake upper-cases them, so one set of SQL serves every warehouse.
"""

from __future__ import annotations

import re
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, TypeAlias

from singer_sdk import typing as th

from tap_mde_kbs.errors import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Converter: TypeAlias = "Callable[[Any, Unlisted], Any]"


class Unlisted:
    """What the API sent that no schema lists or that did not fit, by name; each is reported once a run."""

    def __init__(self, report: Callable[[str], None]) -> None:
        """Take the function that warns a person."""
        self._report = report
        self._seen: set[str] = set()

    def note(self, name: str, why: str) -> None:
        """Report a name, unless it was before."""
        if name not in self._seen:
            self._seen.add(name)
            self._report(f"{printable(name, 80)} {why}")


def snake_case(name: str) -> str:
    """The column's name for an API's: `computerDnsName` is `computer_dns_name`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


# One difference to the API: its `version` ("22H2") is `os_release`, since target-postgres 0.8.1 crashes on
# ACTIVATE_VERSION for a table with a column `version`.
RENAMED: Mapping[str, str] = {"version": "os_release"}

# C0 controls but tab and line ends, which no warehouse needs and PostgreSQL refuses (NUL), and halves of surrogate
# pairs, which no encoder takes.
_UNSTORABLE = re.compile(r"[\x00\ud800-\udfff]")
_DATE_TIME = re.compile(
    r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?\s*(Z|[+-]\d\d:?\d\d)?", re.IGNORECASE | re.ASCII
)
_INT64 = 2**63


def text(value: Any, unlisted: Unlisted) -> str:  # noqa: ARG001 - a Converter
    """Text as a warehouse can store it; numbers and booleans as JSON writes them."""
    if isinstance(value, str):
        return value if value.isascii() and "\x00" not in value else _UNSTORABLE.sub("\N{REPLACEMENT CHARACTER}", value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return str(value)
    raise TypeError


def integer(value: Any, unlisted: Unlisted) -> int:  # noqa: ARG001 - a Converter
    """A 64-bit integer; text of one is taken too (`rbacGroupId`, `osBuild` come as either)."""
    number = int(value) if isinstance(value, str) else value
    if isinstance(number, float) and number.is_integer():
        number = int(number)
    if isinstance(number, bool) or not isinstance(number, int) or not -_INT64 <= number < _INT64:
        raise TypeError
    return number


def build_number(value: Any, unlisted: Unlisted) -> int:
    """A build, 22631; of a whole version as text (`10.0.22631.4317` is seen) the part that is the build."""
    if isinstance(value, str) and "." in value:
        parts = value.split(".")
        value = parts[2] if len(parts) > 2 else parts[0]  # noqa: PLR2004 - major, minor, build, revision
    return integer(value, unlisted)


def boolean(value: Any, unlisted: Unlisted) -> bool:  # noqa: ARG001 - a Converter
    """A boolean; the words are taken too."""
    if isinstance(value, str) and value.lower() in {"true", "false"}:
        return value.lower() == "true"
    if not isinstance(value, bool):
        raise TypeError
    return value


def date_time(value: Any, unlisted: Unlisted) -> str:  # noqa: ARG001 - a Converter
    """A date-time in UTC with six decimals; the API gives none to seven, and perhaps no zone (then it is UTC)."""
    found = _DATE_TIME.fullmatch(value.strip())
    if not found:
        raise ValueError
    day, time, decimals, zone = found.groups()
    fraction = f".{decimals[:6]:0<6}" if decimals else ""
    if zone in {None, "Z", "z"}:
        datetime.fromisoformat(f"{day}T{time}")  # refuses the 30th of February
        return f"{day}T{time}{fraction}Z"
    sign, hours, minutes = zone[0], zone[1:3], zone[-2:]
    moment = datetime.fromisoformat(f"{day}T{time}{fraction}{sign}{hours}:{minutes}")
    return utc(moment)


def utc(moment: datetime) -> str:
    """A moment as every stream writes it: UTC, six decimals."""
    return moment.astimezone(timezone.utc).isoformat(timespec="microseconds").replace("+00:00", "Z")


def array(item: Converter) -> Converter:
    """An array whose items are converted; null items are left out."""

    def convert(value: Any, unlisted: Unlisted) -> list[Any]:
        if not isinstance(value, list):
            raise TypeError
        return [item(entry, unlisted) for entry in value if entry is not None]

    return convert


class Fields:
    """The fields of an API object: their names there and here, and how each value is converted."""

    def __init__(self, where: str, fields: Mapping[str, Converter]) -> None:
        """Take the name of the object, for warnings, and the API's names."""
        self._where = where
        self._fields = [(name, RENAMED.get(name, snake_case(name)), convert) for name, convert in fields.items()]
        self._names = frozenset(fields)

    def __call__(self, value: Any, unlisted: Unlisted) -> dict[str, Any]:
        """The object with every listed field: null where it is missing, null or does not fit.

        Raises:
            TypeError: it is no object.
        """
        if not isinstance(value, dict):
            raise TypeError
        if not self._names.issuperset(value):
            for name in value.keys() - self._names:
                if not name.startswith("@odata."):
                    unlisted.note(f"{self._where}.{name}", "is not a field this version knows: dropped.")
        return {
            column: self._convert(name, value.get(name), convert, unlisted) for name, column, convert in self._fields
        }

    def _convert(self, name: str, value: Any, convert: Converter, unlisted: Unlisted) -> Any:
        if value is None:
            return None
        try:
            return convert(value, unlisted)
        except (TypeError, ValueError, AttributeError, OverflowError):
            unlisted.note(
                f"{self._where}.{name}",
                "had a value of another type than documented: null instead.",
            )
            return None


# learn.microsoft.com, "Machine resource type", with what the API's own $metadata adds.
machine_fields = Fields(
    "machine",
    {
        "id": text,
        "mergedIntoMachineId": text,
        "isPotentialDuplication": boolean,
        "isExcluded": boolean,
        "exclusionReason": text,
        "computerDnsName": text,
        "firstSeen": date_time,
        "lastSeen": date_time,
        "osPlatform": text,
        "osVersion": text,
        "osProcessor": text,
        "osArchitecture": text,
        "version": text,
        "osBuild": build_number,
        "lastIpAddress": text,
        "lastExternalIpAddress": text,
        "agentVersion": text,
        "healthStatus": text,
        "deviceValue": text,
        "rbacGroupId": integer,
        "rbacGroupName": text,
        "riskScore": text,
        "exposureLevel": text,
        "isAadJoined": boolean,
        "aadDeviceId": text,
        "machineTags": array(text),
        "onboardingStatus": text,
        "managedBy": text,
        "managedByStatus": text,
        "defenderAvStatus": text,
        "ipAddresses": array(
            Fields(
                "machine.ipAddresses",
                {"ipAddress": text, "macAddress": text, "type": text, "operationalStatus": text},
            )
        ),
        "vmMetadata": Fields(
            "machine.vmMetadata",
            {"vmId": text, "cloudProvider": text, "resourceId": text, "subscriptionId": text},
        ),
    },
)

# learn.microsoft.com, "Get missing KBs by device ID"; PublicProductFixDto in the API's $metadata.
_KB: Mapping[str, Converter] = {
    "id": text,
    "name": text,
    "productsNames": array(text),
    "url": text,
    "machineMissedOn": integer,
    "cveAddressed": integer,
    "osBuild": build_number,
}
kb_fields = Fields("missing KB", _KB)

# The same out of a vulnerability export, by what is grouped of it ("Export software vulnerabilities assessment").
export_fields = Fields("export", {**_KB, "firstSeenAt": date_time})

_DATE_TIME_OF_LISTING = (
    "When the listing of this run began (UTC), the same for all: a machine below the newest has left."
)

MACHINES: dict[str, Any] = th.PropertiesList(
    th.Property(
        "id",
        th.StringType,
        required=True,
        description="Machine id; mostly 40 hex digits, other forms exist.",
    ),
    th.Property(
        "merged_into_machine_id",
        th.StringType,
        description="Machine that this one was merged into.",
    ),
    th.Property(
        "is_potential_duplication",
        th.BooleanType,
        description="Whether it may be a duplicate of another.",
    ),
    th.Property(
        "is_excluded",
        th.BooleanType,
        description="Whether it is excluded from vulnerability management.",
    ),
    th.Property(
        "exclusion_reason",
        th.StringType,
        description="Why it is excluded: Other, InactiveDevice, …",
    ),
    th.Property("computer_dns_name", th.StringType, description="Full name; free text on phones."),
    th.Property("first_seen", th.DateTimeType, description="First observed by Defender (UTC)."),
    th.Property("last_seen", th.DateTimeType, description="Last full report (UTC)."),
    th.Property(
        "os_platform",
        th.StringType,
        description="Windows11, WindowsServer2019, Ubuntu, macOS, iOS, …",
    ),
    th.Property("os_version", th.StringType, description="Version of the operating system."),
    th.Property("os_processor", th.StringType, description="Processor (an older name of os_architecture)."),
    th.Property("os_architecture", th.StringType, description="32-bit, 64-bit, …"),
    th.Property(
        "os_release",
        th.StringType,
        description="Release of the operating system, 22H2 (the API's `version`).",
    ),
    th.Property("os_build", th.IntegerType, description="Build number of the operating system."),
    th.Property("last_ip_address", th.StringType, description="Last internal IP address."),
    th.Property(
        "last_external_ip_address",
        th.StringType,
        description="Last IP address seen from the internet.",
    ),
    th.Property("agent_version", th.StringType, description="Version of the Defender agent."),
    th.Property(
        "health_status",
        th.StringType,
        description="Active, Inactive, ImpairedCommunication, NoSensorData, …",
    ),
    th.Property("device_value", th.StringType, description="Value set by people: Low, Normal, High."),
    th.Property("rbac_group_id", th.IntegerType, description="Device group's id; 0: in no group."),
    th.Property("rbac_group_name", th.StringType, description="Device group's name; null: in no group."),
    th.Property("risk_score", th.StringType, description="None, Informational, Low, Medium, High."),
    th.Property("exposure_level", th.StringType, description="None, Low, Medium, High."),
    th.Property("is_aad_joined", th.BooleanType, description="Whether it is joined to Entra ID."),
    th.Property("aad_device_id", th.StringType, description="Its id in Entra ID."),
    th.Property("machine_tags", th.ArrayType(th.StringType), description="Tags."),
    th.Property("onboarding_status", th.StringType, description="Onboarded, CanBeOnboarded, Unsupported, …"),
    th.Property("managed_by", th.StringType, description="Unknown, Intune, MicrosoftDefenderForEndpoint, …"),
    th.Property("managed_by_status", th.StringType, description="Unknown, Success, Error."),
    th.Property("defender_av_status", th.StringType, description="State of the antivirus."),
    th.Property(
        "ip_addresses",
        th.ArrayType(
            th.ObjectType(
                th.Property("ip_address", th.StringType),
                th.Property("mac_address", th.StringType),
                th.Property("type", th.StringType),
                th.Property("operational_status", th.StringType),
            )
        ),
        description="Network interfaces: ip_address, mac_address, type, operational_status.",
    ),
    th.Property(
        "vm_metadata",
        th.ObjectType(
            th.Property("vm_id", th.StringType),
            th.Property("cloud_provider", th.StringType),
            th.Property("resource_id", th.StringType),
            th.Property("subscription_id", th.StringType),
        ),
        description="Of a cloud machine: vm_id, cloud_provider, resource_id, subscription_id.",
    ),
    th.Property("listed_at", th.DateTimeType, description=_DATE_TIME_OF_LISTING),
).to_dict()

MISSING_KBS: dict[str, Any] = th.PropertiesList(
    th.Property("machine_id", th.StringType, required=True, description="The machine that lacks the update."),
    th.Property("id", th.StringType, required=True, description="The update: KB number without `KB`."),
    th.Property("name", th.StringType, description="Title of the update."),
    th.Property("products_names", th.ArrayType(th.StringType), description="Products that it fixes."),
    th.Property("url", th.StringType, description="Where Microsoft offers it."),
    th.Property(
        "machine_missed_on",
        th.IntegerType,
        description="Machines that lack it, as the API counts them.",
    ),
    th.Property("cve_addressed", th.IntegerType, description="CVEs that it closes."),
    th.Property("os_build", th.IntegerType, description="Build of the operating system that it brings."),
    th.Property(
        "first_seen_at",
        th.DateTimeType,
        description="When it was first seen missing (UTC); from an export alone, else null.",
    ),
    th.Property(
        "checked_at",
        th.DateTimeType,
        description="When the API answered, or the export was made (UTC); one for all rows of an answer.",
    ),
).to_dict()

MISSING_KBS_CHECKS: dict[str, Any] = th.PropertiesList(
    th.Property("machine_id", th.StringType, required=True, description="The machine that was to be asked."),
    th.Property(
        "sweep",
        th.IntegerType,
        required=True,
        description="Version of the sweep: the epoch second it began.",
    ),
    th.Property(
        "checked_at",
        th.DateTimeType,
        description="When the outcome was known, or the export was made (UTC); the rows' of an answer.",
    ),
    th.Property(
        "outcome",
        th.StringType,
        description="answered, not_found, failed, skipped (not onboarded) or not_in_export.",
    ),
    th.Property(
        "missing_kbs",
        th.IntegerType,
        description="How many updates are missing; null unless answered.",
    ),
    th.Property(
        "missing_kb_ids",
        th.ArrayType(th.StringType),
        description="Their ids; null unless answered.",
    ),
).to_dict()

KB_CVES: dict[str, Any] = th.PropertiesList(
    th.Property("kb_id", th.StringType, required=True, description="The update: KB number without `KB`."),
    th.Property("cve_id", th.StringType, required=True, description="A CVE that it closes."),
    th.Property(
        "severity",
        th.StringType,
        description="None, Low, Medium, High, Critical; the worst of all machines in the export.",
    ),
    th.Property("cvss_score", th.NumberType, description="CVSS score, 0 to 10; the highest."),
    th.Property(
        "exploitability_level",
        th.StringType,
        description="NoExploit, ExploitIsPublic, ExploitIsVerified, ExploitIsInKit; the worst.",
    ),
).to_dict()
