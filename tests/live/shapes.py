"""What records look like, without what is in them: which fields, of which types, which words of closed lists.

What a report may say is decided here, and nowhere else. A value is never kept. Of a documented enumeration a word is
shown that looks like one, and is nothing that stands in another field; the name of a field is shown if it looks like
one, comes in several records, and is no value either. The rest is counted.

Believed is what the tap's tables of fields read, what `EXPORT` lists, and what `ENUMERATIONS` documents; tests hold the
simulator to the same.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from tap_mde_kbs.schema import MACHINES, MISSING_KBS, camel_case

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from tap_mde_kbs.schema import Table

Believed: TypeAlias = "Mapping[str, frozenset[str]]"
"""The types of each field, by its path: `ipAddresses[].type`."""

JSON_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}
ALSO = {
    # In `$metadata` an integer, in the documentation a string, and a whole version in recorded answers.
    "rbacGroupId": {"string"},
    "osBuild": {"string"},
}
"""Further types that the tap reads, by the name of the field."""

TEXTS = (
    "id",
    "deviceId",
    "deviceName",
    "rbacGroupName",
    "osPlatform",
    "osVersion",
    "osArchitecture",
    "softwareVendor",
    "softwareName",
    "softwareVersion",
    "cveId",
    "vulnerabilitySeverityLevel",
    "recommendedSecurityUpdate",
    "recommendedSecurityUpdateId",
    "recommendedSecurityUpdateUrl",
    "firstSeenTimestamp",
    "lastSeenTimestamp",
    "exploitabilityLevel",
    "recommendationReference",
    "endOfSupportStatus",
    "endOfSupportDate",
    "cveMitigationStatus",
    "productCategory",
    "cveBatchTitle",
    "cveBatchUrl",
)
EXPORT: Believed = {
    **{name: frozenset({"string", "null"}) for name in TEXTS},
    **{name: frozenset({"array", "null"}) for name in ("diskPaths", "registryPaths")},
    **{f"{name}[]": frozenset({"string"}) for name in ("diskPaths", "registryPaths")},
    "rbacGroupId": frozenset({"integer", "string", "null"}),
    "cvssScore": frozenset({"number", "integer", "null"}),
    "securityUpdateAvailable": frozenset({"boolean", "null"}),
    "isOnboarded": frozenset({"boolean", "null"}),
    "tmpAssessmentScore": frozenset({"number", "null"}),
}
"""A record of an export. Source: learn.microsoft.com, "Export software vulnerabilities assessment per device"."""

ENUMERATIONS: Mapping[str, frozenset[str]] = {
    name: frozenset(words.split())
    for name, words in {
        "exclusionReason": "Other InactiveDevice DuplicateDevice DeviceDoesNotExist DeviceOutOfScope",
        "healthStatus": "Active Inactive ImpairedCommunication NoSensorData NoSensorDataImpairedCommunication Unknown",
        "deviceValue": "Normal Low High",
        "riskScore": "None Informational Low Medium High",
        "exposureLevel": "None Low Medium High",
        "onboardingStatus": "Onboarded CanBeOnboarded Unsupported InsufficientInfo",
        "managedBy": "Unknown Intune SystemCenterConfigurationManager MicrosoftDefenderForEndpoint",
        "managedByStatus": "Unknown Success Error",
        "vulnerabilitySeverityLevel": "None Low Medium High Critical",
        "exploitabilityLevel": "NoExploit ExploitIsPublic ExploitIsVerified ExploitIsInKit",
    }.items()
}
"""The words of the fields that Microsoft documents as closed lists, by the name of the field."""

FORMS: Mapping[str, Mapping[str, str]] = {
    "machine": {
        "40 hex digits": r"[0-9a-f]{40}",
        "da…_…": r"da\d+_\d+",
        "GUID": r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}",
    },
    "KB": {"digits": r"\d+", "KB and digits": r"KB\s*\d+"},
    "time": {
        "none": "",
        "with T and Z, 0 to 7 decimals": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,7})?Z",
        "with a blank, 0 to 7 decimals": r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d{1,7})?",
    },
}
"""The forms that are known of ids and times, as patterns."""

FORM_OF = {
    "machine": {"id": "machine", "mergedIntoMachineId": "machine", "firstSeen": "time", "lastSeen": "time"},
    "missing KB": {"id": "KB"},
    "record of the export": {
        "deviceId": "machine",
        "firstSeenTimestamp": "time",
        "lastSeenTimestamp": "time",
    },
}
"""Which fields have such a form, by what a record is."""

WORD = re.compile(r"[A-Z][A-Za-z]{1,40}")
NAME = re.compile(r"(?![0-9A-Fa-f]+$)[A-Za-z]{2,39}")
NOT_SHOWN = "they may be values, and are not shown"
LEAST_RECORDS = 2
"""A name of a field that comes in fewer records may be anything."""


def believed(table: Table) -> dict[str, frozenset[str]]:
    """What the tap's own table of fields reads, by the API's names."""
    columns = table.schema["properties"]
    return {
        path: types
        for each in table.fields
        if each.wire_name
        for path, types in _believed(each.wire_name, columns[each.column])
    }


def _believed(path: str, schema: Mapping[str, Any]) -> Iterator[tuple[str, frozenset[str]]]:
    kinds = {schema["type"]} if isinstance(schema["type"], str) else {*schema["type"]}
    yield path, frozenset(kinds | {"null"} | ALSO.get(path, set()))
    if "items" in schema:
        yield from _believed(f"{path}[]", schema["items"])
    for name, inner in schema.get("properties", {}).items():
        yield from _believed(f"{path}.{camel_case(name)}", inner)


BELIEVED: Mapping[str, Believed] = {
    "machine": believed(MACHINES),
    "missing KB": believed(MISSING_KBS),
    "record of the export": EXPORT,
}
"""By what a record is."""


@dataclass
class Look:
    """What was seen of records of one kind.

    Attributes:
        what: A record is; a key of `BELIEVED`.
        records: How many were seen.
        types: How often each type, by path.
        words: What stands in fields that are enumerations, by the name of the field; not to be shown as it is.
        forms: How often each form of ids and times, by the name of the field.
        names: How often each name of a field that nobody knows came, with the path of what it is in.
        private: Every text in any other field, in small letters; never to be shown.
    """

    what: str
    records: int = 0
    types: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    words: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    forms: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    names: Counter[tuple[str, str]] = field(default_factory=Counter)
    strange: Counter[str] = field(default_factory=Counter)
    private: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._known = {path.lower(): path for path in BELIEVED[self.what]}

    def take(self, records: Iterable[Any]) -> None:
        """Look at records as the API sends them."""
        for record in records:
            self.records += 1
            if isinstance(record, dict):
                self._object("", record)
            else:
                self.strange[f"a {self.what} that is no object"] += 1

    def _object(self, path: str, value: Mapping[str, Any]) -> None:
        for name, inner in value.items():
            known = self._known.get(f"{path}{name}".lower())
            if known:
                self._value(known, inner)
            elif not name.startswith("@odata."):
                self.names[path, name] += 1
                self.private.update(_texts(inner))

    def _value(self, path: str, value: Any) -> None:
        self.types[path]["null" if value is None else JSON_TYPES[type(value)]] += 1
        if isinstance(value, (dict, list)) and JSON_TYPES[type(value)] not in BELIEVED[self.what][path]:
            self.private.update(_texts(value))
        elif isinstance(value, dict):
            self._object(f"{path}.", value)
        elif isinstance(value, list):
            for item in value:
                self._value(f"{path}[]", item)
        elif isinstance(value, str):
            self._text(path, value)

    def _text(self, path: str, value: str) -> None:
        if form := FORM_OF[self.what].get(path):
            known = (name for name, pattern in FORMS[form].items() if re.fullmatch(pattern, value))
            self.forms[path][next(known, "another form")] += 1
        if path in ENUMERATIONS:
            self.words[path].add(value)
        else:
            self.private.update(_texts(value))

    # What may be shown

    def drift(self, private: frozenset[str]) -> Iterator[str]:
        """Where the records are other than believed, a line each, without anything of theirs.

        Args:
            private: What must not be shown, of all kinds of records.
        """
        hidden: Counter[str] = Counter()
        for (path, name), number in self.names.items():
            if NAME.fullmatch(name) and number >= LEAST_RECORDS and name.lower() not in private:
                yield f"{self.what}: a field that nobody knows, `{path}{name}`, in {number} of {self.records}"
            else:
                hidden[path] += 1
        for path, number in hidden.items():
            yield f"{self.what}: {number} fields that nobody knows{f' in `{path[:-1]}`' if path else ''}; {NOT_SHOWN}"
        for path, types in self.types.items():
            for kind in sorted(types.keys() - BELIEVED[self.what][path]):
                yield f"{self.what}: `{path}` is of type {kind} in {types[kind]} of {types.total()}"
        for name, words in self.words.items():
            new = words - ENUMERATIONS[name]
            shown_words = sorted(word for word in new if WORD.fullmatch(word) and word.lower() not in private)
            yield from (f"{self.what}: `{name}` has a new word, {word}" for word in shown_words)
            if unshown := len(new) - len(shown_words):
                yield f"{self.what}: `{name}` has {unshown} new words; {NOT_SHOWN}"
        for path, forms in self.forms.items():
            if strange := forms["another form"]:
                yield f"{self.what}: `{path}` is of another form in {strange} of {forms.total()}"
        yield from (f"{text}, {number} times" for text, number in self.strange.items())

    def never_seen(self) -> list[str]:
        """The fields that no record had, and that are believed to be there."""
        inner = {path for path in BELIEVED[self.what] if "[" in path or "." in path}
        return [path for path in BELIEVED[self.what] if path not in self.types and path not in inner]

    def known_words(self) -> Iterator[str]:
        """How many of the documented words were seen."""
        for name, words in self.words.items():
            yield f"`{name}` {len(words & ENUMERATIONS[name])} of {len(ENUMERATIONS[name])}"

    def known_forms(self) -> Iterator[str]:
        """How often the forms were seen."""
        for path, forms in self.forms.items():
            yield f"`{path}`: " + ", ".join(f"{name} {number}" for name, number in sorted(forms.items()))


def _texts(value: Any) -> Iterator[str]:
    """Every text in a value, whole and by its words, in small letters."""
    if isinstance(value, str):
        yield value.lower()
        yield from re.findall(r"\w+", value.lower())
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield name.lower()
            yield from _texts(inner)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
