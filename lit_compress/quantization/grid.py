"""The arithmetic of linear quantization, on matrices whose rows share a scale each."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from lit_compress.quantization.scheme import Scheme

# A row of zeros is divided by this: small for a step, and representable in the type of the scales.
_TINY = {torch.float32: 1e-30, torch.float16: 6e-8}


class Grid(NamedTuple):
    """Where the representable numbers lie; row by row of what is quantized.

    Args:
        scale: Distance of neighbours, ``(rows, 1)``, positive, in float32 or float64.
        zero_point: The integer that stands for zero, ``(rows, 1)``, whole numbers of the type of the scale.
    """

    scale: Tensor
    zero_point: Tensor


def rows_of(values: Tensor, scheme: Scheme, output_axis: int = 0) -> Tensor:
    """Return a tensor as a matrix whose rows share a scale each.

    Args:
        values: A tensor of any shape for ``per: tensor``; else a matrix, or a kernel with the outputs first.
        scheme: Says what shares a scale.
        output_axis: Axis of a matrix along which its outputs lie: 0 in ``Linear`` and ``Embedding``, 1 in the
            ``Conv1D`` of GPT-2.

    Returns:
        ``(rows, columns)``: one row for a tensor, one per group of outputs or per output, or the groups of the first
        output, of the second, ….

    Raises:
        ValueError: Groups do not divide the inputs, or the outputs.
    """
    if scheme.per == "tensor":
        return values.reshape(1, -1)
    outputs = values.transpose(0, output_axis).reshape(values.shape[output_axis], -1)
    if scheme.group_size is None:
        return outputs
    axis, what = (0, "outputs") if scheme.per == "rows" else (1, "inputs of every output")
    if outputs.shape[axis] % scheme.group_size:
        raise ValueError(
            f"Expected a group_size that divides the {outputs.shape[axis]} {what} but got {scheme.group_size}; take "
            "a divisor, or leave the matrix out with exclude."
        )
    if scheme.per == "rows":
        return outputs.reshape(len(outputs) // scheme.group_size, -1)
    return outputs.reshape(-1, scheme.group_size)


def from_rows(rows: Tensor, like: Tensor, scheme: Scheme, output_axis: int = 0) -> Tensor:
    """Undo :func:`rows_of`.

    Args:
        rows: The matrix.
        like: A tensor of the shape to return.
        scheme: As in :func:`rows_of`.
        output_axis: As in :func:`rows_of`.
    """
    if scheme.per == "tensor" or output_axis == 0:
        return rows.reshape(like.shape)
    turned = like.transpose(0, output_axis).shape
    return rows.reshape(turned).transpose(0, output_axis)


def grid_of(low: Tensor, high: Tensor, scheme: Scheme) -> Grid:
    """Return the grid that covers a range of values, and zero.

    Args:
        low: Least value of every row, ``(rows, 1)``.
        high: Largest value of every row, ``(rows, 1)``.
        scheme: Integers to cover them with.
    """
    low, high = low.clamp(max=0), high.clamp(min=0)
    if scheme.symmetric:
        scale = storable(torch.maximum(-low, high) / scheme.highest, scheme)
        return Grid(scale, torch.zeros_like(scale))
    scale = storable((high - low) / (scheme.highest - scheme.lowest), scheme)
    # A scale as it can be stored may be a little small for the range; zero stays one of the integers all the same.
    return Grid(scale, (scheme.lowest - low / scale).round().clamp(scheme.lowest, scheme.highest))


def per_channel(grid: Grid, scheme: Scheme) -> tuple[Grid, Scheme]:
    """Return a grid and a scheme without groups of outputs: each output has the numbers of its group.

    Args:
        grid: Of rows, see :func:`rows_of`.
        scheme: What shares a scale.

    Returns:
        The same values, ``per: channel``, where the scheme is ``per: rows``; else what was given.
    """
    if scheme.per != "rows":
        return grid, scheme
    size = scheme.group_size or 1
    return (
        Grid(*(part.repeat_interleave(size, 0) for part in grid)),
        replace(scheme, per="channel", group_size=None),
    )


def storable(scale: Tensor, scheme: Scheme) -> Tensor:
    """Return scales that come back from where they are stored as they are, none of them zero or smaller."""
    scale = scale.clamp(min=_TINY[scheme.scale_dtype])
    if scheme.scale_dtype is not torch.float16:
        return scale
    nearest = scale.half()
    # Upwards: tiny scales have few digits in float16, and a range is to stay covered.
    above = (nearest.view(torch.int16) + 1).view(torch.float16)
    return torch.where(nearest.to(scale.dtype) < scale, above, nearest).to(scale.dtype)


def range_of(rows: Tensor, scheme: Scheme) -> tuple[Tensor, Tensor]:
    """Return the least and the largest value of every row, ``(rows, 1)`` each."""
    if scheme.symmetric:  # a third of the time of both ends
        largest = rows.abs().amax(1, keepdim=True)
        return -largest, largest
    low, high = torch.aminmax(rows, dim=1, keepdim=True)
    return low, high


def quantize(rows: Tensor, grid: Grid, scheme: Scheme) -> Tensor:
    """Return the integers of some values, as whole numbers of the values' type; halves go to the even neighbour.

    Args:
        rows: ``(rows, columns)``.
        grid: Where the representable values lie.
        scheme: Cuts off at its ends.
    """
    return (rows / grid.scale).round_().add_(grid.zero_point).clamp_(scheme.lowest, scheme.highest)


def dequantize(integers: Tensor, grid: Grid) -> Tensor:
    """Return the values of some integers.

    Args:
        integers: Whole numbers of any type, ``(rows, columns)``.
        grid: Where the representable values lie.
    """
    return (integers - grid.zero_point) * grid.scale
