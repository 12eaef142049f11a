"""One table of fields for each stream: column, type, description, and how its value is read from the wire.

The SCHEMA messages, the rows and the documentation of the columns follow from it: a new column is one line. Knows no
HTTP.

Names are the API's in snake_case at every level: target-postgres creates columns exactly as named, target-snowflake
upper-cases them, so one set of SQL serves every warehouse.
"""

from __future__ import annotations

import re
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from singer_sdk import typing as th

from tap_mde_kbs.errors import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Reader: TypeAlias = "Callable[[Any, Unlisted], Any]"
"""Makes a value of the wire one of the column's; TypeError or ValueError where it is of another type.

What does not fit inside an object is noted in the `Unlisted`."""


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


# C0 controls but tab and line ends, which no warehouse needs and PostgreSQL refuses (NUL), and halves of surrogate
# pairs, which no encoder takes.
_UNSTORABLE = re.compile(r"[\x00\ud800-\udfff]")
_DATE_TIME = re.compile(
    r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?\s*(Z|[+-]\d\d:?\d\d)?", re.IGNORECASE | re.ASCII
)
_INT64 = 2**63

NO_DAY = "0001-01-01"
"""What is written now and then where there is no moment."""


def text(value: Any, _: Unlisted | None = None) -> str:
    """Text as a warehouse can store it; numbers and booleans as JSON writes them."""
    if isinstance(value, str):
        return value if value.isascii() and "\x00" not in value else _UNSTORABLE.sub("\N{REPLACEMENT CHARACTER}", value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return str(value)
    raise TypeError


def integer(value: Any, _: Unlisted | None = None) -> int:
    """A 64-bit integer; text of one is taken too (`rbacGroupId`, `osBuild` come as either)."""
    whole = int(value) if isinstance(value, str) else value
    if isinstance(whole, float) and whole.is_integer():
        whole = int(whole)
    if isinstance(whole, bool) or not isinstance(whole, int) or not -_INT64 <= whole < _INT64:
        raise TypeError
    return whole


def number(value: Any, _: Unlisted | None = None) -> float:
    """A number, whole or not."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError
    return float(value)


def build_number(value: Any, _: Unlisted | None = None) -> int:
    """A build, 22631; of a whole version as text (`10.0.22631.4317` is seen) the part that is the build."""
    if isinstance(value, str) and "." in value:
        parts = value.split(".")
        value = parts[2] if len(parts) > 2 else parts[0]  # noqa: PLR2004 - major, minor, build, revision
    return integer(value)


def boolean(value: Any, _: Unlisted | None = None) -> bool:
    """A boolean; the words are taken too."""
    if isinstance(value, str) and value.lower() in {"true", "false"}:
        return value.lower() == "true"
    if not isinstance(value, bool):
        raise TypeError
    return value


def date_time(value: Any, _: Unlisted | None = None) -> str | None:
    """A date-time in UTC with six decimals; the API gives none to seven, and perhaps no zone (then it is UTC).

    None for the first day of the year 1, which stands where there is no moment.
    """
    found = _DATE_TIME.fullmatch(value.strip())
    if not found:
        raise ValueError
    if found.group(1) == NO_DAY:
        return None
    day, time, decimals, zone = found.groups()
    fraction = f".{decimals[:6]:0<6}" if decimals else ""
    if zone in {None, "Z", "z"}:
        datetime.fromisoformat(f"{day}T{time}")  # refuses the 30th of February
        return f"{day}T{time}{fraction}Z"
    sign, hours, minutes = zone[0], zone[1:3], zone[-2:]
    return utc(datetime.fromisoformat(f"{day}T{time}{fraction}{sign}{hours}:{minutes}"))


def utc(moment: datetime) -> str:
    """A moment as every stream writes it: UTC, six decimals."""
    return moment.astimezone(timezone.utc).isoformat(timespec="microseconds").replace("+00:00", "Z")


def array(item: Reader) -> Reader:
    """An array whose items are converted; null items are left out."""

    def convert(value: Any, unlisted: Unlisted) -> list[Any]:
        if not isinstance(value, list):
            raise TypeError
        return [item(entry, unlisted) for entry in value if entry is not None]

    return convert


def now() -> str:
    """This moment, as `utc` writes it."""
    return utc(datetime.now(timezone.utc))


class Kind(NamedTuple):
    """What a column holds: its type in the SCHEMA, and how a value of the wire becomes one of it."""

    type: Any
    read: Reader


class Field(NamedTuple):
    """A column.

    Attributes:
        column: Its name.
        kind: What it holds.
        description: What a reader of the table is told.
        key: It belongs to the key, and is never null.
        wire: The API's name; None: the same in camelCase. Empty: the tap fills it, the API does not send it.
    """

    column: str
    kind: Kind
    description: str = ""
    key: bool = False
    wire: str | None = None

    @property
    def wire_name(self) -> str:
        """The API's name; empty if the API does not send it."""
        return camel_case(self.column) if self.wire is None else self.wire


def plain(schema: dict[str, Any]) -> dict[str, Any]:
    """A JSON schema in the form that most targets read: no `$schema`; null is the first type, a single one is no list.

    Some refuse a draft that they do not know, some look at the first or the last type alone. Wherever the schema comes
    from (discovery, a catalog, the SDK's stream maps and flattening), what is written goes through here.
    """
    schema = {name: value for name, value in schema.items() if name != "$schema"}
    if isinstance(kinds := schema.get("type"), list):
        kinds = sorted(dict.fromkeys(kinds), key=lambda kind: kind != "null")
        schema["type"] = kinds[0] if len(kinds) == 1 else kinds
    if isinstance(properties := schema.get("properties"), dict):
        schema["properties"] = {name: plain(each) for name, each in properties.items()}
    if isinstance(items := schema.get("items"), dict):
        schema["items"] = plain(items)
    return schema


def camel_case(column: str) -> str:
    """The API's name for a column: `computer_dns_name` is `computerDnsName`."""
    first, *rest = column.split("_")
    return first + "".join(word.capitalize() for word in rest)


class Table:
    """The fields of a stream, or of an object in a column.

    Args:
        name: What a record of it is, for warnings.
        fields: In the order of the columns.
    """

    def __init__(self, name: str, *fields: Field) -> None:
        self.name = name
        self.fields = fields
        self.keys = tuple(field.column for field in fields if field.key)
        self._by_wire = [(field.wire_name, field.column, field.kind.read) for field in fields if field.wire_name]
        self._by_column = [(field.column, field.column, field.kind.read) for field in fields]
        self._wire_names = frozenset(name for name, _, _ in self._by_wire)

    @property
    def schema(self) -> dict[str, Any]:
        """The JSON schema, as a SCHEMA message has it."""
        return plain(self._properties(th.PropertiesList).to_dict())

    @property
    def as_object(self) -> Kind:
        """The kind of a column that holds such an object."""
        return Kind(self._properties(th.ObjectType), self.from_wire)

    def from_wire(self, value: Any, unlisted: Unlisted) -> dict[str, Any]:
        """The columns that the API sends, out of its object: null where a value is missing, null or does not fit.

        Raises:
            TypeError: It is no object.
        """
        if not isinstance(value, dict):
            raise TypeError
        if not self._wire_names.issuperset(value):
            for name in value.keys() - self._wire_names:
                if not name.startswith("@odata."):
                    unlisted.note(f"{self.name}.{name}", "is not a field this version knows: dropped.")
        return self._read(value, self._by_wire, unlisted)

    def from_columns(self, record: Mapping[str, Any], unlisted: Unlisted) -> dict[str, Any]:
        """The whole row out of a record that has the columns' names already: null where a value does not fit."""
        return self._read(record, self._by_column, unlisted)

    def _read(
        self, record: Mapping[str, Any], names: list[tuple[str, str, Reader]], unlisted: Unlisted
    ) -> dict[str, Any]:
        row = {}
        for name, column, read in names:
            value = record.get(name)
            if value is not None:
                try:
                    value = read(value, unlisted)
                except (TypeError, ValueError, AttributeError, OverflowError):
                    unlisted.note(
                        f"{self.name}.{name}",
                        "had a value of another type than documented: null instead.",
                    )
                    value = None
            row[column] = value
        return row

    def _properties(self, collect: Any) -> Any:
        return collect(
            *(
                th.Property(field.column, field.kind.type, required=field.key, description=field.description or None)
                for field in self.fields
            )
        )


TEXT = Kind(th.StringType, text)
INTEGER = Kind(th.IntegerType, integer)
NUMBER = Kind(th.NumberType, number)
BUILD = Kind(th.IntegerType, build_number)
BOOLEAN = Kind(th.BooleanType, boolean)
DATE_TIME = Kind(th.DateTimeType, date_time)
DATE = Kind(th.DateType, text)
TEXTS = Kind(th.ArrayType(th.StringType), array(text))


def objects(table: Table) -> Kind:
    """The kind of a column that holds an array of such objects."""
    return Kind(th.ArrayType(table.as_object.type), array(table.from_wire))


IP_ADDRESSES = Table(
    "machine.ipAddresses",
    Field("ip_address", TEXT),
    Field("mac_address", TEXT),
    Field("type", TEXT),
    Field("operational_status", TEXT),
)

VM_METADATA = Table(
    "machine.vmMetadata",
    Field("vm_id", TEXT),
    Field("cloud_provider", TEXT),
    Field("resource_id", TEXT),
    Field("subscription_id", TEXT),
)

# learn.microsoft.com, "Machine resource type", with what the API's own $metadata adds.
MACHINES = Table(
    "machine",
    Field("id", TEXT, "Machine id; mostly 40 hex digits, other forms exist.", key=True),
    Field("merged_into_machine_id", TEXT, "Machine that this one was merged into."),
    Field("is_potential_duplication", BOOLEAN, "Whether it may be a duplicate of another."),
    Field("is_excluded", BOOLEAN, "Whether it is excluded from vulnerability management."),
    Field("exclusion_reason", TEXT, "Why it is excluded: Other, InactiveDevice, …"),
    Field("computer_dns_name", TEXT, "Full name; free text on phones."),
    Field("first_seen", DATE_TIME, "First observed by Defender (UTC)."),
    Field("last_seen", DATE_TIME, "Last full report (UTC)."),
    Field("os_platform", TEXT, "Windows11, WindowsServer2019, Ubuntu, macOS, iOS, …"),
    Field("os_version", TEXT, "Version of the operating system."),
    Field("os_processor", TEXT, "Processor (an older name of os_architecture)."),
    Field("os_architecture", TEXT, "32-bit, 64-bit, …"),
    # Not `version`: target-postgres 0.8.1 crashes on ACTIVATE_VERSION for a table with such a column.
    Field("os_release", TEXT, "Release of the operating system, 22H2 (the API's `version`).", wire="version"),
    Field("os_build", BUILD, "Build number of the operating system."),
    Field("last_ip_address", TEXT, "Last internal IP address."),
    Field("last_external_ip_address", TEXT, "Last IP address seen from the internet."),
    Field("agent_version", TEXT, "Version of the Defender agent."),
    Field("health_status", TEXT, "Active, Inactive, ImpairedCommunication, NoSensorData, …"),
    Field("device_value", TEXT, "Value that an administrator set: Low, Normal, High."),
    Field("rbac_group_id", INTEGER, "Device group's id; 0: in no group."),
    Field("rbac_group_name", TEXT, "Device group's name; null: in no group."),
    Field("risk_score", TEXT, "None, Informational, Low, Medium, High."),
    Field("exposure_level", TEXT, "None, Low, Medium, High."),
    Field("is_aad_joined", BOOLEAN, "Whether it is joined to Entra ID."),
    Field("aad_device_id", TEXT, "Its id in Entra ID."),
    Field("machine_tags", TEXTS, "Tags."),
    Field("onboarding_status", TEXT, "Onboarded, CanBeOnboarded, Unsupported, …"),
    Field("managed_by", TEXT, "Unknown, Intune, MicrosoftDefenderForEndpoint, …"),
    Field("managed_by_status", TEXT, "Unknown, Success, Error."),
    Field("defender_av_status", TEXT, "State of the antivirus."),
    Field(
        "ip_addresses",
        objects(IP_ADDRESSES),
        "Network interfaces: ip_address, mac_address, type, operational_status.",
    ),
    Field(
        "vm_metadata",
        VM_METADATA.as_object,
        "Of a cloud machine: vm_id, cloud_provider, resource_id, subscription_id.",
    ),
    Field(
        "listed_at",
        DATE_TIME,
        "When the listing of this run began (UTC), the same for all its machines.",
        wire="",
    ),
    Field(
        "listing",
        INTEGER,
        "Version of the listing; only grows. A machine below the newest one that has arrived whole has left.",
        wire="",
    ),
)

# learn.microsoft.com, "Get missing KBs by device ID"; PublicProductFixDto in the API's $metadata. Of an export, what is
# grouped of its records ("Export software vulnerabilities assessment").
MISSING_KBS = Table(
    "missing KB",
    Field("machine_id", TEXT, "The machine that lacks the update.", key=True, wire=""),
    Field("id", TEXT, "The update: KB number without `KB`.", key=True),
    Field("name", TEXT, "Title of the update."),
    Field("products_names", TEXTS, "Products that it fixes."),
    Field("url", TEXT, "Where Microsoft offers it."),
    Field("machine_missed_on", INTEGER, "Machines that lack it, as the API counts them."),
    Field("cve_addressed", INTEGER, "CVEs that it closes."),
    Field("os_build", BUILD, "Build of the operating system that it brings."),
    Field(
        "first_seen_at",
        DATE_TIME,
        "When it was first seen missing (UTC); only from an export, otherwise null.",
        wire="",
    ),
    Field(
        "checked_at",
        DATE_TIME,
        "When the API answered, or the export was made (UTC); the same for all rows of one answer.",
        wire="",
    ),
    Field("sweep", INTEGER, "Version of the sweep that wrote the row.", wire=""),
)

MISSING_KBS_CHECKS = Table(
    "check",
    Field("machine_id", TEXT, "The machine that was to be asked.", key=True, wire=""),
    Field("sweep", INTEGER, "Version of the sweep; only grows, whatever a clock says.", key=True, wire=""),
    Field(
        "checked_at",
        DATE_TIME,
        "When the outcome was known, or the export was made (UTC); equals checked_at of that answer's rows.",
        wire="",
    ),
    Field("outcome", TEXT, "answered, not_found, failed, skipped or not_in_export.", wire=""),
    Field("missing_kbs", INTEGER, "How many updates are missing; null unless answered.", wire=""),
    Field("missing_kb_ids", TEXTS, "Their ids; null unless answered.", wire=""),
    Field(
        "reason",
        TEXT,
        "For skipped: not_onboarded, excluded or silent; for failed: what happened, in a line; else null.",
        wire="",
    ),
    Field("last_seen", DATE_TIME, "When the machine last reported, as it is listed (UTC).", wire=""),
)

SWEEPS = Table(
    "sweep",
    Field("sweep", INTEGER, "Version of the sweep; only grows, whatever a clock says.", key=True, wire=""),
    Field("source", TEXT, "Where its answers come from: the setting missing_kbs_source.", wire=""),
    Field("began_at", DATE_TIME, "When it began (UTC).", wire=""),
    Field("ended_at", DATE_TIME, "When every listed machine had an outcome (UTC); null before.", wire=""),
    Field("listing", INTEGER, "Version of the newest machine list that was believed.", wire=""),
    Field("listed_at", DATE_TIME, "When that listing began (UTC).", wire=""),
    Field("machines_listed", INTEGER, "Rows of `machines` in that listing.", wire=""),
    Field("machines_asked", INTEGER, "Machines with an outcome that were to be asked; over all runs.", wire=""),
    Field("machines_answered", INTEGER, "Of these, those that answered.", wire=""),
    Field("machines_not_found", INTEGER, "Of these, those that answered 404 to the end.", wire=""),
    Field("machines_failed", INTEGER, "Of these, those that gave no answer, or none of use.", wire=""),
    Field("machines_skipped", INTEGER, "Machines that were not asked: not onboarded, excluded or silent.", wire=""),
    Field("machines_not_in_export", INTEGER, "Machines that the export does not have.", wire=""),
    Field("missing_pairs", INTEGER, "Missing updates, over all machines that answered.", wire=""),
    Field("is_complete", BOOLEAN, "Whether every listed machine has an outcome.", wire=""),
    Field(
        "is_believed",
        BOOLEAN,
        "Whether what is absent from the sweep is gone; null until it is complete. Not the same as activated.",
        wire="",
    ),
    Field("verdict", TEXT, "Why, or why not: a sentence; null until it is complete.", wire=""),
)

KB_CVES = Table(
    "CVE",
    Field("kb_id", TEXT, "The update: KB number without `KB`.", key=True, wire=""),
    Field("cve_id", TEXT, "A CVE that it closes.", key=True, wire=""),
    Field("severity", TEXT, "None, Low, Medium, High, Critical; the worst of all machines in the export.", wire=""),
    Field("cvss_score", NUMBER, "CVSS score, 0 to 10; the highest.", wire=""),
    Field(
        "exploitability_level",
        TEXT,
        "NoExploit, ExploitIsPublic, ExploitIsVerified, ExploitIsInKit; the worst.",
        wire="",
    ),
    Field("checked_at", DATE_TIME, "When the export was made (UTC).", wire=""),
)

# What is publicly known of updates: docs/advisories.md. Their rows are made by `advisories`, not read from the API.
READ_AT = Field(
    "read_at", DATE_TIME, "When the feed was read (UTC); one for a reading, so the newest is current.", wire=""
)

MSRC_KBS = Table(
    "MSRC update",
    Field("kb_id", TEXT, "The update: KB number without `KB`.", key=True, wire=""),
    Field("document_id", TEXT, "MSRC's document that names it; an update may be in several.", key=True, wire=""),
    Field("document_month", DATE, "The document's month, its first day.", wire=""),
    Field("cves", INTEGER, "CVEs of the document that it closes; advisories do not count.", wire=""),
    Field("published_on", DATE, "The day it came, by its CVEs; null where each was revised later.", wire=""),
    Field("supersedes", TEXTS, "Updates that it replaces, as Microsoft lists them.", wire=""),
    Field("sub_types", TEXTS, "Security Update, Monthly Rollup, Security Hotpatch Update, …", wire=""),
    Field("product_ids", TEXTS, "Products that it is for, by MSRC's ids.", wire=""),
    Field("products", TEXTS, "The same by name.", wire=""),
    Field("fixed_builds", TEXTS, "Builds that it brings.", wire=""),
    Field("restart_required", TEXT, "Yes, Maybe or No: the worst; null where nothing is said.", wire=""),
    Field("url", TEXT, "Where Microsoft offers it.", wire=""),
    READ_AT,
)

MSRC_KB_CVES = Table(
    "MSRC fix",
    Field("kb_id", TEXT, "The update: KB number without `KB`.", key=True, wire=""),
    Field("cve_id", TEXT, "A CVE, or an advisory, that it closes.", key=True, wire=""),
    Field("document_id", TEXT, "MSRC's document that says so.", wire=""),
    READ_AT,
)

MSRC_CVES = Table(
    "MSRC CVE",
    Field("id", TEXT, "The CVE; only those that an update closes.", key=True, wire=""),
    Field("title", TEXT, "Its title.", wire=""),
    Field("severity", TEXT, "Critical, Important, Moderate, Low or None, by Microsoft: the worst product's.", wire=""),
    Field("exploited", BOOLEAN, "Whether Microsoft says that it is exploited; null where it says nothing.", wire=""),
    Field("publicly_disclosed", BOOLEAN, "Whether Microsoft says that it was disclosed before.", wire=""),
    Field("cvss_score", NUMBER, "CVSS base score, 0 to 10; the highest product's.", wire=""),
    Field("cvss_vector", TEXT, "The vector of that score.", wire=""),
    Field("published_on", DATE, "When it was first published.", wire=""),
    Field("revised_on", DATE, "When it was revised last; null where it never was.", wire=""),
    Field("document_id", TEXT, "MSRC's document that has it.", wire=""),
    READ_AT,
)

KEV = Table(
    "KEV entry",
    Field("cve_id", TEXT, "The CVE, known to be exploited.", key=True, wire=""),
    Field("vendor", TEXT, "Vendor, by CISA.", wire=""),
    Field("product", TEXT, "Product, by CISA.", wire=""),
    Field("name", TEXT, "What CISA calls it.", wire=""),
    Field("required_action", TEXT, "What CISA's directives require of US agencies.", wire=""),
    Field("added_on", DATE, "When CISA added it.", wire=""),
    Field("due_on", DATE, "CISA's own due date for US agencies.", wire=""),
    Field("ransomware", BOOLEAN, "Whether ransomware is known to use it; null: not known.", wire=""),
    Field("forensic_triage", BOOLEAN, "Whether CISA wants a forensic triage; null where it does not say.", wire=""),
    Field("released_at", DATE_TIME, "When this catalogue was released (UTC).", wire=""),
    READ_AT,
)

EPSS = Table(
    "EPSS score",
    Field("cve_id", TEXT, "The CVE.", key=True, wire=""),
    Field("epss", NUMBER, "Probability that it is exploited in the next 30 days, 0 to 1, by FIRST's model.", wire=""),
    Field("percentile", NUMBER, "Share of all CVEs with a lower or equal score, 0 to 1.", wire=""),
    Field("score_date", DATE, "The day that the score is of.", wire=""),
    Field("model_version", TEXT, "Version of the model.", wire=""),
    READ_AT,
)
