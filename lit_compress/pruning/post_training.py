"""Pruning of a finished model, without training: SparseGPT, Wanda, or the smallest weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from lit_compress.models.anatomy import dissect
from lit_compress.pruning.counting import encoder_matrices
from lit_compress.pruning.pattern import matching
from lit_compress.pruning.sparsegpt import check_share, lowest, sparsegpt, wanda
from lit_compress.quantization.awq import outputs_first
from lit_compress.quantization.calibration import Batches, in_order, read_by
from lit_compress.quantization.hessian import InputStatistics
from lit_compress.quantization.stored import refuse_few_bits

#: How weights are chosen.
METHODS = ("sparsegpt", "wanda", "magnitude")


@torch.no_grad()
def prune_model(
    model: PreTrainedModel,
    method: str,
    sparsity: float | None = None,
    pattern: tuple[int, int] | None = None,
    batches: Batches = (),
    include: Sequence[str] | None = None,
    exclude: Sequence[str] = (),
    tell: Callable[[str, float], None] | None = None,
) -> None:
    """Set weights of the blocks to zero, in place, block by block with the blocks before pruned already.

    Embeddings, poolers and heads stay: they are a small part of the work of a model and the first that hurts.

    Args:
        model: A finished model, in eval mode; changed in place.
        method: ``sparsegpt`` (arXiv:2301.00774), whose other weights make up for what goes; ``wanda``
            (arXiv:2306.11695), size times norm of the input, output by output; or ``magnitude``, size alone, over
            the whole of each matrix.
        sparsity: Share of each matrix to remove.
        pattern: Instead of it ``(n, m)``: n of m consecutive inputs of each output stay.
        batches: Real texts, for all but ``magnitude``.
        include: Parts of the names of projections to prune; all of the blocks where ``None``.
        exclude: Parts of the names of those to leave as they are.
        tell: Told what is done, and which share of it.

    Raises:
        ValueError: The settings do not fit the model or each other, or there are no texts where some are needed.
    """
    if method not in METHODS:
        raise ValueError(f"Expected a method among {', '.join(METHODS)} but got {method!r}.")
    refuse_few_bits(
        model,
        "whose weights are not rounded yet",
        "prune the model that it was made from, then quantize: zeros stay zero",
    )
    names = _chosen(model, include, exclude)
    for name in names:
        try:
            check_share(outputs_first(model.get_submodule(name)), sparsity, pattern)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
    if method == "magnitude":
        for name in names:
            weight = outputs_first(model.get_submodule(name))
            weight.copy_(_smallest_gone(weight, sparsity, pattern))
        return

    def read(share: float) -> None:
        if tell is not None:
            tell("reading texts block by block", share)

    for found in read_by(model, in_order(model, names), batches, read):
        for name, statistics in found.items():
            weight = outputs_first(model.get_submodule(name))
            weight.copy_(_pruned(method, weight, statistics, sparsity, pattern))


def _chosen(model: PreTrainedModel, include: Sequence[str] | None, exclude: Sequence[str]) -> list[str]:
    names = [name.removesuffix(".weight") for name in encoder_matrices(model, dissect(model))]
    if include is not None:
        names = matching(names, include, "include")
    gone = matching(names, exclude, "exclude")
    left = [name for name in names if name not in gone]
    if not left:
        raise ValueError("Expected projections to prune but include and exclude leave none; leave them out.")
    return left


def _pruned(
    method: str,
    weight: Tensor,
    statistics: InputStatistics,
    sparsity: float | None,
    pattern: tuple[int, int] | None,
) -> Tensor:
    # The Hessian first: it refuses values that are no numbers.
    hessian = statistics.hessian()
    if method == "sparsegpt":
        return sparsegpt(weight, hessian, sparsity, pattern)
    return wanda(weight, statistics.norms(), sparsity, pattern)


def _smallest_gone(weight: Tensor, sparsity: float | None, pattern: tuple[int, int] | None) -> Tensor:
    if pattern is not None:
        return wanda(weight, torch.ones(weight.shape[1], device=weight.device), pattern=pattern)
    remove = lowest(weight.abs().reshape(1, -1), sparsity or 0.0)
    return weight.masked_fill(remove.view(weight.shape), 0)
