"""Exact selection of the lowest scores, however many are equal."""

from __future__ import annotations

import math

import torch
from torch import Tensor

# Below this many numbers the plain selection is as fast.
_SMALL = 200_000
_SAMPLE = 20_000


def lowest(scores: Tensor, count: int) -> Tensor:
    """Return which scores are the lowest ones.

    Args:
        scores: ``(n,)``.
        count: How many, 0 to ``n``.

    Returns:
        Booleans ``(n,)``, exactly ``count`` of them true; of equal scores the first ones.

    Raises:
        ValueError: A score is not a number.

    Example:
        >>> lowest(torch.tensor([1.0, 0.0, 1.0, 1.0]), 2).tolist()
        [True, True, False, False]
    """
    if count <= 0:
        return torch.zeros_like(scores, dtype=torch.bool)
    threshold = kth_lowest(scores, count)
    chosen = scores < threshold
    ties = (scores == threshold).nonzero().flatten()
    missing = count - int(chosen.count_nonzero())
    if not 0 <= missing <= len(ties):
        raise ValueError(
            "Expected scores that are numbers but some are NaN; training has diverged: lower the learning rate, "
            "or clip the gradients."
        )
    chosen[ties[:missing]] = True
    return chosen


def kth_lowest(scores: Tensor, rank: int) -> Tensor:
    """Return the ``rank``-th lowest score, counted from 1.

    A selection among ten million numbers takes a third of a second; a sorted sample tells between which two
    values the wanted one lies, and few numbers are there.

    Args:
        scores: ``(n,)``.
        rank: 1 to ``n``.
    """
    if scores.is_cuda:  # there kthvalue is not deterministic, and sorting is fast
        return scores.sort().values[rank - 1]
    if len(scores) > _SMALL:
        low, high = _bracket(scores, rank)
        below = int((scores < low).count_nonzero())
        inside = scores[(scores >= low) & (scores <= high)]
        if below < rank <= below + len(inside):
            return inside.kthvalue(rank - below).values
    return scores.kthvalue(rank).values


def _bracket(scores: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    sample = scores[:: len(scores) // _SAMPLE].sort().values
    share, size = rank / len(scores), len(sample)
    margin = 1 + math.ceil(4 * math.sqrt(size * share * (1 - share)))
    place = round(share * size)
    low = sample[place - margin] if place > margin else scores.new_tensor(-math.inf)
    high = sample[place + margin] if place + margin < size else scores.new_tensor(math.inf)
    return low, high


def share_to_count(share: float, total: int) -> int:
    """Return the number of units that a share of them is: the nearest whole number, halves up."""
    return math.floor(share * total + 0.5 + 1e-9)
