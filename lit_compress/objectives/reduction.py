"""The mean over the valid tokens of a batch, in the ways papers and code take it."""

from __future__ import annotations

import torch
from torch import Tensor

#: ``example``: mean over each row's valid tokens, then over rows; exact under DDP and accumulation.
#: ``token``: mean over all valid tokens of the batch, so long rows count more.
#: ``padded``: mean over every position, padding included, as the TinyBERT code does; it depends on the
#: padding.
REDUCTIONS = ("example", "token", "padded")


def masked_mean(values: Tensor, mask: Tensor | None, reduction: str = "example") -> Tensor:
    """Average per-token values over a batch.

    Args:
        values: ``(batch, ...)``, one number per token, or per pair of tokens.
        mask: Boolean, broadcastable to ``values``, true where a value counts; ``None`` where all do.
        reduction: ``"example"`` or ``"token"``.

    Returns:
        A scalar. A row without any valid value counts as 0 under ``"example"``.

    Raises:
        ValueError: Unknown reduction.

    Example:
        >>> values = torch.tensor([[1.0, 3.0], [8.0, 0.0]])
        >>> mask = torch.tensor([[True, True], [True, False]])
        >>> masked_mean(values, mask, "example").item(), masked_mean(values, mask, "token").item()
        (5.0, 4.0)
    """
    check_reduction(reduction, ("example", "token"))
    if mask is None:
        return values.mean()
    mask = mask.expand_as(values)
    # Not a product: 0 * inf would let a padded position in.
    kept = torch.where(mask, values, 0.0)
    if reduction == "token":
        return kept.sum() / mask.sum().clamp(min=1)
    return (kept.flatten(1).sum(1) / mask.flatten(1).sum(1).clamp(min=1)).mean()


def check_reduction(reduction: str, allowed: tuple[str, ...] = REDUCTIONS) -> None:
    """Refuse an unknown reduction.

    Raises:
        ValueError: It is none of ``allowed``.
    """
    if reduction not in allowed:
        raise ValueError(f"Expected reduction to be one of {', '.join(allowed)} but got {reduction!r}.")
