"""Raw series turned into figures, and figures into ratios to a baseline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lit_compress.benchmark.intervals import Ratio, Spread
from lit_compress.benchmark.protocol import Candidate, Protocol
from lit_compress.benchmark.series import Series
from lit_compress.benchmark.workload import LATENCY, fixed_latency, throughput

if TYPE_CHECKING:
    from lit_compress.benchmark.artefacts import Artefact


@dataclass(frozen=True)
class FixedFigures:
    """What one model does with texts of one length.

    Args:
        p50_ms: Median latency at batch 1, in milliseconds.
        throughput: Texts per second by batch size.
    """

    p50_ms: Spread
    throughput: dict[int, Spread]


@dataclass(frozen=True)
class Figures:
    """What one model does on one device.

    Args:
        p50_ms: Per round, the median over the texts of the latency at batch 1, in milliseconds.
        p90_ms: Per round, the 90th percentile over the texts.
        p99_ms: Per round, the 99th percentile over the texts.
        wall_p50_ms: ``p50_ms`` in wall time.
        throughput: Texts per second by batch size.
        fixed: Figures by text length.
        peak_mb: Peak memory in MB (10^6 bytes): resident on the CPU, allocated on a GPU.
        reserved_mb: Memory that torch reserved on a GPU; ``None`` on the CPU.
        growth_mb: How much more memory the model took after the last round than after the first.
        energy_j_per_text: Joules per text at batch 1; ``None`` where the machine has no meter.
        rounds: Rounds that were measured.
        warmup_rounds: Rounds that ran before them.
    """

    p50_ms: Spread
    p90_ms: Spread
    p99_ms: Spread
    wall_p50_ms: Spread
    throughput: dict[int, Spread]
    fixed: dict[int, FixedFigures]
    peak_mb: float
    reserved_mb: float | None
    growth_mb: float
    energy_j_per_text: float | None
    rounds: int
    warmup_rounds: int


@dataclass(frozen=True)
class Measurement:
    """Everything that was measured about one model in one runtime.

    Args:
        candidate: The model.
        is_baseline: Whether the ratios of the others refer to it.
        is_teacher: Whether it is the same model as the baseline, in whatever runtime.
        artefact: What was loaded, and facts about the model; ``None`` where it could not be prepared.
        weights: Digest of the weights.
        cpu: Figures on the CPU.
        gpu: Figures on the GPU; ``None`` where there is none.
        quality: Task metric in this runtime.
        session: Shared by the models that were measured side by side.
        environment: Machine and library versions.
        protocol: How it was measured.
        seconds: Wall seconds that it cost, its share of what the session cost.
        ratios: This model over the baseline; each with its interval, or one number.
        warnings: What a reader of the row should know.
        error: What went wrong, ``None`` if nothing did.
    """

    candidate: Candidate
    is_baseline: bool
    is_teacher: bool
    artefact: Artefact | None
    weights: str | None
    cpu: Figures | None
    gpu: Figures | None
    quality: dict[str, Any] | None
    session: str
    environment: dict[str, Any]
    protocol: Protocol
    seconds: float
    ratios: dict[str, Ratio | float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    error: str | None = None


def figures_of(series: Series, protocol: Protocol) -> Figures | None:
    """Return the figures of a series, ``None`` if the model failed."""
    if series.error is not None or series.peak_bytes is None:
        return None
    latency = series.times[LATENCY]
    reserved = series.reserved_bytes
    return Figures(
        p50_ms=_over_texts(latency, 50),
        p90_ms=_over_texts(latency, 90),
        p99_ms=_over_texts(latency, 99),
        wall_p50_ms=_over_texts(series.wall_times[LATENCY], 50),
        throughput=_throughputs(series, protocol.batches),
        fixed=_fixed(series, protocol),
        peak_mb=series.peak_bytes / 1e6,
        reserved_mb=None if reserved is None else reserved / 1e6,
        growth_mb=(series.memory[-1] - series.memory[0]) / 1e6,
        energy_j_per_text=_energy(series.joules, len(latency[0])),
        rounds=len(latency),
        warmup_rounds=series.warmup_rounds,
    )


def ratios_of(series: Series, baseline: Series, prefix: str, protocol: Protocol) -> dict[str, Ratio | float]:
    """Return a model's figures divided by the baseline's of the same round.

    The ratio of a round is the median over its batches of (this model's time / the baseline's time for the
    same batch), which is steadier than a ratio of two medians.

    Args:
        series: The model.
        baseline: The model it was measured beside.
        prefix: ``"cpu"`` or ``"gpu"``, put before the names.
        protocol: How they were measured.

    Returns:
        ``<prefix>_latency`` and ``<prefix>_latency_<length>`` (below 1 is faster),
        ``<prefix>_throughput_<batch>`` (above 1 is faster) and ``<prefix>_memory``; nothing where either
        model failed.
    """
    if series.error or baseline.error or not baseline.peak_bytes or series.peak_bytes is None:
        return {}
    names = {f"{prefix}_latency": LATENCY}
    names |= {f"{prefix}_throughput_{size}": throughput(size) for size in protocol.batches}
    names |= {f"{prefix}_latency_{length}": fixed_latency(length) for length in protocol.fixed_lengths}
    ratios: dict[str, Ratio | float] = {}
    for key, name in names.items():
        if name in series.times and name in baseline.times:
            times = np.median(np.asarray(series.times[name]) / np.asarray(baseline.times[name]), axis=1)
            is_time = "latency" in key
            ratios[key] = Ratio.of(times if is_time else 1 / times, is_time, protocol.seed)
    ratios[f"{prefix}_memory"] = series.peak_bytes / baseline.peak_bytes
    return ratios


def _fixed(series: Series, protocol: Protocol) -> dict[int, FixedFigures]:
    return {
        length: FixedFigures(
            _over_texts(series.times[fixed_latency(length)], 50),
            _throughputs(series, protocol.fixed_batches, length),
        )
        for length in protocol.fixed_lengths
        if fixed_latency(length) in series.times
    }


def _throughputs(series: Series, sizes: Sequence[int], length: int | None = None) -> dict[int, Spread]:
    return {
        size: Spread.of([size / seconds for (seconds,) in series.times[throughput(size, length)]])
        for size in sizes
    }


def _over_texts(rounds: Sequence[Sequence[float]], percentile: float) -> Spread:
    times: npt.NDArray[np.float64] = np.asarray(rounds)
    return Spread.of(1000 * np.percentile(times, percentile, axis=1))


def _energy(joules: Sequence[float | None], texts: int) -> float | None:
    known = [value for value in joules if value is not None]
    return float(np.median(known)) / texts if known else None
