"""How long a fit that prunes has to be: gates and what is left learn in steps, however few texts there are."""

from __future__ import annotations

import math
from dataclasses import dataclass

#: Least steps of a fit that prunes. Nearly the same plan on the 67,349 phrases of SST-2 kept 95.4 % of the accuracy on
#: dev in 2,105 steps, and 97.6 % in 6,315 (docs/flagship_sst2.md).
STEPS = 5000
# Copies of the training texts for the teacher to label, where texts are few.
_COPIES = 3
# Rounding begins in the second half: what is pruned is not seen once only.
_LEAST_EPOCHS = 2
# Validations of a fit. Only what is validated after ranges are fixed, in its last part, can be kept.
_VALIDATIONS = 20


@dataclass(frozen=True)
class Length:
    """How long a fit is.

    Args:
        epochs: Passes over the texts and their copies.
        copies: Perturbed copies of every text.
        steps: Steps of all passes together.
    """

    epochs: int
    copies: int
    steps: int

    def words(self, cuts: bool) -> list[str]:
        """Return the words of a fit.

        Args:
            cuts: Whether it prunes, or begins with fewer blocks; one that only rounds is as long as its recipe says.
        """
        augment = f"--data.augment.copies={self.copies}" if self.copies else "--data.augment=null"
        if not cuts:
            return [augment]
        often = 1 / math.ceil(_VALIDATIONS / self.epochs)
        return [augment, f"--trainer.max_epochs={self.epochs}", f"--trainer.val_check_interval={often}"]


def length_for(texts: int, batch_size: int) -> Length:
    """Return the shortest length with enough steps.

    Args:
        texts: Training texts.
        batch_size: Texts per step.
    """
    copies = _COPIES if _steps(texts, _COPIES, batch_size) <= STEPS else 0
    once = _steps(texts, copies, batch_size)
    epochs = max(_LEAST_EPOCHS, math.ceil(STEPS / once))
    return Length(epochs, copies, epochs * once)


def _steps(texts: int, copies: int, batch_size: int) -> int:
    return math.ceil(texts * (1 + copies) / batch_size)
