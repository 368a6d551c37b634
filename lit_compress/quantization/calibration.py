"""What the layers of a model read, block by block, with everything before a block as it was changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from lit_compress.models.anatomy import dissect
from lit_compress.models.anatomy.family import projection_axes
from lit_compress.quantization.hessian import InputStatistics

Batches = Sequence[Mapping[str, Tensor]]


def in_order(model: PreTrainedModel, projections: Sequence[str]) -> list[list[str]]:
    """Return projections in groups that depend on what is done to earlier groups: block by block, then the rest.

    Args:
        model: A model of a supported family.
        projections: Names of modules below it.
    """
    blocks = list(dict.fromkeys(block.path for block in dissect(model).blocks))
    groups = [[name for name in projections if name.startswith(f"{path}.")] for path in blocks]
    inside = {name for group in groups for name in group}
    return [group for group in (*groups, [name for name in projections if name not in inside]) if group]


@torch.no_grad()
def read_by(
    model: PreTrainedModel,
    groups: Sequence[Sequence[str]],
    batches: Batches,
    tell: Callable[[float], None] | None = None,
) -> Iterator[dict[str, InputStatistics]]:
    """Yield what the modules of each group read; the caller changes them before it asks for the next group.

    The whole model runs once per group. It is more than is needed, but holds for every architecture, shared layers
    and decoders that read encoders included.

    Args:
        model: The model, in eval mode.
        groups: Names of projections.
        batches: Inputs, with an ``attention_mask`` where tokens are padding.
        tell: Told which share of the batches was read, over all groups.

    Raises:
        ValueError: There are no batches.
    """
    if not batches:
        raise ValueError("Expected texts to calibrate with but got none; name the data.")
    for number, names in enumerate(groups):
        found: dict[str, InputStatistics] = {}
        mask: list[Tensor | None] = [None]
        hooks = []
        for name in names:
            module = model.get_submodule(name)
            axis = projection_axes(module)[0]
            weight: Any = module.weight
            found[name] = InputStatistics(weight.shape[axis], weight.device)
            hooks.append(module.register_forward_pre_hook(_adding_to(found[name], mask)))
        try:
            for place, batch in enumerate(batches):
                mask[0] = batch.get("attention_mask")
                model(**batch)
                if tell is not None:
                    tell((number + (place + 1) / len(batches)) / len(groups))
        finally:
            for hook in hooks:
                hook.remove()
        yield found


def _adding_to(
    statistics: InputStatistics, mask: list[Tensor | None]
) -> Callable[[nn.Module, tuple[Any, ...]], None]:
    def hook(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        values, keep = inputs[0], mask[0]
        # A pooler and a head read one token of every text, which is never padding.
        fits = keep is not None and values.shape[:-1] == keep.shape
        statistics.add(values, keep if fits else None)

    return hook
