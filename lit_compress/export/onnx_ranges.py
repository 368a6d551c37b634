"""Which values the activations of an ONNX graph take."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lit_compress.benchmark.runtimes.base import Batch
from lit_compress.export.onnx_graph import save_graph
from lit_compress.export.onnx_int8 import Range

if TYPE_CHECKING:
    import onnx


def observe_ranges(
    model: onnx.ModelProto, names: Sequence[str], batches: Sequence[Batch], folder: Path
) -> dict[str, Range]:
    """Return the least and the largest value of every dimension of activations.

    Args:
        model: The float32 graph, which is used up.
        names: Activations, (texts, tokens, width); the last dimension is looked at.
        batches: Token batches without padding.
        folder: A place for a file that is larger than the graph.
    """
    import onnxruntime
    from onnx import TensorProto, helper

    if not names:
        return {}
    model.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names)
    path = folder / "observed.onnx"
    save_graph(model, path)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    inputs = [entry.name for entry in session.get_inputs()]
    ranges: dict[str, Range] = {}
    for batch in batches:
        zeros = np.zeros_like(batch["input_ids"])
        values = session.run(list(names), {name: batch.get(name, zeros) for name in inputs})
        for name, value in zip(names, values, strict=True):
            flat = value.reshape(-1, value.shape[-1])
            seen = Range(flat.min(0), flat.max(0))
            old = ranges.get(name, seen)
            ranges[name] = Range(np.minimum(old.lowest, seen.lowest), np.maximum(old.highest, seen.highest))
    return ranges
