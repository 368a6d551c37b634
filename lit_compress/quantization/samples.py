"""Training texts that a method of quantization is calibrated with."""

from __future__ import annotations

import torch
from torch import Tensor

from lit_compress.quantization.comparison import Known


class Samples:
    """Texts to calibrate with, which may be missing until a method asks for them.

    Args:
        known: The texts of the data, ``None`` where nothing names data.
    """

    def __init__(self, known: Known | None) -> None:
        self._known = known

    def batches(self, count: int, seed: int | None = None) -> list[dict[str, Tensor]]:
        """Return training texts, one batch each, without padding.

        Args:
            count: How many; all, which is printed, where the data have fewer.
            seed: Draws them at random; where ``None`` they are spread over all lengths, from short to long.

        Raises:
            ValueError: Nothing names data, they have no training split, or the number is no number of texts.
        """
        if count < 1:
            raise ValueError(f"Expected at least one text to calibrate with but got {count}; change --texts.")
        if self._known is None:
            raise ValueError(
                "Expected texts to calibrate with but nothing names data; give a YAML file with a data section with "
                "--data, or a text file for a language model."
            )
        samples = self._known.samples("student", count, seed)
        if len(samples) < count:
            print(
                f"Calibrated with {len(samples)} texts, all that there are for training, instead of {count}."
            )
        return [{name: torch.from_numpy(value) for name, value in sample.items()} for sample in samples]
