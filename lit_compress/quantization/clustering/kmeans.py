"""K-means of numbers: the codebook of a matrix (Deep Compression, Han et al., arXiv:1510.00149)."""

from __future__ import annotations

import torch
from torch import Tensor

#: How the first centroids are chosen.
INITS = ("linear", "density", "kmeans++")
# Of more values than about twice as many k-means++ draws among some that stand for their neighbours.
_DRAWN = 8192


def kmeans(
    values: Tensor,
    clusters: int,
    init: str = "linear",
    keep_zeros: bool = False,
    steps: int = 300,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Return centroids whose nearest stand for the values with little squared error (Lloyd's algorithm).

    Args:
        values: Numbers of any shape.
        clusters: Number of centroids, at least 1; 2 or more with ``keep_zeros``.
        init: ``linear`` spreads them evenly over the range, which keeps large weights and which arXiv:1510.00149 found
            best; ``density`` over the ranks of the values; ``kmeans++`` draws them far from each other.
        keep_zeros: Hold one centroid at exactly 0 for the values that are 0. The others are shared out between the
            negative and the positive values by their numbers, so that nothing else becomes 0.
        steps: Iterations at most; it ends earlier where nothing moves.
        generator: Source of the random numbers of ``kmeans++``.

    Returns:
        The centroids ``(clusters,)``, ascending, in the type of the values. Those that no value is nearest to stay
        where they are.

    Raises:
        ValueError: A number is out of range, the initialisation is unknown, or there are no values.
    """
    _check(values, clusters, init, keep_zeros)
    flat = values.detach().reshape(-1).double().sort().values
    if not keep_zeros:
        return _lloyd(flat, _first(flat, clusters, init, generator), steps).to(values.dtype)
    negative, positive = flat[flat < 0], flat[flat > 0]
    below, above = _split(len(negative), len(positive), clusters - 1)
    parts = [flat.new_zeros(clusters - below - above)]
    for side, count in ((negative, below), (positive, above)):
        if count:
            parts.append(_lloyd(side, _first(side, count, init, generator), steps))
    return torch.cat(parts).sort().values.to(values.dtype)


def check_init(init: str) -> None:
    """Refuse a name that is none of ``INITS``.

    Raises:
        ValueError: It is none.
    """
    if init not in INITS:
        raise ValueError(f"Expected init to be one of {', '.join(INITS)} but got {init!r}.")


def _check(values: Tensor, clusters: int, init: str, keep_zeros: bool) -> None:
    check_init(init)
    least = 2 if keep_zeros else 1
    if clusters < least:
        raise ValueError(f"Expected at least {least} clusters but got {clusters}.")
    if not values.numel():
        raise ValueError("Expected values to cluster but got none.")
    if not bool(values.isfinite().all()):
        raise ValueError("Expected finite values to cluster but got infinities or NaN.")


def _split(negative: int, positive: int, clusters: int) -> tuple[int, int]:
    """Share centroids out by the numbers of values; a side that has values gets one, while there are enough."""
    if not negative or not positive:
        return (clusters if negative else 0), (clusters if positive else 0)
    below = round(clusters * negative / (negative + positive))
    below = min(max(below, 1), max(clusters - 1, 1))
    return below, clusters - below


def _first(flat: Tensor, clusters: int, init: str, generator: torch.Generator | None) -> Tensor:
    if init == "linear":
        share = torch.linspace(0, 1, clusters, dtype=flat.dtype, device=flat.device)
        return flat[0] + (flat[-1] - flat[0]) * share
    if init == "density":
        ranks = (torch.arange(clusters, device=flat.device) + 0.5) / clusters * len(flat)
        return flat[ranks.long().clamp(max=len(flat) - 1)]
    return _far_apart(flat, clusters, generator)


def _far_apart(flat: Tensor, clusters: int, generator: torch.Generator | None) -> Tensor:
    """Draw each centroid with the squared distance to the nearest earlier one as weight (k-means++)."""
    flat, counts = _thinned(flat)

    def draw(weights: Tensor) -> Tensor:
        total = weights.cumsum(0)
        place = torch.rand(1, generator=generator, dtype=flat.dtype).to(flat.device) * total[-1]
        # Where every value has a centroid of its own, further ones lie on the last.
        return flat[int(torch.searchsorted(total, place).clamp(max=len(flat) - 1))]

    chosen = [draw(counts)]
    distance = (flat - chosen[0]).square()
    for _ in range(clusters - 1):
        chosen.append(draw(counts * distance))
        distance = torch.minimum(distance, (flat - chosen[-1]).square())
    return torch.stack(chosen).sort().values


def _thinned(flat: Tensor) -> tuple[Tensor, Tensor]:
    """Return some of many sorted values, and how many each stands for: spread over ranks, and over the range too.

    Of the ranks alone hardly any would be far out, where large weights are.
    """
    count = len(flat)
    places = torch.arange(0, count, max(count // _DRAWN, 1), device=flat.device)
    if len(places) < count:
        spread = torch.linspace(0, 1, _DRAWN, dtype=flat.dtype, device=flat.device)
        outer = torch.searchsorted(flat, flat[0] + (flat[-1] - flat[0]) * spread).clamp(max=count - 1)
        places = torch.cat([places, outer]).unique()
    ends = torch.cat([places[1:], places.new_tensor([count])])
    return flat[places], (ends - places).to(flat.dtype)


def _lloyd(flat: Tensor, centroids: Tensor, steps: int) -> Tensor:
    """Move centroids to the means of the sorted values nearest to them, until nothing moves."""
    sums = torch.cat([flat.new_zeros(1), flat.cumsum(0)])
    for _ in range(steps):
        # Sorted values belong to stretches: their ends are found without looking at every value.
        ends = torch.searchsorted(flat, (centroids[1:] + centroids[:-1]) / 2, right=True)
        edges = torch.cat([ends.new_zeros(1), ends, ends.new_full((1,), len(flat))])
        counts = edges[1:] - edges[:-1]
        means = (sums[edges[1:]] - sums[edges[:-1]]) / counts.clamp(min=1)
        moved = torch.where(counts > 0, means, centroids)
        if torch.equal(moved, centroids):
            break
        centroids = moved.sort().values
    return centroids
