"""The part of infer.py that runs a TorchScript file.

The file holds a program that torch runs: take it only from a source that you trust, like any program.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

REQUIREMENTS = ["numpy", "torch>=2.11,<2.14"]


class TorchScriptModel:
    """A text classifier in a TorchScript file.

    Args:
        path: The file.
        threads: CPU threads of this process.
    """

    def __init__(self, path: Path, threads: int) -> None:
        torch.set_num_threads(threads)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that TorchScript is deprecated
            self._module = torch.jit.load(str(path))
        self._names = [argument.name for argument in self._module.forward.schema.arguments[1:]]

    def inputs(self, batch: dict[str, np.ndarray]) -> list[torch.Tensor]:
        """Return the inputs of the file; segments are all the first where the batch has none."""
        zeros = np.zeros_like(batch["input_ids"])
        return [torch.from_numpy(batch.get(name, zeros)) for name in self._names]

    @torch.inference_mode()
    def run(self, inputs: list[torch.Tensor]) -> torch.Tensor:
        """Return the logits, (texts, labels) in float32."""
        return self._module(*inputs)


def open_model(folder: Path, settings: dict, threads: int) -> Callable[[dict[str, np.ndarray]], np.ndarray]:
    """Return the function from int64 arrays of shape (texts, tokens) to logits of shape (texts, labels)."""
    model = TorchScriptModel(folder / "model.pt", threads)
    return lambda batch: model.run(model.inputs(batch)).numpy()
