"""AWQ: weights that meet large activations are scaled up before they are rounded (Lin et al., arXiv:2306.00978)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from lit_compress.models.anatomy import dissect
from lit_compress.models.low_rank import ends
from lit_compress.quantization.awq_folds import Fold, apply_fold, folds_of, within
from lit_compress.quantization.calibration import Batches, in_order, read_by
from lit_compress.quantization.fake_weights import output_axis
from lit_compress.quantization.grid import Grid, dequantize, grid_of, quantize, range_of, rows_of
from lit_compress.quantization.hessian import InputStatistics
from lit_compress.quantization.scheme import Scheme

# As in the published code exponents are 0, 0.05, …, 0.95; ranges are cut to 1, 0.975, …, 0.525 of what they cover, in
# steps half as large as there.
_EXPONENTS = tuple(step / 20 for step in range(20))
_CUTS = tuple(1 - step / 40 for step in range(20))


@torch.no_grad()
def awq(
    model: PreTrainedModel,
    projections: Sequence[str],
    scheme: Scheme,
    batches: Batches,
    tell: Callable[[float], None] | None = None,
) -> dict[str, Grid]:
    """Scale the weights of a model for rounding, and find grids that cut off what is better cut off.

    A scale per input is undone in what the input comes out of, where that is an identity, see
    :func:`~lit_compress.quantization.awq_folds.folds_of`; so the model computes the same as before until its weights
    are rounded. In a post-norm model (BERT) only the output projections of the attentions have such an input; for
    the other projections it is the search of cuts alone.

    Args:
        model: A model in eval mode; scaled in place, and with the weights that were asked for rounded.
        projections: Names of the projections to round.
        scheme: How to round.
        batches: Real texts.
        tell: Told which share of the texts was read, over all groups of projections.

    Returns:
        The grids, by the names of the projections.

    Raises:
        ValueError: There are no texts, they contain no numbers, or the scheme does not fit a projection.
    """
    groups = in_order(model, projections)
    found: dict[str, Grid] = {}
    folds: list[Fold] | None = None
    uncut = _compared_inside(model)
    for statistics in read_by(model, groups, batches, tell):
        folds = folds_of(model, batches[0]) if folds is None else folds
        scaled = {name: seen.hessian() for name, seen in statistics.items()}
        for fold in within(folds, statistics):
            scales = best_scales(model, fold, statistics[fold.readers[0]], scheme)
            apply_fold(model, fold, scales)
            for name in fold.readers:
                factors = fold.repeated(scales, len(scaled[name]))
                scaled[name] = scaled[name] / torch.outer(factors, factors)
        for name, hessian in scaled.items():
            weight = outputs_first(model.get_submodule(name))
            grid = _covering(weight, scheme) if name in uncut else best_cuts(weight, hessian, scheme)
            weight.copy_(_rounded(weight, grid, scheme))
            found[name] = grid
    return found


def best_scales(model: nn.Module, fold: Fold, statistics: InputStatistics, scheme: Scheme) -> Tensor:
    """Return the scales with which the outputs of the rounded projections are nearest to those of the model.

    They are ``mean|x|**alpha`` per input, with the best of 20 ``alpha``; with the first, 0, they are 1.

    Args:
        model: The model before the fold is applied.
        fold: The projections, and what the scales are undone in.
        statistics: What the projections read.
        scheme: How they are rounded.

    Returns:
        One per output of the source of the fold, in float64.
    """
    hessian, inputs = statistics.hessian().float(), len(statistics.hessian())
    sizes = fold.shared(statistics.magnitudes())
    weights = [outputs_first(model.get_submodule(name)).float() for name in fold.readers]
    best, least = torch.ones_like(sizes), float("inf")
    for exponent in _EXPONENTS:
        scales = sizes.pow(exponent).clamp(min=1e-4)
        scales = scales / (scales.max() * scales.min()).sqrt()
        factors = fold.repeated(scales, inputs).float()
        error = 0.0
        for weight in weights:
            wide = weight * factors
            difference = _rounded(wide, _covering(wide, scheme), scheme) / factors - weight
            error += float(output_errors(difference, hessian).double().sum())
        if error < least:
            best, least = scales, error
    return best


def best_cuts(weight: Tensor, hessian: Tensor, scheme: Scheme) -> Grid:
    """Return the grid whose range is cut off where that brings the outputs nearer.

    Each row of the grid is chosen by itself, with the inputs of its group alone. Where the cuts of the groups do not
    fit together the output keeps the full ranges.

    Args:
        weight: ``(outputs, inputs)``.
        hessian: Of its inputs.
        scheme: How it is rounded.
    """
    rows, full = rows_of(weight.float(), scheme), _covering(weight, scheme)
    low, high = range_of(rows, scheme)
    best, least = full, torch.full((len(rows),), float("inf"), device=rows.device)
    for cut in _CUTS:
        grid = grid_of(low * cut, high * cut, scheme)
        errors = _errors_per_row(dequantize(quantize(rows, grid, scheme), grid) - rows, weight, hessian)
        better = errors < least
        least = torch.where(better, errors, least)
        best = _chosen(better[:, None], grid, best)
    kept = [_rounded(weight, grid, scheme) - weight for grid in (best, full)]
    worse = torch.sub(*(output_errors(difference.float(), hessian.float()) for difference in kept)) > 0
    if len(full.scale) < len(weight):  # outputs that share a range
        return _chosen(worse.any().expand(len(full.scale), 1), full, best)
    return _chosen(worse.repeat_interleave(len(full.scale) // len(weight))[:, None], full, best)


def _errors_per_row(difference: Tensor, weight: Tensor, hessian: Tensor) -> Tensor:
    """Return the squared error of the outputs that each row of a grid makes by itself."""
    outputs, inputs = weight.shape
    matrix = hessian.float()
    size = difference.shape[1]
    if size >= inputs:  # a row holds whole outputs
        return output_errors(difference.reshape(-1, inputs), matrix).view(len(difference), -1).sum(1)
    blocks = matrix.view(inputs // size, size, inputs // size, size).diagonal(dim1=0, dim2=2)
    parts = difference.view(outputs, -1, size)
    return torch.einsum("ogi,ijg,ogj->og", parts, blocks, parts).reshape(-1)


def output_errors(difference: Tensor, hessian: Tensor) -> Tensor:
    """Return the mean squared error of each output, times two, for a difference ``(outputs, inputs)`` of weights."""
    return ((difference @ hessian) * difference).sum(1)


def _chosen(first: Tensor, one: Grid, other: Grid) -> Grid:
    return Grid(*(torch.where(first, a, b) for a, b in zip(one, other, strict=True)))


def _covering(weight: Tensor, scheme: Scheme) -> Grid:
    return grid_of(*range_of(rows_of(weight.float(), scheme), scheme), scheme)


def _rounded(weight: Tensor, grid: Grid, scheme: Scheme) -> Tensor:
    rows = rows_of(weight.to(grid.scale.dtype), scheme)
    return dequantize(quantize(rows, grid, scheme), grid).reshape(weight.shape).to(weight.dtype)


def outputs_first(module: nn.Module) -> Tensor:
    """Return the weight of a projection as ``(outputs, inputs)``, sharing its memory."""
    weight: Any = module.weight
    return weight.data if output_axis(module) == 0 else weight.data.t()


def _compared_inside(model: PreTrainedModel) -> set[str]:
    """Return the projections to queries and keys: their product magnifies errors, the published code cuts none."""
    attentions = [attention for block in dissect(model).blocks for attention in block.attentions]
    stretches = [stretch.module for attention in attentions for stretch in attention.inputs[:2]]
    return {end for path in stretches for end in ends(model.get_submodule(path), path)}
