"""Gates in known states, for the tests of pruned models."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from lit_compress.pruning.fixed_gates import apply_fixed_gates
from lit_compress.pruning.gates import Gate, Gates, gates_of, install_gates
from lit_compress.pruning.groups import Group, find_groups
from tests.families import SHARED

#: What is cut out of every family; layers only where a layer is called once.
STRUCTURES = ("head", "neuron", "attention", "feed_forward", "layer", "hidden")


def structures_of(name: str) -> tuple[str, ...]:
    """All structures of a family."""
    return tuple(structure for structure in STRUCTURES if structure != "layer" or name not in SHARED)


class SoftGate(Gate):
    """Gates between 0 and 1 that can be learned; some are exactly 0.

    Args:
        units: Number of units.
        draw: Draws them.
    """

    def __init__(self, units: int, draw: torch.Generator) -> None:
        super().__init__(units)
        values = 0.2 + 0.8 * torch.rand(units, generator=draw, dtype=torch.float64)
        self.strength = torch.nn.Parameter(values * (torch.rand(units, generator=draw) < 0.8))

    def values(self) -> Tensor:
        """The strengths."""
        return self.strength

    def decided(self) -> Tensor:
        """The strengths."""
        return self.strength


def soften(model: PreTrainedModel, structures: Sequence[str], seed: int = 0) -> Gates:
    """Put gates between 0 and 1 on some structures."""
    draw = torch.Generator().manual_seed(seed)
    return install_gates(model, find_groups(model, structures), lambda group: SoftGate(group.units, draw))


def fix(model: PreTrainedModel, structures: Sequence[str]) -> Gates:
    """Put open gates on some structures."""
    apply_fixed_gates(model, structures)
    gates = gates_of(model)
    assert gates is not None
    return gates


def close(gates: Gates, structure: str, units: Sequence[int] | None = None, layer: int | None = None) -> int:
    """Close some units (default: all) of a structure (default: in all blocks); return how many groups matched."""
    found = [pair for pair in gates.pairs() if pair[0].structure == structure]
    found = [pair for pair in found if layer is None or pair[0].layer == layer]
    for group, gate in found:
        gate.open[list(range(group.units) if units is None else units)] = 0.0
    return len(found)


def close_at_random(gates: Gates, seed: int = 0, share: float = 0.4) -> None:
    """Close the first unit of all and others at random; of layers only the second, and not all hidden dimensions."""
    draw = torch.Generator().manual_seed(seed)
    for index, (group, gate) in enumerate(gates.pairs()):
        closed = torch.rand(group.units, generator=draw) < share
        closed[0] |= index == 0
        if group.structure == "layer":
            closed[:] = _number(group) == 1
        if group.structure == "hidden":
            closed[-1], closed[:2] = False, True
        gate.open.copy_((~closed).double())


def _number(group: Group) -> int:
    return int(group.name.split(".")[-2])
