"""What is trained with clusters becomes what is stored as indices and codebooks."""

from __future__ import annotations

from dataclasses import asdict
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lit_compress.models.transforms import forget
from lit_compress.pruning.folding import fold
from lit_compress.quantization.clustering.clustered_weights import (
    CLUSTERED_WEIGHTS,
    ClusteredWeight,
    clustered_weights_of,
)
from lit_compress.quantization.clustering.codebook_weights import apply_codebook_weights, codebooks_of
from lit_compress.quantization.clustering.huffman import encode
from lit_compress.quantization.fake_weights import before_rounding
from lit_compress.quantization.packing import pack


class _Store(NamedTuple):
    centroids: Tensor
    indices: Tensor
    lengths: Tensor | None = None
    sizes: Tensor | None = None


def to_codebooks(model: nn.Module) -> None:
    """Store the matrices that training clusters as indices and codebooks.

    Masks and gates must have been folded before. What the model computes stays the same, bit by bit. A Huffman code is
    taken where it was asked for and is smaller.

    Args:
        model: Changed in place.

    Raises:
        ValueError: Clustering has not begun: the fit was not finished.
    """
    found = dict(clustered_weights_of(model))
    unfinished = [name for name, step in found.items() if not step.rounds]
    if unfinished:
        raise ValueError(
            f"Expected a model that was trained with clusters but {unfinished[0]} is not clustered yet; let the fit go "
            "on beyond cluster_at, or take the checkpoint at its end."
        )
    stores = {name: _store(step, before_rounding(model, name)) for name, step in found.items()}
    settings = {
        name: {
            "codebook": asdict(step.codebook),
            "coded_bytes": None if stores[name].lengths is None else len(stores[name].indices),
        }
        for name, step in found.items()
    }
    fold(model, ClusteredWeight)
    forget(model, CLUSTERED_WEIGHTS)
    if settings:
        apply_codebook_weights(model, settings)
    for name, stored in codebooks_of(model):
        if name in stores:
            stored.fill(*stores[name])


@torch.no_grad()
def _store(step: ClusteredWeight, weight: Tensor) -> _Store:
    centroids, indices = step.ordered().clone(), step.indices(weight)
    if step.codebook.keep_zeros:
        centroids, indices = _zero_first(centroids, indices)
    # What fills up the last codebook is not stored.
    indices = indices.reshape(-1)[: step.size].to(torch.uint8)
    packed = pack(indices, step.codebook.bits)
    if step.codebook.entropy:
        lengths, sizes, data = (
            torch.from_numpy(part) for part in encode(indices.cpu().numpy(), step.codebook.clusters)
        )
        if len(data) + sizes.numel() + len(lengths) < len(packed):
            return _Store(centroids, data, lengths, sizes)
    return _Store(centroids, packed)


def _zero_first(centroids: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
    """Move the zero of every codebook to its beginning, so that a Huffman code has one short word for all zeros."""
    zero = (centroids == 0).to(torch.uint8).argmax(1, keepdim=True)
    numbers = torch.arange(centroids.shape[1], device=centroids.device)[None]
    # What is below the zero moves up by one.
    before = torch.where(numbers == 0, zero, numbers - (numbers <= zero).long())
    moved = torch.where(indices < zero, indices + 1, torch.where(indices == zero, 0, indices))
    return centroids.gather(1, before), moved
