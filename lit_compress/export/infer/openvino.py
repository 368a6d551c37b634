"""The part of infer.py that runs an OpenVINO file on the CPU."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

# Else "import openvino" alone reports to Google Analytics; without this package OpenVINO has nothing to do it with.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

import openvino  # noqa: E402

REQUIREMENTS = ["numpy", "openvino>=2026.2,<2026.5"]

#: What is computed in: never left to OpenVINO, which takes bfloat16 without a word where the processor has it.
INFERENCE_PRECISION = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}


class OpenVinoModel:
    """A text classifier in an OpenVINO file.

    Args:
        path: The ``.xml`` file; its ``.bin`` is beside it.
        precision: ``"fp32"``, ``"bf16"`` or ``"int8"``.
        threads: CPU threads.

    Raises:
        ValueError: The processor does not compute in this precision.
    """

    def __init__(self, path: Path, precision: str, threads: int) -> None:
        wanted = INFERENCE_PRECISION[precision]
        settings = {
            "INFERENCE_PRECISION_HINT": wanted,
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            # Several processes must not be bound to the same first core, and all threads asked for are given.
            "ENABLE_CPU_PINNING": False,
            "ENABLE_HYPER_THREADING": True,
            # Else activations that meet int8 weights are rounded without a word.
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
        }
        model = openvino.Core().compile_model(path, "CPU", settings)
        if model.get_property("INFERENCE_PRECISION_HINT").get_type_name() != wanted:
            raise ValueError(
                f"Expected a processor that computes in {precision} but got one on which OpenVINO falls back to "
                "another precision; use openvino-fp32."
            )
        self._request = model.create_infer_request()
        self._names = [entry.any_name for entry in model.inputs]

    def inputs(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the inputs of the file; segments are all the first where the batch has none."""
        zeros = np.zeros_like(batch["input_ids"])
        return {name: batch.get(name, zeros) for name in self._names}

    def run(self, inputs: dict[str, np.ndarray]) -> np.ndarray:
        """Return the logits, (texts, labels) in float32."""
        # Inputs are read where they are, the logits are a copy: the next run overwrites them.
        return self._request.infer(inputs, share_inputs=True)[0]


def open_model(folder: Path, settings: dict, threads: int) -> Callable[[dict[str, np.ndarray]], np.ndarray]:
    """Return the function from int64 arrays of shape (texts, tokens) to logits of shape (texts, labels)."""
    model = OpenVinoModel(folder / "openvino_model.xml", settings["precision"], threads)
    return lambda batch: model.run(model.inputs(batch))
