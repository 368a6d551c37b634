"""The pattern of heads, neurons and other units of the anatomy."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lit_compress.pruning.allocate import allocate, most_removable
from lit_compress.pruning.counting import WeightCount
from lit_compress.pruning.fixed_gates import apply_fixed_gates
from lit_compress.pruning.gates import gates_of
from lit_compress.pruning.pattern import Pattern, matching
from lit_compress.pruning.sites import GateSite, Site
from lit_compress.pruning.target import Cost, Target, cost_of

#: Structures of which each block has one unit: they are kept or closed as a whole.
_WHOLE = ("feed_forward", "attention", "layer")


class Units(Pattern):
    """Heads, neurons and other units of the anatomy, closed by gates.

    Args:
        structures: Some of ``STRUCTURES``.
        scope: ``global`` ranks all groups together, ``local`` closes the same share of each.
        at_least: Units that stay in every group. Attentions, feed-forward networks and layers, of which every block
            has one, count as one group each.
        exclude: Parts of the names of groups that stay whole.
    """

    def __init__(self, structures: Sequence[str], scope: str, at_least: int, exclude: Sequence[str]) -> None:
        super().__init__(scope)
        if at_least < 0:
            raise ValueError(f"Expected keep_at_least >= 0 but got {at_least}.")
        if "vocabulary" in structures and len(structures) > 1:
            raise ValueError(
                f"Expected vocabulary alone, because its rows are not weights of the encoder, but got "
                f"{list(structures)}; give it a Pruning of its own."
            )
        self.structures, self.at_least, self.exclude = list(structures), at_least, exclude
        #: Whether the values of a unit are to be compared per unit of cost.
        self.per_cost = True
        #: Units that must stay, by the name of their group.
        self.stay: dict[str, list[int]] = {}
        #: Record of the table of latencies that an interrupted fit had.
        self.known_table: Mapping[str, Any] | None = None
        self._cost: Cost | None = None

    def apply(self, model: nn.Module) -> None:
        """Put gates on the groups; see ``Pattern.apply``."""
        apply_fixed_gates(model, self.structures)

    def sites(self, model: Any) -> list[Site]:
        """Return the groups; see ``Pattern.sites``."""
        gates = gates_of(model)
        assert gates is not None
        ours = {group.name: group for group in gates.groups if group.structure in self.structures}
        dropped = matching(list(ours), self.exclude, "exclude")
        found: list[Site] = [
            GateSite(model, group, gates.of(group))  # type: ignore[arg-type]
            for name, group in ours.items()
            if name not in dropped
        ]
        if not found:
            raise ValueError(
                f"Expected groups to prune but exclude={list(self.exclude)} leaves none of {len(ours)}; shorten it."
            )
        return found

    def prepare(self, model: Any, sites: Sequence[Site], target: Target | None) -> None:
        """Make the cost, measured once for a speed-up; refuse targets out of reach; see ``Pattern.prepare``."""
        groups = [site.group for site in sites if isinstance(site, GateSite)]
        pools: dict[str, list[str]] = {}
        for group in groups:
            pools.setdefault(group.structure if group.structure in _WHOLE else group.name, []).append(
                group.name
            )
        self.pools = list(pools.values())
        if target is None:
            return
        self._cost = self._count(model, sites, target)
        zeros = self.protect({site.name: torch.zeros(site.open.shape) for site in sites})
        most = most_removable(zeros, self._cost, self.pools, self.kept_of_pools())
        if most < target.removed - 1e-6:
            raise ValueError(
                f"Expected a target of {_reachable(target, most)}, all that can go when keep_at_least={self.at_least} "
                f"of every group stay, but got {_asked(target)}; lower it, or add structures to {self.structures}."
            )

    def _count(self, model: Any, sites: Sequence[Site], target: Target) -> Cost:
        groups = [site.group for site in sites if isinstance(site, GateSite)]
        if self.structures != ["vocabulary"]:
            return cost_of(target, model, groups, self.known_table)
        if target.speedup is not None:
            raise ValueError(
                "Expected target.sparsity for vocabulary, whose rows are only looked up, but got target.speedup; give "
                "the share of rows to remove."
            )
        return WeightCount(model, groups, [groups[0].gated[0].name])

    def kept_of_pools(self) -> int:
        """Return the least number of units of every pool; see ``Pattern.kept_of_pools``."""
        # A model without any layer is none.
        return max(1, self.at_least) if "layer" in self.structures else self.at_least

    def protect(self, values: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Return the values with infinite ones for units that stay; see ``Pattern.protect``."""
        protected = {name: scores.detach().double().clone() for name, scores in values.items()}
        for name, units in self.stay.items():
            protected[name][units] = math.inf
        return protected

    def decide(self, values: Mapping[str, Tensor], removed: float) -> dict[str, Tensor]:
        """Close the lowest ones until the cost is down; see ``Pattern.decide``."""
        assert self._cost is not None
        return allocate(
            self.protect(values),
            self._cost,
            removed,
            self.pools,
            self.scope,
            self.kept_of_pools(),
            self.per_cost,
        )

    @property
    def cost(self) -> Cost | None:
        """What the target is counted in, ``None`` before ``prepare`` and without a target."""
        return self._cost

    def gone(self, open_units: Mapping[str, Tensor]) -> float:
        """Return the share of the cost that is gone; see ``Pattern.gone``."""
        assert self._cost is not None
        return float(self._cost.removed({name: units.float() for name, units in open_units.items()}))


def _reachable(target: Target, most: float) -> str:
    if target.sparsity is not None:
        return f"at most sparsity={math.floor(most * 1e4) / 1e4:g}"
    return f"at most speedup={math.floor(100 / max(1e-9, 1 - most)) / 100:g}"


def _asked(target: Target) -> str:
    return f"{target.sparsity}" if target.sparsity is not None else f"{target.speedup}"
