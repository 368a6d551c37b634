"""Where a scale per input of some projections can be undone exactly in what comes before them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from lit_compress.models.anatomy import dissect
from lit_compress.models.anatomy.base import Anatomy, Attention
from lit_compress.models.low_rank import ends
from lit_compress.quantization.fake_weights import output_axis


@dataclass(frozen=True)
class Fold:
    """Projections that read the same activations, and what these come out of, to which they are proportional.

    Args:
        source: Path of the norm or of the projection before.
        readers: Paths of the projections; nothing else reads the activations.
        start: First output of the source that counts.
        width: Outputs of the source that count; all where ``None``.
        head: Outputs of the source per unit of an attention, where several heads of the unit read the same values;
            then a scale repeats as they do.
    """

    source: str
    readers: tuple[str, ...]
    start: int = 0
    width: int | None = None
    head: int | None = None

    def shared(self, magnitudes: Tensor) -> Tensor:
        """Return the sizes of the inputs as the sizes of the outputs of the source: means over those that it feeds."""
        if self.head is None or self.width is None:
            return magnitudes
        units = self.width // self.head
        return magnitudes.view(units, -1, self.head).mean(1).reshape(-1)

    def repeated(self, scales: Tensor, inputs: int) -> Tensor:
        """Return scales of the outputs of the source as scales of the inputs of the readers."""
        if self.head is None:
            return scales
        units = len(scales) // self.head
        repeats = inputs // len(scales)
        return scales.view(units, 1, self.head).expand(-1, repeats, -1).reshape(-1)


@torch.no_grad()
def folds_of(model: PreTrainedModel, batch: Mapping[str, Tensor]) -> list[Fold]:
    """Return where scales of inputs can be undone, found in the anatomy and in one run of the model.

    - The weight of a norm, where only projections read what comes out of it. Behind the norms of a post-norm
      model (BERT) the residual stream goes on: there is none.
    - Values, before the output projection of an attention: attention is linear in them.
    - The up projection of a gated feed-forward network, before the projection down: it is linear in it. Without a
      gate there is an activation function between, to which no scale can be undone.

    Args:
        model: The model, in eval mode.
        batch: Inputs to run it with.
    """
    anatomy = dissect(model)
    found = [] if anatomy.stream.post_norm else _behind_norms(model, anatomy, batch)
    for block in anatomy.blocks:
        found += [_of_values(model, attention) for attention in block.attentions]
        inside = block.feed_forward
        if inside is not None and len(inside.inputs) == 2:
            found.append(Fold(_end(model, inside.inputs[1], 1), (_end(model, inside.output, 0),)))
    return found


def _of_values(model: PreTrainedModel, attention: Attention) -> Fold:
    # The values of a unit are those of one head, read by one or more heads of queries.
    values = attention.inputs[2]
    return Fold(
        _end(model, values.module, 1),
        (_end(model, attention.output, 0),),
        values.start,
        attention.heads * values.width,
        values.width,
    )


def _end(model: PreTrainedModel, path: str, side: int) -> str:
    """Return the path of the layer with the inputs (0) or the outputs (1) of a projection, which may be low-rank."""
    return ends(model.get_submodule(path), path)[side]


def _behind_norms(model: PreTrainedModel, anatomy: Anatomy, batch: Mapping[str, Tensor]) -> list[Fold]:
    """Return the norms of the stream whose outputs only projections read, in the order of the anatomy."""
    outputs: dict[int, tuple[str, Tensor]] = {}
    readers: dict[str, dict[str, nn.Module]] = {}
    hooks = []
    for path, module in model.named_modules():
        if path in anatomy.stream.norms:
            hooks.append(module.register_forward_hook(_keeping(outputs, path)))
        if not any(module.children()):
            hooks.append(module.register_forward_pre_hook(_noting(outputs, readers, path)))
    try:
        model(**batch)
    finally:
        for hook in hooks:
            hook.remove()
    return [
        Fold(norm, tuple(readers[norm]))
        for norm in anatomy.stream.norms
        if readers.get(norm) and all(isinstance(one, (nn.Linear, Conv1D)) for one in readers[norm].values())
    ]


def _keeping(outputs: dict[int, tuple[str, Tensor]], path: str) -> Any:
    def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:
        # The tensor is kept so that no later one has its id.
        outputs[id(output)] = path, output

    return hook


def _noting(
    outputs: dict[int, tuple[str, Tensor]], readers: dict[str, dict[str, nn.Module]], path: str
) -> Any:
    def hook(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if inputs and id(inputs[0]) in outputs:
            readers.setdefault(outputs[id(inputs[0])][0], {})[path] = module

    return hook


def within(folds: list[Fold], names: Collection[str]) -> list[Fold]:
    """Return the folds whose readers all are among some projections."""
    return [fold for fold in folds if set(fold.readers) <= set(names)]


@torch.no_grad()
def apply_fold(model: nn.Module, fold: Fold, scales: Tensor) -> None:
    """Divide what a source gives by scales and multiply the weights that read it with them, in place.

    Args:
        model: The model; computes the same as before.
        fold: The source and its readers.
        scales: One per output of the source that counts, positive.
    """
    source: Any = model.get_submodule(fold.source)
    stretch = slice(fold.start, None if fold.width is None else fold.start + fold.width)
    weight = source.weight.data
    rows = weight if weight.dim() == 1 or output_axis(source) == 0 else weight.t()
    part = scales.to(weight.dtype)
    rows[stretch] /= part if weight.dim() == 1 else part[:, None]
    if getattr(source, "bias", None) is not None:
        source.bias.data[stretch] /= part
    for path in fold.readers:
        reader: Any = model.get_submodule(path)
        columns = reader.weight.data if output_axis(reader) == 0 else reader.weight.data.t()
        columns *= fold.repeated(part, columns.shape[1])
