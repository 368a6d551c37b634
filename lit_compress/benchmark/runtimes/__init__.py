"""The ways of running a model that the benchmark compares, behind one small interface."""

from __future__ import annotations

import difflib
import importlib

from lit_compress.benchmark.runtimes.base import Batch, Runtime, Session

# Name -> module and class. Imported on use: a worker's memory must not carry the libraries of the others.
_CLASSES = {
    "torch-fp32": ("torch_eager", "TorchFp32"),
    "torch-bf16": ("torch_eager", "TorchBf16"),
    "torch-compile": ("torch_compile", "TorchCompile"),
    "onnx-fp32": ("onnx", "OnnxFp32"),
    "onnx-int8": ("onnx", "OnnxInt8"),
    "onnx-int8-static": ("onnx", "OnnxInt8Static"),
    "torchscript-fp32": ("torchscript", "TorchScriptFp32"),
    "aotinductor-fp32": ("aotinductor", "AotInductorFp32"),
    "aotinductor-bf16": ("aotinductor", "AotInductorBf16"),
    "openvino-fp32": ("openvino", "OpenVinoFp32"),
    "openvino-bf16": ("openvino", "OpenVinoBf16"),
    "openvino-int8": ("openvino", "OpenVinoInt8"),
    "litert-fp32": ("litert", "LiteRtFp32"),
    "litert-int8": ("litert", "LiteRtInt8"),
    "executorch-fp32": ("executorch", "ExecuTorchFp32"),
    "executorch-int8": ("executorch", "ExecuTorchInt8"),
}
#: Names of all runtimes, in the order of tables.
RUNTIMES = tuple(_CLASSES)

__all__ = ["RUNTIMES", "Batch", "Runtime", "Session", "runtime"]


def runtime(name: str) -> Runtime:
    """Return a runtime; its libraries need not be installed.

    Args:
        name: One of :data:`RUNTIMES`.

    Raises:
        ValueError: There is no runtime of that name.
    """
    if name not in _CLASSES:
        near = difflib.get_close_matches(name, RUNTIMES, n=1, cutoff=0.5)
        meant = f"; did you mean {near[0]}?" if near else "."
        raise ValueError(f"Expected a runtime among {', '.join(RUNTIMES)} but got {name!r}{meant}")
    module, found = _CLASSES[name]
    return getattr(importlib.import_module(f"{__name__}.{module}"), found)()
