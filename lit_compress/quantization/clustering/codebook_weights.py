"""Weights that are stored as indices into codebooks, and computed with as the values that these hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lit_compress.models.transforms import record
from lit_compress.quantization.clustering.codebook import Codebook, blocks_of, codebooks_in, from_blocks
from lit_compress.quantization.clustering.huffman import STRETCH, decode
from lit_compress.quantization.grid import grid_of, quantize, range_of
from lit_compress.quantization.packing import packed_bytes, unpack
from lit_compress.quantization.stored import Stored, stored_of

#: Name of the transform.
CODEBOOK_WEIGHTS = "codebook_weights"


class CodebookWeight(Stored):
    """Codebooks of one matrix, and an index for each weight.

    Args:
        owner: The module of the matrix.
        tensor: Name of the matrix.
        codebook: How many values, and which weights share them.
        coded_bytes: Bytes of the indices in a Huffman code; ``None`` where all have the same number of bits.
    """

    indices: Tensor
    centroids: Tensor
    scale: Tensor | None
    lengths: Tensor | None
    sizes: Tensor | None

    def __init__(
        self, owner: nn.Module, tensor: str, codebook: Codebook, coded_bytes: int | None = None
    ) -> None:
        weight: Tensor = getattr(owner, tensor)
        super().__init__(owner, tensor)
        self.codebook = codebook
        books = codebooks_in(weight.shape, codebook.rows, self.output_axis)

        def room(*shape: int, kind: torch.dtype = torch.uint8) -> Tensor:
            return torch.zeros(shape, dtype=kind, device=weight.device)

        packed = packed_bytes(weight.numel(), codebook.bits)
        self.register_buffer("indices", room(packed if coded_bytes is None else coded_bytes))
        rounded = codebook.centroid_bits is not None
        kind = torch.int8 if rounded else torch.float32
        self.register_buffer("centroids", room(books, codebook.clusters, kind=kind))
        self.register_buffer("scale", room(books, kind=torch.float32) if rounded else None)
        coded = coded_bytes is not None
        self.register_buffer("lengths", room(codebook.clusters) if coded else None)
        self.register_buffer("sizes", room(-(-weight.numel() // STRETCH), 2) if coded else None)

    @torch.no_grad()
    def fill(
        self, centroids: Tensor, indices: Tensor, lengths: Tensor | None = None, sizes: Tensor | None = None
    ) -> None:
        """Store a matrix.

        Args:
            centroids: ``(codebooks, clusters)``, before they are rounded.
            indices: As bytes, packed or coded.
            lengths: Of the words of the code.
            sizes: Of its stretches.
        """
        scheme = self.codebook.scheme
        if scheme is not None and self.scale is not None:
            grid = grid_of(*range_of(centroids.float(), scheme), scheme)
            self.centroids.copy_(quantize(centroids.float(), grid, scheme).to(torch.int8))
            self.scale.copy_(grid.scale[:, 0])
        else:
            self.centroids.copy_(centroids)
        self.indices.copy_(indices)
        if self.lengths is not None and self.sizes is not None:
            self.lengths.copy_(lengths)  # type: ignore[arg-type]
            self.sizes.copy_(sizes)  # type: ignore[arg-type]
        self.after_load()

    def whole_numbers(self) -> Tensor:
        """Return the index of every weight into the codebook of its output, in the shape of the weights, as uint8."""
        count = self.values.numel()
        if self.lengths is None or self.sizes is None:
            flat = unpack(self.indices, self.codebook.bits, count)
            if int(flat.max()) >= self.codebook.clusters:
                raise ValueError(
                    f"Expected indices below {self.codebook.clusters} but got {int(flat.max())}; the file is damaged."
                )
        else:
            lengths, sizes, data = (part.cpu().numpy() for part in (self.lengths, self.sizes, self.indices))
            flat = torch.from_numpy(decode(lengths, sizes, data, count)).to(self.indices.device)
        return from_blocks(flat, self.values, self.output_axis)

    def codebooks(self) -> Tensor:
        """Return the values ``(codebooks, clusters)``, in float32."""
        if self.scale is None:
            return self.centroids.float()
        return self.centroids.float() * self.scale.float()[:, None]

    @torch.no_grad()
    def after_load(self) -> None:
        """Look the values up anew; see :meth:`Stored.after_load`."""
        books = self.codebooks()
        indices = blocks_of(self.whole_numbers(), self.codebook.rows, self.output_axis).long()
        self.values.copy_(from_blocks(books.gather(1, indices), self.values, self.output_axis))


def apply_codebook_weights(model: nn.Module, tensors: Mapping[str, Mapping[str, Any]]) -> None:
    """Make room for indices and codebooks in the place of matrices.

    Args:
        model: Changed in place, once.
        tensors: By name of the matrix, ``codebook`` with the arguments of its
            :class:`~lit_compress.quantization.clustering.codebook.Codebook`, and ``coded_bytes``.
    """
    if not record(
        model, CODEBOOK_WEIGHTS, {"tensors": {name: dict(value) for name, value in tensors.items()}}
    ):
        return
    for name, settings in tensors.items():
        path, _, tensor = name.rpartition(".")
        module = model.get_submodule(path)
        store = CodebookWeight(module, tensor, Codebook(**settings["codebook"]), settings["coded_bytes"])
        module.add_module(f"codebook_{tensor}", store)


def codebooks_of(model: nn.Module) -> Iterator[tuple[str, CodebookWeight]]:
    """Yield the name of every matrix that is stored as indices, with its store."""
    return ((name, store) for name, store in stored_of(model) if isinstance(store, CodebookWeight))
