"""A linear map from the student's width to the teacher's, used while training and dropped at export."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

PROJECTIONS = ("shared", "separate", "none")


class Projection(nn.Linear):
    """Linear layer that computes in its input's precision, so that a bf16 module does not round the loss.

    Its start is fixed and leaves the global random state alone: the identity where the widths are equal (the
    objective then begins as the plain distance), else a random map that keeps lengths as far as it can.

    Args:
        student_width: Size of the input's last dimension.
        teacher_width: Size of the output's last dimension.
    """

    def __init__(self, student_width: int, teacher_width: int) -> None:
        super().__init__(student_width, teacher_width)

    def reset_parameters(self) -> None:
        """Set the fixed start."""
        with torch.no_grad():
            self.bias.zero_()
            if self.in_features == self.out_features:
                nn.init.eye_(self.weight)
            else:
                nn.init.orthogonal_(self.weight, generator=torch.Generator().manual_seed(0))

    def forward(self, input: Tensor) -> Tensor:
        """Project ``(..., student_width)`` to ``(..., teacher_width)``."""
        return F.linear(input, self.weight.to(input.dtype), self.bias.to(input.dtype))


def check_projection(projection: str) -> None:
    """Refuse an unknown kind of projection.

    Raises:
        ValueError: It is none of ``PROJECTIONS``.
    """
    if projection not in PROJECTIONS:
        raise ValueError(f"Expected projection to be one of {', '.join(PROJECTIONS)} but got {projection!r}.")


def check_widths(owner: str, projection: str, student_width: int, teacher_width: int) -> None:
    """Refuse two widths that nothing brings together.

    Args:
        owner: Name of the objective, for the message.
        projection: ``"none"`` or a kind of projection.
        student_width: Hidden size of the student.
        teacher_width: Hidden size of the teacher.

    Raises:
        ValueError: The widths differ and there is no projection.
    """
    if projection == "none" and student_width != teacher_width:
        raise ValueError(
            f"Expected equal hidden sizes for {owner} without a projection but got {student_width} in the "
            f"student and {teacher_width} in the teacher; use TinyBERTHidden with projection: shared, or "
            "MiniLMRelations, which compares any two widths."
        )
