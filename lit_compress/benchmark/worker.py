"""The process that measures one model: JSON requests on stdin, JSON replies on stdout.

Requests and their replies, one line each:

- ``{"do": "load", "folder", "device", "threads"}`` → ``{"params", "shape", "device_name"}``
- ``{"do": "latency", "lengths", "seed"}`` → ``{"seconds", "wall_seconds"}``, one of each per text
- ``{"do": "throughput", "lengths", "seed"}`` → the same for the whole batch, a list of one
- ``{"do": "memory"}`` → ``{"peak_bytes"}``

Whatever fails is answered with ``{"error": text}``. The process ends when stdin closes, so it never
outlives the one that started it.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from lit_compress.benchmark.devices import CpuDevice, CudaDevice, open_device
from lit_compress.benchmark.runtime import EagerModel, import_model_code


class Worker:
    """State of the process between two requests."""

    def __init__(self) -> None:
        self.device: CpuDevice | CudaDevice
        self.model: EagerModel

    def load(self, folder: str, device: str, threads: int) -> dict[str, Any]:
        """Load the model; memory is counted from just before."""
        torch.set_num_threads(threads)
        torch.set_num_interop_threads(1)
        self.device = open_device(device, threads)
        import_model_code(folder)
        self.device.reset_memory()
        self.model = EagerModel(folder, self.device.torch_device)
        # A collection in the middle of a text would be counted as the model's time.
        gc.disable()
        return {**self.model.facts(), "device_name": self.device.describe()}

    def latency(self, lengths: list[int], seed: int) -> dict[str, Any]:
        """Time every text alone."""
        texts = [self.model.inputs([length], seed + i) for i, length in enumerate(lengths)]
        return self._timed(texts)

    def throughput(self, lengths: list[int], seed: int) -> dict[str, Any]:
        """Time all texts as one padded batch."""
        return self._timed([self.model.inputs(lengths, seed)])

    def memory(self) -> dict[str, Any]:
        """Return the peak memory since the model was loaded."""
        return {"peak_bytes": self.device.peak_bytes()}

    def _timed(self, batches: Sequence[dict[str, torch.Tensor]]) -> dict[str, Any]:
        times = [self.device.time(partial(self.model.run, batch)) for batch in batches]
        return {"seconds": [t.seconds for t in times], "wall_seconds": [t.wall_seconds for t in times]}


def answer(worker: Worker, request: dict[str, Any]) -> dict[str, Any]:
    """Return the reply to one request."""
    actions: dict[str, Callable[..., dict[str, Any]]] = {
        "load": worker.load,
        "latency": worker.latency,
        "throughput": worker.throughput,
        "memory": worker.memory,
    }
    arguments = dict(request)
    try:
        return actions[arguments.pop("do")](**arguments)
    except Exception as error:
        traceback.print_exc(file=sys.stderr)
        return {"error": f"{type(error).__name__}: {error}"}


def main() -> None:
    """Answer requests until stdin closes."""
    # Libraries print to stdout; the replies keep it for themselves.
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    worker = Worker()
    for line in sys.stdin:
        print(json.dumps(answer(worker, json.loads(line))), file=replies, flush=True)


if __name__ == "__main__":
    main()
