"""Bits for every part of a model under a budget of bytes, the best there are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lit_compress.quantization.fitted import fitted_grid
from lit_compress.quantization.grid import rows_of
from lit_compress.quantization.packing import packed_bytes
from lit_compress.quantization.scheme import Scheme

_HALVINGS = 100


class Option(NamedTuple):
    """What a width costs a part of a model.

    Args:
        bits: Bits per weight.
        bytes: What is stored, scales and zero points included.
        loss: What it adds to the loss.
    """

    bits: int
    bytes: int
    loss: float


def stored_bytes(shape: Sequence[int], scheme: Scheme, output_axis: int = 0) -> int:
    """Return how many bytes a matrix takes: integers, scales and zero points.

    Args:
        shape: Of the matrix.
        scheme: How it is rounded.
        output_axis: Axis of its outputs.

    Raises:
        ValueError: Groups do not divide the matrix.
    """
    matrix = torch.empty(*shape, device="meta")
    scales = len(rows_of(matrix, scheme, output_axis))
    each = scheme.scale_dtype.itemsize + (0 if scheme.symmetric else 1)
    return packed_bytes(matrix.numel(), scheme.bits) + scales * each


def rounding_error(weight: Tensor, scheme: Scheme, output_axis: int = 0) -> float:
    """Return ``||Q(W) - W||^2`` of the best grid, see :func:`~lit_compress.quantization.fitted.fitted_grid`.

    Args:
        weight: The matrix.
        scheme: How it is rounded.
        output_axis: Axis of its outputs.

    Raises:
        ValueError: The matrix has infinities or NaN, or groups do not divide it.
    """
    error = float(
        fitted_grid(rows_of(weight.detach().float(), scheme, output_axis), scheme)[1].double().sum()
    )
    if not error < float("inf"):
        raise ValueError("Expected finite weights but there are infinities or NaN; check the model.")
    return error


def allocate(options: Mapping[str, Sequence[Option]], budget: int) -> dict[str, Option]:
    """Choose one option for every part so that the sum of their losses is the least that a budget allows.

    Exact. Partial choices are extended part by part; one is dropped where another is no larger and no worse, or where
    a bound shows that it cannot become better than a choice that is known: the bound prices each byte at the
    multiplier of the budget (Lagrange), under which every part is chosen by itself.

    Args:
        options: By part.
        budget: Bytes of all parts together.

    Raises:
        ValueError: Even the smallest options do not fit.
    """
    least = sum(min(option.bytes for option in choices) for choices in options.values())
    if least > budget:
        raise ValueError(
            f"Expected a budget of at least {least:,} bytes ({least / 1e6:.3f} MB), what the fewest bits take with "
            f"their scales, but got {budget:,}; raise it, or allow fewer bits."
        )
    price, known = _priced(options, budget)
    limit = sum(option.loss for option in known.values())
    bounds = [min(option.loss + price * option.bytes for option in options[part]) for part in options]
    states: list[tuple[int, float, tuple[Option, ...]]] = [(0, 0.0, ())]
    for number, (_, choices) in enumerate(options.items()):
        rest = sum(bounds[number + 1 :]) - price * budget
        longer = sorted(
            (size + option.bytes, loss + option.loss, (*chosen, option))
            for size, loss, chosen in states
            for option in choices
        )
        states = []
        for size, loss, chosen in longer:
            # A little slack: sums of floats in another order.
            hopeless = loss + price * size + rest > limit * (1 + 1e-9)
            if size <= budget and not hopeless and (not states or loss < states[-1][1]):
                states.append((size, loss, chosen))
    if not states:
        return known
    return dict(zip(options, min(states, key=lambda state: (state[1], state[0]))[2], strict=True))


def _priced(options: Mapping[str, Sequence[Option]], budget: int) -> tuple[float, dict[str, Option]]:
    """Return the least price per byte at which what every part chooses by itself fits, and these choices."""

    def chosen(price: float) -> dict[str, Option]:
        return {
            part: min(choices, key=lambda one: (one.loss + price * one.bytes, one.bytes))
            for part, choices in options.items()
        }

    def fits(found: Mapping[str, Option]) -> bool:
        return sum(option.bytes for option in found.values()) <= budget

    if fits(chosen(0.0)):
        return 0.0, chosen(0.0)
    low, high = 0.0, 1.0 + sum(max(option.loss for option in choices) for choices in options.values())
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if fits(chosen(middle)) else (middle, high)
    return high, chosen(high)
