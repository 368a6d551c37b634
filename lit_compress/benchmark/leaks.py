"""Tells a leak from memory that a model settles into."""

from __future__ import annotations

from collections.abc import Sequence

_LEAST_BYTES = 20e6
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
    if len(memory) < 3:
        return None
    growth, late = memory[-1] - memory[0], memory[-1] - memory[len(memory) // 2]
    if growth < _LEAST_BYTES or late < _SECOND_HALF * growth:
        return None
    return f"{what} grew by {growth / 1e6:.0f} MB over {len(memory)} rounds and was still growing: a leak"
