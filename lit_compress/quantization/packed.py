"""Weights that are stored as integers of few bits, and computed with as what these stand for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lit_compress.models.transforms import record
from lit_compress.quantization.grid import Grid, dequantize, from_rows, quantize, rows_of
from lit_compress.quantization.packing import pack, packed_bytes, unpack
from lit_compress.quantization.scheme import Scheme
from lit_compress.quantization.stored import Stored, stored_of

#: Name of the transform.
PACKED_WEIGHTS = "packed_weights"


class Packed(Stored):
    """Integers and grid of one matrix.

    Args:
        owner: The module of the matrix.
        tensor: Name of the matrix.
        scheme: How it was rounded.
    """

    integers: Tensor
    scale: Tensor
    zero_point: Tensor | None

    def __init__(self, owner: nn.Module, tensor: str, scheme: Scheme) -> None:
        weight: Tensor = getattr(owner, tensor)
        super().__init__(owner, tensor)
        self.scheme = scheme
        rows = len(rows_of(torch.empty(weight.shape, device="meta"), scheme, self.output_axis))
        size = packed_bytes(weight.numel(), scheme.bits)
        self.register_buffer("integers", torch.zeros(size, dtype=torch.uint8, device=weight.device))
        self.register_buffer("scale", torch.ones(rows, dtype=scheme.scale_dtype, device=weight.device))
        points = None if scheme.symmetric else torch.zeros(rows, dtype=torch.uint8, device=weight.device)
        self.register_buffer("zero_point", points)

    @torch.no_grad()
    def fill(self, weight: Tensor, grid: Grid) -> None:
        """Store a matrix.

        Args:
            weight: The matrix before rounding.
            grid: What it is rounded to.
        """
        rows = rows_of(weight.to(grid.scale.dtype), self.scheme, self.output_axis)
        integers = quantize(rows, grid, self.scheme) - self.scheme.lowest
        self.integers.copy_(pack(integers.to(torch.uint8), self.scheme.bits))
        self.scale.copy_(grid.scale[:, 0])
        if self.zero_point is not None:
            self.zero_point.copy_(grid.zero_point[:, 0])
        self.after_load()

    def grid(self) -> Grid:
        """Return the grid of the rows, in float32."""
        scale = self.scale.float()[:, None]
        if self.zero_point is None:
            return Grid(scale, torch.zeros_like(scale))
        return Grid(scale, self.zero_point.float()[:, None])

    def whole_numbers(self) -> Tensor:
        """Return the integers as a matrix of the shape of the weights, in int16."""
        count = self.values.numel()
        flat = unpack(self.integers, self.scheme.bits, count).to(torch.int16) + self.scheme.lowest
        like = torch.empty(self.values.shape, dtype=torch.int16, device="meta")
        rows = rows_of(like, self.scheme, self.output_axis)
        return from_rows(flat.view(rows.shape), like, self.scheme, self.output_axis)

    @torch.no_grad()
    def after_load(self) -> None:
        """Compute the values anew; see :meth:`Stored.after_load`."""
        flat = unpack(self.integers, self.scheme.bits, self.values.numel())
        integers = (flat.float() + self.scheme.lowest).view(len(self.scale), -1)
        found = from_rows(dequantize(integers, self.grid()), self.values, self.scheme, self.output_axis)
        self.values.copy_(found)


def apply_packed_weights(model: nn.Module, tensors: Mapping[str, Mapping[str, Any]]) -> None:
    """Make room for integers in the place of matrices.

    Args:
        model: Changed in place, once.
        tensors: Arguments of the :class:`~lit_compress.quantization.scheme.Scheme` of each matrix, by name.
    """
    if not record(model, PACKED_WEIGHTS, {"tensors": {name: dict(value) for name, value in tensors.items()}}):
        return
    for name, scheme in tensors.items():
        path, _, tensor = name.rpartition(".")
        module = model.get_submodule(path)
        module.add_module(f"packed_{tensor}", Packed(module, tensor, Scheme(**scheme)))


def packed_of(model: nn.Module) -> Iterator[tuple[str, Packed]]:
    """Yield the name of every matrix that is stored as integers, with its store."""
    return ((name, packed) for name, packed in stored_of(model) if isinstance(packed, Packed))
