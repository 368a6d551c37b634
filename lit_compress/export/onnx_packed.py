"""Integers of few bits in ONNX files: several in a byte, whatever the operator set knows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lit_compress.quantization.scheme import Scheme

if TYPE_CHECKING:
    from lit_compress.export.onnx_graph import GraphEditor
    from lit_compress.export.trained import Product


def width_of(bits: int) -> int:
    """Return how many bits of a byte an integer takes: 2, 4 or 8."""
    return next(width for width in (2, 4, 8) if bits <= width)


def packed_columns(integers: npt.NDArray[Any], bits: int) -> npt.NDArray[np.uint8]:
    """Return whole numbers as bytes that hold a column of each part of a matrix, the first part in the lowest bits.

    Args:
        integers: A matrix of whole numbers from 0 on.
        bits: Of each.

    Returns:
        As many rows, and a half or a quarter of the columns, rounded up.
    """
    width = width_of(bits)
    parts = 8 // width
    columns = -(-integers.shape[1] // parts)
    filled = np.pad(integers, ((0, 0), (0, columns * parts - integers.shape[1]))).astype(np.uint8)
    found = np.zeros((len(integers), columns), np.uint8)
    for number, part in enumerate(np.split(filled, parts, axis=1)):
        found |= part << (number * width)
    return found


def packed_pairs(integers: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Return whole numbers as bytes that hold two neighbouring columns of a matrix, the first in the low bits.

    Args:
        integers: A matrix of whole numbers from 0 to 15.

    Returns:
        As many rows, and half the columns, rounded up.
    """
    filled = np.pad(integers, ((0, 0), (0, integers.shape[1] % 2))).astype(np.uint8)
    return (filled[:, 0::2] | filled[:, 1::2] << 4).astype(np.uint8)


def unpacked_columns(editor: GraphEditor, packed: str, name: str, columns: int, scheme: Scheme) -> str:
    """Undo :func:`packed_columns` in a graph.

    Args:
        editor: The graph.
        packed: Name of the bytes, of any number of axes, the columns last.
        name: Name of the result.
        columns: How many there are.
        scheme: Its least integer is what the packed 0 stands for.

    Returns:
        The name of the integers: int8 where they lie around zero, else uint8.
    """
    from onnx import TensorProto

    width = width_of(scheme.bits)
    parts = []
    for number in range(8 // width):
        # What stands above leaves the byte at its upper end, what stands below at its lower end.
        up = _shifted(editor, packed, f"{name}_up{number}", 8 - (number + 1) * width, "LEFT")
        parts.append(_shifted(editor, up, f"{name}_part{number}", 8 - width, "RIGHT"))
    last = f"{name}_unsigned" if scheme.symmetric else name
    if columns % len(parts):
        every = editor.add("Concat", parts, f"{name}_parts", axis=-1)
        ends = [
            editor.constant(f"{name}_{word}", np.array([at])) for word, at in (("from", 0), ("to", columns))
        ]
        found = editor.add("Slice", [every, *ends, editor.constant(f"{name}_axis", np.array([-1]))], last)
    else:
        found = editor.add("Concat", parts, last, axis=-1)
    if not scheme.symmetric:
        return found
    found = editor.add("Cast", [found], f"{name}_wide", to=TensorProto.INT32)
    least = editor.constant(f"{name}_least", np.array(scheme.lowest, np.int32))
    found = editor.add("Add", [found, least], f"{name}_moved")
    return editor.add("Cast", [found], name, to=TensorProto.INT8)


def whole_numbers(editor: GraphEditor, found: Product, integers: npt.NDArray[Any]) -> str:
    """Add the integers of a matrix in int8 or uint8; those of few bits share bytes in the file."""
    scheme, name = found.stored.scheme, f"{found.name}_integers"
    if width_of(scheme.bits) == 8:
        return editor.constant(name, integers.astype(np.int8 if scheme.symmetric else np.uint8))
    if editor.has_node(name):
        return name
    packed = editor.constant(f"{found.name}_packed", packed_columns(integers - scheme.lowest, scheme.bits))
    return unpacked_columns(editor, packed, name, integers.shape[1], scheme)


def _shifted(editor: GraphEditor, value: str, name: str, bits: int, direction: str) -> str:
    if not bits:
        return value
    by = editor.constant(f"shift_by_{bits}", np.array(bits, np.uint8))
    return editor.add("BitShift", [value, by], name, direction=direction)
