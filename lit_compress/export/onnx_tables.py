"""Look-ups in tables of stored integers, in an ONNX graph."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from lit_compress.export.onnx_graph import MICROSOFT, GraphEditor
from lit_compress.export.onnx_packed import (
    packed_columns,
    packed_pairs,
    unpacked_columns,
    whole_numbers,
    width_of,
)
from lit_compress.export.trained import Floats, Product
from lit_compress.quantization.scheme import Scheme

if TYPE_CHECKING:
    import onnx

# The smallest group that ONNX Runtime's operator for blocks knows, all are powers of two; and its own zero point.
_LEAST_BLOCK, _MIDDLE = 16, 8
# Numbers of a table that is made float32 when the file is loaded, 1 MB at most: those of positions and of segments.
# Looked up as integers they took a tenth of the time of a model of two small blocks.
_SMALL_TABLE = 2**18


def look_up(editor: GraphEditor, node: onnx.NodeProto, found: Product) -> None:
    """Replace a look-up in a float32 table by one in its integers.

    Args:
        editor: The graph.
        node: The ``Gather``.
        found: The table.
    """
    from onnx import TensorProto

    stored = found.stored
    ids, output = node.input[1], node.output[0]
    if stored.integers.numel() <= _SMALL_TABLE:
        editor.add("Gather", [_table_values(editor, found), ids], output)
        return
    if _has_blocks(stored.scheme):
        _look_up_blocks(editor, ids, output, found)
        return
    integers = stored.integers.numpy()
    if width_of(stored.scheme.bits) == 8:
        kind = np.int8 if stored.scheme.symmetric else np.uint8
        table = editor.constant(f"{found.name}_integers", integers.astype(kind))
        rows = editor.add("Gather", [table, ids], f"{output}_integers")
    else:
        packed = packed_columns(integers - stored.scheme.lowest, stored.scheme.bits)
        table = editor.constant(f"{found.name}_packed", packed)
        rows = editor.add("Gather", [table, ids], f"{output}_packed")
        rows = unpacked_columns(editor, rows, f"{output}_integers", integers.shape[1], stored.scheme)
    value = editor.add("Cast", [rows], f"{output}_float", to=TensorProto.FLOAT)
    whole = len(stored.grid.scale) == 1

    def of_rows(name: str, numbers: Floats) -> str:
        if stored.scheme.per == "group":
            return _of_groups(editor, found, numbers, ids, f"{output}_{name}")
        constant = editor.constant(f"{found.name}_{name}", numbers[0] if whole else numbers)
        return constant if whole else editor.add("Gather", [constant, ids], f"{output}_{name}")

    if not stored.scheme.symmetric:
        points = of_rows("zero_point", stored.grid.zero_point.numpy())
        value = editor.add("Sub", [value, points], f"{output}_shifted")
    editor.add("Mul", [value, of_rows("scale", stored.grid.scale.numpy())], output)


def _table_values(editor: GraphEditor, found: Product) -> str:
    """Compute a table from its integers; ONNX Runtime does it once, when it loads the file."""
    from onnx import TensorProto

    stored, name = found.stored, f"{found.name}_table"
    if editor.has_node(name):
        return name
    rows, columns = stored.integers.shape
    whole = whole_numbers(editor, found, stored.integers.numpy())
    value = editor.add("Cast", [whole], f"{name}_float", to=TensorProto.FLOAT)

    def of_groups(numbers: Floats) -> Floats:
        """One number per row and group, or one for all."""
        return numbers.reshape(rows, -1, 1) if numbers.size > 1 else numbers.reshape(1, 1, 1)

    scale = of_groups(stored.grid.scale.numpy())
    groups = editor.constant(f"{name}_groups", np.array([rows, scale.shape[1], -1]))
    value = editor.add("Reshape", [value, groups], f"{name}_grouped")
    if not stored.scheme.symmetric:
        points = of_groups(stored.grid.zero_point.numpy()).astype(np.float32)
        value = editor.add("Sub", [value, editor.constant(f"{name}_zero_point", points)], f"{name}_shifted")
    half = stored.scheme.scale_dtype == torch.float16
    kept = editor.constant(f"{name}_scale", scale.astype(np.float16 if half else np.float32))
    factor = editor.add("Cast", [kept], f"{name}_factor", to=TensorProto.FLOAT)
    value = editor.add("Mul", [value, factor], f"{name}_scaled")
    shape = editor.constant(f"{name}_shape", np.array([rows, columns]))
    return editor.add("Reshape", [value, shape], name)


def _has_blocks(scheme: Scheme) -> bool:
    """Whether ONNX Runtime has an operator for rows of such groups."""
    size = scheme.group_size or 0
    return (
        scheme.per == "group"
        and width_of(scheme.bits) == 4
        and size >= _LEAST_BLOCK
        and not size & (size - 1)
    )


def _look_up_blocks(editor: GraphEditor, ids: str, output: str, found: Product) -> None:
    """Look up rows of four bits in groups with one operator, which is several times as fast as the parts of it."""
    from onnx import TensorProto

    stored, name = found.stored, found.name
    rows = len(stored.integers)
    # Numbers around zero are told with the zero point that the operator has by itself, 8. In bytes: there is an int4 of
    # ONNX too, with which the operator takes five times as long.
    integers = stored.integers.numpy() + (_MIDDLE if stored.scheme.symmetric else 0)
    table = editor.constant(f"{name}_blocks", packed_pairs(integers))
    numbers = stored.grid.scale.numpy().reshape(rows, -1)
    # Scales of groups are stored in float16; ONNX Runtime makes them wider once, when it loads the file.
    kept = editor.constant(f"{name}_block_scales", numbers.astype(np.float16))
    wide = f"{name}_block_factors"
    if not editor.has_node(wide):
        editor.add("Cast", [kept], wide, to=TensorProto.FLOAT)
    inputs = [table, ids, wide]
    if not stored.scheme.symmetric:
        points = packed_pairs(stored.grid.zero_point.numpy().reshape(rows, -1))
        inputs.append(editor.constant(f"{name}_block_zero_points", points))
    editor.add(
        *("GatherBlockQuantized", inputs, output),
        domain=MICROSOFT,
        bits=4,
        gather_axis=0,
        quantize_axis=1,
        block_size=stored.scheme.group_size,
    )


def _of_groups(editor: GraphEditor, found: Product, numbers: Floats, ids: str, name: str) -> str:
    """Look up the numbers of the groups of some rows, and give each column that of its group.

    By a product with zeros and ones: exact, and for ids of any shape.
    """
    from onnx import TensorProto

    rows, columns = found.stored.integers.shape
    # Scales of groups are stored in float16.
    constant = editor.constant(f"{name}_groups", numbers.reshape(rows, -1).astype(np.float16))
    looked_up = editor.add("Gather", [constant, ids], f"{name}_half")
    looked_up = editor.add("Cast", [looked_up], f"{name}_rows", to=TensorProto.FLOAT)
    groups = numbers.size // rows
    spread = np.repeat(np.eye(groups, dtype=np.float32), columns // groups, axis=1)
    return editor.add("MatMul", [looked_up, editor.constant(f"{name}_spread", spread)], name)
