"""Deciding random gates for good: which units stay, so that a target is met."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lit_compress.pruning.gates import Gates
from lit_compress.pruning.groups import Group
from lit_compress.pruning.hard_concrete_gates import HardConcreteGate
from lit_compress.pruning.target import Cost

#: A target is met when the share that is removed is this near.
TOLERANCE = 0.001


def settle(gates: Gates, groups: Sequence[Group], cost: Cost | None = None, removed: float = 0.0) -> float:
    """Fix hard concrete gates to those of evaluation, corrected until a target is met.

    Where the gates of evaluation remove too little, open units are closed in the order of their locations, the lowest
    first; where they remove too much, closed units are opened, the highest first. A unit that is too large for what
    is missing is passed over, unless smaller ones can make up for it. Units that stay keep the gate of evaluation;
    those that were opened get ``HardConcreteGate.soft``.

    Args:
        gates: Gates of a model.
        groups: Groups of hard concrete gates to decide.
        cost: What the target is counted in; ``None`` for no target.
        removed: Share of the cost that is to go.

    Returns:
        The share of the cost that is missing to the target, below 0 where more is removed; 0 without a target.
    """
    own = {group.name: gate for group in groups if isinstance(gate := gates.of(group), HardConcreteGate)}
    decided = {name: gate.decided().detach() for name, gate in own.items()}
    gap = 0.0
    if cost is not None:
        rest = {name: (gate != 0).float().cpu() for name, gate in gates.decided().items() if name not in own}
        choice = _Choice(own, rest, cost, removed)
        choice.close(torch.cat([(gate == 0).cpu() for gate in decided.values()]))
        gap = choice.correct()
        decided = choice.values(decided)
    for name, gate in own.items():
        gate.settle(decided[name])
    return gap


class _Choice:
    """Which of all units are open, as one vector over the groups.

    Args:
        own: Gates to decide by the name of their group.
        rest: 0 and 1 for the units of all other groups.
        cost: What the target is counted in.
        removed: Share of the cost that is to go.
    """

    def __init__(
        self, own: dict[str, HardConcreteGate], rest: dict[str, Tensor], cost: Cost, removed: float
    ) -> None:
        self.own, self.rest, self.cost, self.removed = own, rest, cost, removed
        self.sizes = [gate.units for gate in own.values()]
        self.locations = torch.cat([gate.log_alpha.detach().float().cpu() for gate in own.values()])
        self.open = torch.ones(len(self.locations))
        kept = [
            _kept(gate, part)
            for gate, part in zip(own.values(), self.locations.split(self.sizes), strict=True)
        ]
        self.free = ~torch.cat(kept)

    def close(self, units: Tensor) -> None:
        """Close units, given as booleans."""
        self.open[units] = 0.0

    def gap(self, flipped: Tensor | None = None) -> float:
        """Return how much is missing to the target when some units are flipped."""
        units = self.open.clone()
        if flipped is not None:
            units[flipped] = 1 - units[flipped]
        gates = dict(zip(self.own, units.split(self.sizes), strict=True))
        return self.removed - float(self.cost.removed({**self.rest, **gates}))

    def correct(self) -> float:
        """Flip units until the target is met as well as they allow; return what is still missing."""
        missing, passed = self._pass()
        while abs(missing) > TOLERANCE and passed:
            before = self.open.clone()
            # Too much of a large unit may be mended with small ones, in the other direction.
            self._flip(min(passed, key=lambda unit: abs(self.gap(unit))))
            again, passed = self._pass()
            if abs(again) >= abs(missing):
                self.open = before
                break
            missing = again
        return missing

    def _pass(self) -> tuple[float, list[Tensor]]:
        """Flip units in their order up to the target; return what is missing and what was too large for it."""
        missing = self.gap()
        sign = 1.0 if missing > 0 else -1.0
        order = self.locations.argsort(descending=sign < 0, stable=True)
        order = order[(self.open[order] == (1.0 if sign > 0 else 0.0)) & self.free[order]]
        passed = []
        while abs(missing) > TOLERANCE and len(order):
            count = self._most(order, sign)
            self._flip(order[:count])
            missing = self.gap()
            passed += list(order[count : count + 1].split(1))
            order = order[count + 1 :]
        return missing, passed

    def _most(self, order: Tensor, sign: float) -> int:
        """Return how many of the first units can be flipped before the target is passed."""
        low, high = 0, len(order)
        while low < high:
            middle = (low + high + 1) // 2
            if self.gap(order[:middle]) * sign >= -TOLERANCE:
                low = middle
            else:
                high = middle - 1
        return low

    def _flip(self, units: Tensor) -> None:
        self.open[units] = 1 - self.open[units]

    def values(self, decided: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the gates: those of evaluation where a unit stays, 0 where it does not."""
        result = {}
        for (name, gate), units in zip(decided.items(), self.open.split(self.sizes), strict=True):
            value = torch.where(gate == 0, self.own[name].soft().detach(), gate)
            result[name] = value * units.to(value.device, value.dtype)
        return result


def _kept(gate: HardConcreteGate, locations: Tensor) -> Tensor:
    """Return which units cannot be closed, as booleans."""
    kept = torch.zeros(gate.units, dtype=torch.bool)
    if gate.keep_one:
        kept[locations.argmax()] = True
    return kept
