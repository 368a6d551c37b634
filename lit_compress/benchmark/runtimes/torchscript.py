"""TorchScript on the CPU.

TorchScript is deprecated upstream, in favour of ``torch.export``: it gets no new features and may leave a future
release. Files are worth making for programs that load them today, such as C++ ones with libtorch.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import torch

from lit_compress.benchmark.runtimes.base import Batch, FileSession, Runtime
from lit_compress.export.infer.torchscript import TorchScriptModel

_FILE = "model.pt"


class TorchScriptSession(FileSession):
    """A TorchScript file of a text classifier.

    Loading it runs the program that it holds: a file must come from a source that one trusts.

    Args:
        path: The file.
        threads: CPU threads of this process.
    """

    def __init__(self, path: Path, threads: int) -> None:
        super().__init__(TorchScriptModel(path, threads))


class TorchScriptFp32(Runtime):
    """A traced and frozen graph in float32, with free batch size and length."""

    name: ClassVar[str] = "torchscript-fp32"

    def build(self, folder: Path, target: Path, samples: Sequence[Batch] = ()) -> float:
        """Export the model; see :meth:`Builder.build`."""
        from lit_compress.export.torchscript import export_torchscript
        from lit_compress.models.checkpoint import load

        return export_torchscript(load(folder), target / _FILE, self.tolerance)

    def imports(self, folder: Path) -> None:
        """Let the math libraries take their buffers; see :meth:`Runtime.imports`."""
        torch.ones(64, 64) @ torch.ones(64, 64)

    def open(self, folder: Path, artefact: Path, device: str, threads: int) -> TorchScriptSession:
        """Load the file; see :meth:`Runtime.open`."""
        return TorchScriptSession(artefact / _FILE, threads)
