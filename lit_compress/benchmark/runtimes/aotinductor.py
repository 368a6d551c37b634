"""Models that AOTInductor has compiled for the CPU ahead of time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import torch

from lit_compress.benchmark.runtimes.base import Batch, FileSession, Runtime
from lit_compress.export.infer.aotinductor import AotInductorModel

_FILE = "model.pt2"


class AotInductorSession(FileSession):
    """A package of AOTInductor that holds a text classifier.

    Loading it runs machine code: a package must come from a source that one trusts.

    Args:
        path: The package.
        threads: CPU threads of this process.
    """

    def __init__(self, path: Path, threads: int) -> None:
        super().__init__(AotInductorModel(path, threads))


class AotInductorFp32(Runtime):
    """Compiled code with float32 weights and activations, with free batch size and length."""

    name: ClassVar[str] = "aotinductor-fp32"
    bound_to: ClassVar[tuple[str, ...]] = ("torch",)
    dtype: ClassVar[torch.dtype] = torch.float32

    def check(self) -> None:
        """Refuse where there is no C++ compiler; see :meth:`Builder.check`."""
        from lit_compress.export.aotinductor import check_compiler

        check_compiler()

    def build(self, folder: Path, target: Path, samples: Sequence[Batch] = ()) -> float:
        """Compile the model; see :meth:`Builder.build`."""
        from lit_compress.export.aotinductor import export_aotinductor
        from lit_compress.models.checkpoint import load

        return export_aotinductor(load(folder), target / _FILE, self.dtype, self.tolerance)

    def imports(self, folder: Path) -> None:
        """Let the math libraries take their buffers; see :meth:`Runtime.imports`."""
        torch.ones(64, 64, dtype=self.dtype) @ torch.ones(64, 64, dtype=self.dtype)

    def open(self, folder: Path, artefact: Path, device: str, threads: int) -> AotInductorSession:
        """Load the package; see :meth:`Runtime.open`."""
        return AotInductorSession(artefact / _FILE, threads)


class AotInductorBf16(AotInductorFp32):
    """Compiled code with bfloat16 weights and activations; sums and normalisations are in float32."""

    name: ClassVar[str] = "aotinductor-bf16"
    dtype: ClassVar[torch.dtype] = torch.bfloat16
    # Twice the worst of 18 trained models, of two to six layers, ordinary, distilled and pruned: 0.006 to 0.030.
    tolerance: ClassVar[float] = 0.06
