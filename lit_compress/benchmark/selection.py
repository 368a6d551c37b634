"""The choice among measured checkpoints: the cheapest one that is good enough."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lit_compress.benchmark.metrics import figures
from lit_compress.report.columns import look_up

Row = dict[str, Any]

_SHARE = re.compile(r"([\d.eE+-]+)\s*\*\s*teacher")
# Float32 metrics: 18 of 20 rows correct must be "at least 0.9".
_ROUNDING = 1e-6
#: The peak memory of a process differs by about this share when the same model is measured twice.
MEMORY_NOISE = 0.02
# Figures whose noise the rows tell: in the ratio to the baseline, and in the spread over rounds.
_RATIOS = {f"{device}/latency_ms": f"ratio.{device}_latency" for device in ("cpu", "gpu")}
_SPREADS = {
    f"{device}/{figure}": f"{device}.latency_ms.{spread}"
    for device in ("cpu", "gpu")
    for figure, spread in (("latency_ms", "p50_spread"), ("latency_p90_ms", "p90_spread"))
}


@dataclass(frozen=True)
class Floor:
    """The quality that a checkpoint must reach.

    Args:
        value: An absolute quality, or a share of the teacher's.
        of_teacher: Whether it is a share.
    """

    value: float
    of_teacher: bool

    @classmethod
    def parse(cls, text: str | float) -> Floor:
        """Read ``"0.98*teacher"`` or an absolute quality such as ``0.9``.

        Args:
            text: What the user wrote.

        Returns:
            The floor.

        Raises:
            ValueError: It is neither, or out of range.
        """
        share = _SHARE.fullmatch(str(text).strip())
        try:
            value = float(share[1] if share else text)
        except ValueError:
            value = math.nan
        low = 0.0 if share else -1.0
        if not low < value <= (2.0 if share else 1.0):
            raise ValueError(
                "Expected at_least to be a share of the teacher's quality such as '0.98*teacher' (0 to 2), or an "
                f"absolute quality such as 0.9 (at most 1) but got {text!r}; percentages are written as fractions."
            )
        return cls(value, share is not None)

    def threshold(self, teacher: float | None) -> float:
        """Return the quality to reach, for a teacher of this quality."""
        assert teacher is not None or not self.of_teacher
        return self.value * teacher if self.of_teacher else self.value  # type: ignore[operator]

    def __str__(self) -> str:
        return f"{self.value:g}*teacher" if self.of_teacher else f"{self.value:g}"


@dataclass(frozen=True)
class Choice:
    """The outcome.

    Args:
        row: The chosen row; the nearest one where none qualifies, ``None`` where none could be judged.
        qualifies: Whether it reaches the quality.
        reason: Which one and why, in one paragraph.
    """

    row: Row | None
    qualifies: bool
    reason: str


def choose(
    rows: Sequence[Row], floor: Floor, cost: str, teacher: float | None = None, quality: str = "quality"
) -> Choice:
    """Choose the row with the lowest cost among those that are good enough.

    Costs that do not differ by more than their noise count as equal; among equals the best quality wins.
    Without that, a pure distillation, whose checkpoints are all equally fast, would be decided by the noise.

    Args:
        rows: One row per checkpoint, in one runtime; of several sessions only on one scale.
        floor: The quality to reach.
        cost: Name of the figure to minimise, such as ``cpu/latency_ms``.
        teacher: The teacher's quality, for a floor that is a share of it.
        quality: Name of the quality in the message.

    Returns:
        The choice.
    """
    judged = [row for row in rows if _is_judged(row, cost)]
    unjudged = "".join(
        f" {row['checkpoint']} could not be judged: {_missing(row, cost)}."
        for row in rows
        if not _is_judged(row, cost)
    )
    if not judged:
        return Choice(None, False, f"no checkpoint could be judged.{unjudged}")
    if floor.of_teacher and (teacher is None or teacher <= 0):
        told = "was not evaluated" if teacher is None else f"is {teacher:.4g}, of which a share means nothing"
        return Choice(None, False, f"at_least={floor} says nothing here: the teacher's {quality} {told}.")
    threshold = floor.threshold(teacher)
    wanted = f"{quality} of at least {threshold:.4f}"
    if floor.of_teacher:
        wanted += f" ({floor}, whose is {teacher:.4f})"
    good = [row for row in judged if _value(row) >= threshold - _ROUNDING]
    if not good:
        nearest = max(judged, key=lambda row: (_value(row), -figures(row)[cost]))
        return Choice(
            nearest,
            False,
            f"none of {len(judged)} checkpoints has {wanted}. The nearest is {nearest['checkpoint']} with "
            f"{_value(nearest):.4f}, short of it by {threshold - _value(nearest):.4f}.{unjudged}",
        )
    return _cheapest(good, cost, wanted, f"{len(good)} of {len(judged)}", quality, unjudged)


def _cheapest(
    good: Sequence[Row], cost: str, wanted: str, counted: str, quality: str, unjudged: str
) -> Choice:
    ranges = _ranges(good, cost)
    equal = [good[number] for number in lowest_but_for_noise(ranges)]
    best = max(equal, key=lambda row: (_value(row), -figures(row)[cost]))
    reason = (
        f"{best['checkpoint']} is the lowest in {cost}, {figures(best)[cost]:.4g}, of the {counted} checkpoints "
        f"with {wanted}; its {quality} is {_value(best):.4f}."
    )
    if len(equal) > 1:
        others = ", ".join(row["checkpoint"] for row in equal if row is not best)
        reason += f" No lower or higher but for noise: {others}; so {quality} decided."
    return Choice(best, True, reason + unjudged)


def lowest_but_for_noise(ranges: Sequence[tuple[float, float, float]]) -> list[int]:
    """Return which costs may be the lowest one: those whose low end the high end of the lowest reaches.

    Args:
        ranges: Each cost with the ends between which it may lie.

    Returns:
        Their numbers, in order.
    """
    ceiling = min(ranges)[2]
    return [number for number, (_, low, _) in enumerate(ranges) if low <= ceiling]


def _ranges(rows: Sequence[Row], cost: str) -> list[tuple[float, float, float]]:
    """Return the cost of each row with the ends between which it may lie.

    Ratios to the baseline, where all rows have them, hold across sessions; figures in milliseconds do not.
    """
    ratios = [look_up(row, _RATIOS.get(cost, "")) for row in rows]
    if all(ratios):
        return [(ratio["median"], ratio["low"], ratio["high"]) for ratio in ratios]
    return [_range(row, cost) for row in rows]


def _range(row: Row, cost: str) -> tuple[float, float, float]:
    value = figures(row)[cost]
    if cost.endswith("peak_mb"):
        return value, value * (1 - MEMORY_NOISE / 2), value * (1 + MEMORY_NOISE / 2)
    low, high = look_up(row, _SPREADS.get(cost, "")) or (value, value)
    return value, low, high


def _value(row: Row) -> float:
    return float(row["quality"]["value"])


def _is_judged(row: Row, cost: str) -> bool:
    return not row.get("error") and bool(row.get("quality")) and cost in figures(row)


def _missing(row: Row, cost: str) -> str:
    if row.get("error"):
        return str(row["error"])
    return f"{cost} was not taken" if row.get("quality") else "its quality was not evaluated"
