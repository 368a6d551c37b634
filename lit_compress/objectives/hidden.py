"""Mean squared error between hidden states, through an optional linear map."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from lit_compress.models.architecture import Architecture
from lit_compress.objectives.base import Objective
from lit_compress.objectives.layer_map import Pairs
from lit_compress.objectives.precision import in_float32
from lit_compress.objectives.projection import Projection, check_projection, check_widths
from lit_compress.objectives.recorded import need_bind, recorded, same_tokens
from lit_compress.objectives.reduction import check_reduction, masked_mean
from lit_compress.outputs import Capture, Outputs
from lit_compress.schedules import Schedule


@in_float32
def hidden_mse(
    student: Tensor,
    teacher: Tensor,
    mask: Tensor | None = None,
    reduction: str = "example",
    projection: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Compare hidden states by ``MSE(W h_S, h_T)`` (TinyBERT, arXiv:1909.10351, equations 8 and 9).

    Args:
        student: ``(batch, length, student_width)``.
        teacher: ``(batch, length, teacher_width)``.
        mask: ``(batch, length)``, true on real tokens; ``None`` where all are.
        reduction: ``"example"``, ``"token"`` or ``"padded"``; see ``reduction.REDUCTIONS``.
        projection: W; ``None`` where the widths are equal.

    Returns:
        A scalar: the mean over features, then over tokens and rows as ``reduction`` says.

    Raises:
        ValueError: The shapes do not fit.

    Example:
        >>> import torch
        >>> hidden_mse(torch.zeros(1, 2, 4), torch.full((1, 2, 4), 3.0)).item()
        9.0
    """
    check_reduction(reduction)
    same_tokens(student, teacher, "hidden states")
    projected = student if projection is None else projection(student)
    if projected.shape != teacher.shape:
        raise ValueError(
            f"Expected hidden states of equal width but got {projected.shape[-1]} and {teacher.shape[-1]}; "
            "use a projection from the student's width to the teacher's."
        )
    distance = (projected - teacher).square().mean(-1)
    if reduction == "padded":
        return distance.mean()
    return masked_mean(distance, mask, reduction)


class HiddenStates(Objective):
    """What objectives on pairs of hidden states share: projections, capture, the sum over pairs.

    Args:
        weight: Factor of this term in the sum, or a schedule of it.
        projection: ``shared``, ``separate`` or ``none``.
        reduction: ``example``, ``token`` or ``padded``.
    """

    aligned_tokens = True

    def __init__(self, weight: float | Schedule, projection: str, reduction: str) -> None:
        super().__init__(weight)
        check_projection(projection)
        check_reduction(reduction)
        self.projection, self.reduction = projection, reduction
        self.projections = nn.ModuleList()
        self.pairs: Pairs = []

    def _bind_pairs(self, pairs: Pairs, student: Architecture, teacher: Architecture) -> None:
        """Keep the pairs and create the projections, unless they are there already with the right sizes."""
        check_widths(type(self).__name__, self.projection, student.hidden_size, teacher.hidden_size)
        self.pairs = pairs
        count = {"shared": 1, "separate": len(pairs), "none": 0}[self.projection]
        shape = (student.hidden_size, teacher.hidden_size)
        if [(layer.in_features, layer.out_features) for layer in self.projections] != [shape] * count:
            self.projections = nn.ModuleList(Projection(*shape) for _ in range(count))

    @property
    def student_capture(self) -> Capture:
        """The student's hidden states of the pairs."""
        return Capture(hidden_states=frozenset(student for student, _ in self.pairs))

    @property
    def teacher_capture(self) -> Capture:
        """The teacher's hidden states of the pairs."""
        return Capture(hidden_states=frozenset(teacher for _, teacher in self.pairs))

    def forward(self, student: Outputs, teacher: Outputs, batch: Mapping[str, Any]) -> Tensor:
        """Return the sum over the pairs."""
        need_bind(self, bool(self.pairs) and (self.projection == "none" or len(self.projections) > 0))
        losses = [
            hidden_mse(
                recorded(student.hidden_states, student_index, "hidden states of the student"),
                recorded(teacher.hidden_states, teacher_index, "hidden states of the teacher"),
                student.mask,
                reduction=self.reduction,
                projection=self._projection(position),
            )
            for position, (student_index, teacher_index) in enumerate(self.pairs)
        ]
        return sum(losses[1:], losses[0])

    def _projection(self, position: int) -> nn.Module | None:
        if self.projection == "none":
            return None
        return self.projections[position if self.projection == "separate" else 0]
