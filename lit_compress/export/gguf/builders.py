"""GGUF as formats of ``lit-compress export``, one per precision."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from lit_compress.benchmark.runtimes.base import Batch, Builder
from lit_compress.export.gguf.tensors import PRECISIONS
from lit_compress.export.gguf.write import check_gguf, export_gguf

_FILE = "model.gguf"


class _Gguf(Builder):
    libraries: ClassVar[tuple[str, ...]] = ("gguf",)
    pairs: ClassVar[bool] = False  # llama.cpp reads every token as one of the first segment
    precision: ClassVar[str]

    def __init_subclass__(cls) -> None:
        cls.tolerance = PRECISIONS[cls.precision].tolerance

    def check(self) -> None:
        """Refuse where the library is missing; see :meth:`Builder.check`."""
        check_gguf()

    def build(self, folder: Path, target: Path, samples: Sequence[Batch] = ()) -> float:
        """Write ``model.gguf``; see :meth:`Builder.build`."""
        return export_gguf(folder, target / _FILE, self.precision)

    def note(self, artefact: Path) -> str:
        """Return what the difference is of; see :meth:`Builder.note`."""
        return (
            "The difference is of what torch computes from the tensors and metadata in the file; llama.cpp, which "
            "rounds activations too, was not run."
        )


class GgufF32(_Gguf):
    """float32: exact, for comparisons."""

    name: ClassVar[str] = "gguf-f32"
    precision: ClassVar[str] = "f32"


class GgufF16(_Gguf):
    """float16: what ``llama-quantize`` starts from."""

    name: ClassVar[str] = "gguf-f16"
    precision: ClassVar[str] = "f16"


class GgufBf16(_Gguf):
    """bfloat16."""

    name: ClassVar[str] = "gguf-bf16"
    precision: ClassVar[str] = "bf16"


class GgufQ8(_Gguf):
    """8 bits per weight, one scale per 32 weights."""

    name: ClassVar[str] = "gguf-q8_0"
    precision: ClassVar[str] = "q8_0"


class GgufQ4(_Gguf):
    """4 bits per weight, one scale per 32 weights."""

    name: ClassVar[str] = "gguf-q4_0"
    precision: ClassVar[str] = "q4_0"
