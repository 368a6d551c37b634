"""Integers of few bits, as bytes."""

from __future__ import annotations

import torch
from torch import Tensor

_WIDTHS = range(1, 9)


def packed_bytes(count: int, bits: int) -> int:
    """Return how many bytes some integers take, packed without gaps."""
    return -(-count * bits // 8)


def pack(integers: Tensor, bits: int) -> Tensor:
    """Return integers as bytes, the first one in the lowest bits of the first byte, without gaps.

    Args:
        integers: Integers from 0 to ``2**bits - 1``, of any shape.
        bits: Bits of each, 1 to 8.

    Returns:
        uint8 ``(ceil(n * bits / 8),)``; what is left of the last byte is 0.

    Raises:
        ValueError: The width is unknown, or an integer does not fit.
    """
    _check(bits)
    flat = integers.reshape(-1)
    if len(flat) and (int(flat.min()) < 0 or int(flat.max()) >= 2**bits):
        raise ValueError(
            f"Expected integers from 0 to {2**bits - 1} for {bits} bits but got {int(flat.min())} to "
            f"{int(flat.max())}; shift signed ones first."
        )
    flat = flat.to(torch.uint8)
    if bits == 8:
        return flat.clone()
    # Eight integers fill a whole number of bytes.
    flat = torch.cat([flat, flat.new_zeros(-len(flat) % 8)])
    places = torch.arange(bits, dtype=torch.uint8, device=flat.device)
    single = (flat[:, None] >> places & 1).reshape(-1, 8)
    weights = 2 ** torch.arange(8, dtype=torch.int16, device=flat.device)
    whole = (single.to(torch.int16) * weights).sum(1).to(torch.uint8)
    return whole[: packed_bytes(integers.numel(), bits)].clone()


def unpack(data: Tensor, bits: int, count: int) -> Tensor:
    """Undo :func:`pack`.

    Args:
        data: What it returned.
        bits: Bits of each integer.
        count: How many there are.

    Returns:
        uint8 ``(count,)``.

    Raises:
        ValueError: The width is unknown, or there are fewer or more bytes than so many integers take.
    """
    _check(bits)
    if data.dtype != torch.uint8 or data.shape != (packed_bytes(count, bits),):
        raise ValueError(
            f"Expected {packed_bytes(count, bits)} bytes for {count} integers of {bits} bits but got "
            f"{tuple(data.shape)} of {data.dtype}; the file is damaged."
        )
    if bits == 8:
        return data.clone()
    places = torch.arange(8, dtype=torch.uint8, device=data.device)
    single = (data[:, None] >> places & 1).reshape(-1)
    single = torch.cat([single, single.new_zeros(-len(single) % bits)]).reshape(-1, bits)
    weights = 2 ** torch.arange(bits, dtype=torch.int16, device=data.device)
    return (single.to(torch.int16) * weights).sum(1).to(torch.uint8)[:count].clone()


def _check(bits: int) -> None:
    if bits not in _WIDTHS:
        raise ValueError(f"Expected a width of {_WIDTHS[0]} to {_WIDTHS[-1]} bits but got {bits}.")
