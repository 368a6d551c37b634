"""Graphs without what only computes shapes: reshapes behind attentions, biases that are repeated before a sum."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lit_compress.export.onnx_graph import GraphEditor

if TYPE_CHECKING:
    import onnx

_ATTENTION = "MultiHeadAttention"


def drop_reshapes(model: onnx.ModelProto) -> None:
    """Drop the reshapes behind every attention, repeated biases, and all that only computes their shapes.

    transformers splits what an attention gives into heads, and puts it together again: that is the result itself, but
    ONNX Runtime keeps both reshapes and the eight nodes behind their shapes, a seventh of the time of a small model.
    A block without heads or neurons repeats its bias for every token, to be added to what a sum would repeat it for.

    Args:
        model: The graph, which is changed.
    """
    editor = GraphEditor(model)

    def reshape_of(name: str) -> onnx.NodeProto | None:
        """Return the reshape that alone reads a value, but for those that read its shape."""
        found = [node for node in editor.readers.get(name, []) if node.op_type != "Shape"]
        return found[0] if len(found) == 1 and found[0].op_type == "Reshape" else None

    same = {}
    for node in editor.old:
        if node.op_type != _ATTENTION:
            continue
        split = reshape_of(node.output[0])
        joined = None if split is None else reshape_of(split.output[0])
        if joined is not None and _is_texts_and_tokens(editor.producers.get(joined.input[1])):
            same[joined.output[0]] = node.output[0]
    for node in editor.old:
        if node.op_type == "Expand" and editor.is_vector(node.input[0]):
            after = {reader.op_type for reader in editor.readers.get(node.output[0], [])}
            if after == {"Add"}:
                same[node.output[0]] = node.input[0]
    for node in editor.old:
        for place, name in enumerate(node.input):
            node.input[place] = same.get(name, name)
    _keep_what_is_read(editor, [output.name for output in model.graph.output])
    editor.finish()


def _is_texts_and_tokens(shape: onnx.NodeProto | None) -> bool:
    """Whether a shape is put together from two sizes that are read off a value and a third one."""
    return shape is not None and shape.op_type == "Concat" and len(shape.input) == 3


def _keep_what_is_read(editor: GraphEditor, outputs: list[str]) -> None:
    """Take over the nodes that something depends on, in their order."""
    waiting, needed = list(outputs), set()
    while waiting:
        node = editor.producers.get(waiting.pop())
        if node is not None and node.output[0] not in needed:
            needed.add(node.output[0])
            waiting.extend(node.input)
    for node in editor.old:
        if node.output[0] in needed:
            editor.keep(node)
