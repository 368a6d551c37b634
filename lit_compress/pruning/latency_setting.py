"""What a table of latencies is measured with."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from lit_compress.benchmark.protocol import BASELINE_RUNTIME


@dataclass(frozen=True)
class Setting:
    """Where, with what and by what a model is timed.

    Args:
        device: ``cpu`` or ``cuda``.
        batch: Texts (or images) at once.
        length: Tokens per text.
        threads: CPU threads to measure with; with one, processor time is counted.
        runtime: Name of the runtime, see ``Target``; others than torch take longer to measure.
    """

    device: str = "cpu"
    batch: int = 1
    length: int = 64
    threads: int = 1
    runtime: str = BASELINE_RUNTIME

    def check(self) -> None:
        """Refuse what cannot be measured with.

        Raises:
            ValueError: The device, the batch or the threads cannot be measured with.
        """
        if self.device not in ("cpu", "cuda") or self.batch < 1 or self.threads < 1:
            raise ValueError(
                f"Expected target.device cpu or cuda and a batch of 1 or more but got device={self.device!r}, "
                f"batch={self.batch}, threads={self.threads}."
            )
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ValueError("Expected a CUDA device for target.device=cuda but torch finds none; set cpu.")
