"""The task's own loss on the true labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from lit_compress.objectives.base import Objective
from lit_compress.objectives.precision import in_float32
from lit_compress.objectives.recorded import logits_of
from lit_compress.outputs import Outputs


@in_float32
def hard_labels(logits: Tensor, labels: Tensor) -> Tensor:
    """Return cross-entropy for integer labels and mean squared error for float labels.

    Args:
        logits: ``(batch, num_labels)``; ``(batch, 1)`` or ``(batch,)`` for regression.
        labels: ``(batch,)``.

    Returns:
        A scalar, the mean over rows.

    Raises:
        ValueError: Logits and labels do not belong together.

    Example:
        >>> import torch
        >>> hard_labels(torch.tensor([[0.5], [2.0]]), torch.tensor([1.5, 2.0])).item()
        0.5
    """
    if labels.is_floating_point():
        if logits.numel() != labels.numel():
            raise ValueError(
                f"Expected one logit per row for float labels but got logits of shape {tuple(logits.shape)}; "
                "use a model with num_labels=1, or integer labels."
            )
        return F.mse_loss(logits.reshape(-1), labels.reshape(-1).to(logits.dtype))
    if logits.shape[-1] == 1:
        raise ValueError(
            "Expected at least 2 logits per row for integer labels but got 1; use float labels for "
            "regression or a model with num_labels >= 2."
        )
    return F.cross_entropy(logits, labels)


class HardLabels(Objective):
    """Cross-entropy with integer labels, or mean squared error with float labels. Needs no teacher.

    Args:
        weight: Factor of this term in the sum, or a schedule of it.
    """

    needs_teacher = False

    def forward(self, student: Outputs, teacher: Outputs, batch: Mapping[str, Any]) -> Tensor:
        """Return the loss of the student on ``batch["labels"]``.

        Raises:
            ValueError: The batch has no labels.
        """
        if "labels" not in batch:
            raise ValueError(
                f"Expected 'labels' in the batch for HardLabels but got the keys {sorted(batch)}; train on "
                "labelled data or leave this objective out."
            )
        return hard_labels(logits_of(student, "student"), batch["labels"])
