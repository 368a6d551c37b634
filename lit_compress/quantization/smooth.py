"""SmoothQuant: weights take outliers of activations before both are rounded (Xiao et al., arXiv:2211.10438)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from lit_compress.quantization.awq import outputs_first
from lit_compress.quantization.awq_folds import Fold, apply_fold, folds_of, within
from lit_compress.quantization.calibration import Batches


@torch.no_grad()
def smooth_activations(
    model: PreTrainedModel,
    projections: Sequence[str],
    alpha: float,
    batches: Batches,
    tell: Callable[[float], None] | None = None,
) -> list[Fold]:
    """Divide activations by a scale per channel, and multiply the weights that read them with it.

    The scale of channel ``j`` is ``max|X_j|**alpha / max|W_j|**(1 - alpha)`` (equation 4). It is undone in what the
    activations come out of, where that is an identity, see
    :func:`~lit_compress.quantization.awq_folds.folds_of`; so the model computes the same as before. Behind the norms
    of a post-norm model (BERT) the residual stream goes on: there only the values of attentions are smoothed.

    Args:
        model: A model in eval mode; changed in place.
        projections: Names of the projections that will be rounded, with what they read.
        alpha: How much of the outliers the weights take: 0 nothing but their own, 1 all.
        batches: Real texts.
        tell: Told which share of the texts was read.

    Returns:
        Where activations were divided.

    Raises:
        ValueError: ``alpha`` is out of range, there are no texts or no finite ones, or nothing can be smoothed.
    """
    if not 0.0 <= alpha <= 1.0:
        raise ValueError(
            f"Expected smooth (the share of outliers that weights take) in [0, 1] but got {alpha}."
        )
    if not batches:
        raise ValueError("Expected texts to find outliers with but got none; name the data.")
    folds = within(folds_of(model, batches[0]), projections)
    if not folds:
        raise ValueError(
            "Expected projections to round whose inputs can be divided by a scale in what they come out of but "
            f"{type(model).__name__} has none among them; leave smooth out."
        )
    largest = _largest(model, [fold.readers[0] for fold in folds], batches, tell)
    for fold in folds:
        apply_fold(model, fold, smoothing_scales(model, fold, largest[fold.readers[0]], alpha))
    return folds


def smoothing_scales(model: nn.Module, fold: Fold, largest: Tensor, alpha: float) -> Tensor:
    """Return the scale of every output of the source of a fold.

    Args:
        model: The model before the fold is applied.
        fold: The projections, and what the scales are undone in.
        largest: Largest magnitude of each input of the projections.
        alpha: See :func:`smooth_activations`.
    """
    columns = [outputs_first(model.get_submodule(name)).abs().amax(0).double() for name in fold.readers]
    weights = _most(fold, torch.stack(columns).amax(0))
    inputs = _most(fold, largest)
    scales = inputs.pow(alpha) / weights.pow(1 - alpha)
    # A channel that is always zero, or that nobody reads, has no outliers.
    return torch.where((inputs > 0) & (weights > 0), scales, 1.0).clamp(min=1e-5)


def _most(fold: Fold, magnitudes: Tensor) -> Tensor:
    """Return the magnitudes of inputs as those of the outputs of the source: the largest of those that it feeds."""
    if fold.head is None or fold.width is None:
        return magnitudes
    return magnitudes.view(fold.width // fold.head, -1, fold.head).amax(1).reshape(-1)


def _largest(
    model: PreTrainedModel, names: Iterable[str], batches: Batches, tell: Callable[[float], None] | None
) -> dict[str, Tensor]:
    """Return the largest magnitude of each input of modules over all tokens that are no padding."""
    found: dict[str, Tensor] = {}
    mask: list[Tensor | None] = [None]

    def hook_of(name: str) -> Any:
        def hook(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            values, keep = inputs[0], mask[0]
            fits = keep is not None and values.shape[:-1] == keep.shape
            rows = values[keep.bool()] if fits and keep is not None else values.flatten(0, -2)
            largest = rows.abs().amax(0).double()
            found[name] = torch.maximum(found[name], largest) if name in found else largest

        return hook

    hooks = [model.get_submodule(name).register_forward_pre_hook(hook_of(name)) for name in names]
    try:
        for number, batch in enumerate(batches):
            mask[0] = batch.get("attention_mask")
            model(**batch)
            if tell is not None:
                tell((number + 1) / len(batches))
    finally:
        for hook in hooks:
            hook.remove()
    for name, largest in found.items():
        if not bool(largest.isfinite().all()):
            raise ValueError(
                f"Expected finite values before {name} on the texts but there were infinities or NaN; check the model "
                "and the texts."
            )
    return found
