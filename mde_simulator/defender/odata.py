"""OData query options of a list: `$filter`, `$orderby`, `$select`, `$top`, `$skip`, `$count`.

A small part of OData 4 for records that are dictionaries; names are taken without regard to case,
as the API does. Knows nothing of machines but which of their properties may be filtered by.
"""

from __future__ import annotations

import operator
import re
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from mde_simulator.fleet.catalogue import Record

    Value = Callable[[Record], object]
    Test = Callable[[Record], bool]

MAXIMUM = 10_000
FILTERABLE = (
    "computerDnsName",
    "id",
    "version",
    "deviceValue",
    "aadDeviceId",
    "machineTags",
    "lastSeen",
    "exposureLevel",
    "onboardingStatus",
    "lastIpAddress",
    "healthStatus",
    "osPlatform",
    "riskScore",
    "rbacGroupId",
)
TIMES = ("lastSeen",)
TOKEN = re.compile(
    r"\s*(?:(?P<text>'(?:[^']|'')*')"
    r"|(?P<time>\d{4}-\d\d-\d\d(?:T\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:\d\d)?)?)(?![\w-])"
    r"|(?P<guid>[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12})"
    r"|(?P<number>-?\d+(?:\.\d+)?)(?!\w)"
    r"|(?P<name>[A-Za-z_]\w*)"
    r"|(?P<sign>[(),:/]))"
)
COMPARE: dict[str, Callable[..., bool]] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "gt": operator.gt,
    "ge": operator.ge,
    "lt": operator.lt,
    "le": operator.le,
}
FUNCTIONS: dict[str, Callable[[str, str], bool]] = {
    "startswith": str.startswith,
    "endswith": str.endswith,
    "contains": operator.contains,
}
CONSTANTS = {"null": None, "true": True, "false": False}


class ODataError(ValueError):
    """The query is refused; the message says why."""


def moment(text: str) -> datetime:
    """A date or a time, UTC unless it says otherwise, of any number of decimals."""
    text = re.sub(r"\.(\d+)", lambda found: f".{found[1]:0<6.6}", text.replace("Z", "+00:00"))
    try:
        value = datetime.fromisoformat(text)
    except ValueError as error:
        msg = f"'{text}' is not a valid date and time."
        raise ODataError(msg) from error
    return value if value.tzinfo else value.replace(tzinfo=timezone.utc)


class Filter:
    """A parsed `$filter`: call `matches` with a record."""

    def __init__(self, text: str) -> None:
        self._tokens = list(self._split(text))
        self._position = 0
        self._variable = ""
        try:
            self.matches = self._either()
        except RecursionError as error:
            msg = "The node count limit of '100' has been exceeded."
            raise ODataError(msg) from error
        if self._position < len(self._tokens):
            msg = f"Syntax error at position {self._position} in '{text}'."
            raise ODataError(msg)

    @staticmethod
    def _split(text: str) -> Iterable[tuple[str, str]]:
        position, text = 0, text.rstrip()
        while position < len(text):
            found = TOKEN.match(text, position)
            if found is None or found.lastgroup is None:
                msg = f"Syntax error: character '{text[position]}' is not valid in '{text}'."
                raise ODataError(msg)
            yield found.lastgroup, found[found.lastgroup]
            position = found.end()

    def _peek(self) -> tuple[str, str]:
        if self._position < len(self._tokens):
            return self._tokens[self._position]
        return "end", ""

    def _next(self) -> tuple[str, str]:
        token = self._peek()
        self._position += 1
        return token

    def _expect(self, *texts: str) -> str:
        _, text = self._next()
        if text not in texts:
            msg = f"Syntax error in $filter: '{text}' where '{texts[0]}' was expected."
            raise ODataError(msg)
        return text

    def _taken(self, text: str) -> bool:
        if self._peek()[1] == text:
            self._position += 1
            return True
        return False

    def _either(self) -> Test:
        tests = [self._both()]
        while self._taken("or"):
            tests.append(self._both())
        return lambda record: any(test(record) for test in tests)

    def _both(self) -> Test:
        tests = [self._one()]
        while self._taken("and"):
            tests.append(self._one())
        return lambda record: all(test(record) for test in tests)

    def _one(self) -> Test:
        if self._taken("not"):
            test = self._one()
            return lambda record: not test(record)
        if self._taken("("):
            test = self._either()
            self._expect(")")
            return test
        name = self._peek()[1]
        if name in FUNCTIONS and self._tokens[self._position + 1 :][:1] == [("sign", "(")]:
            return self._function()
        return self._comparison()

    def _function(self) -> Test:
        holds = FUNCTIONS[self._next()[1]]
        self._expect("(")
        left, _ = self._operand()
        self._expect(",")
        right, _ = self._operand()
        self._expect(")")

        def test(record: Record) -> bool:
            value, part = left(record), right(record)
            return isinstance(value, str) and isinstance(part, str) and holds(value, part)

        if self._taken("eq"):
            wanted = CONSTANTS[self._expect("true", "false")]
            return lambda record: test(record) is wanted
        return test

    def _comparison(self) -> Test:
        left, kind = self._operand()
        if kind == "list":
            return self._any(left)
        compare = COMPARE[self._expect(*COMPARE)]
        right, other = self._operand()
        if {kind, other} - {"null"} not in ({kind}, {other}):
            msg = f"A binary operator with incompatible types was detected: {kind}, {other}."
            raise ODataError(msg)
        equality = compare in (operator.eq, operator.ne)

        def test(record: Record) -> bool:
            one, two = left(record), right(record)
            if kind == "number":
                # Documented as a string, a number in the API's metadata: both are served.
                one, two = _number(one), _number(two)
            if not equality and (one is None or two is None):
                return False
            try:
                return compare(one, two)
            except TypeError:  # A test gave the property a value of another type.
                return False

        return test

    def _any(self, values: Value) -> Test:
        self._expect("/")
        self._expect("any")
        self._expect("(")
        outer, self._variable = self._variable, self._next()[1]
        self._expect(":")
        test, variable = self._either(), self._variable
        self._expect(")")
        self._variable = outer

        def any_of(record: Record) -> bool:
            items = values(record)
            return isinstance(items, list) and any(test({variable: item}) for item in items)

        return any_of

    def _operand(self) -> tuple[Value, str]:
        kind, text = self._next()
        if kind == "text":
            literal = text[1:-1].replace("''", "'")
            return lambda _: literal, "text"
        if kind == "time":
            time = moment(text)
            return lambda _: time, "time"
        if kind in ("number", "guid"):
            return lambda _: text, "number" if kind == "number" else "text"
        if kind == "name":
            return self._property(text)
        msg = f"Syntax error in $filter at '{text}'."
        raise ODataError(msg)

    def _property(self, name: str) -> tuple[Value, str]:
        if name in CONSTANTS:
            return lambda _: CONSTANTS[name], "null"
        if name == self._variable:
            return lambda record: record[name], "text"
        key = named(name, FILTERABLE)
        if key in TIMES:
            return lambda record: _time(record.get(key)), "time"
        kinds = {"machineTags": "list", "rbacGroupId": "number"}
        return lambda record: record.get(key), kinds.get(key, "text")


