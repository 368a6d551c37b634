"""What stands around the blocks: the base model below a task head, and what the head reads."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from lit_compress.models.anatomy.base import Axis
from lit_compress.models.anatomy.family import projection_axes

_WEIGHTED = (nn.Linear, Conv1D, nn.Embedding, nn.Conv1d, nn.Conv2d, nn.LayerNorm)


def base_path(model: PreTrainedModel) -> str:
    """Return the path of the base model with its dot: ``"bert."`` below a task head, else nothing."""
    return "" if model.base_model is model else f"{model.base_model_prefix}."


def readers_of(
    model: PreTrainedModel, poolers: Sequence[str], classifiers: Sequence[str]
) -> tuple[tuple[Axis, ...], tuple[str, ...]]:
    """Return what reads the hidden states behind the last block.

    Args:
        model: A model with or without a task head.
        poolers: Paths of projections that read the hidden states where they are there.
        classifiers: Paths of projections that read the pooler where there is one, else the hidden states.

    Returns:
        The readers, and the paths of weights in the task head that are neither: what they read is not known.
    """
    names = dict(model.named_modules())
    last = [path for path in classifiers if isinstance(names.get(path), nn.Linear)]
    readers = [path for path in poolers if isinstance(names.get(path), nn.Linear)] or last
    known = {*readers, *last}
    unknown = () if model.base_model is model else _head_weights(model, known)
    return tuple(Axis(path, "weight", projection_axes(names[path])[0]) for path in readers), tuple(unknown)


def _head_weights(model: PreTrainedModel, known: Iterable[str]) -> list[str]:
    base = model.base_model_prefix
    return [
        path
        for path, module in model.named_modules()
        if isinstance(module, _WEIGHTED) and path not in known and not path.startswith(f"{base}.")
    ]


def sources_of(model: nn.Module, embeddings: Iterable[str]) -> tuple[Axis, ...]:
    """Return the tables among some paths that are there, as sources: each row is a vector of the stream."""
    names = dict(model.named_modules())
    return tuple(Axis(path, "weight", 1) for path in embeddings if path in names)


def width_of(model: nn.Module, norm: str) -> int:
    """Return the number of hidden dimensions, which a norm over them knows."""
    weight = model.get_submodule(norm).weight
    return int(weight.shape[0])  # type: ignore[index]
