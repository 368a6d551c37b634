"""ONNX files of models that were trained with rounding: the same integers, in integer arithmetic.

The float32 graph of the model is traced without its rounding. Its matrices are the values of the stored integers, so
they are found in it by what they hold, and their products are replaced by ``MatMulIntegerToFloat`` on these integers.
Matrices with scales per group of inputs, and those whose input is not rounded, are multiplied in float32, with what
ONNX Runtime computes from their integers when it loads the file.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from transformers import PreTrainedModel

from lit_compress.benchmark.runtimes.onnx import check_onnx
from lit_compress.export.first_token import last_attention
from lit_compress.export.onnx import trace, write_checked
from lit_compress.export.onnx_attention import join_projections
from lit_compress.export.onnx_graph import MICROSOFT, GraphEditor
from lit_compress.export.onnx_packed import whole_numbers
from lit_compress.export.onnx_tables import look_up
from lit_compress.export.trained import (
    Floats,
    Matrices,
    Product,
    by_content,
    outputs_first,
    per_group,
    per_output,
    refuse_missing,
)
from lit_compress.quantization.grids import StoredInput, take_apart

if TYPE_CHECKING:
    import onnx

# Sums that are added in another order let a rounding fall on the other side, and every later layer more of them. On
# random tokens the same rounded MiniLM differs by up to 9 % between float32 and float64, and by as much from its file;
# on real texts, which the export compares too, by 1.4 % and 1.2 %.
_TOLERANCE = 0.15


def export_trained(model: PreTrainedModel, path: str | Path) -> float:
    """Write a text classifier that was trained with rounding as an ONNX file that computes with its integers.

    Integers of up to 2 and up to 4 bits share bytes, four and two of them; those of 5 to 8 take a byte each.

    Args:
        model: What :func:`lit_compress.load` gives: activations, where they are rounded, with a zero point.
        path: The file; it is there only after it has passed the parity check against the rounded model.

    Returns:
        The error that :func:`~lit_compress.export.parity.check_parity` found.

    Raises:
        ImportError: ``onnx`` or ``onnxruntime`` is missing.
        ValueError: ONNX Runtime has no integer product for a scheme, or a matrix is not found in the graph.
        OSError: The disk is full; nothing is left.
    """
    check_onnx()
    model = copy.deepcopy(model).cpu().float().eval()
    plain, matrices, inputs = take_apart(model)
    products, tables = by_content(plain, matrices, inputs, "ONNX Runtime")

    def make(folder: Path) -> onnx.ModelProto:
        graph = trace(plain, folder / "traced.onnx", last_attention(model))
        _round_graph(graph, products, tables)
        return graph

    return write_checked(make, Path(path), model, _TOLERANCE, "the ONNX file of the rounded model")


def _round_graph(model: onnx.ModelProto, products: Matrices, tables: Matrices) -> None:
    # Shapes of the float32 graph are no longer true of all of its values.
    del model.graph.value_info[:]
    editor = GraphEditor(model)
    folded: set[str] = set()
    missing = products.names() | tables.names()
    for node in editor.old:
        found = (tables if node.op_type == "Gather" else products).take(_matrix_of(editor, node))
        if found is not None:
            missing.discard(found.name)
            if node.op_type == "Gather":
                look_up(editor, node, found)
            else:
                _multiply(editor, node, found, folded)
        elif node.output[0] not in folded:
            editor.keep(node)
    refuse_missing(missing)
    editor.finish()
    join_projections(model)
    if MICROSOFT not in {entry.domain for entry in model.opset_import}:
        model.opset_import.add(domain=MICROSOFT, version=1)


def _matrix_of(editor: GraphEditor, node: onnx.NodeProto) -> Floats | None:
    """Return the constant matrix of a product, outputs first, or the table of a look-up."""
    if node.op_type == "Gather":
        return editor.matrix(node.input[0])
    if node.op_type == "MatMul":
        matrix = editor.matrix(node.input[1])
        return None if matrix is None else matrix.T
    if node.op_type == "Gemm":
        settings = {entry.name: entry for entry in node.attribute}
        plain = all(settings[key].f == 1.0 for key in ("alpha", "beta") if key in settings)
        if plain and not ("transA" in settings and settings["transA"].i):
            matrix = editor.matrix(node.input[1])
            turned = "transB" in settings and settings["transB"].i
            return matrix if matrix is None or turned else matrix.T
    return None


def _multiply(editor: GraphEditor, node: onnx.NodeProto, found: Product, folded: set[str]) -> None:
    output = node.output[0]
    if node.op_type == "Gemm":
        bias = node.input[2] if len(node.input) > 2 else ""
    else:
        bias, after = editor.bias_of(output)
        if bias:
            output = after
            folded.add(after)
    if found.in_float:
        value = node.input[0]
        if found.source is not None:
            value = _rounded_values(editor, value, found.source)
        product = editor.add(
            "MatMul", [value, _values(editor, found)], f"{output}_product" if bias else output
        )
        if bias:
            editor.add("Add", [product, bias], output)
        return
    assert found.source is not None
    weights, scale, points = _constants(editor, found)
    values, step, zero = _rounded(editor, node.input[0], found.source)
    inputs = [values, weights, step, scale, zero, points, bias]
    while not inputs[-1]:
        inputs.pop()
    editor.add("MatMulIntegerToFloat", inputs, output, domain=MICROSOFT)


def _values(editor: GraphEditor, found: Product) -> str:
    """Compute a matrix, inputs first, from its integers; ONNX Runtime does it once, when it loads the file.

    Not ``DequantizeLinear``: ONNX Runtime fuses it with the product to ``MatMulNBits``, which rounds the activations.
    """
    from onnx import TensorProto

    place = f"{found.name}_values"
    if editor.has_node(place):
        return place
    value = editor.add("Cast", [_integers(editor, found)], f"{found.name}_float", to=TensorProto.FLOAT)
    outputs, inputs = outputs_first(found.stored).shape

    def of_groups(rows: Floats) -> Floats:
        """One number per group and output, (groups, 1, outputs)."""
        return np.ascontiguousarray(per_group(rows, outputs).T[:, None])

    scale = of_groups(found.stored.grid.scale.numpy())
    # A group is inputs that lie behind each other.
    shape = editor.constant(f"{found.name}_groups", np.array([len(scale), -1, outputs]))
    value = editor.add("Reshape", [value, shape], f"{found.name}_grouped")
    if not found.stored.scheme.symmetric:
        points = of_groups(found.stored.grid.zero_point.numpy()).astype(np.uint8)
        kept = editor.constant(f"{found.name}_group_zero_point", points)
        shift = editor.add("Cast", [kept], f"{found.name}_shift", to=TensorProto.FLOAT)
        value = editor.add("Sub", [value, shift], f"{found.name}_shifted")
    kind = np.float16 if found.stored.scheme.scale_dtype == torch.float16 else np.float32
    kept = editor.constant(f"{found.name}_group_scale", scale.astype(kind))
    factor = editor.add("Cast", [kept], f"{found.name}_factor", to=TensorProto.FLOAT)
    value = editor.add("Mul", [value, factor], f"{found.name}_scaled")
    whole = editor.constant(f"{found.name}_shape", np.array([inputs, outputs]))
    return editor.add("Reshape", [value, whole], place)


def _constants(editor: GraphEditor, found: Product) -> tuple[str, str, str]:
    """Add the integers, inputs first, with scales and zero points per output; return their names."""
    stored, name = found.stored, found.name
    outputs = len(outputs_first(stored))
    scale = per_output(stored.grid.scale.numpy(), outputs).astype(np.float32)
    points = ""
    if not stored.scheme.symmetric:
        numbers = per_output(stored.grid.zero_point.numpy(), outputs).astype(np.uint8)
        points = editor.constant(f"{name}_zero_point", numbers)
    return _integers(editor, found), editor.constant(f"{name}_scale", scale), points


def _integers(editor: GraphEditor, found: Product) -> str:
    """Add the integers of a product, inputs first, in int8 or uint8."""
    return whole_numbers(editor, found, outputs_first(found.stored).T)


def _rounded(editor: GraphEditor, source: str, how: StoredInput) -> tuple[str, str, str]:
    """Round an activation, once for all that round it alike; return the names of integers, step and zero point."""
    if how.grid is None:
        if how.scheme.bits != 8:
            raise ValueError(
                f"Expected 8 bits for activations with dynamic ranges in ONNX Runtime but got {how.scheme}."
            )
        names = f"{source}_integers", f"{source}_step", f"{source}_zero"
        if not editor.has_node(names[0]):
            editor.add("DynamicQuantizeLinear", [source], *names)
        return names
    scale, zero = np.float32(how.grid.scale[0, 0]), np.uint8(how.grid.zero_point[0, 0])
    place = f"{source}_{how.scheme.bits}_{scale!r}_{zero}"
    names = f"{place}_integers", f"{place}_step", f"{place}_zero"
    if editor.has_node(names[0]):
        return names
    editor.constant(names[1], np.array(scale, np.float32))
    editor.constant(names[2], np.array(zero, np.uint8))
    inside = source
    if how.scheme.bits < 8:  # what ONNX cuts off by itself is what does not fit into a byte
        ends = [
            editor.constant(f"{place}_{end}", np.array((edge - float(zero)) * scale, np.float32))
            for end, edge in (("low", how.scheme.lowest), ("high", how.scheme.highest))
        ]
        inside = editor.add("Clip", [source, *ends], f"{place}_inside")
    editor.add("QuantizeLinear", [inside, names[1], names[2]], names[0])
    return names


def _rounded_values(editor: GraphEditor, source: str, how: StoredInput) -> str:
    """Round an activation and compute what its integers stand for.

    Not with ``DequantizeLinear``: ONNX Runtime takes it for the sign of a graph whose products may be rounded.
    """
    from onnx import TensorProto

    integers, step, zero = _rounded(editor, source, how)
    place = f"{integers}_values"
    if editor.has_node(place):
        return place
    whole = editor.add("Cast", [integers], f"{integers}_float", to=TensorProto.FLOAT)
    shift = editor.add("Cast", [zero], f"{zero}_float", to=TensorProto.FLOAT)
    return editor.add("Mul", [editor.add("Sub", [whole, shift], f"{integers}_shifted"), step], place)
