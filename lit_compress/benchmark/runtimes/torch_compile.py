"""PyTorch's own compiler."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import torch

from lit_compress.benchmark.runtimes.torch_eager import TorchFp32, TorchSession


class TorchCompile(TorchFp32):
    """``torch.compile`` with float32 weights and dynamic shapes.

    Nothing is compiled when the model is opened: the first calls of ``run`` do it and take up to a minute.
    The engine runs every model until its times are stable before it counts any, so compilation is never part
    of a figure.
    """

    name: ClassVar[str] = "torch-compile"

    def open(self, folder: Path, artefact: Path, device: str, threads: int) -> TorchSession:
        """Load the model folder; see :meth:`Runtime.open`."""
        session = super().open(folder, artefact, device, threads)
        # Dynamic, since every text has another length: one graph per length would be compiled otherwise.
        return TorchSession(torch.compile(session.forward, dynamic=True), device)
