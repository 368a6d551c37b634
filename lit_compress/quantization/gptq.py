"""GPTQ: rounding one column after another, and letting the others make up for it (Frantar et al., arXiv:2210.17323)."""

from __future__ import annotations

import torch
from torch import Tensor

from lit_compress.quantization.grid import Grid, dequantize, grid_of, quantize, range_of, rows_of
from lit_compress.quantization.hessian import inverse_factor
from lit_compress.quantization.scheme import Scheme

# Columns between two updates of all that is to the right: products of matrices are faster than many small ones.
_BLOCK = 128


def gptq(
    weight: Tensor,
    hessian: Tensor,
    scheme: Scheme,
    damp: float = 0.01,
    ordered: bool = True,
    grid: Grid | None = None,
) -> tuple[Tensor, Grid]:
    """Round a matrix so that its outputs stay near, given what it reads.

    Weights that are exactly zero stay so: they were pruned, and what is left of the matrix makes up for it again.

    Args:
        weight: ``(outputs, inputs)``; not changed.
        hessian: Of its inputs, see :class:`~lit_compress.quantization.hessian.InputStatistics`.
        scheme: How to round; grids cover the weights as they are before, also those of groups.
        damp: What is added to the diagonal of the Hessian, as a share of its mean.
        ordered: Begin with the inputs that matter most, while there are others that can make up for their errors.
        grid: The grid of the rows; the one that covers them where ``None``.

    Returns:
        Values on the grid, ``(outputs, inputs)``, and the grid, see
        :func:`~lit_compress.quantization.grid.rows_of`.

    Raises:
        ValueError: The Hessian cannot be inverted, or groups do not divide the inputs.
    """
    work = weight.detach().to(hessian.dtype).clone()
    outputs, inputs = work.shape
    if grid is None:
        grid = grid_of(*range_of(rows_of(weight.detach().float(), scheme), scheme), scheme)
    scale, points = (_per_weight(part, outputs, inputs).to(work.dtype) for part in grid)
    order = (
        hessian.diagonal().argsort(descending=True) if ordered else torch.arange(inputs, device=work.device)
    )
    work, scale, points = work[:, order], scale[:, order], points[:, order]
    pruned = work == 0
    factor, dead = inverse_factor(hessian[order][:, order], damp)
    work[:, dead] = 0
    found = torch.zeros_like(work)
    for start in range(0, inputs, _BLOCK):
        end = min(start + _BLOCK, inputs)
        errors = torch.zeros(outputs, end - start, dtype=work.dtype, device=work.device)
        for column in range(start, end):
            own = Grid(scale[:, column, None], points[:, column, None])
            value = work[:, column, None]
            rounded = dequantize(quantize(value, own, scheme), own)
            found[:, column, None] = rounded.masked_fill_(pruned[:, column, None], 0)
            error = (value - found[:, column, None]) / factor[column, column]
            work[:, column:end] -= error * factor[column, column:end]
            errors[:, column - start, None] = error
        work[:, end:] -= errors @ factor[start:end, end:]
    back = order.argsort()
    # Computed anew in the precision of the grid: what is stored are integers and the grid.
    rows = rows_of(found[:, back].to(grid.scale.dtype), scheme)
    exact = dequantize(quantize(rows, grid, scheme), grid)
    return exact.reshape(outputs, inputs).to(weight.dtype), grid


def _per_weight(rows: Tensor, outputs: int, inputs: int) -> Tensor:
    """Return a number per row as one per weight, ``(outputs, inputs)``."""
    if len(rows) <= outputs:  # one for the tensor, per group of outputs, or per output
        return rows.repeat_interleave(outputs // len(rows), 0).expand(outputs, inputs)
    groups = len(rows) // outputs
    return rows.view(outputs, groups).repeat_interleave(inputs // groups, 1)
