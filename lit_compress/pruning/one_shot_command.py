"""``lit-compress prune``: a model folder in, the folder of the model with zeros out, without training."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from lit_compress.models.anatomy import dissect
from lit_compress.pruning.counting import encoder_matrices, named_tensor
from lit_compress.pruning.post_training import METHODS, prune_model
from lit_compress.quantization.one_shot import change_folder
from lit_compress.quantization.samples import Samples


def prune_folder(
    folder: str,
    out: str,
    method: str,
    sparsity: float | None = None,
    pattern: str | None = None,
    data: str | None = None,
    length: int | None = None,
    texts: int = 128,
    seed: int | None = None,
    include: list[str] | None = None,
    exclude: list[str] | None = None,
) -> Path:
    """Write the folder of a model without some of its weights.

    Args:
        folder: Model folder, hub name or ``package:NAME``.
        out: The new model folder.
        method: ``sparsegpt``, ``wanda`` or ``magnitude``.
        sparsity: Share of each matrix to remove.
        pattern: Instead of it ``n:m``: n of m consecutive inputs of each output stay.
        data: YAML file with a ``data`` section, the ``config.yaml`` of the folder's run where ``None``; or, for a
            language model, a text file.
        length: Tokens per block of a text file.
        texts: Training texts to calibrate with.
        seed: Draws these at random.
        include: Parts of the names of projections to prune; all of the blocks where ``None``.
        exclude: Parts of the names of those to leave as they are.

    Returns:
        The new folder.

    Raises:
        ValueError: A setting or the data cannot be used, or they do not fit the model.
    """
    if method not in METHODS:
        raise ValueError(f"Expected a method among {', '.join(METHODS)} but got {method!r}.")
    if (sparsity is None) == (pattern is None):
        raise ValueError(
            f"Expected one of --sparsity and --pattern but got sparsity={sparsity}, pattern={pattern}."
        )
    ratio = re.fullmatch(r"(\d+):(\d+)", pattern or "2:4")
    if ratio is None:
        raise ValueError(f"Expected a pattern n:m such as 2:4 but got --pattern {pattern}.")
    kept = None if pattern is None else (int(ratio[1]), int(ratio[2]))
    settings = {
        "sparsity": sparsity,
        "pattern": kept,
        "include": include,
        "exclude": exclude or [],
    }
    asked = 1 - kept[0] / kept[1] if kept else sparsity
    drawn = None if method == "magnitude" else (texts, seed)
    change = partial(_prune, folder, {"method": method, "pattern": pattern}, settings, asked, drawn)
    path = change_folder(folder, out, change, data, length)
    print(
        "Its zeros are stored as any other weight: it is not smaller and not faster. lit-compress quantize makes it "
        "smaller and keeps the zeros; a runtime for sparse weights makes it faster."
    )
    return path


def _prune(
    folder: str,
    facts: dict[str, Any],
    settings: dict[str, Any],
    asked: float | None,
    drawn: tuple[int, int | None] | None,
    model: PreTrainedModel,
    samples: Samples,
    tell: Callable[[str, float], None],
) -> dict[str, Any]:
    batches = () if drawn is None else samples.batches(*drawn)
    if drawn is not None:
        facts = {**facts, "texts": len(batches), "seed": drawn[1]}
    prune_model(model, facts["method"], batches=batches, tell=tell, **settings)
    matrices = [named_tensor(model, name) for name in encoder_matrices(model, dissect(model))]
    zeros = 1 - sum(int(m.count_nonzero()) for m in matrices) / sum(m.numel() for m in matrices)
    reached = {"sparsity_asked": asked, "encoder_sparsity": zeros, "encoder_zeros": zeros}
    return {"pruning": {**facts, **reached}, "pruned_from": str(folder)}
