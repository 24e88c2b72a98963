"""What was measured against which goal; how it is shown. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured value; where it has a floor (the physical part alone, in the same run), the goal is on their ratio."""

    goal: int
    """Its number in docs/performance.md."""
    what: str
    value: float
    unit: str
    limit: float
    floor: float | None = None
    at_least: bool = False
    """The goal is a lower bound."""
    note: str = ""

    @property
    def judged(self) -> float:
        """The ratio, or the value itself."""
        return self.value / self.floor if self.floor else self.value

    @property
    def met(self) -> bool:
        return self.judged >= self.limit if self.at_least else self.judged <= self.limit


HEAD = "| goal | what | measured | floor | ratio | wanted | met |\n|---|---|---|---|---|---|---|"


def row(one: Figure) -> str:
    """One line of the table."""
    sign = ">=" if one.at_least else "<="
    floor = f"{short(one.floor)} {one.unit}" if one.floor else "-"
    ratio = f"{one.judged:.2f}" if one.floor else "-"
    wanted = f"{sign} {short(one.limit)}{' x' if one.floor else f' {one.unit}'}"
    what = f"{one.what} ({one.note})" if one.note else one.what
    cells = [
        str(one.goal),
        what,
        f"{short(one.value)} {one.unit}",
        floor,
        ratio,
        wanted,
        "yes" if one.met else "**no**",
    ]
    return f"| {' | '.join(cells)} |"


def short(value: float) -> str:
    """Three significant digits."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which this share of them lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def median(values: Sequence[float]) -> float:
    return statistics.median(values)
