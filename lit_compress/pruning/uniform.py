"""One shape for all blocks, which an ordinary configuration can say."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from lit_compress.models.anatomy import FeedForward, UniformShape, dissect, family_of
from lit_compress.models.transforms import restore, rewrite, transforms_of
from lit_compress.pruning.alive import slot_norms, writing_norms
from lit_compress.pruning.cutting import cut_slots, cut_units
from lit_compress.pruning.depth import drop_blocks
from lit_compress.pruning.groups import Group, find_groups, neuron_group
from lit_compress.pruning.shape import shape_of


def cut_uniform(model: PreTrainedModel, shape: UniformShape, open_hidden: Tensor | None = None) -> None:
    """Cut a model to one shape in all blocks and write it into the configuration.

    In each block the units with the largest weights stay (Euclidean norm of all that a unit writes with); where
    there are more blocks than wanted, those that write with the smallest weights go. With the hidden dimensions the
    projection in the task head of BERT and its relatives gets narrower too, because their configurations have one
    number for both; its units are chosen in the same way.

    Args:
        model: Changed in place; without gates and masks, which were folded into its weights.
        shape: The shape; sizes that it leaves open stay as they are.
        open_hidden: Gates ``(hidden dimensions,)`` that were folded; closed dimensions go in any case.

    Raises:
        ValueError: A block is smaller than the shape, or the configuration of the family cannot say it.
    """
    _check(shape)
    family, recorded = family_of(model), shape_of(model)
    if dissect(model).block_lists:  # else the blocks share weights, and the configuration counts the calls
        _keep_blocks(model, shape.layers)
    units: dict[str, list[int]] = {}
    said = replace(shape, layers=None) if dissect(model).block_lists else shape
    for structure, size in (("head", shape.heads), ("neuron", shape.neurons)):
        groups = find_groups(model, [structure], strict=False)
        wanted = _size(model, groups, structure, size)
        if wanted is not None:
            said = replace(said, **{f"{structure}s": wanted})
            units |= {group.name: _largest(writing_norms(model, group), wanted) for group in groups}
    hidden = _hidden(model, shape.hidden, open_hidden)
    if hidden is not None:
        units["hidden"] = hidden
    if hidden is not None or "hidden" in recorded["units"]:
        said = replace(said, hidden=model.config.hidden_size if hidden is None else len(hidden))
    config = copy.deepcopy(model.config)
    for name, value in recorded["config"].items():
        setattr(config, name, value)
    family.write_config(config, said)
    cut_units(model, units)
    if hidden is not None or "hidden" in recorded["units"]:
        _narrow_head(model, model.config.hidden_size if hidden is None else len(hidden))
    # The modules share the object.
    vars(model.config).update(vars(config))
    rewrite(model, "shape", None)
    _check_stock(model)


def _check(shape: UniformShape) -> None:
    for field in fields(shape):
        value = getattr(shape, field.name)
        if value is not None and value < 1:
            raise ValueError(
                f"Expected uniform {field.name} to be at least 1 but got {value}; leave it out to keep all of them, "
                "or leave the uniform shape out to let every block have its own."
            )


def _keep_blocks(model: PreTrainedModel, layers: int | None) -> None:
    if layers is None:
        return
    anatomy = dissect(model)
    gone: list[str] = []
    for path in anatomy.block_lists:
        blocks = [block for block in anatomy.blocks if block.path.startswith(f"{path}.")]
        if layers > len(blocks):
            raise ValueError(
                f"Expected at most the {len(blocks)} layers that are left in {path} but got layers={layers}; lower it."
            )
        # Whole attentions and feed-forward networks write with their output projection and its bias.
        groups = find_groups(model, ["attention", "feed_forward"], strict=False)
        norms = torch.tensor(
            [
                sum(float(_squares(model, group)) for group in groups if _within(group, block.path))
                for block in blocks
            ]
        )
        kept = _largest(norms, layers)
        gone += [block.path for index, block in enumerate(blocks) if index not in kept]
    drop_blocks(model, gone)


def _within(group: Group, path: str) -> bool:
    return group.name.startswith(f"{path}.")


def _squares(model: PreTrainedModel, group: Group) -> Tensor:
    weights = [slot for slot in group.gated if slot.tensor == "weight"]
    return torch.stack([slot_norms(model, slot, group.units).square().sum() for slot in weights]).sum()


def _largest(norms: Tensor, count: int) -> list[int]:
    """Return the units with the largest norms, in their order; the first ones where norms are equal."""
    return sorted(norms.argsort(descending=True, stable=True)[:count].tolist())


def _size(model: PreTrainedModel, groups: Sequence[Group], structure: str, size: int | None) -> int | None:
    """Return the units of every block; ``None`` where the configuration says it already."""
    cut = {name: kept for name, kept in shape_of(model)["units"].items() if name.endswith(f".{structure}")}
    smallest = min((len(kept) for kept in cut.values()), default=None)
    present = {group.units for group in groups} | ({0} if smallest == 0 else set())
    if size is None:
        if not cut:
            return None
        if len(present) > 1:
            advice = f"give {structure}s, at most {min(present)}, or " if min(present) else ""
            raise ValueError(
                f"Expected the same number of {structure}s in all blocks but got {sorted(present)}; {advice}start from "
                "the masked model, such as the checkpoint of the run, from which nothing is cut out yet."
            )
        return min(present)
    if not present or size > min(present):
        raise ValueError(
            f"Expected at most {min(present, default=0)} {structure}s, as the smallest block has, but got "
            f"{structure}s={size}; lower it, or start from the masked model."
        )
    return size


def _hidden(model: PreTrainedModel, size: int | None, open_hidden: Tensor | None) -> list[int] | None:
    """Return the hidden dimensions that stay, ``None`` where all do."""
    total = model.config.hidden_size
    left = total if open_hidden is None else int((open_hidden != 0).sum())
    wanted = left if size is None else size
    if wanted > left:
        raise ValueError(
            f"Expected at most the {left} hidden dimensions that are open but got hidden={wanted}; lower it."
        )
    if wanted == total:
        return None
    norms = writing_norms(model, find_groups(model, ["hidden"])[0])
    if open_hidden is not None:
        norms = norms.masked_fill(open_hidden.cpu() == 0, -1.0)
    return _largest(norms, wanted)


def _narrow_head(model: PreTrainedModel, size: int) -> None:
    modules = dict(model.named_modules())
    readers = {axis.module for axis in dissect(model).stream.readers}
    for inside, outside in family_of(model).square_heads:
        for path in readers:
            width = getattr(modules[path], "out_features", 0)
            if not (path == inside or path.endswith(f".{inside}")) or outside not in modules or width <= size:
                continue
            group = neuron_group(model, FeedForward(path, width, (path,), outside), None)
            cut_slots(model, [(group, _largest(writing_norms(model, group), size))])


def _check_stock(model: PreTrainedModel) -> None:
    """Refuse where the configuration builds another model than this one, which stock transformers would load."""
    with torch.device("meta"):
        built: Any = type(model)(copy.deepcopy(model.config))
    # No configuration says that the word embedding is factorised, but folders record it.
    restore(built, [entry for entry in transforms_of(model) if entry[0] == "factorized_embedding"])
    wanted = {name: tuple(tensor.shape) for name, tensor in built.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    wrong = [name for name in {**wanted, **found} if wanted.get(name) != found.get(name)]
    if wrong:
        raise ValueError(
            f"Expected a configuration of {model.config.model_type!r} that says the uniform shape but it builds "
            f"{wrong[0]} as {wanted.get(wrong[0])} and the model has {found.get(wrong[0])}; leave the shape out."
        )
