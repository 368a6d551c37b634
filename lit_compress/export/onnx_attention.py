"""Query, key and value of an int8 ONNX graph as one product, within the attention that reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from lit_compress.export.onnx_graph import MICROSOFT, GraphEditor

if TYPE_CHECKING:
    import onnx

_ATTENTION, _PRODUCT = "MultiHeadAttention", "MatMulIntegerToFloat"


def join_projections(model: onnx.ModelProto) -> None:
    """Let ``QAttention`` multiply the integers that three products multiplied in front of an attention.

    It writes what it computes where every head reads it, and the logits stay the same, bit for bit. With one thread of
    ONNX Runtime 1.31 that is 1.05 to 1.10 times as fast for a small pruned model, of 12 to 64 tokens and one text or 32
    at once, and as fast as before for a whole MiniLM.

    Attentions are left as they are whose products differ in what they read or in their width, or have weights with
    zero points, which it does not know.

    Args:
        model: The graph, which is changed.
    """
    editor = GraphEditor(model)
    joined = {}
    for node in editor.old:
        products = _products(editor, node) if node.op_type == _ATTENTION else []
        if products:
            joined[node.output[0]] = products
    gone = {product.output[0] for products in joined.values() for product in products}
    for node in editor.old:
        if node.output[0] in joined:
            _join(editor, node, joined[node.output[0]])
        elif node.output[0] not in gone:
            editor.keep(node)
    editor.finish()


def _products(editor: GraphEditor, attention: onnx.NodeProto) -> list[onnx.NodeProto]:
    """Return the products of query, key and value, or nothing where they cannot be one."""
    sources = [editor.producers.get(name) for name in attention.input[:3]]
    products = [node for node in sources if node is not None and node.op_type == _PRODUCT]
    if len(products) < 3 or attention.input[3]:
        return []
    # values, step and zero point of what is multiplied
    read = {(node.input[0], node.input[2], node.input[4]) for node in products}
    alone = all(len(editor.readers[node.output[0]]) == 1 for node in products)
    symmetric = all(not name for node in products for name in node.input[5:6])
    widths = {editor.array(node.input[3]).shape for node in products}
    return products if len(read) == 1 and alone and symmetric and len(widths) == 1 else []


def _join(editor: GraphEditor, attention: onnx.NodeProto, products: list[onnx.NodeProto]) -> None:
    output, mask = attention.output[0], attention.input[4]
    values, _, step, _, zero = products[0].input[:5]
    weights = _weights(editor, [node.input[1] for node in products])
    scales = np.concatenate([editor.array(node.input[3]) for node in products])
    bias = editor.constant(
        f"{output}_joined_bias", np.concatenate([_bias(editor, node) for node in products])
    )
    scale = editor.constant(f"{output}_joined_scale", scales)
    points = editor.constant(f"{output}_joined_zero_point", np.zeros(len(scales), np.int8))
    inputs = [values, weights, bias, step, scale, mask, zero, points]
    settings = {entry.name: entry for entry in attention.attribute}
    editor.add(
        *("QAttention", inputs, output),
        domain=MICROSOFT,
        num_heads=settings["num_heads"].i,
        scale=settings["scale"].f,
    )


def _weights(editor: GraphEditor, names: list[str]) -> str:
    """Put three matrices of integers beside each other, once for all layers that share them."""
    together = "+".join(names)
    if all(name in editor.constants for name in names):
        return editor.constant(together, np.concatenate([editor.array(name) for name in names], 1))
    # What is unpacked from fewer bits; ONNX Runtime does both once, when it loads the file.
    return together if editor.has_node(together) else editor.add("Concat", names, together, axis=1)


def _bias(editor: GraphEditor, product: onnx.NodeProto) -> npt.NDArray[np.float32]:
    if len(product.input) > 6:
        return editor.array(product.input[6])
    return np.zeros_like(editor.array(product.input[3]))
