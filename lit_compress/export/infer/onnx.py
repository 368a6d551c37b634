"""The part of infer.py that runs an ONNX file on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime

REQUIREMENTS = ["numpy", "onnxruntime>=1.23,<1.32"]


class OnnxModel:
    """A text classifier in an ONNX file.

    Args:
        path: The file; where it has no room for the weights, they are in a file beside it.
        threads: Threads within one operator; operators run one after the other.
    """

    def __init__(self, path: Path, threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        # A thread that spins while it waits burns processor time of its neighbours.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.inter_op.allow_spinning", "0")
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._names = [entry.name for entry in self._session.get_inputs()]

    def inputs(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the inputs of the file; segments are all the first where the batch has none."""
        zeros = np.zeros_like(batch["input_ids"])
        return {name: batch.get(name, zeros) for name in self._names}

    def run(self, inputs: dict[str, np.ndarray]) -> np.ndarray:
        """Return the logits, (texts, labels) in float32."""
        return self._session.run(["logits"], inputs)[0]


def open_model(folder: Path, settings: dict, threads: int) -> Callable[[dict[str, np.ndarray]], np.ndarray]:
    """Return the function from int64 arrays of shape (texts, tokens) to logits of shape (texts, labels)."""
    model = OnnxModel(folder / "model.onnx", threads)
    return lambda batch: model.run(model.inputs(batch))
