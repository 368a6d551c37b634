"""A word embedding as the product of two: a narrow table, and a linear map to the hidden dimensions.

Lan et al. 2020, ALBERT, arXiv:1909.11942, section 3.1, trains such an embedding from the start. Here it starts from the
best approximation of the table that a model has.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from lit_compress.models.anatomy import dissect
from lit_compress.models.anatomy.factorized_embedding import FactorizedEmbedding
from lit_compress.models.anatomy.family import replace
from lit_compress.models.transforms import record

_NAME = "factorized_embedding"


def best_factors(table: Tensor, rank: int, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return the two factors of a rank whose product is nearest to a table (Eckart and Young).

    The columns of the second factor are the first right singular vectors ``V`` of the table, whose rows are scaled with
    the roots of their weights before; the first factor is the table times ``V``, which takes the scales out again. So
    the product minimises the sum of ``weight · |row - its approximation|²``, a row without weight is approximated as
    well as the directions of the others can, and rows keep their lengths in the narrow table.

    Args:
        table: ``(rows, columns)``.
        rank: Inner dimension, up to the number of columns.
        weights: ``(rows,)``, not negative: how much the error of each row counts; all the same where ``None``.

    Returns:
        ``(rows, rank)`` and ``(columns, rank)``, in float64; their product approximates the table as ``A @ B.T``.

    Example:
        >>> table = torch.eye(3, dtype=torch.float64)
        >>> first, second = best_factors(table, 1, torch.tensor([1.0, 9.0, 4.0]))
        >>> (first @ second.T).round().abs()
        tensor([[0., 0., 0.],
                [0., 1., 0.],
                [0., 0., 0.]], dtype=torch.float64)
    """
    table = table.double()
    rows = table if weights is None else weights.to(table)[:, None] * table
    # Right singular vectors are eigenvectors of a small square matrix, however many rows there are.
    _, vectors = torch.linalg.eigh(table.T @ rows)
    kept = vectors.flip(1)[:, :rank]  # the largest come last
    return table @ kept, kept


@torch.no_grad()
def factorize_embedding(model: PreTrainedModel, rank: int, weights: Tensor | None = None) -> float:
    """Replace the word embedding of a model by the best product of a narrow table and a linear map without bias.

    Args:
        model: A transformer of a supported family; changed in place.
        rank: Width of the narrow table.
        weights: ``(rows,)``, how much the error of each word piece counts, such as how often texts have it: then what
            is common is kept best. See :func:`best_factors`.

    Returns:
        Length of the error in units of the length of the table, each row with its weight.

    Raises:
        ValueError: The model has no word embedding of its own, or the factors would not be smaller.
    """
    path = _dense_path(model)
    dense: Any = model.get_submodule(path)
    _check_rank(rank, *dense.weight.shape)
    table = dense.weight.detach()
    first, second = best_factors(table, rank, weights)
    apply_factorized_embedding(model, rank)
    new: Any = model.get_submodule(path)
    new.table.weight.copy_(first)
    new.expand.weight.copy_(second)
    lost = (table.double() - first @ second.T).square().sum(1)
    whole = table.double().square().sum(1)
    counts = torch.ones_like(whole) if weights is None else weights.to(whole)
    return float((counts @ lost / (counts @ whole)).sqrt())


def apply_factorized_embedding(model: PreTrainedModel, rank: int) -> None:
    """Give a model the structure of a factorised word embedding; the weights are zeros until others are loaded.

    Args:
        model: A transformer of a supported family; changed in place, once.
        rank: Width of the narrow table.

    Raises:
        ValueError: The model has no word embedding of its own, or one of another rank.
    """
    if not record(model, _NAME, {"rank": rank}):
        return
    path = _dense_path(model)
    dense: Any = model.get_submodule(path)
    rows, columns = dense.weight.shape
    device, dtype = dense.weight.device, dense.weight.dtype
    with torch.device("meta"):  # no random numbers
        new = FactorizedEmbedding(rows, columns, rank, dense.padding_idx).to(dtype)
    new.to_empty(device=device)
    for factor in (new.table.weight, new.expand.weight):
        nn.init.zeros_(factor).requires_grad_(dense.weight.requires_grad)
    replace(model, path, new.train(dense.training))


def _dense_path(model: PreTrainedModel) -> str:
    """Return the path of the word embedding; refuse one that is none, shared with others, or factorised."""
    anatomy, name = dissect(model), type(model).__name__
    path = anatomy.word_embedding
    if anatomy.family == "albert":
        raise ValueError(
            f"Expected a word embedding as wide as the hidden states but {name} has a factorised one already: its "
            "architecture maps embedding_size to hidden_size; leave the embedding rank out."
        )
    if path is None:
        raise ValueError(
            f"Expected a model with a word embedding but {name} reads no tokens; leave the embedding rank out."
        )
    module = model.get_submodule(path)
    if isinstance(model.get_submodule(path.rpartition(".")[0]), FactorizedEmbedding):
        raise ValueError(
            f"Expected a word embedding that is not factorised yet but {path.rpartition('.')[0]} of {name} is; start "
            "from the model that it was made from."
        )
    if type(module) is not nn.Embedding:
        raise ValueError(
            f"Expected an ordinary embedding at {path} of {name} but got {type(module).__name__}; factorise before "
            "gates, masks and rounding are put on it."
        )
    same = [key for key, tensor in model.named_parameters(remove_duplicate=False) if tensor is module.weight]
    if len(same) > 1:
        others = ", ".join(key for key in same if key != f"{path}.weight")
        raise ValueError(
            f"Expected a word embedding with weights of its own but that of {name} is tied to {others}, which reads "
            "all of its columns; leave the embedding rank out for such a model."
        )
    return path


def _check_rank(rank: int, rows: int, columns: int) -> None:
    most = (rows * columns - 1) // (rows + columns)
    if not 1 <= rank <= most:
        raise ValueError(
            f"Expected an embedding rank from 1 to {most}, the largest whose factors of {rows} x rank and rank x "
            f"{columns} are smaller than the table of {rows} x {columns}, but got {rank}; lower it, or leave it out."
        )
