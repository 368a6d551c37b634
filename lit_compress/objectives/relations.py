"""Compare how tokens relate to each other: KL divergence between rows of attention-like matrices."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from lit_compress.objectives.precision import in_float32
from lit_compress.objectives.recorded import same_tokens
from lit_compress.objectives.reduction import check_reduction, masked_mean


@in_float32
def distribution_kl(
    student: Tensor, teacher: Tensor, mask: Tensor | None = None, reduction: str = "example"
) -> Tensor:
    """Average ``KL(softmax(S_T) ‖ softmax(S_S))`` over heads and query tokens (arXiv:2002.10957, equation 3).

    Args:
        student: Scores before the softmax, ``(batch, heads, length, length)``.
        teacher: Same shape.
        mask: ``(batch, length)``, true on real tokens; padding is left out as query and as key.
        reduction: ``"example"`` (mean over each row's tokens, then over rows) or ``"token"`` (mean over all
            valid tokens).

    Returns:
        A scalar.

    Raises:
        ValueError: The shapes differ.

    Example:
        >>> scores = torch.randn(1, 2, 3, 3)
        >>> distribution_kl(scores, scores + 5.0).abs().item() < 1e-6
        True
    """
    check_reduction(reduction, ("example", "token"))
    same_tokens(student.transpose(1, 2), teacher.transpose(1, 2), "attention relations")
    if student.shape != teacher.shape:
        raise ValueError(
            f"Expected attention relations with the same number of heads but got {student.shape[1]} in the "
            f"student and {teacher.shape[1]} in the teacher; use MiniLMRelations with relation_heads."
        )
    if mask is not None:
        # Finite, because 0 * log(0 / 0) is not a number; far enough that the softmax is exactly 0.
        student, teacher = (
            scores.masked_fill(~mask[:, None, None, :], -1e9) for scores in (student, teacher)
        )
    log_student, log_teacher = F.log_softmax(student, dim=-1), F.log_softmax(teacher, dim=-1)
    divergence = (log_teacher.exp() * (log_teacher - log_student)).sum(-1)
    return masked_mean(divergence.mean(1), mask, reduction)


@in_float32
def relation_kl(
    student: Tensor,
    teacher: Tensor,
    mask: Tensor | None = None,
    relation_heads: int = 12,
    reduction: str = "example",
) -> Tensor:
    """Compare the relations ``softmax(XXᵀ/√d_r)`` of queries, keys or values (MiniLMv2, arXiv:2012.15828).

    The heads of each model are concatenated and split again into ``relation_heads``, so widths and head
    counts may differ.

    Args:
        student: ``(batch, heads, length, head_dim)``.
        teacher: ``(batch, heads, length, head_dim)``; heads and head_dim may differ from the student's.
        mask: ``(batch, length)``, true on real tokens; padding is left out in rows and in columns.
        relation_heads: Number of parts; must divide both widths (heads times head_dim).
        reduction: ``"example"`` or ``"token"``, as in ``distribution_kl``.

    Returns:
        A scalar, the mean over relation heads.

    Raises:
        ValueError: A width cannot be split.

    Example:
        >>> vectors = torch.randn(2, 4, 3, 8)
        >>> relation_kl(vectors, vectors, relation_heads=2).abs().item() < 1e-6
        True
    """
    return distribution_kl(
        _relation_scores(student, relation_heads),
        _relation_scores(teacher, relation_heads),
        mask,
        reduction=reduction,
    )


def _relation_scores(vectors: Tensor, relation_heads: int) -> Tensor:
    batch, heads, length, head_dim = vectors.shape
    if (heads * head_dim) % relation_heads:
        raise ValueError(
            f"Expected relation_heads to divide the width {heads * head_dim} but got {relation_heads}; "
            "choose a common divisor of both models' widths."
        )
    merged = vectors.transpose(1, 2).reshape(batch, length, relation_heads, -1).transpose(1, 2)
    return torch.matmul(merged * merged.shape[-1] ** -0.5, merged.transpose(-1, -2))
