"""One model at the table of a session: its worker, its series, and silence after a failure."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import numpy as np
import numpy.typing as npt

from lit_compress.benchmark.process import WorkerError, WorkerProcess
from lit_compress.benchmark.protocol import Protocol
from lit_compress.benchmark.quality import Texts, evaluate
from lit_compress.benchmark.runtimes.base import Batch
from lit_compress.benchmark.series import Series
from lit_compress.benchmark.workload import LATENCY, Workload, round_of

# A warm-up round times every fourth text: enough to see whether times still change.
_WARM_UP_STRIDE = 4


class Seat:
    """Asks one worker and writes down what it answers; a failure ends the model, and nothing else.

    Args:
        series: Where figures go; a model that has failed before stays silent.
        protocol: How to measure.
        device: ``"cpu"`` or ``"cuda"``.
        stack: Ends the worker when the session ends.
        memory_limit_mb: Resident memory in MB above which the worker is killed.
    """

    def __init__(
        self, series: Series, protocol: Protocol, device: str, stack: ExitStack, memory_limit_mb: float
    ) -> None:
        self.series = series
        self._protocol = protocol
        self._device = device
        self._stack = stack
        self._memory_limit_mb = memory_limit_mb
        self._worker: WorkerProcess
        self._before: npt.NDArray[np.float64] | None = None
        self.workloads: dict[str, Workload] = {}

    def begin_load(self) -> None:
        """Start the worker and let it load."""
        self._attempt(self._begin_load)

    def _begin_load(self) -> None:
        candidate, artefact = self.series.candidate, self.series.artefact
        assert artefact is not None
        facts = artefact.facts
        lengths = candidate.lengths or self._protocol.lengths
        found = round_of(self._protocol, lengths, facts.get("max_positions"))
        self.workloads = {workload.name: workload for workload in found}
        threads = self._protocol.threads
        self._worker = self._stack.enter_context(
            WorkerProcess(self._device, threads, memory_limit_mb=self._memory_limit_mb)
        )
        self._worker.send(
            "load",
            folder=str(artefact.folder),
            artefact=str(artefact.path),
            runtime=candidate.runtime,
            device=self._device,
            threads=threads,
            vocab_size=facts["vocab_size"],
            pad_token_id=facts["pad_token_id"],
        )

    def finish_load(self) -> None:
        """Wait until the model is loaded."""
        reply = self._attempt(lambda: self._worker.receive(self._protocol.timeout))
        if reply is not None:
            self.series.device_name = reply["device_name"]

    def run(self, name: str, seed: int, keep: bool) -> None:
        """Run a workload; models that cannot read texts of its length leave it out.

        Args:
            name: Name of the workload.
            seed: Seed of the random tokens.
            keep: Whether the times count.
        """
        workload = self.workloads.get(name)
        if workload is None:
            return
        reply = self._attempt(lambda: self._time(workload, seed))
        if reply is not None and keep:
            self.series.times.setdefault(name, []).append(reply["seconds"])
            self.series.wall_times.setdefault(name, []).append(reply["wall_seconds"])
            if name == LATENCY:
                self.series.joules.append(reply["joules"])

    def warm_up(self, seed: int, tolerance: float) -> bool:
        """Time some texts; return whether they took as long as the last time, or the model has failed."""
        whole = self.workloads.get(LATENCY)
        sample = None if whole is None else Workload(LATENCY, whole.batches[::_WARM_UP_STRIDE])
        reply = self._attempt(lambda: None if sample is None else self._time(sample, seed))
        if reply is None:
            return True
        self.series.warmup_rounds += 1
        now, before = np.asarray(reply["seconds"]), self._before
        self._before = now
        return before is not None and abs(float(np.median(now / before)) - 1) <= tolerance

    def note_memory(self) -> None:
        """Write down what the model takes after a round, and its peak so far."""
        reply = self._attempt(lambda: self._worker.request("memory", self._protocol.timeout))
        if reply is not None:
            self.series.memory.append(reply["now"])
            self.series.peak_bytes = reply["peak"]
            self.series.reserved_bytes = reply["reserved"]

    def judge(self, texts: Texts) -> None:
        """Evaluate the model as it was timed; a failure here leaves the figures as they are."""
        if self.series.error is not None or not self.series.judged:
            return
        started = time.monotonic()
        candidate = self.series.candidate
        key = (candidate.folder, candidate.runtime, self._device, self._protocol.threads)
        try:
            if key not in texts.known:
                texts.known[key] = evaluate(self._predict, texts, candidate.side)
            self.series.quality = texts.known[key]
        except (WorkerError, ValueError) as failure:
            self.series.warnings.append(f"quality could not be evaluated: {failure}")
        self.series.spent += time.monotonic() - started

    def _predict(self, batch: Batch) -> npt.NDArray[np.float32]:
        rows = {name: array.tolist() for name, array in batch.items()}
        reply = self._worker.request("predict", self._protocol.timeout, batch=rows)
        return np.asarray(reply["logits"], dtype=np.float32)

    def _time(self, workload: Workload, seed: int) -> Any:
        return self._worker.request(
            "time", self._protocol.timeout, workload=workload.name, batches=workload.batches, seed=seed
        )

    def _attempt(self, step: Callable[[], Any]) -> Any:
        if self.series.error is not None:
            return None
        started = time.monotonic()
        try:
            return step()
        except (WorkerError, ValueError) as failure:
            self.series.error = str(failure)
            if hasattr(self, "_worker"):
                self._worker.close()
            return None
        finally:
            self.series.spent += time.monotonic() - started
