"""Which centroid of its codebook each value is nearest to, in every forward pass of a training: it has to be fast."""

from __future__ import annotations

import torch
from torch import Tensor

# Bins of the table for each centroid, and at most: a table stays in the cache of a core.
_BINS, _MOST_BINS = 64, 4096


def nearest(values: Tensor, centroids: Tensor, keep_zeros: bool = False) -> Tensor:
    """Return which centroid each value is nearest to; halfway it is the lower one.

    Args:
        values: ``(codebooks, values)``, in float32 or float64.
        centroids: ``(codebooks, clusters)``, ascending, of the type of the values.
        keep_zeros: Give the centroid 0, which every codebook then has, to the values that are 0, and to no other, where
            there are others of their sign.

    Returns:
        Indices in int32, of the shape of the values.
    """
    if centroids.shape[1] == 1:
        return torch.zeros(values.shape, dtype=torch.int32, device=values.device)
    edges = _edges(centroids.detach(), keep_zeros).contiguous()
    values = values.detach().contiguous()
    # On a CPU the binary search takes 40 ns for a value, as every step of it is a guess of the processor.
    return _by_table(values, edges) if values.device.type == "cpu" else _by_search(values, edges)


def _edges(centroids: Tensor, keep_zeros: bool) -> Tensor:
    """Return what lies halfway between neighbours, ``(codebooks, clusters - 1)``."""
    below, above = centroids[:, :-1], centroids[:, 1:]
    edges = below / 2 + above / 2
    if keep_zeros:
        edges = torch.where((below < 0) & (above == 0), -torch.finfo(edges.dtype).tiny, edges)
        edges = torch.where((below == 0) & (above > 0), 0.0, edges)
    return edges


def _by_search(values: Tensor, edges: Tensor) -> Tensor:
    return torch.searchsorted(edges, values, out_int32=True)


def _by_table(values: Tensor, edges: Tensor) -> Tensor:
    """Count the edges below each value: those of the bins below its own from a table, those in its bin one by one."""
    bins = min(_BINS * (edges.shape[1] + 1), _MOST_BINS)
    low = edges[:, :1]
    factor = (bins - 1) / (edges[:, -1:] - low).clamp(min=1e-30)

    def bin_of(numbers: Tensor) -> Tensor:
        # Never falling, so that what is in a higher bin is larger. NaN becomes the least integer, and then 0.
        return ((numbers - low) * factor).clamp_(max=bins - 1).to(torch.int32).clamp_(min=0)

    own = bin_of(edges).long()
    counts = torch.zeros(len(edges), bins, dtype=torch.int64).scatter_add_(1, own, torch.ones_like(own))
    below = counts.cumsum(1) - counts
    most = int(counts.max())
    places = bin_of(values)
    if len(edges) > 1:
        places += torch.arange(len(edges), dtype=torch.int32)[:, None] * bins
    places = places.view(-1)
    flat = values.view(-1)
    found = below.to(torch.int32).view(-1).index_select(0, places)
    above = torch.empty_like(found)
    beyond = torch.cat([edges, edges.new_full((len(edges), most), torch.inf)], 1)
    for number in range(most):
        # The next edge may lie in a higher bin: then it is larger than the value.
        edge = beyond.gather(1, below + number).view(-1).index_select(0, places)
        found += torch.gt(flat, edge, out=above)  # half the time of a sum with booleans
    return found.view(values.shape)
