"""Processes that run one model each, and take turns: what the benchmarks of files of fixed shapes share."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lit_compress.benchmark.intervals import Ratio

EAGER = "eager PyTorch"
#: An ONNX file of anybody; other names are runtimes of lit-compress.
ONNX_FILE = "ONNX file"
#: CPU seconds that one measurement takes at least.
LEAST_SECONDS = 0.1
Size = tuple[int, int]


def sizes_of(text: str) -> list[Size]:
    """Turn `1x64,32x128` into batch sizes and lengths."""
    found = []
    for size in text.split(","):
        batch, _, length = size.partition("x")
        found.append((int(batch), int(length)))
    return found


def work(name: str, folder: Path, path: Path) -> None:
    """Answer requests on stdin, ``{"ids": [[...]], "repeat": n}``, with the CPU seconds of a run and the logits."""
    import torch

    torch.set_num_threads(1)
    if name == ONNX_FILE:
        from lit_compress.benchmark.runtimes.onnx import OnnxSession

        session: Any = OnnxSession(path, 1)
    else:
        from lit_compress.benchmark.runtimes import runtime

        session = runtime(name).open(folder, path, "cpu", 1)
    for line in sys.stdin:
        request = json.loads(line)
        ids = np.array(request["ids"], dtype=np.int64)
        inputs = session.inputs({"input_ids": ids, "attention_mask": np.ones_like(ids)})
        output = session.run(inputs)
        start = time.process_time()
        for _ in range(request["repeat"]):
            output = session.run(inputs)
        seconds = time.process_time() - start
        print(json.dumps({"seconds": seconds, "logits": session.logits(output).tolist()}), flush=True)


class Worker:
    """A clean process that runs one model.

    Args:
        name: A runtime of lit-compress, or :data:`ONNX_FILE`.
        folder: The model folder.
        path: What the runtime opens.
    """

    def __init__(self, name: str, folder: Path, path: Path) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, __file__, name, str(folder), str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def ask(self, ids: Sequence[Sequence[int]], repeat: int) -> dict[str, Any]:
        """Return the seconds of ``repeat`` runs, and the logits."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps({"ids": ids, "repeat": repeat}) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


def measure(
    workers: dict[str, Worker], sizes: Sequence[Size], rounds: int, vocabulary: int
) -> dict[Size, dict[str, list[float]]]:
    """Return CPU seconds of a run per size, model and round."""
    draw = np.random.default_rng(0)
    times: dict[Size, dict[str, list[float]]] = {size: {name: [] for name in workers} for size in sizes}
    repeat: dict[tuple[str, Size], int] = {}
    for turn in range(rounds + 1):
        for size in sizes:
            ids = draw.integers(1, vocabulary, size).tolist()
            for name in draw.permutation(list(workers)).tolist():
                count = repeat.get((name, size), 1)
                seconds = workers[name].ask(ids, count)["seconds"] / count
                if turn:
                    times[size][name].append(seconds)
                else:  # the first round warms up, and tells how often to repeat
                    repeat[name, size] = int(np.ceil(LEAST_SECONDS / max(seconds, 1e-6)))
        print(f"round {turn} of {rounds}", flush=True)
    return times


def predictions(worker: Worker, texts: Sequence[Sequence[int]]) -> np.ndarray:
    """Return the label of every text, one at a time."""
    return np.array([int(np.argmax(worker.ask([ids], 0)["logits"][0])) for ids in texts])


def speedup(times: dict[str, list[float]], name: str, other: str) -> Ratio:
    """Return how much faster a model is than another."""
    return Ratio.of(np.array(times[other]) / np.array(times[name]), less_is_faster=False, seed=0)


def faster(times: dict[str, list[float]], name: str, other: str) -> str:
    """Return how much faster a model is than another, with the interval, in words."""
    found = speedup(times, name, other)
    return f"{found.median:.2f}× ({found.low:.2f}–{found.high:.2f})"


if __name__ == "__main__":
    work(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
