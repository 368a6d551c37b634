"""Scores: what a unit, a single weight up to a whole layer, is worth. The lowest ones are closed first."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from lit_compress.pruning.sites import GateSite, Site


class Score(ABC):
    """What units are worth.

    Life of a score: ``check`` at the start of a fit; ``start`` makes the numbers that it keeps per unit, which the
    checkpoint has; they change with every batch (``observe``) or every optimizer step (``collect``); ``values``
    are what units are ranked by.
    """

    #: Whether the kept numbers get the gradient of the loss with respect to the gates, ``sum(w * dL/dw)``.
    listens: bool = False
    #: Whether the value of a large unit counts for its size: values that add up are compared per unit of cost.
    adds_up: bool = True

    def check(self, sites: Sequence[Site]) -> None:  # noqa: B027
        """Refuse places that cannot be scored."""

    def start(self, sites: Sequence[Site]) -> dict[str, Tensor]:
        """Return the numbers that are kept per unit, by the name of the place; nothing where none are needed."""
        return {}

    def optimizer(self, kept: Mapping[str, Tensor]) -> Optimizer | None:
        """Return the optimizer that learns the numbers, ``None`` where they are not learned."""
        return None

    def collect(self, kept: Tensor, gradient: Tensor) -> None:  # noqa: B027
        """Take in the gradient with respect to the gates, once per optimizer step; both of one shape."""

    def observe(self, kept: Mapping[str, Tensor], batch: Any, total: Callable[[Tensor], Tensor]) -> None:  # noqa: B027
        """Take in a batch of training.

        Args:
            kept: The numbers that are kept.
            batch: The batch of this process.
            total: Adds up a tensor over all processes.
        """

    @abstractmethod
    def values(self, site: Site, kept: Tensor | None) -> Tensor:
        """Return the values to rank by, in the shape of ``site.open``."""

    def state(self) -> dict[str, Any]:
        """Return more for the checkpoint than the kept numbers."""
        return {}

    def load(self, state: dict[str, Any]) -> None:  # noqa: B027
        """Take what ``state`` returned."""


class Magnitude(Score):
    """Large weights are worth more: ``|w|`` for single weights, the sum of squares for larger units.

    Han et al. 2015, arXiv:1506.02626; with the cubic ramp it is the gradual pruning of Zhu and Gupta,
    arXiv:1710.01878. Until the ramp ends a weight may come back: what is masked still has a value, and is
    compared with the others.
    """

    def values(self, site: Site, kept: Tensor | None) -> Tensor:
        """Return the magnitudes; see ``Score.values``."""
        return site.magnitude()


class Random(Score):
    """No score at all: the control that every other one has to beat.

    The numbers are drawn once, so that what is closed stays closed.

    Args:
        seed: Seed of the score's own random numbers; those of training are not touched.
    """

    adds_up = False

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self._drawn_from: Tensor | None = None

    def start(self, sites: Sequence[Site]) -> dict[str, Tensor]:
        """Draw the numbers, again the same ones in a fit that goes on."""
        generator = torch.Generator().manual_seed(self.seed)
        if self._drawn_from is not None:
            generator.set_state(self._drawn_from.cpu())
        self._drawn_from = generator.get_state()
        self._values = {
            site.name: torch.rand(site.open.shape, generator=generator).to(site.open.device) for site in sites
        }
        return {}

    def values(self, site: Site, kept: Tensor | None) -> Tensor:
        """Return the random numbers; see ``Score.values``."""
        return self._values[site.name]

    def state(self) -> dict[str, Any]:
        """Return the state of the generator from which the numbers are drawn."""
        return {} if self._drawn_from is None else {"generator": self._drawn_from}

    def load(self, state: dict[str, Any]) -> None:
        """Draw from the stored state."""
        self._drawn_from = state.get("generator")


class _Gradient(Score):
    """Base of what is measured on gradients: a sum over the steps, of which old ones count less.

    Args:
        decay: Factor of the sum in every optimizer step, in (0, 1]; 1 is the plain sum.
    """

    listens = True

    def __init__(self, decay: float) -> None:
        if not 0.0 < decay <= 1.0:
            raise ValueError(
                f"Expected decay in (0, 1] but got {decay}; 1 sums up all steps, 0.95 about the last 20 of them."
            )
        self.decay = decay

    def start(self, sites: Sequence[Site]) -> dict[str, Tensor]:
        """Begin with zeros."""
        return {site.name: site.new_scores().requires_grad_() for site in sites}

    def values(self, site: Site, kept: Tensor | None) -> Tensor:
        """Return the sums; see ``Score.values``."""
        assert kept is not None
        return kept.detach()


class Taylor(_Gradient):
    r"""What closing a unit changes in the loss, to first order: :math:`\sum_t |\sum_{w} w \, \partial L/\partial w|`.

    The inner sum, over the weights that a gate of the unit would multiply, is the gradient of the loss with
    respect to the gate. Michel et al. 2019, arXiv:1905.10650, equation 2, for heads; Molchanov et al. 2019,
    arXiv:1906.10771, for neurons. The outer sum runs over optimizer steps; batches that are accumulated in one
    step count as one batch.

    Args:
        decay: Factor of the sum in every optimizer step, in (0, 1]; 1 is the plain sum.
    """

    def __init__(self, decay: float = 0.95) -> None:
        super().__init__(decay)

    def collect(self, kept: Tensor, gradient: Tensor) -> None:
        """Add the absolute gradient."""
        with torch.no_grad():
            kept.mul_(self.decay).add_(gradient.abs())


class Fisher(_Gradient):
    r"""The diagonal of the empirical Fisher information of the gates: :math:`\sum_t (\partial L/\partial z)^2`.

    Theis et al. 2018, arXiv:1801.05787; Kwon et al. 2022, arXiv:2204.09656, equation 6, for heads and neurons. The
    gradient is that of a batch, not of one example.

    Args:
        decay: Factor of the sum in every optimizer step, in (0, 1]; 1 is the plain sum.
    """

    def __init__(self, decay: float = 0.95) -> None:
        super().__init__(decay)

    def collect(self, kept: Tensor, gradient: Tensor) -> None:
        """Add the squared gradient."""
        with torch.no_grad():
            kept.mul_(self.decay).addcmul_(gradient, gradient)


class Frequency(Score):
    """Rows of the vocabulary are worth how often their token is in the batches of training; for ``vocabulary``."""

    adds_up = False

    def check(self, sites: Sequence[Site]) -> None:
        """Refuse everything but a vocabulary."""
        for site in sites:
            if not isinstance(site, GateSite) or site.group.structure != "vocabulary":
                raise ValueError(
                    f"Expected structure: vocabulary for the score Frequency but got {site.name}; take another score."
                )

    def start(self, sites: Sequence[Site]) -> dict[str, Tensor]:
        """Begin to count at zero."""
        return {site.name: torch.zeros(site.open.shape, device=site.open.device) for site in sites}

    def observe(self, kept: Mapping[str, Tensor], batch: Any, total: Callable[[Tensor], Tensor]) -> None:
        """Count the tokens of a batch; see ``Score.observe``.

        Raises:
            ValueError: The batch has no ``input_ids``.
        """
        if "input_ids" not in batch:
            raise ValueError(
                "Expected batches with input_ids for the score Frequency but they have none; take Magnitude."
            )
        for counts in kept.values():
            counts += total(
                torch.bincount(batch["input_ids"].flatten().to(counts.device), minlength=len(counts))
            )

    def values(self, site: Site, kept: Tensor | None) -> Tensor:
        """Return the counts; see ``Score.values``."""
        assert kept is not None
        return kept
