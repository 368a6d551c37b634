"""The sizes of a model that a table of latencies is measured with."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from transformers import PreTrainedModel

from lit_compress.models.anatomy import dissect
from lit_compress.pruning.depth import drop_blocks
from lit_compress.pruning.latency import is_last_attention, parts_of, pattern
from lit_compress.pruning.shape import cut_further

# A copy has no more blocks than this where time is scarce.
_DEPTH = 2
# Widths of feed-forward networks and hidden sizes to measure at, as shares.
_NEURONS = (1 / 32, 1 / 16, 1 / 8, 3 / 16, 1 / 4, 3 / 8, 1 / 2, 5 / 8, 3 / 4, 7 / 8, 1)
_HIDDEN = (1 / 4, 1 / 2, 3 / 4, 1)
_NEURON_STEP, _MOST_HEADS = 16, 16
# Where every size has to be exported: the smallest of these, and all halved so often.
_HALVINGS = 3


@dataclass(frozen=True)
class Size:
    """A size to measure: every part of a kind has the same number of units, and parts of other kinds have none.

    Where the last block is of kinds of its own, its attention keeps a few heads in all sizes: without them the last
    attention would be that of the block before, and all behind that would be computed for one token.

    Args:
        hidden: Hidden dimensions.
        kind: The kind that has units; ``None`` where no part has any.
        units: How many.
        short: Pattern of the list of blocks of which only one block stays; ``None`` where all stay.
    """

    hidden: int
    kind: str | None = None
    units: int = 0
    short: str | None = None


class Sizes:
    """A model, and what can be cut of it.

    Args:
        model: The model; not changed.
        last_differs: Whether parts of the last block are of kinds of their own; see ``Runtime.narrow_end``.
    """

    def __init__(self, model: PreTrainedModel, last_differs: bool) -> None:
        self.model, self.last_differs = model, last_differs
        self.anatomy = dissect(model)
        self.parts = parts_of(model, last_differs)
        #: Most units by the kind of parts.
        self.kinds = {part.kind: part.units for part in self.parts}

    @property
    def hidden(self) -> int:
        """Hidden dimensions of the model."""
        return self.anatomy.stream.size

    @cached_property
    def least_heads(self) -> dict[str, int]:
        """How many heads of the last block stay in all sizes, by the kind of their attention."""
        return {part.kind: grid(part.kind, part.units)[1] for part in self.parts if is_last_attention(part)}

    def shallow(self) -> Sizes:
        """Return the model with fewer blocks where all kinds of parts are still in it, else as it is."""
        small = _shared_copy(self.model)
        for path in self.anatomy.block_lists:
            _keep_blocks(small, path, _DEPTH)
        found = Sizes(small, self.last_differs)
        return found if found.kinds == self.kinds else self

    def to_measure(self, varied: bool, few: bool) -> list[Size]:
        """Return the sizes that make a table.

        Args:
            varied: Whether to vary the hidden size too.
            few: Whether to take fewer numbers of units.
        """
        sizes = {self.hidden} | (
            {max(1, round(share * self.hidden)) for share in _HIDDEN} if varied else set()
        )
        found = []
        for hidden in sorted(sizes):
            found.append(Size(hidden))
            found += [Size(hidden, short=f"{pattern(path)}.*") for path in self.anatomy.block_lists]
            for kind, units in self.kinds.items():
                steps = grid(kind, units)[1:] if hidden == self.hidden else [units]
                if few:
                    halves = (units / 2**count for count in range(_HALVINGS + 1))
                    near = {min(steps, key=lambda step: abs(step - half)) for half in halves}
                    steps = sorted({steps[0], *near})
                found += [
                    Size(hidden, kind, count) for count in steps if count > self.least_heads.get(kind, 0)
                ]
        return list(dict.fromkeys(found))

    def cut(self, size: Size) -> PreTrainedModel:
        """Return a copy of a size; it shares the weights that are not cut."""
        small = _shared_copy(self.model)
        for path in self.anatomy.block_lists:
            if f"{pattern(path)}.*" == size.short:
                _keep_blocks(small, path, 1)
        rest = Sizes(small, self.last_differs)
        units = dict.fromkeys(rest.kinds, 0) | rest.least_heads
        if size.kind is not None:
            units[size.kind] = size.units
        keep = {
            part.inside: list(range(units[part.kind])) for part in rest.parts if units[part.kind] < part.units
        }
        if size.hidden != self.hidden:
            keep["hidden"] = list(range(size.hidden))
        cut_further(small, keep)
        return small


def grid(kind: str, units: int) -> list[int]:
    """Return the numbers of units to measure at, from 0 to all."""
    if kind.rpartition("/")[0].endswith(".neuron"):
        step = _NEURON_STEP if units >= 8 * _NEURON_STEP else 1
        return sorted(
            {0, units, *(min(units, step * max(1, round(share * units / step))) for share in _NEURONS)}
        )
    return sorted({round(units * i / _MOST_HEADS) for i in range(_MOST_HEADS + 1)})


def _shared_copy(model: PreTrainedModel) -> PreTrainedModel:
    """Return a copy of the modules with the same weights: those that are cut get new ones."""
    tensors = [*model.parameters(), *model.buffers()]
    return copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})


def _keep_blocks(model: PreTrainedModel, path: str, depth: int) -> None:
    blocks: Any = model.get_submodule(path)
    drop_blocks(model, [f"{path}.{number}" for number in range(depth, len(blocks))])
