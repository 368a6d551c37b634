"""Single weights removed after training, from what their layer reads: SparseGPT and Wanda."""

from __future__ import annotations

import torch
from torch import Tensor

from lit_compress.quantization.hessian import inverse_factor

# Columns that are compared with each other, and between two updates of all that is to the right.
_BLOCK = 128
# Sizes of the groups of a pattern; they divide a block.
_DIVISORS = (2, 4, 8, 16, 32)


def sparsegpt(
    weight: Tensor,
    hessian: Tensor,
    sparsity: float | None = None,
    pattern: tuple[int, int] | None = None,
    damp: float = 0.01,
) -> Tensor:
    """Remove weights one column after another, and let the others make up for it (arXiv:2301.00774).

    Args:
        weight: ``(outputs, inputs)``; not changed.
        hessian: Of its inputs, see :class:`~lit_compress.quantization.hessian.InputStatistics`.
        sparsity: Share to remove; the same in each block of 128 inputs, over all outputs together.
        pattern: Instead of it ``(n, m)``: n of m consecutive inputs of each output stay.
        damp: What is added to the diagonal of the Hessian, as a share of its mean.

    Returns:
        ``(outputs, inputs)`` with exact zeros.

    Raises:
        ValueError: Not exactly one of ``sparsity`` and ``pattern`` is given or it is out of range, or the Hessian
            cannot be inverted.
    """
    check_share(weight, sparsity, pattern)
    work = weight.detach().to(hessian.dtype).clone()
    factor, dead = inverse_factor(hessian, damp)
    work[:, dead] = 0
    inputs = work.shape[1]
    diagonal = factor.diagonal()
    for start in range(0, inputs, _BLOCK):
        end = min(start + _BLOCK, inputs)
        block = work[:, start:end]
        remove = torch.zeros(block.shape, dtype=torch.bool, device=work.device)
        if sparsity is not None:
            remove = lowest((block / diagonal[start:end]).square().view(1, -1), sparsity).view(block.shape)
        errors = torch.zeros_like(block)
        for column in range(end - start):
            place = start + column
            if pattern is not None and column % pattern[1] == 0:
                stretch = slice(column, column + pattern[1])
                scores = (block[:, stretch] / diagonal[start:end][stretch]).square()
                remove[:, stretch] = lowest_of(scores, pattern[1] - pattern[0])
            error = torch.where(remove[:, column], block[:, column], 0.0) / diagonal[place]
            block[:, column:] -= error[:, None] * factor[place, place:end]
            block[remove[:, column], column] = 0
            errors[:, column] = error
        work[:, end:] -= errors @ factor[start:end, end:]
    return work.to(weight.dtype)


def wanda(
    weight: Tensor, norms: Tensor, sparsity: float | None = None, pattern: tuple[int, int] | None = None
) -> Tensor:
    """Remove the weights with the least size times norm of their input, output by output (arXiv:2306.11695).

    Args:
        weight: ``(outputs, inputs)``; not changed.
        norms: Euclidean norm of each input over all tokens, ``(inputs,)``.
        sparsity: Share of each output to remove.
        pattern: Instead of it ``(n, m)``: n of m consecutive inputs of each output stay.

    Returns:
        ``(outputs, inputs)`` with exact zeros; the other weights are as they were.

    Raises:
        ValueError: Not exactly one of ``sparsity`` and ``pattern`` is given, or it is out of range.
    """
    check_share(weight, sparsity, pattern)
    scores = weight.detach().abs().to(norms.dtype) * norms
    if pattern is None:
        remove = lowest(scores, sparsity or 0.0)
    else:
        groups = scores.view(len(scores), -1, pattern[1])
        remove = lowest_of(groups, pattern[1] - pattern[0]).view(scores.shape)
    return weight.detach().masked_fill(remove, 0)


def check_share(weight: Tensor, sparsity: float | None, pattern: tuple[int, int] | None) -> None:
    """Refuse what does not say how much of a matrix goes.

    Raises:
        ValueError: Not exactly one of ``sparsity`` and ``pattern`` is given, or it is out of range.
    """
    if (sparsity is None) == (pattern is None):
        raise ValueError(
            f"Expected a sparsity or a pattern n:m but got sparsity={sparsity}, pattern={pattern}."
        )
    if sparsity is not None and not 0.0 <= sparsity <= 1.0:
        raise ValueError(f"Expected a sparsity from 0 to 1 (share removed) but got {sparsity}.")
    if pattern is not None and not (0 <= pattern[0] <= pattern[1] and pattern[1] in _DIVISORS):
        raise ValueError(
            f"Expected a pattern n:m with n <= m and m among {', '.join(map(str, _DIVISORS))} but got "
            f"{pattern[0]}:{pattern[1]}."
        )
    if pattern is not None and weight.shape[1] % pattern[1]:
        raise ValueError(
            f"Expected inputs that are a multiple of {pattern[1]} for {pattern[0]}:{pattern[1]} but got "
            f"{weight.shape[1]}; leave this layer out."
        )


def lowest(scores: Tensor, share: float) -> Tensor:
    """Return which ``round(share * columns)`` numbers of each row are the lowest, as booleans."""
    return lowest_of(scores, round(share * scores.shape[-1]))


def lowest_of(scores: Tensor, count: int) -> Tensor:
    """Return which ``count`` numbers along the last axis are the lowest; of equal ones the first."""
    # Sorted and counted: a threshold would remove more where scores are equal.
    places = scores.argsort(dim=-1, stable=True)[..., :count]
    return torch.zeros_like(scores, dtype=torch.bool).scatter_(-1, places, True)
