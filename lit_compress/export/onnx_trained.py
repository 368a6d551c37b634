"""ONNX files of models that were trained with rounding: the same integers, in integer arithmetic.

The float32 graph of the model is traced without its rounding. Its matrices are the values of the stored integers, so
they are found in it by what they hold, and their products are replaced by ``MatMulIntegerToFloat`` on these integers.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from transformers import PreTrainedModel

from lit_compress.benchmark.runtimes.onnx import check_onnx
from lit_compress.export.onnx import trace, write_checked
from lit_compress.export.onnx_graph import MICROSOFT, GraphEditor
from lit_compress.export.trained import Floats, Product, by_content, digest, per_output, refuse_missing
from lit_compress.quantization.grids import StoredInput, take_apart

if TYPE_CHECKING:
    import onnx

# Sums that are added in another order let a rounding fall on the other side, and every later layer more of them. On
# random tokens the same rounded MiniLM differs by up to 9 % between float32 and float64, and by as much from its file;
# on real texts, which the export compares too, by 1.4 % and 1.2 %.
_TOLERANCE = 0.15


def export_trained(model: PreTrainedModel, path: str | Path) -> float:
    """Write a text classifier that was trained with rounding as an ONNX file that computes with its integers.

    Args:
        model: What :func:`lit_compress.load` gives: 8 or fewer bits for weights, per tensor or output channel, and
            activations of 8 or fewer bits with a zero point.
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
        graph = trace(plain, folder / "traced.onnx")
        _round_graph(graph, products, tables)
        return graph

    return write_checked(make, Path(path), model, _TOLERANCE, "the ONNX file of the rounded model")


def _round_graph(model: onnx.ModelProto, products: dict[str, Product], tables: dict[str, Product]) -> None:
    # Shapes of the float32 graph are no longer true of all of its values.
    del model.graph.value_info[:]
    editor = GraphEditor(model)
    folded: set[str] = set()
    missing = {found.name for found in (*products.values(), *tables.values())}
    for node in editor.old:
        matrix = _matrix_of(editor, node)
        found = (
            None if matrix is None else (tables if node.op_type == "Gather" else products).get(digest(matrix))
        )
        if found is not None:
            missing.discard(found.name)
            if node.op_type == "Gather":
                _look_up(editor, node, found)
            else:
                _multiply(editor, node, found, folded)
        elif node.output[0] not in folded:
            editor.keep(node)
    refuse_missing(missing)
    editor.finish()
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
    weights, scale, points = _constants(editor, found)
    output = node.output[0]
    if node.op_type == "Gemm":
        bias = node.input[2] if len(node.input) > 2 else ""
    else:
        bias, after = editor.bias_of(output)
        if bias:
            output = after
            folded.add(after)
    if found.source is None:
        turned = _values(editor, weights, scale, points)
        product = editor.add("MatMul", [node.input[0], turned], f"{output}_product" if bias else output)
        if bias:
            editor.add("Add", [product, bias], output)
        return
    values, step, zero = _rounded(editor, node.input[0], found.source)
    inputs = [values, weights, step, scale, zero, points, bias]
    while not inputs[-1]:
        inputs.pop()
    editor.add("MatMulIntegerToFloat", inputs, output, domain=MICROSOFT)


def _values(editor: GraphEditor, weights: str, scale: str, points: str) -> str:
    """Compute a matrix from its integers; ONNX Runtime does it once, when it loads the file.

    Not ``DequantizeLinear``: ONNX Runtime fuses it with the product to ``MatMulNBits``, which rounds the activations.
    """
    from onnx import TensorProto

    place = f"{weights}_values"
    if editor.has_node(place):
        return place
    value = editor.add("Cast", [weights], f"{weights}_float", to=TensorProto.FLOAT)
    if points:
        shift = editor.add("Cast", [points], f"{points}_float", to=TensorProto.FLOAT)
        value = editor.add("Sub", [value, shift], f"{weights}_shifted")
    return editor.add("Mul", [value, scale], place)


def _constants(editor: GraphEditor, found: Product) -> tuple[str, str, str]:
    """Add the integers, inputs first, with scales and zero points per output; return their names."""
    stored = found.stored
    integers = stored.integers if stored.output_axis == 0 else stored.integers.t()
    kind = np.int8 if stored.scheme.symmetric else np.uint8
    outputs = len(integers)
    names = f"{found.name}_integers", f"{found.name}_scale", f"{found.name}_zero_point"
    if not editor.has(names[0]):
        editor.constant(names[0], integers.numpy().T.astype(kind))
        editor.constant(names[1], per_output(stored.grid.scale.numpy(), outputs).astype(np.float32))
        if not stored.scheme.symmetric:
            editor.constant(names[2], per_output(stored.grid.zero_point.numpy(), outputs).astype(np.uint8))
    return names[0], names[1], "" if stored.scheme.symmetric else names[2]


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


def _look_up(editor: GraphEditor, node: onnx.NodeProto, found: Product) -> None:
    from onnx import TensorProto

    stored = found.stored
    kind = np.int8 if stored.scheme.symmetric else np.uint8
    ids, output = node.input[1], node.output[0]
    table = editor.constant(f"{found.name}_integers", stored.integers.numpy().astype(kind))
    rows = editor.add("Gather", [table, ids], f"{output}_integers")
    value = editor.add("Cast", [rows], f"{output}_float", to=TensorProto.FLOAT)
    whole = len(stored.grid.scale) == 1

    def of_rows(name: str, numbers: Floats) -> str:
        constant = editor.constant(f"{found.name}_{name}", numbers[0] if whole else numbers)
        return constant if whole else editor.add("Gather", [constant, ids], f"{output}_{name}")

    if not stored.scheme.symmetric:
        points = of_rows("zero_point", stored.grid.zero_point.numpy())
        value = editor.add("Sub", [value, points], f"{output}_shifted")
    editor.add("Mul", [value, of_rows("scale", stored.grid.scale.numpy())], output)