def _number(value: object) -> float | None:
    try:
        return None if value is None else float(str(value))
    except ValueError:
        return None


def _time(value: object) -> datetime | None:
    try:
        return moment(value) if isinstance(value, str) else None
    except ODataError:
        return None


def named(name: str, known: Iterable[str]) -> str:
    """The property of this name, in its own case."""
    for candidate in known:
        if candidate.lower() == name.lower():
            return candidate
    msg = (
        f"Could not find a property named '{name}' on type "
        "'microsoft.windowsDefenderATP.api.Machine' that this query option may use."
    )
    raise ODataError(msg)


def skipped(query: list[tuple[str, str]]) -> int:
    """How much of a list was read already, as far as a query says."""
    texts = [text for name, text in query if name.lower() == "$skip"]
    return int(texts[0]) if texts and texts[0].isascii() and texts[0].isdecimal() else 0


def whole(name: str, text: str) -> int:
    """The number of a query option."""
    if not re.fullmatch(r"\d{1,18}", text, re.ASCII):
        msg = f"Invalid value '{text}' for {name} query option found."
        raise ODataError(msg)
    return int(text)


@dataclass
class Options:
    """The query options of one request; `unknown` are names that mean nothing here."""

    top: int | None = None
    skip: int = 0
    page_size: int | None = None
    filter: str | None = None
    select: list[str] = field(default_factory=list)
    order_by: list[tuple[str, bool]] = field(default_factory=list)
    count: bool = False
    unknown: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, query: list[tuple[str, str]]) -> Options:
        """Read the options.

        Raises:
            ODataError: One is given twice, is not of OData, or has no proper value.
        """
        options = cls()
        names = [name.lower() for name, _ in query if name.startswith("$")]
        if len(names) != len(set(names)):
            msg = "A query option was specified more than once, but it must be specified once."
            raise ODataError(msg)
        for name, text in query:
            options._set(name, text)
        return options

    def _set(self, name: str, text: str) -> None:
        match name.lower():
            case "$top":
                self.top = whole(name, text)
            case "$skip":
                self.skip = whole(name, text)
            case "pagesize":
                self.page_size = whole(name, text)
            case "$filter":
                self.filter = text
            case "$select":
                self.select = [part.strip() for part in text.split(",")]
            case "$orderby":
                self.order_by = [_order(part) for part in text.split(",")]
            case "$count":
                self.count = text.lower() == "true"
            case lower if lower.startswith("$"):
                msg = f"The query option '{name}' is not allowed."
                raise ODataError(msg)
            case _:
                self.unknown.append(name)

    def sort(self, records: list[Record]) -> None:
        """In the order of `$orderby`, null first."""
        for name, descending in reversed(self.order_by):
            key = named(name, records[0]) if records else name
            records.sort(key=lambda record: _rank(record.get(key)), reverse=descending)

    def project(self, record: Record) -> Record:
        """Only what `$select` names."""
        if not self.select or "*" in self.select:
            return record
        return {key: record[key] for key in (named(name, record) for name in self.select)}


def _order(text: str) -> tuple[str, bool]:
    name, _, direction = text.strip().partition(" ")
    if direction.strip() not in ("", "asc", "desc"):
        msg = f"Syntax error in $orderby at '{direction}'."
        raise ODataError(msg)
    return name, direction.strip() == "desc"


def _rank(value: object) -> tuple[int, str]:
    if isinstance(value, int):
        return 1, f"{value:020d}"
    return (0, "") if value is None else (1, str(value))
