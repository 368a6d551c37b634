"""Matrices whose weights share few values: how many, and which weights share them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from lit_compress.quantization.grid import grid_of, range_of
from lit_compress.quantization.scheme import Scheme
from lit_compress.quantization.straight_through import fake_quantize

_CLUSTERS = range(2, 257)


@dataclass(frozen=True)
class Codebook:
    """How a matrix is stored as indices into codebooks.

    Args:
        clusters: Values per codebook, 2 to 256.
        rows: Consecutive outputs (rows of an embedding) that share a codebook; all of the matrix where ``None``.
        keep_zeros: Hold one of the values at exactly 0, for the weights that are 0.
        centroid_bits: Bits of a centroid, 2 to 8, with a scale per codebook; float32 where ``None``.
        entropy: Whether the indices are stored with a Huffman code instead of all with the same number of bits.

    Raises:
        ValueError: A value is out of range.
    """

    clusters: int = 16
    rows: int | None = None
    keep_zeros: bool = False
    centroid_bits: int | None = None
    entropy: bool = False

    def __post_init__(self) -> None:
        if self.clusters not in _CLUSTERS:
            raise ValueError(
                f"Expected {_CLUSTERS[0]} to {_CLUSTERS[-1]} clusters, so that an index fits into a byte, but got "
                f"{self.clusters}; correct clusters (--clusters or --embedding-clusters)."
            )
        if self.rows is not None and self.rows < 1:
            raise ValueError(
                f"Expected rows >= 1 that share a codebook but got {self.rows}; correct rows (--rows or "
                "--embedding-rows), or leave it out."
            )
        if self.centroid_bits is not None:
            Scheme(self.centroid_bits)

    @property
    def bits(self) -> int:
        """Bits per index where all have the same."""
        return (self.clusters - 1).bit_length()

    @property
    def scheme(self) -> Scheme | None:
        """How centroids are rounded, a codebook per row; ``None`` where they are not."""
        return None if self.centroid_bits is None else Scheme(self.centroid_bits)

    def rounded(self, centroids: Tensor) -> Tensor:
        """Return centroids as they are stored, ``(codebooks, clusters)``; the gradient passes."""
        if self.scheme is None:
            return centroids
        rows = centroids.detach().float()
        return fake_quantize(centroids, grid_of(*range_of(rows, self.scheme), self.scheme), self.scheme)

    def __str__(self) -> str:
        kind = "float32" if self.centroid_bits is None else f"int{self.centroid_bits}"
        return f"{self.clusters} {kind} values per {'tensor' if self.rows is None else f'{self.rows} rows'}"


def blocks_of(values: Tensor, rows: int | None, output_axis: int = 0) -> Tensor:
    """Return a matrix with a row for each codebook.

    Args:
        values: The matrix.
        rows: Outputs that share a codebook; all where ``None``.
        output_axis: Axis along which the outputs lie.

    Returns:
        ``(codebooks, values)``; the last row ends with zeros where the outputs cannot be divided.
    """
    outputs = values.transpose(0, output_axis)
    if rows is None or rows >= len(outputs):
        return outputs.reshape(1, -1)
    size = rows * outputs[0].numel()
    flat = outputs.reshape(-1)
    missing = -len(flat) % size
    return (functional.pad(flat, (0, missing)) if missing else flat).view(-1, size)


def from_blocks(blocks: Tensor, like: Tensor, output_axis: int = 0) -> Tensor:
    """Undo :func:`blocks_of`.

    Args:
        blocks: What it returned.
        like: A tensor of the shape to return.
        output_axis: As given to it.
    """
    turned = like.transpose(0, output_axis)
    return blocks.reshape(-1)[: like.numel()].view(turned.shape).transpose(0, output_axis)


def codebooks_in(shape: torch.Size, rows: int | None, output_axis: int = 0) -> int:
    """Return how many codebooks a matrix of some shape has."""
    return len(blocks_of(torch.empty(shape, device="meta"), rows, output_axis))
