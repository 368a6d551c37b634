"""OpenVINO files of models that were trained with rounding: the same integers, the same ranges."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from transformers import PreTrainedModel

from lit_compress.benchmark.runtimes.openvino import check_openvino
from lit_compress.export.openvino import convert, save_checked
from lit_compress.export.trained import (
    Floats,
    Matrices,
    Product,
    by_content,
    outputs_first,
    per_group,
    per_output,
    refuse_dynamic,
    refuse_missing,
)
from lit_compress.quantization.grids import StoredInput, take_apart
from lit_compress.quantization.scheme import Scheme

# See onnx_trained: how far the same rounded model is from itself in another precision.
_TOLERANCE = 0.15


def export_trained_openvino(model: PreTrainedModel, path: str | Path) -> float:
    """Write a text classifier that was trained with rounding as an OpenVINO file that computes with its integers.

    Matrices and tables are constants of eight bits, or of four where the integers need no more, with their scales, and
    what products read passes a ``FakeQuantize`` of the trained range, which OpenVINO fuses with the product to one of
    integers. Matrices with scales per group of inputs it multiplies in float32, with the values of their integers.

    Args:
        model: What :func:`lit_compress.load` gives: activations, where they are rounded, with a zero point and fixed
            ranges.
        path: The ``.xml`` file, with the weights in a ``.bin`` beside it; they are there only after they have passed
            the parity check against the rounded model.

    Returns:
        The error that :func:`~lit_compress.export.parity.check_parity` found.

    Raises:
        ImportError: ``openvino`` is missing.
        ValueError: OpenVINO has no integer product for a scheme, or a matrix is not found in the graph.
        OSError: The file could not be written.
    """
    check_openvino()
    model = copy.deepcopy(model).cpu().float().eval()
    plain, matrices, inputs = take_apart(model)
    products, tables = by_content(plain, matrices, inputs, "OpenVINO")
    refuse_dynamic(inputs, "OpenVINO")
    converted = convert(plain)
    _round_graph(converted, products, tables)
    return save_checked(converted, Path(path), "int8", model, _TOLERANCE)


def _round_graph(graph: Any, products: Matrices, tables: Matrices) -> None:
    missing = products.names() | tables.names()
    rounded: dict[tuple[Any, ...], Any] = {}
    for node in graph.get_ordered_ops():
        kind = node.get_type_name()
        place = {"MatMul": 1, "Gather": 0}.get(kind)
        matrix = None if place is None else _constant(node.input_value(place).get_node())
        if place is None or matrix is None:
            continue
        turned = kind == "MatMul" and not node.get_attributes()["transpose_b"]
        found = (products if kind == "MatMul" else tables).take(matrix.T if turned else matrix)
        if found is None:
            continue
        missing.discard(found.name)
        node.input(place).replace_source_output(_values(found, turned))
        if found.source is not None:
            node.input(0).replace_source_output(_rounded(node.input_value(0), found.source, rounded))
    refuse_missing(missing)
    graph.validate_nodes_and_infer_types()


def _constant(node: Any) -> Floats | None:
    """Return a constant float32 matrix, ``None`` where the node is something else."""
    if node.get_type_name() != "Constant" or len(node.get_output_shape(0)) != 2:
        return None
    data = node.get_data()
    return data if data.dtype == np.float32 else None


def _values(found: Product, turned: bool) -> Any:
    """Return integers, minus their zero points, times their scales, as OpenVINO stores compressed weights."""
    from lit_compress.export.infer.openvino import openvino

    ops, stored = openvino.opset13, found.stored
    integers = outputs_first(stored)
    outputs, inputs = integers.shape
    grouped = stored.scheme.per == "group"

    def shaped(rows: Floats) -> Floats:
        """One number per output and group, to be broadcast over the inputs."""
        numbers = per_group(rows, outputs)[..., None] if grouped else per_output(rows, outputs)[:, None]
        return np.ascontiguousarray(numbers.T if turned and not grouped else numbers, dtype=np.float32)

    table = integers.reshape(outputs, -1, stored.scheme.group_size or 1) if grouped else integers
    table = table.T if turned and not grouped else table
    scale, points = shaped(stored.grid.scale.numpy()), shaped(stored.grid.zero_point.numpy())
    if not found.in_float and stored.scheme.bits < 8:
        # Products of integers take int8 without a zero point and nothing else: half a byte is multiplied in float32.
        value = ops.convert(ops.constant((table - points).astype(np.int8)), "f32")
    else:
        value = ops.convert(_packed(table, stored.scheme), "f32")
        if not stored.scheme.symmetric:
            value = ops.subtract(value, ops.convert(_packed(points, stored.scheme), "f32"))
    if grouped:  # stored in float16
        value = ops.multiply(value, ops.convert(ops.constant(scale.astype(np.float16)), "f32"))
        value = ops.reshape(value, ops.constant(np.array([outputs, inputs])), False)
        return (ops.transpose(value, ops.constant(np.array([1, 0]))) if turned else value).output(0)
    return ops.multiply(value, ops.constant(scale)).output(0)


def _packed(integers: npt.NDArray[Any], scheme: Scheme) -> Any:
    """Return a constant of four bits per integer where the scheme has no more, else of eight."""
    from lit_compress.export.infer.openvino import openvino

    kinds = openvino.Type
    # OpenVINO computes something else with rows that begin in the middle of a byte.
    if scheme.bits > 4 or integers.shape[-1] % 2:
        return openvino.opset13.constant(integers.astype(np.int8 if scheme.symmetric else np.uint8))
    pairs = integers.astype(np.int8).reshape(-1, 2).view(np.uint8) & 15
    content = pairs[:, 0] | pairs[:, 1] << 4
    tensor = openvino.Tensor(
        content, openvino.Shape(integers.shape), kinds.i4 if scheme.symmetric else kinds.u4
    )
    return openvino.op.Constant(tensor, False)


def _rounded(source: Any, how: StoredInput, done: dict[tuple[Any, ...], Any]) -> Any:
    """Round an activation, once for all that round it alike."""
    from lit_compress.export.infer.openvino import openvino

    assert how.grid is not None  # asked before
    scale, zero = float(how.grid.scale[0, 0]), float(how.grid.zero_point[0, 0])
    key = source.get_node().get_friendly_name(), source.get_index(), scale, zero, how.scheme.bits
    if key not in done:
        ops = openvino.opset13
        low, high = (
            ops.constant(np.array((end - zero) * scale, np.float32))
            for end in (how.scheme.lowest, how.scheme.highest)
        )
        levels = how.scheme.highest - how.scheme.lowest + 1
        done[key] = ops.fake_quantize(source, low, high, low, high, levels).output(0)
    return done[key]
