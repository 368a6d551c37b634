"""int8 in an ONNX graph: weights beforehand, activations while the model runs.

What int8 costs was measured on real sentences with the teacher of ``sst2_sentences`` (MiniLM, six layers), as the error
of the logits relative to their size. All that follows makes 2.7 %, which changes 0.6 % of the labels; students of two
and three layers have 1.5 to 2.1 %, and 0.0 to 0.5 %.

- Weights, a scale per output: 1.4 %. A scale that minimises the squared error, or a zero point, gains nothing.
- Tables of embeddings, a scale per row: words 0.5 %, but all of them 2.4 %, because every text reads the same few rows
  of positions and segments: these stay in float16, which is 2 % of the file.
- Activations, one scale for all: 8 %. In the feed-forward networks the first token has values up to ten times as large
  as the others have (28 against 3 after the normalisation in front, 24 against 5 inside), and the scale is its.
  What a normalisation gives is large in the same few dimensions whatever is read, so these are made smaller and their
  weights larger (SmoothQuant, arXiv 2211.10438, with exponent 0.7). Random tokens show which they are as well as real
  ones do. That leaves a third less error than a scale per token, and the model is 2 % faster with one text and 6 %
  with 32. Inside the feed-forward network random tokens show other dimensions than real ones, so there every token
  has its own scale. What attention gives has no outliers.

Pooler and head stay in float32: they read one token, and take no time. No matrix had to be left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from lit_compress.export.onnx_attention import join_projections
from lit_compress.export.onnx_graph import MICROSOFT, GraphEditor

if TYPE_CHECKING:
    import onnx

Floats = npt.NDArray[np.float32]

#: Kinds of nodes whose outputs are large in the same dimensions whatever is read.
NORMALISED = ("LayerNormalization",)
#: Kinds of nodes whose outputs have no outliers.
ATTENDED = ("MultiHeadAttention",)

_LARGEST = 127
_LEVELS = 255
# How much of the size of a dimension goes from the activations to the weights.
_EXPONENT = 0.7
# A dimension that happened to be small is not made larger than this share of the average.
_LEAST = 0.1
# Keeps a token whose activations are all zero from dividing by zero.
_TINY = 1e-6
# Kinds of nodes that take some tokens of an activation.
_PICKING = ("Gather", "Slice")
# Kinds of nodes with a least output, and how far that is below zero: the size of a token is at least it.
_LEAST_OUTPUT = {"Gelu": 0.17, "Relu": _TINY}


class Range(NamedTuple):
    """Values that an activation takes.

    Args:
        lowest: The least one of every dimension.
        highest: The largest one of every dimension.
    """

    lowest: Floats
    highest: Floats


class _Activation(NamedTuple):
    """Names of what makes up a quantized activation.

    Args:
        values: The uint8 values.
        scale: Their step.
        zero_point: The value that stands for zero.
        sizes: What every token was divided by, or nothing.
        factors: What every dimension was divided by, or nothing.
    """

    values: str
    scale: str
    zero_point: str
    sizes: str | None = None
    factors: Floats | None = None


def activations(model: onnx.ModelProto) -> dict[str, str]:
    """Return the activations that products with constant matrices read, and what kind of node each comes from."""
    return _activations(GraphEditor(model))


def of_all_tokens(model: onnx.ModelProto, names: Iterable[str]) -> dict[str, str]:
    """Return which activation each takes a few tokens of, or itself where it holds them all."""
    producers = GraphEditor(model).producers
    found = {}
    for name in names:
        whole = name
        while whole in producers and producers[whole].op_type in _PICKING:
            whole = producers[whole].input[0]
        found[name] = whole
    return found


def quantize_graph(model: onnx.ModelProto, ranges: Mapping[str, Range], fixed: bool = False) -> None:
    """Compute the products of a text classifier with constant matrices in int8.

    Args:
        model: A float32 graph, which is changed.
        ranges: Of every one of :func:`activations` that is of a kind in :data:`NORMALISED`, and where they are fixed
            also of those in :data:`ATTENDED`.
        fixed: Whether these activations are quantized by that range, and not by the range of the batch at hand.
    """
    # Where it knows shapes, ONNX Runtime fuses additions into its SkipLayerNormalization, which takes five times as
    # long as the nodes that it replaces. And shapes of the dynamo exporter are no longer true of an edited graph.
    del model.graph.value_info[:]
    editor = GraphEditor(model)
    kinds = _activations(editor)
    done: dict[str, _Activation] = {}
    folded: set[str] = set()
    for node in editor.old:
        if _is_product(editor, node):
            source = node.input[0]
            if source not in done:
                done[source] = _quantize(editor, source, kinds[source], ranges, fixed)
            _multiply(editor, node, done[source], folded)
        elif node.op_type == "Gather" and editor.matrix(node.input[0]) is not None:
            _look_up(editor, node)
        elif node.output[0] not in folded:
            editor.keep(node)
    editor.finish()
    join_projections(model)
    if MICROSOFT not in {entry.domain for entry in model.opset_import}:
        model.opset_import.add(domain=MICROSOFT, version=1)


def _activations(editor: GraphEditor) -> dict[str, str]:
    kinds = {}
    for node in editor.old:
        if _is_product(editor, node):
            before = editor.producers.get(node.input[0])
            while before is not None and before.op_type in (*_PICKING, "Reshape", "Transpose"):
                before = editor.producers.get(before.input[0])
            kinds[node.input[0]] = "" if before is None else before.op_type
    return kinds


def _is_product(editor: GraphEditor, node: onnx.NodeProto) -> bool:
    return node.op_type == "MatMul" and editor.matrix(node.input[1]) is not None


def _quantize(
    editor: GraphEditor, source: str, kind: str, ranges: Mapping[str, Range], fixed: bool
) -> _Activation:
    if kind not in (*NORMALISED, *ATTENDED):
        return _per_token(editor, source, kind)
    factors, even = None, source
    if kind in NORMALISED:
        factors = _factors(editor, source, ranges[source])
        inverse = editor.constant(f"{source}_factors", 1 / factors)
        even = editor.add("Mul", [source, inverse], f"{source}_even")
    names = f"{source}_quantized", f"{source}_scale", f"{source}_zero_point"
    if not fixed:
        editor.add("DynamicQuantizeLinear", [even], *names)
        return _Activation(*names, factors=factors)
    lowest, highest = (edge / (1 if factors is None else factors) for edge in ranges[source])
    low, high = min(float(lowest.min()), 0.0), max(float(highest.max()), 0.0)
    step = max((high - low) / _LEVELS, _TINY)
    editor.constant(names[1], np.array(step, np.float32))
    editor.constant(names[2], np.array(round(-low / step), np.uint8))
    editor.add("QuantizeLinear", [even, *names[1:]], names[0])
    return _Activation(*names, factors=factors)


def _per_token(editor: GraphEditor, source: str, kind: str) -> _Activation:
    axis = editor.constant("last_axis", np.array([-1], np.int64))
    least = _LEAST_OUTPUT.get(kind)
    # Where the largest value is the largest size as well, a pass over all of them is saved.
    absolute = editor.add("Abs", [source], f"{source}_abs") if least is None else source
    largest = editor.add("ReduceMax", [absolute, axis], f"{source}_max", keepdims=1)
    least_size = editor.constant(f"least_size_{kind}", np.array(least or _TINY, np.float32))
    sizes = editor.add("Max", [largest, least_size], f"{source}_sizes")
    even = editor.add("Div", [source, sizes], f"{source}_even")
    names = f"{source}_quantized", f"{source}_scale", f"{source}_zero_point"
    editor.add("DynamicQuantizeLinear", [even], *names)
    return _Activation(*names, sizes=sizes)


def _factors(editor: GraphEditor, source: str, known: Range) -> Floats:
    """Return what to divide every dimension of an activation by, so that it and its weights are of a like size."""
    matrices = [editor.matrix(node.input[1]) for node in editor.readers[source] if _is_product(editor, node)]
    weights = np.max([np.abs(matrix).max(1) for matrix in matrices if matrix is not None], axis=0)
    sizes = np.maximum(np.abs(known.lowest), np.abs(known.highest))
    sizes, weights = (np.maximum(entry, _LEAST * entry.mean() + _TINY) for entry in (sizes, weights))
    factors = sizes**_EXPONENT / weights ** (1 - _EXPONENT)
    return (factors / np.exp(np.log(factors).mean())).astype(np.float32)


def _multiply(editor: GraphEditor, node: onnx.NodeProto, activation: _Activation, folded: set[str]) -> None:
    weights = editor.matrix(node.input[1])
    assert weights is not None  # a product has one
    # Layers that share weights keep sharing them, unless their activations differ.
    name = node.input[1] if activation.factors is None else node.output[0]
    if activation.factors is not None:
        weights = weights * activation.factors[:, None]
    if not editor.has(f"{name}_weights"):
        values, scale = _nearest(weights, axis=0)
        editor.constant(f"{name}_weights", values)
        editor.constant(f"{name}_weights_scale", scale[0])
    inputs = [
        activation.values,
        f"{name}_weights",
        activation.scale,
        f"{name}_weights_scale",
        activation.zero_point,
    ]
    output = node.output[0]
    if activation.sizes is not None:
        product = editor.add("MatMulIntegerToFloat", inputs, f"{output}_product", domain=MICROSOFT)
        editor.add("Mul", [product, activation.sizes], output)
        return
    bias, after = editor.bias_of(output)
    if bias:
        inputs, output = [*inputs, "", bias], after
        folded.add(after)
    editor.add("MatMulIntegerToFloat", inputs, output, domain=MICROSOFT)


def _look_up(editor: GraphEditor, node: onnx.NodeProto) -> None:
    from onnx import TensorProto

    name, ids = node.input
    output = node.output[0]
    table = editor.matrix(name)
    assert table is not None  # asked before
    if ids != "input_ids":
        # ONNX Runtime makes it wider once, when it loads the file.
        half = editor.constant(f"{name}_half", table.astype(np.float16))
        wide = f"{name}_wide"
        if not editor.has_node(wide):
            editor.add("Cast", [half], wide, to=TensorProto.FLOAT)
        editor.add("Gather", [wide, ids], output)
        return
    # Names of their own: what is found may be rounded again, where it is multiplied next.
    values, scale = _nearest(table, axis=1)
    rows = editor.add("Gather", [editor.constant(f"{name}_quantized", values), ids], f"{output}_found")
    scales = editor.add("Gather", [editor.constant(f"{name}_scale", scale), ids], f"{output}_found_scale")
    editor.add(
        "Mul", [editor.add("Cast", [rows], f"{output}_found_values", to=TensorProto.FLOAT), scales], output
    )


def _nearest(weights: Floats, axis: int) -> tuple[npt.NDArray[np.int8], Floats]:
    """Return the nearest int8 weights, and the scales of the rows or columns along an axis."""
    largest = np.abs(weights).max(axis, keepdims=True)
    scale = np.maximum(largest / _LARGEST, np.finfo(np.float32).tiny).astype(np.float32)
    return np.round(weights / scale).astype(np.int8), scale
