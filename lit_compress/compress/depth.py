"""With how many blocks a fit begins: where a cut is deep, few blocks that stay wide instead of slivers of all."""

from __future__ import annotations

import math
from collections.abc import Callable

from lit_compress.compress.planning import Figures, OutOfReachError

#: How many times faster blocks are pruned to be; for more, some are left out whole. For the same wish on SST-2 six
#: blocks of a MiniLM, pruned to be 6.1 times faster, kept 88.4 % of the accuracy, three of them (3.2 times) 95.8 %, and
#: two (2.3 times) 95.3 % (docs/flagship_sst2.md).
DEEPEST_CUT = 3.5


def choose_depth(blocks: int, figures_at: Callable[[int], Figures]) -> tuple[int, Figures]:
    """Return with how many blocks to begin, and what is aimed at then.

    Args:
        blocks: Those of the model.
        figures_at: Measures models of so many blocks and returns what follows.

    Raises:
        OutOfReachError: The wish is out of reach even with one block.
    """
    depth, found = blocks, None
    while True:
        try:
            found = depth, figures_at(depth)
        except OutOfReachError:
            if found is not None:
                return found
            if depth == 1:
                raise
            depth = depth // 2
            continue
        structural = found[1].structural
        if depth == 1 or structural <= DEEPEST_CUT:
            return found
        depth = max(1, min(depth - 1, math.floor(depth * DEEPEST_CUT / structural)))


def layers_kept(blocks: int, most: int) -> list[int]:
    """Return the 0-based blocks that a shallower student begins with: the middle one of every equal part.

    Args:
        blocks: How many.
        most: How many the model has.

    Example:
        >>> layers_kept(2, 6)
        [1, 4]
    """
    return [math.floor((part + 0.5) * most / blocks) for part in range(blocks)]
