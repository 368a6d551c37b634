"""Turn the student's last hidden states into the teacher's direction, as DistilBERT does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from lit_compress.models.architecture import Architecture
from lit_compress.objectives.base import Objective
from lit_compress.objectives.precision import in_float32
from lit_compress.objectives.projection import check_widths
from lit_compress.objectives.recorded import need_bind, recorded, same_tokens
from lit_compress.objectives.reduction import check_reduction, masked_mean
from lit_compress.outputs import Capture, Outputs
from lit_compress.schedules import Schedule


@in_float32
def cosine_embedding(
    student: Tensor, teacher: Tensor, mask: Tensor | None = None, reduction: str = "example"
) -> Tensor:
    """Average ``1 − cos(h_S, h_T)`` over tokens (DistilBERT, arXiv:1910.01108, section 3).

    Args:
        student: ``(batch, length, width)``.
        teacher: Same shape.
        mask: ``(batch, length)``, true on real tokens; ``None`` where all are.
        reduction: ``"example"`` (mean over each row's tokens, then over rows) or ``"token"`` (mean over all
            valid tokens, as the published code does).

    Returns:
        A scalar in ``[0, 2]``.

    Raises:
        ValueError: The shapes do not fit.

    Example:
        >>> import torch
        >>> cosine_embedding(torch.tensor([[[1.0, 0.0]]]), torch.tensor([[[0.0, 2.0]]])).item()
        1.0
    """
    check_reduction(reduction, ("example", "token"))
    same_tokens(student, teacher, "hidden states")
    if student.shape != teacher.shape:
        raise ValueError(
            f"Expected hidden states of equal width but got {student.shape[-1]} and {teacher.shape[-1]}; use "
            "TinyBERTHidden, which projects, or MiniLMRelations."
        )
    return masked_mean(1 - F.cosine_similarity(student, teacher, dim=-1), mask, reduction)


class CosineEmbedding(Objective):
    """Align the direction of the last hidden states (DistilBERT, arXiv:1910.01108, section 3).

    Both models need the same width. The published code averages over all valid tokens of the batch:
    ``reduction: token``.

    Args:
        weight: Factor of this term in the sum, or a schedule of it.
        reduction: ``example`` (default: mean over each row's tokens, then over rows) or ``token`` (mean over
            all valid tokens).
    """

    aligned_tokens = True

    def __init__(self, weight: float | Schedule = 1.0, reduction: str = "example") -> None:
        super().__init__(weight)
        check_reduction(reduction, ("example", "token"))
        self.reduction = reduction
        self.pair: tuple[int, int] | None = None

    def bind(self, student: Architecture, teacher: Architecture) -> None:
        """Note which hidden states are the last ones.

        Raises:
            ValueError: The widths differ.
        """
        check_widths("CosineEmbedding", "none", student.hidden_size, teacher.hidden_size)
        self.pair = (student.num_layers, teacher.num_layers)

    @property
    def student_capture(self) -> Capture:
        """The student's last hidden state."""
        return Capture(hidden_states=frozenset(self.pair[:1]) if self.pair else frozenset())

    @property
    def teacher_capture(self) -> Capture:
        """The teacher's last hidden state."""
        return Capture(hidden_states=frozenset(self.pair[1:]) if self.pair else frozenset())

    def forward(self, student: Outputs, teacher: Outputs, batch: Mapping[str, Any]) -> Tensor:
        """Return the mean over tokens."""
        need_bind(self, self.pair is not None)
        student_index, teacher_index = self.pair or (0, 0)
        return cosine_embedding(
            recorded(student.hidden_states, student_index, "hidden states of the student"),
            recorded(teacher.hidden_states, teacher_index, "hidden states of the teacher"),
            student.mask,
            reduction=self.reduction,
        )
