"""The part of infer.py that runs an ExecuTorch program on the CPU.

ExecuTorch's Python package needs torch to be there; its C++ and mobile runtimes read the same file without.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

with warnings.catch_warnings():
    warnings.simplefilter(
        "ignore"
    )  # that its interface may change: the versions below are those that were tried
    from executorch.extension.pybindings import portable_lib
    from executorch.runtime import Runtime

REQUIREMENTS = ["numpy", "torch>=2.13,<2.14", "executorch>=1.5,<1.6"]


class ExecuTorchModel:
    """A text classifier in an ExecuTorch program, which reads one text of any length up to a longest.

    The texts of a batch run one after the other, each without its padding.

    Args:
        path: The file.
        threads: CPU threads of this process.
    """

    def __init__(self, path: Path, threads: int) -> None:
        portable_lib._unsafe_reset_threadpool(threads)  # "unsafe" while a program runs
        self._program = Runtime.get().load_program(path)
        self._method = self._program.load_method("forward")
        facts = self._method.metadata
        self._longest = facts.input_tensor_meta(0).sizes()[1]
        self._names = ["input_ids", "token_type_ids"][: facts.num_inputs()]

    def inputs(self, batch: dict[str, np.ndarray]) -> list[list[torch.Tensor]]:
        """Return the inputs for every text, (1, tokens) in int32; segments are all the first where there are none.

        Raises:
            ValueError: A text is longer than the longest that the program reads.
        """
        zeros = np.zeros_like(batch["input_ids"])
        rows = [batch.get(name, zeros).astype(np.int32) for name in self._names]
        texts = []
        for row, mask in enumerate(batch["attention_mask"]):
            tokens = int(np.flatnonzero(mask).max(initial=0)) + 1
            if tokens > self._longest:
                raise ValueError(
                    f"Expected texts of at most {self._longest} tokens but got {tokens}; truncate them."
                )
            texts.append([torch.from_numpy(array[row : row + 1, :tokens].copy()) for array in rows])
        return texts

    def run(self, inputs: list[list[torch.Tensor]]) -> np.ndarray:
        """Return the logits, (texts, labels) in float32."""
        return np.concatenate([self._method.execute(text)[0].numpy() for text in inputs])


def open_model(folder: Path, settings: dict, threads: int) -> Callable[[dict[str, np.ndarray]], np.ndarray]:
    """Return the function from int64 arrays of shape (texts, tokens) to logits of shape (texts, labels)."""
    model = ExecuTorchModel(folder / "model.pte", threads)
    return lambda batch: model.run(model.inputs(batch))
