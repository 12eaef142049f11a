"""What a page says, as text: the numbers of its tables, and of what has an id."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

VOID = {"meta", "link", "br"}


@dataclass
class Report(HTMLParser):
    """The page, read.

    Attributes:
        tables: Rows by the table's id and the row's key: the cells after the first, numbers exact where they are.
        values: The text, or the exact number, of each element with an id.
        keyed: The same of each element with a key outside of a table.
    """

    tables: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    values: dict[str, str] = field(default_factory=dict)
    keyed: dict[str, str] = field(default_factory=dict)
    _open: list[dict[str, str]] = field(default_factory=list)
    _exact: list[bool] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Begin."""
        super().__init__()

    @classmethod
    def of(cls, path: Path) -> Report:
        """The page in a file."""
        report = cls()
        report.feed(path.read_text(encoding="utf-8"))
        return report

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """An element begins."""
        if tag in VOID:
            return
        attributes = {name: value or "" for name, value in attrs} | {"tag": tag}
        self._open.append(attributes)
        if "id" in attributes:
            self.values[attributes["id"]] = attributes.get("data-value", "")
        if tag == "table":
            self.tables[attributes["id"]] = {}
        if tag == "tr" and "data-key" in attributes:
            self._rows[attributes["data-key"]] = []
        if tag == "td":
            self._row.append(attributes.get("data-value", ""))

    def handle_endtag(self, tag: str) -> None:
        """It ends."""
        assert self._open[-1]["tag"] == tag, f"<{self._open[-1]['tag']}> is ended by </{tag}>"
        self._open.pop()

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """An element that is empty, as SVG's are."""

    def handle_data(self, data: str) -> None:
        """Text in whatever is open."""
        if not self._open or not data.strip():
            return
        innermost = self._open[-1]
        text = data.strip().replace(",", "")
        if innermost["tag"] == "td" and "data-value" not in innermost:
            self._row[-1] += text
        elif "id" in innermost and "data-value" not in innermost:
            self.values[innermost["id"]] += text
        elif "data-key" in innermost:
            self.keyed[innermost["data-key"]] = text

    @property
    def _rows(self) -> dict[str, list[str]]:
        return self.tables[next(each["id"] for each in reversed(self._open) if each["tag"] == "table")]

    @property
    def _row(self) -> list[str]:
        return self._rows[next(each["data-key"] for each in reversed(self._open) if each["tag"] == "tr")]
