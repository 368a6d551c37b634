"""What the user wishes for, and by how much a measured model misses it."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from lit_compress.benchmark.quality import ROUNDING, check_share
from lit_compress.benchmark.selection import Row


@dataclass(frozen=True)
class Achieved:
    """One line of asked against achieved.

    Args:
        what: What was asked for.
        asked: The figure that was asked for.
        found: The figure that was measured.
        unit: Of both.
        share: By how much it is missed, relative to what was asked for; 0 where it is met.
    """

    what: str
    asked: float
    found: float
    unit: str
    share: float

    @property
    def is_met(self) -> bool:
        """Whether it is."""
        return self.share <= ROUNDING


@dataclass(frozen=True)
class Wish:
    """What the small model is to be like; give at least one of ``speedup``, ``latency_ms`` and ``size_mb``.

    Args:
        quality: Share of the original's own metric on the validation split to keep, above 0.
        speedup: How many times faster than the original in eager float32, at one text over real lengths.
        latency_ms: Most milliseconds of the median text.
        size_mb: Most megabytes (10^6 bytes) of what is shipped: the file that a runtime loads, and the tokenizer.

    Raises:
        ValueError: A figure that nothing can fulfil, or nothing to aim at.
    """

    quality: float
    speedup: float | None = None
    latency_ms: float | None = None
    size_mb: float | None = None

    def __post_init__(self) -> None:
        check_share(self.quality)
        if self.speedup is not None and not 1 < self.speedup < math.inf:
            raise ValueError(f"Expected --speedup above 1 but got {self.speedup:g}; correct it.")
        for name in ("latency_ms", "size_mb"):
            limit = getattr(self, name)
            if limit is not None and not 0 < limit < math.inf:
                raise ValueError(
                    f"Expected --{name.replace('_', '-')} above 0 but got {limit:g}; correct it."
                )
        if self.speedup is None and self.latency_ms is None and self.size_mb is None:
            raise ValueError(
                "Expected something to aim at but got --quality alone; give --speedup, --latency-ms or --size-mb."
            )

    def __str__(self) -> str:
        return " ".join(f"--{name.replace('_', '-')} {value:g}" for name, value in self.to_dict().items())

    def to_dict(self) -> dict[str, float]:
        """Return what was given, ready for JSON."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def speedup_for(self, original_ms: float) -> float:
        """Return how many times faster than the original the model has to be; 1 where time does not matter.

        Args:
            original_ms: Milliseconds of the original for the median text.
        """
        asked = [1.0]
        if self.speedup is not None:
            asked.append(self.speedup)
        if self.latency_ms is not None:
            asked.append(original_ms / self.latency_ms)
        return max(asked)

    def against(self, row: Row, size: int) -> list[Achieved]:
        """Return asked against achieved, one entry per figure of the wish.

        Args:
            row: The measured row of the model in its runtime, beside the original.
            size: Bytes of what is shipped.
        """
        kept = row["ratio"].get("quality")
        found = [_least("quality", self.quality, 0.0 if kept is None else kept, "of the original's")]
        if self.speedup is not None:
            found.append(_least("speed-up", self.speedup, speedup_of(row), "×"))
        if self.latency_ms is not None:
            found.append(_most("latency", self.latency_ms, row["cpu"]["latency_ms"]["p50"], "ms"))
        if self.size_mb is not None:
            found.append(_most("size", self.size_mb, size / 1e6, "MB"))
        return found


def speedup_of(row: dict[str, Any]) -> float:
    """Return how many times faster a row is than the baseline of its session, at one text."""
    return 1.0 / row["ratio"]["cpu_latency"]["median"]


def _least(what: str, asked: float, found: float, unit: str) -> Achieved:
    return Achieved(what, asked, found, unit, max(0.0, 1 - found / asked))


def _most(what: str, asked: float, found: float, unit: str) -> Achieved:
    return Achieved(what, asked, found, unit, max(0.0, found / asked - 1))
