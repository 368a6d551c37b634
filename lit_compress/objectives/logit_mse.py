"""Learn the teacher's logits by their mean squared error."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from lit_compress.models.architecture import Architecture
from lit_compress.objectives.base import Objective
from lit_compress.objectives.precision import in_float32
from lit_compress.objectives.preset import resolve_options
from lit_compress.objectives.recorded import logits_of
from lit_compress.outputs import Outputs
from lit_compress.schedules import Schedule

REDUCTIONS = ("batchmean", "mean")
_PRESETS = {"paper": {"reduction": "batchmean"}, "reference": {"reduction": "mean"}}


@in_float32
def logit_mse(student: Tensor, teacher: Tensor, reduction: str = "mean") -> Tensor:
    """Compare logits by ``‖z_S − z_T‖²`` (Ba and Caruana, arXiv:1312.6184; Tang et al., arXiv:1903.12136).

    Args:
        student: ``(batch, num_labels)``.
        teacher: Same shape.
        reduction: ``"mean"`` over rows and labels; ``"batchmean"`` sums over labels and averages over rows.

    Returns:
        A scalar.

    Raises:
        ValueError: The reduction is unknown or the shapes differ.

    Example:
        >>> import torch
        >>> logit_mse(torch.zeros(2, 3), torch.ones(2, 3), reduction="batchmean").item()
        3.0
    """
    _check(reduction)
    if student.shape != teacher.shape:
        raise ValueError(
            f"Expected logits of the same shape but got {tuple(student.shape)} from the student and "
            f"{tuple(teacher.shape)} from the teacher; both need the same labels."
        )
    squares = (student - teacher).square()
    return squares.mean() if reduction == "mean" else squares.sum(-1).mean()


def _check(reduction: str) -> None:
    if reduction not in REDUCTIONS:
        raise ValueError(f"Expected reduction to be one of {', '.join(REDUCTIONS)} but got {reduction!r}.")


class LogitMSE(Objective):
    """Learn the teacher's logits by their mean squared error; also the soft target of regression.

    Tang et al. (arXiv:1903.12136) write the squared norm (``paper``); their code takes the mean
    (``reference``).

    Args:
        weight: Factor of this term in the sum, or a schedule of it.
        reduction: ``mean`` (default: over rows and labels) or ``batchmean`` (sum over labels, mean over
            rows).
        preset: ``paper`` (``batchmean``) or ``reference`` (``mean``); excludes a reduction that contradicts
            it.
    """

    def __init__(
        self, weight: float | Schedule = 1.0, reduction: str | None = None, preset: str | None = None
    ) -> None:
        super().__init__(weight)
        options = resolve_options(
            "LogitMSE", preset, _PRESETS, {"reduction": "mean"}, {"reduction": reduction}
        )
        self.reduction: str = options["reduction"]
        _check(self.reduction)

    def bind(self, student: Architecture, teacher: Architecture) -> None:
        """Check that both models have the same number of outputs.

        Raises:
            ValueError: They have not.
        """
        if student.num_labels != teacher.num_labels:
            raise ValueError(
                f"Expected a student with the teacher's {teacher.num_labels} outputs but got "
                f"{student.num_labels}; fine-tune the teacher on the same task."
            )

    def forward(self, student: Outputs, teacher: Outputs, batch: Mapping[str, Any]) -> Tensor:
        """Return the loss on the logits."""
        return logit_mse(logits_of(student, "student"), logits_of(teacher, "teacher"), self.reduction)
