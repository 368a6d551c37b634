"""ExecuTorch with XNNPACK on the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from lit_compress.benchmark.runtimes.base import Batch, FileSession, Runtime
from lit_compress.extras import require

_FILE = "model.pte"


def check_executorch() -> None:
    """Refuse where a library for ExecuTorch is missing, with the line that installs it."""
    require("executorch", "an ExecuTorch runtime", "executorch", "torchao")


class ExecuTorchSession(FileSession):
    """An ExecuTorch program of a text classifier.

    Args:
        path: The file.
        threads: CPU threads of this process.
    """

    def __init__(self, path: Path, threads: int) -> None:
        from lit_compress.export.infer.executorch import ExecuTorchModel

        super().__init__(ExecuTorchModel(path, threads))


class ExecuTorchFp32(Runtime):
    """ExecuTorch with XNNPACK in float32."""

    name: ClassVar[str] = "executorch-fp32"
    libraries: ClassVar[tuple[str, ...]] = ("executorch",)

    def check(self) -> None:
        """Refuse where a library is missing; see :meth:`Builder.check`."""
        check_executorch()

    def facts(self, folder: Path) -> dict[str, Any]:
        """Return the facts of the model with the longest text of the file; see :meth:`Builder.facts`."""
        from lit_compress.export.single_text import facts_of_file

        return facts_of_file(super().facts(folder))

    def build(self, folder: Path, target: Path, samples: Sequence[Batch] = ()) -> float:
        """Export the model; see :meth:`Builder.build`."""
        from lit_compress.export.executorch import export_executorch
        from lit_compress.models.checkpoint import load

        precision = self.name.removeprefix("executorch-")
        return export_executorch(load(folder), target / _FILE, precision, self.tolerance)

    def imports(self, folder: Path) -> None:
        """Import ExecuTorch, and torch with it; see :meth:`Runtime.imports`."""
        import lit_compress.export.infer.executorch  # noqa: F401

    def open(self, folder: Path, artefact: Path, device: str, threads: int) -> ExecuTorchSession:
        """Load the file; see :meth:`Runtime.open`."""
        return ExecuTorchSession(artefact / _FILE, threads)


class ExecuTorchInt8(ExecuTorchFp32):
    """ExecuTorch with int8 weights; activations are quantized while it runs, token by token."""

    name: ClassVar[str] = "executorch-int8"
    libraries: ClassVar[tuple[str, ...]] = (*ExecuTorchFp32.libraries, "torchao")
    tolerance: ClassVar[float] = 0.5
