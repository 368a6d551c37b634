"""Rounding with a gradient: the straight-through estimator, and steps that are learned.

Written out in few passes over the values: torch's ``fake_quantize_per_channel_affine`` takes seven times as long on a
CPU.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from lit_compress.quantization.grid import Grid
from lit_compress.quantization.scheme import Scheme


def fake_quantize(rows: Tensor, grid: Grid, scheme: Scheme) -> Tensor:
    """Return values as a quantized model has them; the gradient passes where nothing is cut off (arXiv:1308.3432).

    Args:
        rows: ``(rows, columns)``.
        grid: Where the representable values lie; it gets no gradient.
        scheme: Cuts off at its ends.

    Returns:
        Values on the grid, of the shape and the type of ``rows``.
    """
    return _Straight.apply(rows, grid.scale, grid.zero_point, scheme.lowest, scheme.highest)


def fake_quantize_learned(rows: Tensor, step: Tensor, scheme: Scheme) -> Tensor:
    """Return values as a quantized model has them, with a gradient for the step of the grid (LSQ, arXiv:1902.08153).

    The gradient of the step is ``round(x / s) - x / s`` inside of the range and the end of the range outside, times
    ``1 / sqrt(n q)``, with ``n`` values that share the step and the largest integer ``q``.

    Args:
        rows: ``(rows, columns)``.
        step: Distance of neighbours, ``(rows, 1)``, positive.
        scheme: A symmetric scheme.

    Returns:
        Values on the grid, of the shape and the type of ``rows``.
    """
    return _Learned.apply(rows, step, scheme.lowest, scheme.highest)


def first_step(rows: Tensor, scheme: Scheme) -> Tensor:
    """Return the steps ``(rows, 1)`` that learning begins with: ``2 mean|x| / sqrt(q)`` (arXiv:1902.08153)."""
    return (2 * rows.abs().mean(1, keepdim=True) / math.sqrt(scheme.highest)).clamp(min=1e-8)


class _Straight(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, scale: Tensor, zero_point: Tensor, lowest: int, highest: int
    ) -> Tensor:
        rounded = (rows.to(scale.dtype) / scale).round_()
        kept = rounded.clamp(lowest - zero_point, highest - zero_point)
        ctx.save_for_backward(kept == rounded if ctx.needs_input_grad[0] else None)
        return kept.mul_(scale).to(rows.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (inside,) = ctx.saved_tensors
        return None if inside is None else _where(inside, gradients[0]), None, None, None, None


class _Learned(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, step: Tensor, lowest: int, highest: int) -> Tensor:
        ratio = rows.to(step.dtype) / step
        kept = ratio.round().clamp_(lowest, highest)
        ctx.save_for_backward(ratio, kept)
        ctx.lowest, ctx.highest = lowest, highest
        return (kept * step).to(rows.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        ratio, kept = ctx.saved_tensors
        inside = (ratio >= ctx.lowest) & (ratio <= ctx.highest)
        size = 1 / math.sqrt(ratio.shape[1] * ctx.highest)
        slope = torch.where(inside, kept - ratio, kept)
        to_step = (gradients[0].to(slope.dtype) * slope).sum(1, keepdim=True) * size
        return _where(inside, gradients[0]), to_step, None, None


def _where(inside: Tensor, gradient: Tensor) -> Tensor:
    # The same bits as numbers: products with booleans take four times as long on a CPU.
    return gradient * inside.view(torch.uint8)
