"""Factorised linear layers: ``W = P Q`` from a singular value decomposition, pruned by their rank.

Wang et al. 2020, Structured Pruning of Large Language Models (FLOP), arXiv:1910.04732.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from lit_compress.models.anatomy import dissect
from lit_compress.models.anatomy.family import projection_axes, replace
from lit_compress.models.low_rank import LowRankLinear
from lit_compress.models.transforms import record, rewrite
from lit_compress.pruning.cutting import cut_slots
from lit_compress.pruning.gates import gates_of
from lit_compress.pruning.groups import find_groups, projections

#: Ranks to start from: ``full`` computes exactly what the matrix does, ``equal`` has as many weights as the matrix.
RANKS = ("full", "equal")
_NAME = "low_rank"


def apply_low_rank(model: PreTrainedModel, ranks: Mapping[str, int], start: str = "svd") -> None:
    """Replace linear layers by the product of two smaller ones.

    Args:
        model: A transformer of a supported family; changed in place, once.
        ranks: Inner dimension by the path of the layer.
        start: ``svd``: the best approximation of the layer; ``zeros``: nothing, because weights are loaded later.

    Raises:
        ValueError: A rank is impossible, the layer is none, or there are gates, masks or rounding on it already.
    """
    ranks = {path: int(rank) for path, rank in ranks.items()}
    _refuse_covered(model, ranks)
    if not record(model, _NAME, {"ranks": ranks, "start": start}):
        return
    for path, rank in ranks.items():
        replace(model, path, factorize(model.get_submodule(path), rank, start))


def _refuse_covered(model: nn.Module, ranks: Mapping[str, int]) -> None:
    """Refuse layers that have something on them: new layers in their place would not have it."""
    gated = gates_of(model) is not None  # gates of a whole layer lie on none of its matrices
    for path in ranks:
        layer = model.get_submodule(path)
        hooks = layer._forward_pre_hooks or layer._forward_hooks
        if not isinstance(layer, LowRankLinear) and (gated or hooks or parametrize.is_parametrized(layer)):
            raise ValueError(
                f"Expected an ordinary layer to factorise but {path} has gates, masks, rounding or hooks already; call "
                "apply_low_rank before what puts them there."
            )


def default_ranks(model: PreTrainedModel, rank: str = "full") -> dict[str, int]:
    """Return the rank of every projection inside the blocks.

    Args:
        model: A transformer of a supported family.
        rank: ``full``: the smaller one of inputs ``i`` and outputs ``o``, so that the model computes what it did;
            ``equal``: ``i·o / (i + o)`` rounded down, the rank of FLOP, with which the factors have as many weights
            as the matrix but a square matrix loses half of its directions.

    Raises:
        ValueError: The kind is unknown.
    """
    check_rank(rank)
    found = {}
    for block in dissect(model).blocks:
        for path in projections(block):
            inputs, outputs = _sizes(model.get_submodule(path))
            equal = max(1, inputs * outputs // (inputs + outputs))
            found[path] = min(inputs, outputs) if rank == "full" else equal
    return found


def check_rank(rank: str) -> None:
    """Refuse an unknown kind of rank.

    Raises:
        ValueError: It is none of ``RANKS``.
    """
    if rank not in RANKS:
        raise ValueError(f"Expected rank to be one of {', '.join(RANKS)} but got {rank!r}.")


@torch.no_grad()
def factorize(projection: nn.Module, rank: int, start: str = "svd") -> LowRankLinear:
    """Return a projection as the product of two.

    Args:
        projection: A ``Linear`` or ``Conv1D``.
        rank: Inner dimension, up to the smaller one of inputs and outputs.
        start: ``svd`` or ``zeros``; see ``apply_low_rank``.

    Returns:
        ``P Q`` with ``Q = S^½ V^T`` and ``P = U S^½``, with the bias of the projection.

    Raises:
        ValueError: The rank or the start is impossible.
    """
    if isinstance(projection, LowRankLinear):
        raise ValueError(
            "Expected a layer that is not factorised yet but got a LowRankLinear; factorise once."
        )
    inputs, outputs = _sizes(projection)
    if not 1 <= rank <= min(inputs, outputs):
        raise ValueError(f"Expected a rank from 1 to {min(inputs, outputs)} but got {rank}.")
    if start not in ("svd", "zeros"):
        raise ValueError(f"Expected start to be svd or zeros but got {start!r}.")
    old: Any = projection
    bias = old.bias is not None
    with torch.device("meta"):  # no random numbers
        new = LowRankLinear(inputs, outputs, rank, bias).to(old.weight.dtype)
    new.to_empty(device=old.weight.device)
    new.transposed = isinstance(projection, Conv1D)
    new.train(projection.training)
    if bias:
        new.expand.bias = old.bias
    if start == "zeros":
        new.reduce.weight.zero_()
        new.expand.weight.zero_()
        return new
    weight = old.weight.T if new.transposed else old.weight
    left, values, right = torch.linalg.svd(
        weight.to(torch.promote_types(weight.dtype, torch.float32)), full_matrices=False
    )
    root = values[:rank].sqrt()
    new.reduce.weight.copy_(root[:, None] * right[:rank])
    new.expand.weight.copy_(left[:, :rank] * root)
    new.reduce.weight.requires_grad_(old.weight.requires_grad)
    new.expand.weight.requires_grad_(old.weight.requires_grad)
    return new


@torch.no_grad()
def merge(factors: LowRankLinear) -> nn.Module:
    """Return a factorised layer as one layer of its old kind that computes the same."""
    weight, bias = factors.weight, factors.bias
    inputs, outputs = factors.in_features, factors.out_features
    new: Any
    with torch.device("meta"):
        new = Conv1D(outputs, inputs) if factors.transposed else nn.Linear(inputs, outputs, bias is not None)
    new.weight = nn.Parameter(weight.contiguous(), requires_grad=factors.reduce.weight.requires_grad)
    new.bias = bias
    return new.train(factors.training)


def cut_ranks(model: PreTrainedModel) -> None:
    """Remove the inner dimensions that do nothing, and merge the factors where one matrix is not larger.

    Args:
        model: A model with gates and masks folded into its weights; changed in place. One dimension always stays.
    """
    cuts, ranks = [], {}
    for group in find_groups(model, ["rank"], strict=False):
        path = group.name.removesuffix(".rank")
        kept = _alive(model, path).nonzero().flatten().tolist() or [0]
        cuts.append((group, kept))
        inputs, outputs = _sizes(model.get_submodule(path))
        if len(kept) * (inputs + outputs) < inputs * outputs:
            ranks[path] = len(kept)
    if not cuts:
        return
    cut_slots(model, cuts)
    for group, _ in cuts:
        path = group.name.removesuffix(".rank")
        if path not in ranks:
            replace(model, path, merge(model.get_submodule(path)))  # type: ignore[arg-type]
    rewrite(model, _NAME, {"ranks": ranks, "start": "zeros"} if ranks else None)


def _alive(model: nn.Module, path: str) -> Tensor:
    factors: Any = model.get_submodule(path)
    return factors.reduce.weight.any(1) & factors.expand.weight.any(0)


def _sizes(projection: Any) -> tuple[int, int]:
    """Return the inputs and the outputs of a projection."""
    if isinstance(projection, LowRankLinear):
        return projection.in_features, projection.out_features
    axes = projection_axes(projection)
    return int(projection.weight.shape[axes[0]]), int(projection.weight.shape[axes[1]])
