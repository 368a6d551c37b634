"""With how many blocks a fit begins: where a cut is deep, few blocks that stay wide instead of slivers of all."""

from __future__ import annotations

import math
from collections.abc import Callable

from transformers import PreTrainedModel

from lit_compress.compress.planning import Figures, OutOfReachError
from lit_compress.models.architecture import block_list

#: How many times faster than with its blocks whole a model is pruned to be in its runtime; for more, some are left out.
#: For the same wish on SST-2 six blocks of a MiniLM, pruned to be 9 times faster, kept 88.4 % of the accuracy, three of
#: them (3.9 times) 95.9 %, and two (2.5 times) 95.3 %; for another one six blocks (3.8 times) 98.4 %
#: (docs/flagship_sst2.md).
DEEPEST_CUT = 4.5


def choose_depth(depths: range, figures_at: Callable[[int], Figures]) -> tuple[int, Figures]:
    """Return with how many blocks to begin, and what is aimed at then.

    Args:
        depths: See :func:`depths_of`.
        figures_at: Measures models of so many blocks and returns what follows.

    Raises:
        OutOfReachError: The wish is out of reach even with the fewest.
    """
    fewest, depth, found = depths[0], depths[-1], None
    while True:
        try:
            found = depth, figures_at(depth)
        except OutOfReachError:
            if found is not None:
                return found
            if depth == fewest:
                raise
            depth = max(fewest, depth // 2)
            continue
        cut = found[1].cut
        if depth == fewest or cut <= DEEPEST_CUT:
            return found
        # A block more rather than one less: whether it is wide enough is measured next.
        depth = max(fewest, min(depth - 1, math.ceil(depth * DEEPEST_CUT / cut)))


def depths_of(model: PreTrainedModel) -> range:
    """Return with how many blocks a student of this model may begin: one to all, or all alone.

    An ALBERT that repeats several groups of weights keeps its depth: fewer calls would mix them.

    Args:
        model: The model.
    """
    most = len(block_list(model))
    return range(1 if getattr(model.config, "num_hidden_groups", 1) == 1 else most, most + 1)


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
