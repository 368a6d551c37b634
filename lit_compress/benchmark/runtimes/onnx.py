"""ONNX Runtime on the CPU. Nothing here imports torch before an artefact is built."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from lit_compress.benchmark.runtimes.base import Batch, FileSession, Runtime
from lit_compress.extras import require

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_FILE = "model.onnx"


def check_onnx() -> None:
    """Refuse where the libraries for ONNX are missing, with the line that installs them."""
    require("onnx", "an ONNX runtime", "onnx", "onnxruntime")


class OnnxSession(FileSession):
    """An ONNX file of a text classifier in ONNX Runtime.

    Args:
        path: The file.
        threads: Threads within one operator; operators run one after the other.
    """

    def __init__(self, path: Path, threads: int) -> None:
        from lit_compress.export.infer.onnx import OnnxModel

        super().__init__(OnnxModel(path, threads))


class OnnxFp32(Runtime):
    """ONNX Runtime with float32 weights and fused attention."""

    name: ClassVar[str] = "onnx-fp32"
    libraries: ClassVar[tuple[str, ...]] = ("onnx", "onnxruntime")

    def check(self) -> None:
        """Refuse where a library is missing; see :meth:`Runtime.check`."""
        check_onnx()

    def build(self, folder: Path, target: Path, samples: Sequence[Batch] = ()) -> float:
        """Export the model; see :meth:`Runtime.build`."""
        from lit_compress.export.onnx import export_onnx
        from lit_compress.models.checkpoint import load

        return export_onnx(load(folder), target / _FILE)

    def imports(self, folder: Path) -> None:
        """Import ONNX Runtime; see :meth:`Runtime.imports`."""
        import lit_compress.export.infer.onnx  # noqa: F401

    def open(self, folder: Path, artefact: Path, device: str, threads: int) -> OnnxSession:
        """Load the file; see :meth:`Runtime.open`."""
        return OnnxSession(artefact / _FILE, threads)


class OnnxInt8(OnnxFp32):
    """ONNX Runtime with int8 weights; activations are quantized while it runs.

    A model that was trained with rounding keeps its own integers and ranges.
    """

    name: ClassVar[str] = "onnx-int8"
    rounded: ClassVar[bool] = True
    tolerance: ClassVar[float] = 0.5

    def build(self, folder: Path, target: Path, samples: Sequence[Batch] = ()) -> float:
        """Export and quantize the model; see :meth:`Builder.build`."""
        from lit_compress.export.onnx import quantize_onnx
        from lit_compress.models.manifest import is_rounded

        if is_rounded(folder):
            from lit_compress.export.onnx_trained import export_trained
            from lit_compress.models.checkpoint import load

            return export_trained(load(folder), target / _FILE)
        model, full = _export(folder, target)
        error = quantize_onnx(full, target / _FILE, model)
        _remove(full)
        return error


class OnnxInt8Static(OnnxFp32):
    """ONNX Runtime with int8 weights, and activations with ranges that were calibrated on samples.

    It is as fast as ``onnx-int8``. What it computes for a text does not depend on the texts beside it, and it depends
    on how well the samples stand for what it will read.
    """

    name: ClassVar[str] = "onnx-int8-static"
    calibrated: ClassVar[bool] = True
    tolerance: ClassVar[float] = 0.5

    def build(self, folder: Path, target: Path, samples: Sequence[Batch] = ()) -> float:
        """Export, calibrate and quantize the model; see :meth:`Builder.build`."""
        from lit_compress.export.onnx_static import quantize_onnx_static

        model, full = _export(folder, target)
        error = quantize_onnx_static(full, target / _FILE, model, samples)
        _remove(full)
        return error


def _export(folder: Path, target: Path) -> tuple[PreTrainedModel, Path]:
    from lit_compress.export.onnx import export_onnx
    from lit_compress.models.checkpoint import load

    model, full = load(folder).float().eval(), target / "float32.onnx"
    export_onnx(model, full)
    return model, full


def _remove(full: Path) -> None:
    from lit_compress.export.onnx_graph import data_file

    full.unlink()
    data_file(full).unlink(missing_ok=True)
