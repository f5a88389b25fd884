"""What a measurement says: medians, spread, ratio to the baseline, and what was asked of it."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """Limits for a ratio or for a value. `is_ceiling`: small is good."""

    at_least: float
    aim: float
    is_ceiling: bool = False

    def verdict(self, found: float) -> str:
        """`aim`, `pass` (the least asked for) or `MISS`."""
        sign = -1 if self.is_ceiling else 1
        if sign * found >= sign * self.aim:
            return "aim"
        return "pass" if sign * found >= sign * self.at_least else "MISS"


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """One quantity, measured once a round."""

    unit: str
    values: tuple[float, ...]

    @classmethod
    def of(cls, unit: str, values: Sequence[float]) -> Samples:
        return cls(unit=unit, values=tuple(values))

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def spread(self) -> float:
        """Half the distance of the extremes, as a share of the median."""
        return (max(self.values) - min(self.values)) / 2 / self.median if self.median else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table. `ratio` compares medians; without a baseline it is the value in
    the goal's unit."""

    name: str
    measured: Samples
    goal: Goal
    ratio: float
    ratio_unit: str  # "%", "x" or a unit of its own
    baseline_name: str = ""
    baseline: Samples | None = None
    cpu: Mapping[str, float] = field(default_factory=dict)  # cores used by each process
    notes: tuple[str, ...] = ()

    @property
    def verdict(self) -> str:
        return self.goal.verdict(self.ratio)

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        summary = {
            "median": self.measured.median,
            "spread": self.measured.spread,
            "verdict": self.verdict,
        }
        if self.baseline is not None:
            summary["baseline_median"] = self.baseline.median
            summary["baseline_spread"] = self.baseline.spread
        return {**asdict(self), **summary}


def render(rows: Sequence[Row]) -> str:
    """The table for people, with a line of CPU shares and notes below each row."""
    lines = []
    for row in rows:
        unit = row.ratio_unit
        base = ""
        if row.baseline is not None:
            base = f"; {row.baseline_name} {_quantity(row.baseline)}"
        goal = row.goal
        word = "at most" if goal.is_ceiling else "at least"
        lines.append(f"{row.verdict:5} {row.name}: {_number(row.ratio)} {unit}")
        lines.append(f"        {word} {_number(goal.at_least)} {unit}, aim {_number(goal.aim)}")
        lines.append(f"        measured {_quantity(row.measured)}{base}")
        if row.cpu:
            shares = ", ".join(f"{name} {share:.2f}" for name, share in row.cpu.items())
            lines.append(f"        cores busy: {shares}")
        lines += [f"        {note}" for note in row.notes]
    return "\n".join(lines)


def _quantity(samples: Samples) -> str:
    return f"{_number(samples.median)} {samples.unit} ±{samples.spread:.0%}"


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
