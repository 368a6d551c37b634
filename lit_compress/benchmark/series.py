"""What a session writes down about one model, before any figure is made of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lit_compress.benchmark.protocol import Candidate

if TYPE_CHECKING:
    from lit_compress.benchmark.artefacts import Artefact


@dataclass
class Series:
    """Raw figures of one model on one device.

    Args:
        candidate: The model.
        artefact: What its runtime loads; ``None`` where it could not be prepared.
        judged: Whether the model's quality is evaluated on this device.
        times: Seconds by workload, then by counted round, then by batch.
        wall_times: The same in wall time.
        joules: Energy of the latency workload, one per counted round; ``None`` where the machine has no meter.
        memory: Bytes that the model takes after each counted round.
        peak_bytes: Peak memory from loading to the last round.
        reserved_bytes: Peak memory that torch reserved on a GPU.
        device_name: Name of the GPU.
        warmup_rounds: Rounds that ran before those that count.
        quality: Task metric of the model in this runtime.
        warnings: What a reader of the row should know.
        spent: Wall seconds that this model took.
        error: What went wrong; the other figures are then incomplete.
    """

    candidate: Candidate
    artefact: Artefact | None = None
    judged: bool = True
    times: dict[str, list[list[float]]] = field(default_factory=dict)
    wall_times: dict[str, list[list[float]]] = field(default_factory=dict)
    joules: list[float | None] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)
    peak_bytes: int | None = None
    reserved_bytes: int | None = None
    device_name: str | None = None
    warmup_rounds: int = 0
    quality: dict[str, Any] | None = None
    warnings: list[str] = field(default_factory=list)
    spent: float = 0.0
    error: str | None = None
