"""Asked against achieved, and what each step cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from lit_compress.benchmark.protocol import BASELINE_RUNTIME
from lit_compress.benchmark.selection import Row
from lit_compress.compress.wish import Achieved, Wish, speedup_of
from lit_compress.report.columns import look_up


@dataclass(frozen=True)
class Outcome:
    """What came of a wish.

    Args:
        row: The row of the small model in the runtime that comes nearest; the fastest one where several fulfil all.
        achieved: Asked against achieved.
        same_runtime: How many times faster than the original in the same runtime: what training bought, with the
            ends of its interval; ``None`` where the original was not measured there.
        bytes: What is shipped.
        steps: Quality on the way: what, and its metric.
    """

    row: Row
    achieved: list[Achieved]
    same_runtime: tuple[float, float, float] | None
    bytes: int
    steps: list[tuple[str, float]]

    @property
    def is_met(self) -> bool:
        """Whether everything that was asked for is there."""
        return all(one.is_met for one in self.achieved)

    def to_dict(self) -> dict[str, Any]:
        """Return it ready for JSON."""
        return {
            "met": self.is_met,
            "runtime": self.row["runtime"],
            "achieved": [vars(one) for one in self.achieved],
            "speedup": speedup_of(self.row),
            "latency_ms": self.row["cpu"]["latency_ms"]["p50"],
            "quality_kept": self.row["ratio"].get("quality"),
            "same_runtime": self.same_runtime,
            "bytes": self.bytes,
            "steps": self.steps,
        }


def judge(wish: Wish, rows: Sequence[Row], small: str, original: str, beside: int) -> Outcome:
    """Return what came of a wish.

    Models are known by their weights: folders of several models have the same name. Of a model that was measured more
    than once in a runtime the last row counts.

    Args:
        wish: What was asked for.
        rows: Measured rows, those of the original among them, the oldest one first.
        small: Digest of the small model's weights.
        original: Digest of the original's.
        beside: Bytes that are shipped beside the model's file.

    Raises:
        ValueError: The small model could be measured in no runtime.
    """
    last = {(row["weights"], row["runtime"]): row for row in rows}
    mine = [row for (weights, _), row in last.items() if weights == small]
    good = [row for row in mine if not row.get("error") and row["runtime"] != BASELINE_RUNTIME]
    if not good:
        errors = "; ".join(f"{row['runtime']}: {row.get('error')}" for row in mine) or "there is no row"
        raise ValueError(f"Expected the small model to run in a runtime of integers but {errors}")
    judged = [(row, wish.against(row, row["bytes"] + beside)) for row in good]
    row, achieved = min(judged, key=lambda pair: (_worst(pair[1]), -speedup_of(pair[0])))
    same_runtime = times_as_fast(row, last.get((original, row["runtime"])))
    steps = _steps(last, small, original, row["runtime"])
    return Outcome(row, achieved, same_runtime, row["bytes"] + beside, steps)


def _worst(achieved: Sequence[Achieved]) -> float:
    """Return the worst miss; equal for all that fulfil everything."""
    return max(0.0 if one.is_met else one.share for one in achieved)


def times_as_fast(row: Row, twin: Row | None) -> tuple[float, float, float] | None:
    """Return how many times faster a row is than another one, with the ends of its interval.

    Args:
        row: A row.
        twin: One of the same session, or of one with the same baseline.

    Returns:
        ``None`` where one of them has no time.
    """
    mine, other = look_up(row, "ratio.cpu_latency"), twin and look_up(twin, "ratio.cpu_latency")
    if not mine or not other:
        return None
    # The ends of a quotient of two intervals: wider than need be, since both share the noise of the baseline.
    return other["median"] / mine["median"], other["low"] / mine["high"], other["high"] / mine["low"]


def _steps(
    last: Mapping[tuple[str, str], Row], small: str, original: str, runtime: str
) -> list[tuple[str, float]]:
    wanted = {
        "the original": last.get((original, BASELINE_RUNTIME)),
        f"the original in {runtime}": last.get((original, runtime)),
        "the small model, rounded, in PyTorch": last.get((small, BASELINE_RUNTIME)),
        f"the small model in {runtime}": last.get((small, runtime)),
    }
    return [(what, float(row["quality"]["value"])) for what, row in wanted.items() if row and row["quality"]]


def show(outcome: Outcome, metric: str) -> None:
    """Print asked against achieved, and what each step cost.

    Args:
        outcome: What came of the wish.
        metric: Name of the quality.
    """
    console = Console()
    table = Table("wish", "asked", "achieved", "", title=f"In {outcome.row['runtime']}")
    for one in outcome.achieved:
        mark = "met" if one.is_met else f"missed by {100 * one.share:.1f} %"
        table.add_row(one.what, f"{one.asked:.4g} {one.unit}", f"{one.found:.4g} {one.unit}", mark)
    console.print(table)
    if outcome.same_runtime is not None:
        middle, low, high = outcome.same_runtime
        console.print(
            f"Against the original in the same runtime: {middle:.2f}× as fast ({low:.2f}–{high:.2f}).",
            highlight=False,
        )
    before: float | None = None
    for what, value in outcome.steps:
        lost = "" if before is None else f"  ({value - before:+.4f})"
        console.print(f"{metric} of {what}: {value:.4f}{lost}", highlight=False)
        before = value
