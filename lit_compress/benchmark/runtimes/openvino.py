"""OpenVINO on the CPU. Nothing here imports torch before an artefact is built."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from lit_compress.benchmark.runtimes.base import Batch, FileSession, Runtime
from lit_compress.extras import require

_FILE = "openvino_model.xml"


def check_openvino(*modules: str) -> None:
    """Refuse where OpenVINO or another of its packages is missing, with the line that installs them.

    Args:
        modules: What is needed beside ``openvino``.
    """
    require("openvino", "an OpenVINO runtime", "openvino", *modules)


class OpenVinoSession(FileSession):
    """An OpenVINO file of a text classifier.

    Args:
        path: The ``.xml`` file; its ``.bin`` is beside it.
        precision: ``"fp32"``, ``"bf16"`` or ``"int8"``.
        threads: CPU threads.

    Raises:
        ValueError: The processor does not compute in this precision.
    """

    def __init__(self, path: Path, precision: str, threads: int) -> None:
        from lit_compress.export.infer.openvino import OpenVinoModel

        super().__init__(OpenVinoModel(path, precision, threads))


class OpenVinoFp32(Runtime):
    """OpenVINO in float32: weights, activations and products."""

    name: ClassVar[str] = "openvino-fp32"
    libraries: ClassVar[tuple[str, ...]] = ("openvino",)

    def check(self) -> None:
        """Refuse where a library is missing; see :meth:`Builder.check`."""
        check_openvino()

    def build(self, folder: Path, target: Path, samples: Sequence[Batch] = ()) -> float:
        """Export the model; see :meth:`Builder.build`."""
        from lit_compress.export.openvino import export_openvino
        from lit_compress.models.checkpoint import load

        return export_openvino(load(folder), target / _FILE, self._precision(), self.tolerance)

    def imports(self, folder: Path) -> None:
        """Import OpenVINO; see :meth:`Runtime.imports`."""
        import lit_compress.export.infer.openvino  # noqa: F401

    def open(self, folder: Path, artefact: Path, device: str, threads: int) -> OpenVinoSession:
        """Load the file; see :meth:`Runtime.open`."""
        return OpenVinoSession(artefact / _FILE, self._precision(), threads)

    def note(self, artefact: Path) -> str | None:
        """Return what another loader has to set; see :meth:`Builder.note`."""
        if self._precision() == "bf16":
            return None
        return (
            "infer.py computes in float32; any other loader falls back to bfloat16 where the processor has it, unless "
            "it sets INFERENCE_PRECISION_HINT to f32."
        )

    def _precision(self) -> str:
        return self.name.removeprefix("openvino-")


class OpenVinoBf16(OpenVinoFp32):
    """OpenVINO in bfloat16, from a file with the weights in float16.

    The file is half as large as with float32 weights, and the bfloat16 that they become has fewer digits than
    float16.
    """

    name: ClassVar[str] = "openvino-bf16"
    tolerance: ClassVar[float] = 0.2


class OpenVinoInt8(OpenVinoFp32):
    """OpenVINO with int8 weights and activations, whose ranges are calibrated on samples; all else is float32.

    Nothing is computed in bfloat16, so that the file runs alike on every processor. There is no runtime with int8
    weights only: on MiniLM it agreed with the original as often as this one, and was no faster than bfloat16 in
    batches. A model that was trained with rounding keeps its own integers and ranges.
    """

    name: ClassVar[str] = "openvino-int8"
    rounded: ClassVar[bool] = True
    libraries: ClassVar[tuple[str, ...]] = ("openvino", "nncf")
    calibrated: ClassVar[bool] = True
    tolerance: ClassVar[float] = 0.5

    def check(self) -> None:
        """Refuse where a library is missing; see :meth:`Builder.check`."""
        check_openvino("nncf")

    def build(self, folder: Path, target: Path, samples: Sequence[Batch] = ()) -> float:
        """Export and quantize the model; see :meth:`Builder.build`."""
        from lit_compress.export.openvino_int8 import quantize_openvino
        from lit_compress.models.checkpoint import load
        from lit_compress.models.manifest import is_rounded

        if is_rounded(folder):
            from lit_compress.export.openvino_trained import export_trained_openvino

            return export_trained_openvino(load(folder), target / _FILE)
        return quantize_openvino(load(folder), target / _FILE, samples, self.tolerance)
