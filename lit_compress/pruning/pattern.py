"""What may be closed together, and which of it is closed for a share: the interface."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from lit_compress.pruning.sites import Site
from lit_compress.pruning.target import Target


class Pattern(ABC):
    """How units are put on a model, and which of them are closed for a share.

    Args:
        scope: ``global`` or ``local``.
    """

    def __init__(self, scope: str) -> None:
        self.scope = scope
        #: Names of the places that count as one when a least number of units is kept; known after ``prepare``.
        self.pools: list[list[str]] = []

    @abstractmethod
    def apply(self, model: nn.Module) -> None:
        """Put masks or gates on a model; idempotent."""

    @abstractmethod
    def sites(self, model: nn.Module) -> list[Site]:
        """Return the places whose units may be closed."""

    @abstractmethod
    def prepare(self, model: Any, sites: Sequence[Site], target: Target | None) -> None:
        """Get ready for a fit.

        Raises:
            ValueError: The target cannot be reached.
        """

    def kept_of_pools(self) -> int:
        """Return the least number of units that stay in every pool."""
        return 1

    def protect(self, values: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Return the values with infinite ones for units that have to stay."""
        return values

    @abstractmethod
    def decide(self, values: Mapping[str, Tensor], removed: float) -> dict[str, Tensor]:
        """Return which units are open when a share of the cost is to be gone.

        Args:
            values: What each unit is worth, by the name of its place.
            removed: Share of the cost.
        """

    @abstractmethod
    def gone(self, open_units: Mapping[str, Tensor]) -> float:
        """Return the share of the cost that is gone."""

    def refuse_less(self, sites: Sequence[Site], target: Target) -> None:
        """Refuse a target below what is closed or zero already, at the start of a fit that goes on from none.

        Raises:
            ValueError: A ramp to the target would bring units back.
        """
        alive = {site.name: site.open & ~site.empty() for site in sites}
        there = self.gone(alive)
        # The target itself may be exceeded by less than a unit.
        reached = self.gone(
            self.decide({name: units.float() for name, units in alive.items()}, target.removed)
        )
        if there > reached + 1e-6:
            raise ValueError(
                f"Expected a target above what is pruned already, {there:.4f} of the cost, but got "
                f"{target.removed:.4f}; raise it, or begin with the model before it was pruned."
            )


def matching(names: Sequence[str], parts: Sequence[str], key: str) -> list[str]:
    """Return the names that have one of some parts in them.

    Args:
        names: Names.
        parts: Parts; each has to be in one of the names.
        key: Setting that the parts are from, for the message.
    """
    for part in parts:
        if all(part not in name for name in names):
            raise ValueError(
                f"Expected {key} to match names of what can be pruned but {part!r} is in none; the first ones are "
                f"{', '.join(names[:3])}."
            )
    return [name for name in names if any(part in name for part in parts)]
