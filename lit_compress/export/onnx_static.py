"""ONNX files with int8 weights, and activations with ranges that were calibrated beforehand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from transformers import PreTrainedModel

from lit_compress.benchmark.runtimes.base import Batch
from lit_compress.benchmark.runtimes.onnx import OnnxInt8Static, check_onnx
from lit_compress.export.onnx import write_checked
from lit_compress.export.onnx_int8 import ATTENDED, NORMALISED, activations, of_all_tokens, quantize_graph
from lit_compress.export.onnx_ranges import observe_ranges

if TYPE_CHECKING:
    import onnx


def quantize_onnx_static(
    source: str | Path, path: str | Path, model: PreTrainedModel, samples: Sequence[Batch]
) -> float:
    """Write an ONNX file with int8 weights and activations, most of which have the range that samples show.

    Only what products read is quantized: not softmax, normalisations, sums and embeddings, which is what made
    everything wrong. Inside feed-forward networks ranges differ too much between tokens, so there they are found
    while the model runs, as :func:`~lit_compress.export.onnx.quantize_onnx` does.

    Args:
        source: File that :func:`~lit_compress.export.onnx.export_onnx` wrote.
        path: The file; it is there only after it has passed the parity check.
        model: The original, on the CPU, in float32 and eval mode.
        samples: Real texts, one batch each.

    Returns:
        The error that :func:`~lit_compress.export.parity.check_parity` found.

    Raises:
        ImportError: ``onnx`` or ``onnxruntime`` is missing.
        ValueError: There are no samples, or int8 changes the logits too much.
        OSError: The disk is full; nothing is left.
    """
    check_onnx()
    if not samples:
        raise ValueError(
            "Expected sample texts to calibrate int8 activations with but got none; name the data."
        )

    def make(folder: Path) -> onnx.ModelProto:
        import onnx

        graph = onnx.load(source)
        names = [name for name, kind in activations(graph).items() if kind in (*NORMALISED, *ATTENDED)]
        # First tokens alone are few: what reads them gets the range of all tokens.
        whole = of_all_tokens(graph, names)
        found = observe_ranges(onnx.load(source), sorted(set(whole.values())), samples, folder)
        quantize_graph(graph, {name: found[whole[name]] for name in names}, fixed=True)
        return graph

    return write_checked(make, Path(path), model, OnnxInt8Static.tolerance, "the calibrated int8 ONNX file")
