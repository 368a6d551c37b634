"""A word embedding as a narrow table and a linear map to the hidden dimensions."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor, nn

from lit_compress.models.anatomy.base import Anatomy, Axis


class FactorizedEmbedding(nn.Module):
    """Word embedding ``B a`` with the row ``a`` of a word piece in ``table`` and the matrix ``B`` in ``expand``.

    Args:
        rows: Word pieces.
        columns: Width of what it returns.
        rank: Width of the table.
        padding_idx: Row of the padding, which is not trained.
    """

    def __init__(self, rows: int, columns: int, rank: int, padding_idx: int | None = None) -> None:
        super().__init__()
        self.table = nn.Embedding(rows, rank, padding_idx)
        self.expand = nn.Linear(rank, columns, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        """Return ``(..., columns)`` for ids of any shape."""
        return self.expand(self.table(ids))

    @property
    def weight(self) -> Tensor:
        """The product of the factors, ``(rows, columns)``; made anew with each access."""
        return self.table.weight @ self.expand.weight.T


def with_factors(model: nn.Module, anatomy: Anatomy) -> Anatomy:
    """Return an anatomy in which a factorised word embedding has its parts; adapters need not know of it.

    Args:
        model: The model.
        anatomy: What its adapter says: the word embedding has a row per word piece and a column per dimension.
    """
    path = anatomy.word_embedding
    if path is None or not isinstance(model.get_submodule(path), FactorizedEmbedding):
        return anatomy
    columns, outputs = Axis(path, "weight", 1), Axis(f"{path}.expand", "weight", 0)
    sources = tuple(outputs if axis == columns else axis for axis in anatomy.stream.sources)
    return replace(anatomy, word_embedding=f"{path}.table", stream=replace(anatomy.stream, sources=sources))
