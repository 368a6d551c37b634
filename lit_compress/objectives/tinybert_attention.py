"""Learn the teacher's attention scores, as TinyBERT does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lit_compress.models.architecture import Architecture
from lit_compress.objectives.base import Objective
from lit_compress.objectives.layer_map import Pairs, block_pairs, early_pairs
from lit_compress.objectives.precision import in_float32
from lit_compress.objectives.preset import resolve_options
from lit_compress.objectives.recorded import need_bind, recorded, same_tokens
from lit_compress.objectives.reduction import check_reduction, masked_mean
from lit_compress.outputs import Capture, Outputs
from lit_compress.schedules import Schedule


@in_float32
def attention_mse(
    student: Tensor, teacher: Tensor, mask: Tensor | None = None, reduction: str = "example"
) -> Tensor:
    """Compare attention scores by their mean squared error (TinyBERT, arXiv:1909.10351, equation 7).

    Args:
        student: Scores before the softmax, ``(batch, heads, length, length)``.
        teacher: Same shape.
        mask: ``(batch, length)``, true on real tokens; a pair counts where both tokens are real.
        reduction: ``"example"`` (mean over each row's pairs and heads, then over rows), ``"token"`` (mean
            over all valid pairs) or ``"padded"``, the published code: scores of padded keys are 0 in both
            models, and every position counts in the mean.

    Returns:
        A scalar.

    Raises:
        ValueError: The shapes do not fit.

    Example:
        >>> attention_mse(torch.zeros(1, 2, 3, 3), torch.full((1, 2, 3, 3), 2.0)).item()
        4.0
    """
    check_reduction(reduction)
    same_tokens(student.transpose(1, 2), teacher.transpose(1, 2), "attention scores")
    if student.shape != teacher.shape:
        raise ValueError(
            f"Expected attention scores with the same number of heads but got {student.shape[1]} in the "
            f"student and {teacher.shape[1]} in the teacher; use MiniLMRelations."
        )
    distance = (student - teacher).square()
    if mask is None:
        return distance.mean()
    keys = mask[:, None, None, :]
    if reduction == "padded":
        return torch.where(keys, distance, 0.0).mean()
    return masked_mean(distance, keys & mask[:, None, :, None], reduction)


class TinyBERTAttention(Objective):
    """Learn the teacher's attention scores before the softmax (TinyBERT, arXiv:1909.10351, equation 7).

    The loss is the sum over the mapped blocks of the mean squared error. Both models need the same number
    of heads. A written-out layer map works in a plain loop without ``bind``.

    Args:
        weight: Factor of this term in the sum, or a schedule of it.
        layer_map: ``uniform`` (default), ``skip``, ``last``, or pairs of 0-based blocks (student, teacher).
        reduction: ``example`` (default: mean over each row's token pairs, then over rows), ``token`` (mean
            over all valid pairs) or ``padded`` (mean over all positions, scores of padded keys being 0).
        preset: ``paper`` (``token``) or ``reference`` (``padded``); excludes a reduction that contradicts it.
    """

    aligned_tokens = True

    def __init__(
        self,
        weight: float | Schedule = 1.0,
        layer_map: str | list[list[int]] = "uniform",
        reduction: str | None = None,
        preset: str | None = None,
    ) -> None:
        super().__init__(weight)
        presets = {"paper": {"reduction": "token"}, "reference": {"reduction": "padded"}}
        options = resolve_options(
            "TinyBERTAttention", preset, presets, {"reduction": "example"}, {"reduction": reduction}
        )
        self.reduction: str = options["reduction"]
        check_reduction(self.reduction)
        self.layer_map = layer_map
        self.pairs: Pairs = early_pairs(layer_map)

    def bind(self, student: Architecture, teacher: Architecture) -> None:
        """Resolve the layer map.

        Raises:
            ValueError: The layer map or the head counts do not fit.
        """
        if student.num_heads != teacher.num_heads:
            raise ValueError(
                f"Expected a student with the teacher's {teacher.num_heads} attention heads for "
                f"TinyBERTAttention but got {student.num_heads}; set num_attention_heads: "
                f"{teacher.num_heads} in the student, or use MiniLMRelations, which compares any two head "
                "counts."
            )
        self.pairs = block_pairs(self.layer_map, student.num_layers, teacher.num_layers)

    @property
    def student_capture(self) -> Capture:
        """The student's attention scores of the mapped blocks."""
        return Capture(attention_scores=frozenset(student for student, _ in self.pairs))

    @property
    def teacher_capture(self) -> Capture:
        """The teacher's attention scores of the mapped blocks."""
        return Capture(attention_scores=frozenset(teacher for _, teacher in self.pairs))

    def forward(self, student: Outputs, teacher: Outputs, batch: Mapping[str, Any]) -> Tensor:
        """Return the sum over the mapped blocks."""
        need_bind(self, bool(self.pairs))
        losses = [
            attention_mse(
                recorded(student.attention_scores, student_block, "attention scores of the student"),
                recorded(teacher.attention_scores, teacher_block, "attention scores of the teacher"),
                student.mask,
                reduction=self.reduction,
            )
            for student_block, teacher_block in self.pairs
        ]
        return sum(losses[1:], losses[0])
