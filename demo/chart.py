"""Where things are drawn: days and values as percentages of a chart's width and height.

Geometry only; it knows no data and no HTML.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import date

#: Ticks on a value axis, about; and how near two labels of days may come, in percent of the width.
TICKS = 3
NEAR = 16
#: The width of a day's bar, as a share of the distance to the next.
BAR = 0.6


@dataclass(frozen=True)
class Days:
    """The axis of days; the first and the last are half a bar from the edges."""

    days: Sequence[date]

    @property
    def _margin(self) -> float:
        """Half the smallest distance of two days."""
        gaps = [(after - before).days for before, after in zip(self.days, self.days[1:], strict=False)]
        return min(gaps, default=1) / 2

    @property
    def _length(self) -> float:
        return (self.days[-1] - self.days[0]).days + 2 * self._margin

    def at(self, day: date) -> float:
        """Where a day is."""
        return round(((day - self.days[0]).days + self._margin) / self._length * 100, 3)

    @property
    def bar(self) -> float:
        """How wide a bar is."""
        return round(2 * self._margin / self._length * 100 * BAR, 3)

    def labels(self, marks: Iterable[date]) -> list[date]:
        """The marks, the last day and the first, as far as their labels do not meet."""
        kept: list[date] = []
        for day in (*sorted(marks, reverse=True), self.days[-1], self.days[0]):
            if all(abs(self.at(day) - self.at(other)) >= NEAR for other in kept):
                kept.append(day)
        return sorted(kept)


@dataclass(frozen=True)
class Values:
    """An axis of values from 0, or from a negative one, up.

    Args:
        highest: The highest value.
        lowest: The lowest, if any is below 0.
        whole: Whether there is nothing between 0 and 1.
    """

    highest: float
    lowest: float = 0
    whole: bool = True

    @property
    def step(self) -> float:
        """From tick to tick: 1, 2 or 5 times a power of ten."""
        wanted = max(self.highest - self.lowest, 1 if self.whole else 0.01) / TICKS
        power = 10.0 ** math.floor(math.log10(wanted))
        step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= wanted * 0.999)
        return max(step, 1) if self.whole else step

    @property
    def ticks(self) -> list[float]:
        """From the lowest to the highest, 0 among them."""
        first, last = math.floor(self.lowest / self.step), max(1, math.ceil(self.highest / self.step))
        return [round(number * self.step, 6) for number in range(first, last + 1)]

    def at(self, value: float) -> float:
        """How high a value is."""
        low, high = self.ticks[0], self.ticks[-1]
        return round((value - low) / (high - low) * 100, 3)


def line(points: Sequence[tuple[float, float]]) -> str:
    """An SVG path through points, which count up from the bottom while SVG counts down from the top."""
    return "M" + "L".join(f"{x:g},{100 - y:g}" for x, y in points) if points else ""


def area(points: Sequence[tuple[float, float]]) -> str:
    """The path of what lies below that line."""
    return f"{line(points)}V100H{points[0][0]:g}Z" if points else ""
