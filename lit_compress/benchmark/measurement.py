"""Raw series turned into figures, and figures into ratios with their spread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lit_compress.benchmark.protocol import Candidate, Protocol
from lit_compress.benchmark.session import Series


@dataclass(frozen=True)
class Spread:
    """Median of the rounds and the range that holds the middle 80 % of them.

    Args:
        median: Median.
        p10: 10th percentile.
        p90: 90th percentile.
    """

    median: float
    p10: float
    p90: float

    @classmethod
    def of(cls, rounds: Sequence[float] | np.ndarray) -> Spread:
        """Return the spread of one figure per round."""
        p10, median, p90 = np.percentile(np.asarray(rounds, dtype=float), [10, 50, 90])
        return cls(float(median), float(p10), float(p90))


@dataclass(frozen=True)
class Figures:
    """What one model does on one device.

    Args:
        p50_ms: Per round, the median over the texts of the latency at batch 1, in milliseconds.
        p90_ms: Per round, the 90th percentile over the texts.
        wall_p50_ms: ``p50_ms`` in wall time.
        texts_per_second: Texts per second in one batch of all texts.
        peak_mb: Peak memory in MB (10^6 bytes): resident on the CPU, allocated on a GPU.
        batch: Texts in the batch.
        rounds: Rounds that were measured.
    """

    p50_ms: Spread
    p90_ms: Spread
    wall_p50_ms: Spread
    texts_per_second: Spread
    peak_mb: float
    batch: int
    rounds: int


@dataclass(frozen=True)
class Measurement:
    """Everything that was measured about one model.

    Args:
        candidate: The model.
        is_baseline: Whether the ratios of the others refer to it.
        params: Parameters, shared ones once; ``None`` where the model did not load.
        shape: Family, layers, hidden size and vocabulary.
        bytes: Bytes of the weights on disk.
        weights: Digest of the weights.
        cpu: Figures on the CPU.
        gpu: Figures on the GPU; ``None`` where there is none.
        ratios: This model over the baseline; each a :class:`Spread` over rounds or one number.
        session: Shared by the models that were measured side by side.
        environment: Machine and library versions.
        protocol: How it was measured.
        error: What went wrong, ``None`` if nothing did.
    """

    candidate: Candidate
    is_baseline: bool
    params: int | None
    shape: dict[str, Any]
    bytes: int | None
    weights: str | None
    cpu: Figures | None
    gpu: Figures | None
    session: str
    environment: dict[str, Any]
    protocol: Protocol
    error: str | None = None
    ratios: dict[str, Spread | float] = field(default_factory=dict)


def figures_of(series: Series) -> Figures | None:
    """Return the figures of a series, ``None`` if the model failed."""
    if series.error is not None or series.peak_bytes is None:
        return None
    batch = len(series.latency[0])
    return Figures(
        p50_ms=_over_texts(series.latency, 50),
        p90_ms=_over_texts(series.latency, 90),
        wall_p50_ms=_over_texts(series.wall_latency, 50),
        texts_per_second=Spread.of([batch / seconds for seconds in series.throughput]),
        peak_mb=series.peak_bytes / 1e6,
        batch=batch,
        rounds=len(series.throughput),
    )


def ratios_of(series: Series, baseline: Series, prefix: str) -> dict[str, Spread | float]:
    """Return a model's figures divided by the baseline's of the same round.

    The latency ratio of a round is the median over the texts of (this model's time / the baseline's time
    for the same text), which is steadier than a ratio of two medians.

    Args:
        series: The model.
        baseline: The model it was measured beside.
        prefix: ``"cpu"`` or ``"gpu"``, put before the names.

    Returns:
        ``<prefix>_latency`` (below 1 is faster), ``<prefix>_throughput`` (above 1 is faster) and
        ``<prefix>_memory``; nothing where either model failed.
    """
    if series.error or baseline.error or not baseline.peak_bytes or series.peak_bytes is None:
        return {}
    pairs = np.asarray(series.latency) / np.asarray(baseline.latency)
    return {
        f"{prefix}_latency": Spread.of(np.median(pairs, axis=1)),
        f"{prefix}_throughput": Spread.of(np.asarray(baseline.throughput) / np.asarray(series.throughput)),
        f"{prefix}_memory": series.peak_bytes / baseline.peak_bytes,
    }


def _over_texts(rounds: Sequence[Sequence[float]], percentile: float) -> Spread:
    return Spread.of(1000 * np.percentile(np.asarray(rounds), percentile, axis=1))
