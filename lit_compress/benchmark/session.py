"""Models measured side by side on one device, taking turns round by round."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from lit_compress.benchmark.folders import local_folder
from lit_compress.benchmark.process import WorkerError, WorkerProcess
from lit_compress.benchmark.protocol import Candidate, Protocol


@dataclass
class Series:
    """Raw figures of one model on one device.

    Args:
        candidate: The model.
        facts: Parameters, shape and device name as the worker gave them.
        latency: Seconds per text, one list per round.
        wall_latency: The same in wall time.
        throughput: Seconds of the whole batch, one per round.
        peak_bytes: Peak memory from loading to the last round.
        error: What went wrong; the other figures are then incomplete.
    """

    candidate: Candidate
    facts: dict[str, Any] = field(default_factory=dict)
    latency: list[list[float]] = field(default_factory=list)
    wall_latency: list[list[float]] = field(default_factory=list)
    throughput: list[float] = field(default_factory=list)
    peak_bytes: int | None = None
    error: str | None = None


def run_session(candidates: Sequence[Candidate], protocol: Protocol, device: str) -> list[Series]:
    """Measure models side by side on one device.

    Args:
        candidates: The models; each gets a process of its own.
        protocol: How to measure.
        device: ``"cpu"`` or ``"cuda"``.

    Returns:
        One series per model, in the same order. A model that fails keeps its error; the others go on.
    """
    started = time.monotonic()
    with ExitStack() as stack:
        seats = [_Seat(candidate, protocol, device, stack) for candidate in candidates]
        # All models load at once; nothing is timed yet.
        for seat in seats:
            seat.begin_load()
        for seat in seats:
            seat.finish_load()
        turns = random.Random(protocol.seed)
        for number in range(-protocol.warmup, protocol.rounds):
            spent = time.monotonic() - started
            if number >= protocol.min_rounds and spent > protocol.max_seconds:
                break
            _run_round(seats, turns, number)
        for seat in seats:
            seat.finish()
    return [seat.series for seat in seats]


def _run_round(seats: Sequence[_Seat], turns: random.Random, number: int) -> None:
    seed = turns.getrandbits(31)
    for seat in turns.sample(seats, len(seats)):
        seat.measure_latency(seed, keep=number >= 0)
    for seat in turns.sample(seats, len(seats)):
        seat.measure_throughput(seed, keep=number >= 0)


class _Seat:
    """One model at the table: its worker, its series, and silence after a failure."""

    def __init__(self, candidate: Candidate, protocol: Protocol, device: str, stack: ExitStack) -> None:
        self.series = Series(candidate)
        self.protocol = protocol
        self.device = device
        self.lengths = list(candidate.lengths or protocol.lengths)
        self.stack = stack
        self.worker: WorkerProcess

    def begin_load(self) -> None:
        """Start the worker and let it load."""
        self._attempt(self._begin_load)

    def _begin_load(self) -> None:
        folder = str(local_folder(self.series.candidate.folder))
        self.worker = self.stack.enter_context(WorkerProcess(self.device, self.protocol.threads))
        self.worker.send("load", folder=folder, device=self.device, threads=self.protocol.threads)

    def finish_load(self) -> None:
        """Wait until the model is loaded."""
        self._attempt(lambda: self.series.facts.update(self.worker.receive(self.protocol.timeout)))

    def measure_latency(self, seed: int, keep: bool) -> None:
        """Time every text alone."""
        reply = self._attempt(lambda: self._ask("latency", seed))
        if reply is not None and keep:
            self.series.latency.append(reply["seconds"])
            self.series.wall_latency.append(reply["wall_seconds"])

    def measure_throughput(self, seed: int, keep: bool) -> None:
        """Time all texts as one batch."""
        reply = self._attempt(lambda: self._ask("throughput", seed))
        if reply is not None and keep:
            self.series.throughput.extend(reply["seconds"])

    def finish(self) -> None:
        """Ask for the peak memory and let the worker go."""
        reply = self._attempt(lambda: self.worker.request("memory", self.protocol.timeout))
        if reply is not None:
            self.series.peak_bytes = reply["peak_bytes"]

    def _ask(self, do: str, seed: int) -> Any:
        return self.worker.request(do, self.protocol.timeout, lengths=self.lengths, seed=seed)

    def _attempt(self, step: Callable[[], Any]) -> Any:
        if self.series.error is not None:
            return None
        try:
            return step()
        except (WorkerError, ValueError) as failure:
            self.series.error = str(failure)
            if hasattr(self, "worker"):
                self.worker.close()
            return None
