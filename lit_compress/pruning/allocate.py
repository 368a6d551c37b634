"""How many units go where, so that a target is reached with the smallest loss of score."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from lit_compress.pruning.ranking import share_to_count
from lit_compress.pruning.target import Cost

# Costs are counted in float32; a target that is met up to this is met.
_TOLERANCE = 1e-6


def allocate(
    values: Mapping[str, Tensor],
    cost: Cost,
    removed: float,
    pools: Sequence[Sequence[str]],
    scope: str = "global",
    at_least: int = 1,
    per_cost: bool = True,
) -> dict[str, Tensor]:
    """Close the units with the lowest values until enough of the cost is gone.

    ``global`` closes units of all groups in one order: by value per unit of cost where values add up, else by value.
    ``local`` closes the same share of every pool. The target is met exactly up to the granularity: by ``global`` it
    is exceeded by less than one unit, by ``local`` by less than one unit in every pool.

    Args:
        values: What each unit is worth, ``(units,)`` by the name of its group; infinite for a unit that stays.
        cost: What is to be removed.
        removed: Share of the cost to remove; at 0 everything is open.
        pools: Names of the groups that count as one when units are kept: each group of heads or neurons alone,
            all whole attentions together.
        scope: ``global`` or ``local``.
        at_least: Units that stay open in every pool: those with the highest values.
        per_cost: Whether values add up, so that a unit may be worth more because it is larger.

    Returns:
        Booleans ``(units,)`` by the name of the group: which units are open.

    Raises:
        ValueError: The target cannot be reached; the message says what can.
    """
    flat = _Flat(values, pools, at_least)
    if scope == "local":
        counts = flat.shares()
        steps, closed_at = len(counts), lambda step: flat.closed_by_share(counts[step])
    else:
        order = flat.order(_prices(values, cost) if per_cost else None)
        steps, closed_at = len(order) + 1, lambda step: flat.closed_by(order[:step])
    return flat.split(~_first_enough(flat, cost, removed, steps, closed_at))


def _first_enough(
    flat: _Flat, cost: Cost, removed: float, steps: int, closed_at: Callable[[int], Tensor]
) -> Tensor:
    """Return the first of ever larger sets of closed units that is enough, by bisection."""

    def gone(step: int) -> float:
        return float(
            cost.removed({name: open_.float() for name, open_ in flat.split(~closed_at(step)).items()})
        )

    low, high = 0, steps - 1
    if removed <= 0:
        return closed_at(0)
    most = gone(high)
    if most < removed - _TOLERANCE:
        raise ValueError(
            f"Expected a target that can be reached but it asks for {removed:.4f} of the cost and at most {most:.4f} "
            "can go; lower the target, lower keep_at_least, or add structures."
        )
    while low < high:
        middle = (low + high) // 2
        if gone(middle) >= removed - _TOLERANCE:
            high = middle
        else:
            low = middle + 1
    return closed_at(low)


def most_removable(
    values: Mapping[str, Tensor], cost: Cost, pools: Sequence[Sequence[str]], at_least: int
) -> float:
    """Return the share of the cost that is gone when all units are closed that may be closed."""
    flat = _Flat(values, pools, at_least)
    closed = flat.closed_by(flat.order(None))
    return float(cost.removed({name: units.float() for name, units in flat.split(~closed).items()}))


def _prices(values: Mapping[str, Tensor], cost: Cost) -> dict[str, float]:
    """Return the share of the cost of one unit of each group, on average over its units.

    A group that costs nothing gets a price next to nothing: its units go last.
    """
    prices = {}
    for name, units in values.items():
        price = float(cost.removed({name: torch.zeros(len(units), device=units.device)})) / len(units)
        prices[name] = max(price, 1e-12)
    return prices


class _Flat:
    """The units of all groups in one row.

    Args:
        values: ``(units,)`` by the name of the group.
        pools: Names of the groups that count as one.
        at_least: Units that stay open in every pool.
    """

    def __init__(self, values: Mapping[str, Tensor], pools: Sequence[Sequence[str]], at_least: int) -> None:
        self.sizes = {name: len(units) for name, units in values.items()}
        # On the CPU: there are few units, and bisection asks for one number after the other.
        self.values = torch.cat([units.detach().cpu().double() for units in values.values()])
        if self.values.isnan().any():
            raise ValueError(
                "Expected scores that are numbers but some are NaN; training has diverged: lower the learning rate, or "
                "clip the gradients."
            )
        places = dict(
            zip(self.sizes, torch.arange(len(self.values)).split(list(self.sizes.values())), strict=True)
        )
        # Each pool from its lowest to its highest value; the last ones stay, and those that must.
        self.pools = []
        for names in pools:
            pool = torch.cat([places[name] for name in names])
            pool = pool[self.values[pool].argsort(stable=True)]
            may_go = min(len(pool) - at_least, int(self.values[pool].isfinite().count_nonzero()))
            self.pools.append((len(pool), pool[: max(0, may_go)]))

    def order(self, prices: Mapping[str, float] | None) -> Tensor:
        """Return the units that may be closed, from the least to the most worth."""
        worth = self.values
        if prices is not None:
            worth = worth / torch.cat(
                [torch.full((n,), prices[name]).double() for name, n in self.sizes.items()]
            )
        free = torch.cat([pool for _, pool in self.pools]).sort().values
        return free[worth[free].argsort(stable=True)]

    def closed_by(self, units: Tensor) -> Tensor:
        """Return booleans that are true for some units."""
        closed = torch.zeros(len(self.values), dtype=torch.bool)
        closed[units] = True
        return closed

    def shares(self) -> list[float]:
        """Return all shares at which one more unit goes somewhere, increasing, beginning with 0."""
        sizes = {size for size, _ in self.pools}
        return sorted({0.0, *((unit + 0.5) / size for size in sizes for unit in range(size))})

    def closed_by_share(self, share: float) -> Tensor:
        """Return booleans that are true for the lowest units of every pool."""
        return self.closed_by(torch.cat([pool[: share_to_count(share, size)] for size, pool in self.pools]))

    def split(self, units: Tensor) -> dict[str, Tensor]:
        """Return one number per unit of all groups as ``(units,)`` by the name of the group."""
        return dict(zip(self.sizes, units.split(list(self.sizes.values())), strict=True))
