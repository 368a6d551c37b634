"""Tells a leak from memory that a model settles into, and from what the allocator gives back and takes again."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

# An eager model on a CPU goes up and down by some 25 MB: freed blocks are given back now and then.
_LEAST_BYTES, _LEAST_ROUNDS = 20e6, 5
# A leak grows in every round, or nearly.
_RISING_SHARE = 0.8
# Buffers are taken in the first rounds; a leak goes on, so that the second half has its part of the growth.
_SECOND_HALF = 0.3


def leak_warning(memory: Sequence[int], what: str = "memory") -> str | None:
    """Return a warning where the memory after each round keeps growing.

    Args:
        memory: Bytes after each round.
        what: Kind of memory, for the message.

    Returns:
        The warning, ``None`` where there is no leak.
    """
    if len(memory) < _LEAST_ROUNDS:
        return None
    growth, late = memory[-1] - memory[0], memory[-1] - memory[len(memory) // 2]
    rising = float(np.mean(np.diff(memory) > 0))
    if growth < _LEAST_BYTES or rising < _RISING_SHARE or late < _SECOND_HALF * growth:
        return None
    return f"{what} grew by {growth / 1e6:.0f} MB over {len(memory)} rounds and was still growing: a leak"
