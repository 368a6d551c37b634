"""Models of the sizes that a fit may end with, made without training: time and bytes do not depend on the weights."""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from lit_compress.pruning.alive import writing_norms
from lit_compress.pruning.allocate import allocate, most_removable
from lit_compress.pruning.fixed_gates import apply_fixed_gates
from lit_compress.pruning.gates import gates_of
from lit_compress.pruning.groups import find_groups
from lit_compress.pruning.latency import LatencyTable
from lit_compress.pruning.latency_setting import Setting
from lit_compress.pruning.shrink import shrink

#: What the fit prunes; all heads or all neurons of a block may go.
STRUCTURES = ("head", "neuron")


class Shapes:
    """Cuts a model down until the table of latencies says that it is so many times faster.

    The same share of all heads and of all neurons goes, those with the smallest weights: fits keep them in much the
    same proportion. By weight per millisecond all heads would go before the neurons, which integers make faster or
    slower than that, depending on the size.

    Args:
        model: A transformer of a supported family; not changed.
        length: Tokens per text that the table is measured with.
        threads: CPU threads.
    """

    def __init__(self, model: PreTrainedModel, length: int, threads: int = 1) -> None:
        groups = find_groups(model, STRUCTURES)
        self._model = model
        self._table = LatencyTable.of(model, groups, Setting(length=length, threads=threads))
        self._values: dict[str, Tensor] = {
            group.name: writing_norms(model, group).square() for group in groups
        }
        self._pools = [
            [group.name for group in groups if group.structure == structure] for structure in STRUCTURES
        ]

    @property
    def most(self) -> float:
        """The largest speed-up of the structure, by the table: that of a model without heads and neurons."""
        return 1 / (1 - most_removable(self._values, self._table, self._pools, at_least=0))

    def at(self, speedup: float) -> PreTrainedModel:
        """Return a copy that is so many times faster in eager float32.

        Args:
            speedup: By the table; the model itself at 1.

        Raises:
            ValueError: No shape is as fast.
        """
        if speedup <= 1:
            return copy.deepcopy(self._model).eval()
        removed = 1 - 1 / speedup
        open_units = allocate(self._values, self._table, removed, self._pools, "local", at_least=0)
        cut = copy.deepcopy(self._model)
        apply_fixed_gates(cut, STRUCTURES)
        gates: Any = gates_of(cut)
        for group, gate in gates.pairs():
            gate.open.copy_(open_units[group.name])
        return shrink(cut)
