"""The process that measures one model in one runtime: JSON requests on stdin, JSON replies on stdout.

Requests and their replies, one line each:

- ``{"do": "load", "folder", "artefact", "runtime", "device", "threads", "vocab_size", "pad_token_id"}``
  → ``{"device_name"}``
- ``{"do": "time", "workload", "batches", "seed"}`` → ``{"seconds", "wall_seconds", "joules"}``; the first two
  have one figure per batch
- ``{"do": "memory"}`` → ``{"peak", "now", "reserved"}`` in bytes
- ``{"do": "predict", "batch"}`` → ``{"logits"}``

Whatever fails is answered with ``{"error": text}``. The process ends when stdin closes, so it never
outlives the one that started it.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import traceback
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from lit_compress.benchmark.devices import CpuDevice, CudaDevice, Duration, open_device
from lit_compress.benchmark.runtimes import Session
from lit_compress.benchmark.runtimes import runtime as find_runtime
from lit_compress.benchmark.workload import token_batch


class Worker:
    """State of the process between two requests."""

    def __init__(self) -> None:
        self.device: CpuDevice | CudaDevice
        self.session: Session
        self.vocab_size: int
        self.pad_token_id: int | None

    def load(
        self,
        folder: str,
        artefact: str,
        runtime: str,
        device: str,
        threads: int,
        vocab_size: int,
        pad_token_id: int | None,
    ) -> dict[str, Any]:
        """Load the model; memory is counted from just before."""
        self.vocab_size, self.pad_token_id = vocab_size, pad_token_id
        self.device = open_device(device, threads)
        way = find_runtime(runtime)
        way.imports(Path(folder))
        self.device.reset_memory()
        self.session = way.open(Path(folder), Path(artefact), self.device.torch_device, threads)
        # A collection in the middle of a text would be counted as the model's time.
        gc.disable()
        return {"device_name": self.device.describe()}

    def time(self, workload: str, batches: list[list[int]], seed: int) -> dict[str, Any]:
        """Time every batch; the workload's name is there for the messages of the one who asks."""
        inputs = [
            self.session.inputs(token_batch(lengths, self.vocab_size, self.pad_token_id, seed + i))
            for i, lengths in enumerate(batches)
        ]
        self.device.warm_up(partial(self.session.run, inputs[0]))
        times: list[Duration] = []
        joules = self.device.energy(
            lambda: times.extend(self.device.time(partial(self.session.run, one)) for one in inputs)
        )
        return {
            "seconds": [t.seconds for t in times],
            "wall_seconds": [t.wall_seconds for t in times],
            "joules": joules,
        }

    def memory(self) -> dict[str, Any]:
        """Return the memory since the model was loaded."""
        # What only waits for a collection is no leak.
        gc.collect()
        return asdict(self.device.memory())

    def predict(self, batch: dict[str, list[list[int]]]) -> dict[str, Any]:
        """Return the logits of a batch of token ids, masks and, where the data has them, token types."""
        arrays = {name: np.asarray(rows, dtype=np.int64) for name, rows in batch.items()}
        logits = self.session.logits(self.session.run(self.session.inputs(arrays)))
        return {"logits": logits.tolist()}


def answer(worker: Worker, request: dict[str, Any]) -> dict[str, Any]:
    """Return the reply to one request."""
    actions: dict[str, Callable[..., dict[str, Any]]] = {
        "load": worker.load,
        "time": worker.time,
        "memory": worker.memory,
        "predict": worker.predict,
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
