"""FIRST's exploit prediction scores: a CSV of a day. Makes no call.

Source: first.org/epss, and the files since 2021: a line `#model_version:…,score_date:…` since February 2022,
percentiles since September 2021.
"""

from __future__ import annotations

import csv
import math
import re
from datetime import date
from typing import Any, NamedTuple

_SAID = re.compile(r"(model_version|score_date)\s*:\s*([^,\s]+)")
_DAY = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
COLUMNS = (["cve", "epss"], ["cve", "epss", "percentile"])


class Scores(NamedTuple):
    """The scores of a day; rows lack `read_at` alone."""

    score_date: str
    rows: list[dict[str, Any]]


def scores_in(content: bytes, name: str, least: float) -> Scores:
    """The scores in a file.

    Args:
        content: The CSV.
        name: The file's, which has the day, too: older files say it nowhere else.
        least: Lower scores are left out.

    Raises:
        ValueError: It is no such file; the text is a clause.
    """
    lines = content.decode("utf-8-sig").splitlines()
    said: dict[str, str] = {}
    while lines and lines[0].startswith("#"):
        said |= dict(_SAID.findall(lines.pop(0)))
    try:
        columns, *values_of = csv.reader(line for line in lines if line.strip())
    except (csv.Error, ValueError):  # a field without an end, a file without a line
        columns, values_of = [], []
    columns = [each.strip().lower() for each in columns]
    if columns not in COLUMNS:
        msg = "a file without the columns cve, epss and percentile"
        raise ValueError(msg)
    day = _DAY.match(said.get("score_date", "")) or _DAY.search(name)
    if not day:
        msg = "scores without their day"
        raise ValueError(msg)
    score_date = _real(day.group())
    rows: dict[str, dict[str, Any]] = {}
    for cve_id, *values in values_of:
        if len(values) != len(columns) - 1 or not cve_id.strip():
            msg = "a line with more or fewer values than columns"
            raise ValueError(msg)
        score, *percentiles = (_share(value) for value in values)
        if score >= least:
            known_as = cve_id.strip().upper()
            rows[known_as] = {
                "cve_id": known_as,
                "epss": score,
                "percentile": percentiles[0] if percentiles else None,
                "score_date": score_date,
                "model_version": said.get("model_version"),
            }
    if not values_of:
        msg = "a file without a score"
        raise ValueError(msg)
    return Scores(score_date, [*rows.values()])


def _real(day: str) -> str:
    try:
        return date.fromisoformat(day).isoformat()
    except ValueError:
        msg = "scores of a day that is none"
        raise ValueError(msg) from None


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:  # whose own text quotes what was sent
        value = math.nan
    if not 0 <= value <= 1:
        msg = "a score that is none"
        raise ValueError(msg)
    return value
