"""What the choice is to achieve: a quality to keep, a cost to minimise, limits to stay within."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from lit_compress.benchmark.quality import ROUNDING, check_share
from lit_compress.benchmark.selection import MEMORY_NOISE, Row
from lit_compress.benchmark.workload import throughput
from lit_compress.report.columns import look_up

COSTS = ("latency", "size", "memory")
#: A cost with the ends between which it may lie.
Range = tuple[float, float, float]


@dataclass(frozen=True)
class Shortfall:
    """One wish that a route does not fulfil.

    Args:
        text: What is missing, as in "is 2.1 MB over --max-size-mb 20".
        share: By how much, relative to what was asked for.
    """

    text: str
    share: float


@dataclass(frozen=True)
class Goal:
    """Which route is wanted.

    Args:
        quality: Share of the original's own quality to keep, above 0 and at most 1.
        minimise: ``"latency"``, ``"size"`` or ``"memory"``.
        max_size_mb: Most megabytes (10^6 bytes) of the files that are loaded.
        max_latency_ms: Most milliseconds of the median text, or of a batch where ``batch`` is above 1.
        max_memory_mb: Most megabytes of peak memory above what the imports take.
        batch: Texts at once.

    Raises:
        ValueError: A value that nothing can fulfil, or an unknown cost.
    """

    quality: float
    minimise: str = "latency"
    max_size_mb: float | None = None
    max_latency_ms: float | None = None
    max_memory_mb: float | None = None
    batch: int = 1

    def __post_init__(self) -> None:
        check_share(self.quality)
        if self.minimise not in COSTS:
            raise ValueError(
                f"Expected --minimise to be one of {', '.join(COSTS)} but got {self.minimise!r}; correct it."
            )
        if self.batch < 1:
            raise ValueError(f"Expected --batch of at least 1 text but got {self.batch}; correct it.")
        for name in ("max_size_mb", "max_latency_ms", "max_memory_mb"):
            limit = getattr(self, name)
            if limit is not None and not 0 < limit < math.inf:
                raise ValueError(
                    f"Expected {_option(name)} above 0 but got {limit:g}, which no model can fulfil together with "
                    f"--quality {self.quality:g}; raise it, or leave it out."
                )

    def __str__(self) -> str:
        limits = [
            f"{_option(name)} {value:g}"
            for name in ("max_size_mb", "max_latency_ms", "max_memory_mb")
            if (value := getattr(self, name)) is not None
        ]
        return " ".join([f"--quality {self.quality:g}", *limits])

    def quality_shortfall(self, kept: float, metric: str) -> Shortfall | None:
        """Return what a route lacks that keeps this share of the original's metric."""
        if kept >= self.quality - ROUNDING:
            return None
        text = (
            f"keeps {kept:.4f} of the original's {metric}, short of --quality {self.quality:g} "
            f"by {self.quality - kept:.4f}"
        )
        return Shortfall(text, 1 - kept / self.quality)

    def size_shortfall(self, size: int) -> Shortfall | None:
        """Return by how much files of so many bytes are too large."""
        return _over("max_size_mb", size / 1e6, self.max_size_mb, "MB")

    def measured_shortfalls(self, row: Row) -> list[Shortfall]:
        """Return by how much a measured route is too slow and takes too much memory."""
        found = (
            _over("max_latency_ms", self.latency_ms(row), self.max_latency_ms, "ms"),
            _over("max_memory_mb", row["cpu"]["rss_mb"], self.max_memory_mb, "MB"),
        )
        return [shortfall for shortfall in found if shortfall is not None]

    def latency_ms(self, row: Row) -> float:
        """Return the milliseconds that the median text takes, or a batch of :attr:`batch` texts."""
        if self.batch == 1:
            return row["cpu"]["latency_ms"]["p50"]
        return 1000 * self.batch / row["cpu"]["throughput"][str(self.batch)]["texts_per_second"]

    def latency_spread(self, row: Row) -> tuple[float, float]:
        """Return the ends of the middle 80 % of the rounds of :meth:`latency_ms`."""
        if self.batch == 1:
            low, high = row["cpu"]["latency_ms"]["p50_spread"]
            return low, high
        slow, fast = row["cpu"]["throughput"][str(self.batch)]["spread"]
        return 1000 * self.batch / fast, 1000 * self.batch / slow

    def ranges(self, rows: list[Row]) -> list[Range]:
        """Return the cost to minimise of each row with the ends between which it may lie.

        Times are ratios to the original of the same session, which hold across sessions; only where one is missing
        are they milliseconds.
        """
        if self.minimise == "size":
            return [(row["bytes"], row["bytes"], row["bytes"]) for row in rows]
        if self.minimise == "memory":
            return [_widened(row["cpu"]["rss_mb"], MEMORY_NOISE / 2) for row in rows]
        ratios = [self.latency_ratio(row) for row in rows]
        known = [ratio for ratio in ratios if ratio is not None]
        if len(known) == len(rows):
            return known
        return [(self.latency_ms(row), *self.latency_spread(row)) for row in rows]

    def latency_ratio(self, row: Row) -> Range | None:
        """Return the time of a route over that of the original with its 95 % interval."""
        if row["is_baseline"]:
            return 1.0, 1.0, 1.0
        name = "cpu_latency" if self.batch == 1 else f"cpu_{throughput(self.batch).replace(' ', '_')}"
        ratio: dict[str, Any] | None = look_up(row, f"ratio.{name}")
        if ratio is None:
            return None
        ends = ratio["median"], ratio["low"], ratio["high"]
        return ends if self.batch == 1 else (1 / ends[0], 1 / ends[2], 1 / ends[1])


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _over(name: str, value: float, limit: float | None, unit: str) -> Shortfall | None:
    if limit is None or value <= limit:
        return None
    text = f"takes {_plain(value)} {unit}, {_plain(value - limit)} {unit} over {_option(name)} {limit:g}"
    return Shortfall(text, value / limit - 1)


def _plain(value: float) -> str:
    return f"{value:,.1f}" if value >= 100 else f"{value:.3g}"


def _widened(value: float, share: float) -> Range:
    return value, value * (1 - share), value * (1 + share)
