"""The part of infer.py that runs a package of AOTInductor.

The package holds machine code: take it only from a source that you trust, like any program.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

REQUIREMENTS = ["numpy", "torch>=2.11,<2.14"]


class AotInductorModel:
    """A text classifier in a package of AOTInductor.

    The compiled code checks none of its inputs: it reads past the table of positions where a text is too long, and
    a token that it does not know ends the process. So they are checked here.

    Args:
        path: The package.
        threads: CPU threads of this process.
    """

    def __init__(self, path: Path, threads: int) -> None:
        torch.set_num_threads(threads)
        # What torch._inductor.aoti_load_package loads too, after it has compiled a program to learn about the
        # processor: seconds, and a compiler that would have to be there.
        self._loader = torch._C._aoti.AOTIModelPackageLoader(str(path), "model", False, 1, -1)
        facts = self._loader.get_metadata()
        self._names = facts["inputs"].split()
        self._vocabulary = int(facts["vocabulary"])
        self._longest = int(facts["longest"])

    def inputs(self, batch: dict[str, np.ndarray]) -> list[torch.Tensor]:
        """Return the inputs of the package; segments are all the first where the batch has none.

        Raises:
            ValueError: The model cannot read the batch.
        """
        ids = batch["input_ids"]
        zeros = np.zeros_like(ids)
        arrays = [np.ascontiguousarray(batch.get(name, zeros), dtype=np.int64) for name in self._names]
        if ids.ndim != 2 or not ids.size or any(array.shape != ids.shape for array in arrays):
            shapes = ", ".join(str(array.shape) for array in arrays)
            raise ValueError(f"Expected arrays of one shape (texts, tokens) but got {shapes}.")
        if self._longest and ids.shape[1] > self._longest:
            raise ValueError(
                f"Expected texts of at most {self._longest} tokens but got {ids.shape[1]}; truncate them."
            )
        if ids.min() < 0 or ids.max() >= self._vocabulary:
            raise ValueError(
                f"Expected token ids from 0 to {self._vocabulary - 1} but got {ids.min()} to {ids.max()}; "
                "use the tokenizer of the model."
            )
        return [torch.from_numpy(array) for array in arrays]

    def run(self, inputs: list[torch.Tensor]) -> torch.Tensor:
        """Return the logits, (texts, labels) in float32."""
        return self._loader.run(inputs)[0]


def open_model(folder: Path, settings: dict, threads: int) -> Callable[[dict[str, np.ndarray]], np.ndarray]:
    """Return the function from int64 arrays of shape (texts, tokens) to logits of shape (texts, labels)."""
    built, here = (version.split(".")[:2] for version in (settings["libraries"]["torch"], torch.__version__))
    if built != here:
        raise ValueError(
            f"Expected torch {'.'.join(built)}, with which the model was compiled, but got {torch.__version__}; "
            f'run pip install "torch=={".".join(built)}.*".'
        )
    model = AotInductorModel(folder / "model.pt2", threads)
    return lambda batch: model.run(model.inputs(batch)).numpy()
