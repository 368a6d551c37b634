"""LiteRT (TensorFlow Lite) on the CPU. Nothing here imports torch before an artefact is built."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from lit_compress.benchmark.runtimes.base import Batch, FileSession, Runtime
from lit_compress.extras import require

_FILE = "model.tflite"


def check_litert() -> None:
    """Refuse where the libraries for LiteRT are missing, with the line that installs them."""
    require("litert", "a LiteRT runtime", "litert_torch", "ai_edge_litert", "ai_edge_quantizer")


class LiteRtSession(FileSession):
    """A LiteRT file of a text classifier.

    Args:
        path: The file.
        threads: CPU threads.
    """

    def __init__(self, path: Path, threads: int) -> None:
        from lit_compress.export.infer.litert import LiteRtModel

        super().__init__(LiteRtModel(path, threads))


class LiteRtFp32(Runtime):
    """LiteRT with XNNPACK in float32, with one graph per length of text."""

    name: ClassVar[str] = "litert-fp32"
    libraries: ClassVar[tuple[str, ...]] = ("litert-torch", "litert-converter", "ai-edge-litert")

    def check(self) -> None:
        """Refuse where a library is missing; see :meth:`Builder.check`."""
        check_litert()

    def facts(self, folder: Path) -> dict[str, Any]:
        """Return the facts of the model with the longest text of the file; see :meth:`Builder.facts`."""
        from lit_compress.export.single_text import facts_of_file

        return facts_of_file(super().facts(folder))

    def build(self, folder: Path, target: Path, samples: Sequence[Batch] = ()) -> float:
        """Export the model; see :meth:`Builder.build`."""
        from lit_compress.export.litert import export_litert
        from lit_compress.models.checkpoint import load

        precision = self.name.removeprefix("litert-")
        return export_litert(load(folder), target / _FILE, precision, self.tolerance)

    def imports(self, folder: Path) -> None:
        """Import LiteRT; see :meth:`Runtime.imports`."""
        import lit_compress.export.infer.litert  # noqa: F401

    def open(self, folder: Path, artefact: Path, device: str, threads: int) -> LiteRtSession:
        """Load the file; see :meth:`Runtime.open`."""
        return LiteRtSession(artefact / _FILE, threads)


class LiteRtInt8(LiteRtFp32):
    """LiteRT with int8 weights; activations are quantized while it runs.

    A model that was trained with rounding keeps its own integers and ranges.
    """

    name: ClassVar[str] = "litert-int8"
    rounded: ClassVar[bool] = True
    libraries: ClassVar[tuple[str, ...]] = (*LiteRtFp32.libraries, "ai-edge-quantizer")
    tolerance: ClassVar[float] = 0.5

    def build(self, folder: Path, target: Path, samples: Sequence[Batch] = ()) -> float:
        """Export and quantize the model; see :meth:`Builder.build`."""
        from lit_compress.models.manifest import is_rounded

        if not is_rounded(folder):
            return super().build(folder, target, samples)
        from lit_compress.export.litert_trained import export_trained_litert
        from lit_compress.models.checkpoint import load

        return export_trained_litert(load(folder), target / _FILE)
