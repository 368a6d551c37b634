"""Movement pruning: scores that are learned, which grow where a weight moves away from zero."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.optim import Optimizer

from lit_compress.pruning.ranking import lowest
from lit_compress.pruning.scores import Score
from lit_compress.pruning.sites import Site


class Movement(Score):
    """Movement pruning with a set share of weights: those with the highest scores stay (arXiv:2005.07683).

    The model computes with ``W' = W * M(S)``, the scores get the straight-through gradient ``dL/dS = dL/dW' * W``
    (equation 2; summed over the block, or over all weights of a gate, for larger units), and closed weights get
    none. Scores are not decayed. The paper takes the highest scores of each matrix, ``local``; ``global`` compares all
    of them.

    In the paper scores begin at 0. Their ranking then does not depend on ``lr``, and the first weights that are closed
    are those that lie along the gradient: over tens of thousands of steps the weights follow, in a short fit closing
    one in a hundred of them loses the model (docs/results_movement.md). ``start_from="magnitude"`` spreads the scores
    out, so that ``lr`` says how many ranks a step can move; with it take ``lr=1e-3``.

    Args:
        lr: Peak learning rate of the scores; it follows the schedule of the module's optimizer.
        start_from: ``"zeros"``, or ``"magnitude"``: the magnitude of a unit over the mean of its matrix.
    """

    listens = True
    adds_up = False

    def __init__(self, lr: float = 1e-2, start_from: Literal["zeros", "magnitude"] = "zeros") -> None:
        if lr <= 0:
            raise ValueError(f"Expected lr > 0 for the scores of {type(self).__name__} but got {lr}.")
        if start_from not in ("zeros", "magnitude"):
            raise ValueError(f"Expected start_from to be zeros or magnitude but got {start_from!r}.")
        self.lr, self.start_from = lr, start_from

    def start(self, sites: Sequence[Site]) -> dict[str, Tensor]:
        """Begin with zeros, or with magnitudes of mean 1."""
        scores = {site.name: site.new_scores() for site in sites}
        if self.start_from == "magnitude":
            for site in sites:
                magnitude = site.magnitude().detach()
                # A matrix of zeros has no mean to divide by, and no ranks either.
                scores[site.name] += magnitude / magnitude.mean().clamp_min(torch.finfo(magnitude.dtype).tiny)
        return {name: score.requires_grad_() for name, score in scores.items()}

    def optimizer(self, kept: Mapping[str, Tensor]) -> Optimizer | None:
        """Return AdamW without decay."""
        group = {"params": list(kept.values()), "lr": self.lr, "peak_lr": self.lr, "follow": True}
        return torch.optim.AdamW([group], lr=self.lr, weight_decay=0.0, fused=True)

    def values(self, site: Site, kept: Tensor | None) -> Tensor:
        """Return the scores; see ``Score.values``."""
        assert kept is not None
        return kept.detach()


class SoftMovement(Movement):
    r"""Movement pruning with a threshold: a weight stays while :math:`\sigma(S) > \tau` (arXiv:2005.07683).

    The ramp moves the threshold from 0 to ``threshold`` and, with it, a penalty: ``penalty`` times the mean over
    all matrices of the mean :math:`\sigma(S)`. Each matrix finds its own sparsity, so there is no target: a larger
    penalty closes more.

    Args:
        threshold: Threshold at the end of the ramp, in (0, 1); at 0.5 and above everything would be closed before
            a score has moved.
        penalty: Factor of the penalty at the end of the ramp.
        keep: Least share of each matrix that stays.
        lr: Peak learning rate of the scores; it follows the schedule of the module's optimizer.
    """

    def __init__(
        self, threshold: float = 0.1, penalty: float = 100.0, keep: float = 0.005, lr: float = 1e-2
    ) -> None:
        super().__init__(lr)
        if not 0.0 < threshold < 0.5:
            raise ValueError(f"Expected threshold between 0 and 0.5 but got {threshold}.")
        if penalty <= 0:
            raise ValueError(
                f"Expected penalty > 0 but got {penalty}; without one nothing is closed: take Movement."
            )
        if not 0.0 < keep < 1.0:
            raise ValueError(f"Expected keep between 0 and 1 (share of each matrix) but got {keep}.")
        self.threshold, self.penalty, self.keep = threshold, penalty, keep

    def decide(
        self, values: Mapping[str, Tensor], pools: Sequence[Sequence[str]], at_least: int, position: float
    ) -> dict[str, Tensor]:
        """Return which units stay, as booleans by the name of their place.

        Args:
            values: The scores.
            pools: Names of the places that count as one when the least share is kept.
            at_least: Least number of units of every pool.
            position: Where the ramp is, in [0, 1]: the threshold is this share of the final one.
        """
        opened: dict[str, Tensor] = {}
        for names in pools:
            scores = torch.cat([values[name].flatten() for name in names])
            kept = self.above(scores, at_least, position).split([values[name].numel() for name in names])
            opened |= {name: part.view_as(values[name]) for name, part in zip(names, kept, strict=True)}
        return opened

    def above(self, scores: Tensor, at_least: int, position: float) -> Tensor:
        r"""Return which units stay: :math:`\sigma(S) > \tau`, and never less than the least share.

        Args:
            scores: Scores of one pool ``(units,)``.
            at_least: Least number of units.
            position: Where the ramp is, in [0, 1].
        """
        least = max(at_least, math.ceil(self.keep * len(scores)))
        # In the logits: the sigmoid of float32 is 0 below -104.
        tau = self.threshold * position
        kept = scores > (math.log(tau / (1 - tau)) if tau > 0 else -math.inf)
        if int(kept.count_nonzero()) < least:
            kept = ~lowest(scores, len(scores) - least)
        return kept

    def regularization(self, kept: Mapping[str, Tensor], position: float) -> Tensor:
        """Return the term of the loss, a scalar with a gradient for the scores."""
        means = torch.stack([torch.sigmoid(scores).mean() for scores in kept.values()])
        return self.penalty * position * means.mean()
