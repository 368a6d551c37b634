"""Quantization of a finished model, without training: nearest values, GPTQ or AWQ, with or without activations."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from lit_compress.pruning.masks import refuse_tied
from lit_compress.quantization.awq import awq, outputs_first
from lit_compress.quantization.calibration import Batches, in_order, read_by
from lit_compress.quantization.choice import choose
from lit_compress.quantization.fake_weights import output_axis
from lit_compress.quantization.fitted import fitted_grid
from lit_compress.quantization.gptq import gptq
from lit_compress.quantization.grid import Grid, grid_of, range_of, rows_of
from lit_compress.quantization.inputs import (
    DYNAMIC,
    InputQuantizer,
    apply_input_quantizers,
    fix_ranges,
    input_quantizers_of,
)
from lit_compress.quantization.packed import apply_packed_weights, packed_of
from lit_compress.quantization.scheme import Scheme
from lit_compress.quantization.smooth import smooth_activations
from lit_compress.quantization.stored import refuse_few_bits

#: How weights are rounded.
METHODS = ("nearest", "gptq", "awq")


@torch.no_grad()
def quantize_model(
    model: PreTrainedModel,
    weights: Scheme | Mapping[str, Scheme],
    embeddings: Scheme | None = None,
    activations: Scheme | None = None,
    ranges: str = "mse",
    method: str = "nearest",
    batches: Batches = (),
    include: Sequence[str] | None = None,
    exclude: Sequence[str] = (),
    damp: float = 0.01,
    tell: Callable[[str, float], None] | None = None,
    smooth: float | None = None,
) -> None:
    """Round the weights of a model, and what they read, in place.

    Args:
        model: A finished model, in eval mode; changed in place.
        weights: How projections are rounded; or the scheme of every matrix by its name, for few bits: then nothing else
            is rounded, and outer values are cut off where that brings the others nearer.
        embeddings: How embeddings are; not at all where ``None``.
        activations: How the inputs of projections are; not at all where ``None``.
        ranges: How their ranges are found, see :class:`~lit_compress.quantization.inputs.InputQuantizer`.
        method: ``nearest``, ``gptq`` (arXiv:2210.17323) or ``awq`` (arXiv:2306.00978).
        batches: Real texts, for ``gptq``, for ``awq`` and for activations with fixed ranges.
        include: Parts of the names of projections and embeddings to round; all where ``None``.
        exclude: Parts of the names of those to leave as they are.
        damp: See :func:`~lit_compress.quantization.gptq.gptq`.
        tell: Told what is done, and which share of it.
        smooth: How much of the outliers of activations the weights take before both are rounded, see
            :func:`~lit_compress.quantization.smooth.smooth_activations`; where ``None`` nothing is moved.

    Raises:
        ValueError: The settings do not fit the model or each other, or there are no texts where some are needed.
    """
    if method not in METHODS:
        raise ValueError(f"Expected a method among {', '.join(METHODS)} but got {method!r}.")
    refuse_few_bits(model)
    schemes, projections = _schemes(model, weights, embeddings, include, exclude)
    refuse_tied(model, list(schemes))
    _refuse_no_numbers(model, schemes)
    cuts = not isinstance(weights, Scheme)
    tell = tell or (lambda text, share: None)
    grids: dict[str, tuple[Scheme, Grid]] = {}
    if smooth is not None:
        _refuse_to_smooth(method, activations)
        smooth_activations(
            model, projections, smooth, batches, lambda share: tell("looking for outliers", share)
        )

    def read(share: float) -> None:
        tell("reading texts block by block", share)

    if method == "gptq":
        for found in read_by(model, in_order(model, projections), batches, read):
            for name, statistics in found.items():
                module: Any = model.get_submodule(name)
                values = outputs_first(module)
                scheme = schemes[f"{name}.weight"]
                first = _grid(model, name, scheme, cuts)
                rounded_values, grid = gptq(values, statistics.hessian(), scheme, damp, grid=first)
                values.copy_(rounded_values)
                grids[f"{name}.weight"] = scheme, grid
    elif method == "awq":
        if not isinstance(weights, Scheme):
            raise ValueError("Expected one scheme for awq but got one per matrix; take nearest or gptq.")
        scaled = awq(model, projections, weights, batches, read)
        grids |= {f"{name}.weight": (weights, grid) for name, grid in scaled.items()}
    for weight, scheme in schemes.items():
        if weight not in grids:
            grids[weight] = scheme, _grid(model, weight.removesuffix(".weight"), scheme, cuts)
    _store(model, grids)
    if activations is not None:
        _observe(model, projections, activations, ranges, batches, tell)


def _refuse_no_numbers(model: nn.Module, names: Iterable[str]) -> None:
    for name in names:
        if not bool(model.get_parameter(name).isfinite().all()):
            raise ValueError(
                f"Expected finite weights but {name} holds infinities or NaN; train the model anew, or leave it out "
                "with exclude."
            )


def _refuse_to_smooth(method: str, activations: Scheme | None) -> None:
    if activations is None:
        raise ValueError(
            "Expected activations that are rounded for smooth, which moves their outliers into the weights, but they "
            "are not; choose static or dynamic activations, or leave smooth out."
        )
    if method == "awq":
        raise ValueError(
            "Expected smooth with nearest or gptq but got awq, which chooses such scales itself."
        )


def _schemes(
    model: nn.Module,
    weights: Scheme | Mapping[str, Scheme],
    embeddings: Scheme | None,
    include: Sequence[str] | None,
    exclude: Sequence[str],
) -> tuple[dict[str, Scheme], list[str]]:
    """Return the scheme of every matrix by its name, and the projections among their modules."""
    projections, tables = choose(model, include, exclude)
    if not isinstance(weights, Scheme):
        return dict(weights), [name for name in projections if f"{name}.weight" in weights]
    schemes = {f"{name}.weight": weights for name in projections}
    if embeddings is not None:
        schemes |= {f"{name}.weight": embeddings for name in tables}
    return schemes, projections


def _grid(model: nn.Module, name: str, scheme: Scheme, cuts: bool) -> Grid:
    module: Any = model.get_submodule(name)
    rows = rows_of(module.weight.detach().float(), scheme, output_axis(module))
    return fitted_grid(rows, scheme)[0] if cuts else grid_of(*range_of(rows, scheme), scheme)


def _store(model: nn.Module, grids: dict[str, tuple[Scheme, Grid]]) -> None:
    weights = {name: model.get_parameter(name).detach().clone() for name in grids}
    apply_packed_weights(model, {name: asdict(scheme) for name, (scheme, _) in grids.items()})
    for name, packed in packed_of(model):
        packed.fill(weights[name], grids[name][1])


def _observe(
    model: PreTrainedModel,
    projections: list[str],
    scheme: Scheme,
    ranges: str,
    batches: Batches,
    tell: Callable[[str, float], None],
) -> None:
    """Find the ranges of activations in the model whose weights are rounded already."""
    if ranges != DYNAMIC and not batches:
        raise ValueError("Expected texts to find the ranges of activations with but got none; name the data.")
    apply_input_quantizers(model, projections, asdict(scheme), ranges)
    if ranges != DYNAMIC:
        for _, quantizer in input_quantizers_of(model):
            quantizer.train()
        for number, batch in enumerate(batches):
            model(**batch)
            tell("finding the ranges of activations", (number + 1) / len(batches))
        for name, quantizer in input_quantizers_of(model):
            _check_range(name, quantizer)
    fix_ranges(model)


def _check_range(name: str, quantizer: InputQuantizer) -> None:
    observer = quantizer.observer
    if observer is None or not observer.has_seen or bool(observer.skipped):
        raise ValueError(
            f"Expected finite values before {name} on the texts but there were none, or infinities or NaN; check "
            "the model and the texts, or leave it out with exclude."
        )
