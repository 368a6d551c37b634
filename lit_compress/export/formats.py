"""The formats that a model can be exported to, each in one or more precisions."""

from __future__ import annotations

import importlib

from lit_compress.benchmark.runtimes import RUNTIMES, runtime
from lit_compress.benchmark.runtimes.base import Builder

#: Format -> its precisions, the usual one first.
FORMATS: dict[str, tuple[str, ...]] = {
    "onnx": ("fp32", "int8", "int8-static"),
    "torchscript": ("fp32",),
    "aotinductor": ("fp32", "bf16"),
    "openvino": ("fp32", "bf16", "int8"),
    "litert": ("fp32", "int8"),
    "executorch": ("fp32", "int8"),
    "gguf": ("f16", "q8_0", "q4_0", "bf16", "f32"),
    "tensorrt": ("fp16", "fp32"),
}
# Formats that nothing here can run: name -> module and class.
_UNRUN = {
    "gguf-f16": ("gguf", "GgufF16"),
    "gguf-q8_0": ("gguf", "GgufQ8"),
    "gguf-q4_0": ("gguf", "GgufQ4"),
    "gguf-bf16": ("gguf", "GgufBf16"),
    "gguf-f32": ("gguf", "GgufF32"),
    "tensorrt-fp16": ("tensorrt", "TensorRTFp16"),
    "tensorrt-fp32": ("tensorrt", "TensorRTFp32"),
}


def builder(name: str) -> Builder:
    """Return what builds the artefact of a runtime or of a format.

    Args:
        name: A runtime, or a format and its precision, such as ``"gguf-f16"``.

    Raises:
        ValueError: There is none of that name.
    """
    if name in _UNRUN:
        module, found = _UNRUN[name]
        return getattr(importlib.import_module(f"lit_compress.export.{module}"), found)()
    return runtime(name)


def full_name(format: str, precision: str | None) -> str:
    """Return the name of a format in a precision.

    Args:
        format: One of :data:`FORMATS`.
        precision: One of its precisions; the usual one where ``None``.

    Raises:
        ValueError: There is no such format, or not in this precision.
    """
    if format not in FORMATS:
        raise ValueError(f"Expected a format among {', '.join(FORMATS)} but got {format!r}.")
    known = FORMATS[format]
    if precision is not None and precision not in known:
        raise ValueError(f"Expected a precision of {format} among {', '.join(known)} but got {precision!r}.")
    return f"{format}-{precision or known[0]}"


def is_runtime(name: str) -> bool:
    """Whether something here can run an artefact of that name."""
    return name in RUNTIMES
