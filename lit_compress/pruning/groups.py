"""Units that can be cut out of a model, and the tensors in which each of them lives.

A *unit* is a head, a neuron, a hidden dimension; a *group* holds the units of one place, such as the heads of
block 3. A group is closed with a vector of gates, one per unit: gates multiply the tensors of ``gated``, which
makes a closed unit silent, and what is in ``cut`` then can be removed with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.utils import parametrize
from transformers import PreTrainedModel

from lit_compress.models.anatomy import Anatomy, Attention, Axis, Block, FeedForward, dissect
from lit_compress.models.anatomy.family import projection_axes
from lit_compress.models.low_rank import LowRankLinear, ends
from lit_compress.models.parametrized import plain_name

#: What can be cut out, from fine to coarse.
STRUCTURES = ("neuron", "head", "rank", "feed_forward", "attention", "layer", "hidden", "vocabulary")


@dataclass(frozen=True)
class Slot:
    """The place of a group in one tensor: a stretch of one axis, cut into equal pieces, one per unit.

    Unit ``u`` owns the entries from ``start + u * width`` up to ``start + (u + 1) * width``.

    Args:
        module: Path of the module below the model; empty for the model itself.
        tensor: Name of the parameter in it.
        axis: The axis.
        start: First entry of unit 0.
        width: Entries per unit.
    """

    module: str
    tensor: str
    axis: int
    start: int = 0
    width: int = 1

    @property
    def name(self) -> str:
        """Name of the tensor below the model."""
        return f"{self.module}.{self.tensor}" if self.module else self.tensor


@dataclass(frozen=True)
class Group:
    """Units of one place, switched by one vector of gates.

    Args:
        name: Unique name, made of the path of the place and the structure, such as
            ``bert.encoder.layer.3.attention.self.head``.
        structure: One of ``STRUCTURES``.
        units: Number of units; 1 for whole attentions, feed-forward networks and layers.
        gated: Slots that the gates multiply.
        cut: Slots that go when a unit goes; those of ``gated`` are among them.
        layer: Number of the block, 0-based; ``None`` for groups of the whole model.
    """

    name: str
    structure: str
    units: int
    gated: tuple[Slot, ...]
    cut: tuple[Slot, ...]
    layer: int | None = None


def find_groups(model: PreTrainedModel, structures: Sequence[str], strict: bool = True) -> list[Group]:
    """Return all groups of some structures.

    Args:
        model: A transformer of a supported family.
        structures: Some of ``STRUCTURES``.
        strict: Whether to refuse a structure of which the model has no unit.

    Returns:
        The groups, block by block, those of the whole model last.

    Raises:
        ValueError: A structure is unknown, or the model has no unit of it.
    """
    unknown = [name for name in structures if name not in STRUCTURES]
    if unknown or not structures:
        raise ValueError(
            f"Expected structures to be some of {', '.join(STRUCTURES)} but got {list(structures)}; correct "
            f"{', '.join(unknown) or 'the empty list'}."
        )
    anatomy = dissect(model)
    groups = [
        group
        for index, block in enumerate(anatomy.blocks)
        for group in _block_groups(model, block, index, anatomy.block_lists)
        if group.structure in structures
    ]
    if "hidden" in structures and (strict or not anatomy.stream.unknown):
        groups.append(_hidden(model, anatomy))
    if "vocabulary" in structures:
        groups.append(_vocabulary(model, anatomy))
    missing = [name for name in structures if all(group.structure != name for group in groups)]
    if missing and strict:
        raise ValueError(
            f"Expected units of structure {', '.join(missing)} in {type(model).__name__} but none is left; leave "
            "the structure out."
        )
    return groups


def _block_groups(model: nn.Module, block: Block, layer: int, lists: Sequence[str]) -> list[Group]:
    groups, whole = _ranks(model, block, layer), []
    for attention in block.attentions:
        heads = _heads(model, attention, layer)
        groups += [heads, _whole(model, attention.module, "attention", attention.output, heads.cut, layer)]
        whole += list(groups[-1].cut)
    if block.feed_forward is not None:
        part = block.feed_forward
        neurons = neuron_group(model, part, layer)
        groups += [neurons, _whole(model, part.module, "feed_forward", part.output, neurons.cut, layer)]
        whole += list(groups[-1].cut)
    if block.path.rpartition(".")[0] not in lists:
        return groups
    # A layer is skipped by a hook, because its norms go with it: there is no tensor to multiply.
    return [*groups, Group(f"{block.path}.layer", "layer", 1, (), tuple(whole), layer)]


def neuron_group(model: nn.Module, part: FeedForward, layer: int | None) -> Group:
    """Return the neurons of a feed-forward network, or of what is built like one, such as a head with two layers."""
    inside = tuple(slot for path in part.inputs for slot in _outputs(model, path, 0, 1))
    outside = _inputs(model, part.output)
    return Group(f"{part.module}.neuron", "neuron", part.neurons, (outside,), (*inside, outside), layer)


def _ranks(model: nn.Module, block: Block, layer: int) -> list[Group]:
    """The inner dimensions of the projections that were factorised."""
    groups = []
    for path in projections(block):
        module = model.get_submodule(path)
        if isinstance(module, LowRankLinear):
            reduce, expand = ends(module, path)
            rows = Slot(reduce, "weight", 0)
            cut = (rows, Slot(expand, "weight", 1))
            groups.append(Group(f"{path}.rank", "rank", module.rank, (rows,), cut, layer))
    return groups


def projections(block: Block) -> list[str]:
    """Return the paths of the projections of a block, each once."""
    paths: list[str] = []
    for attention in block.attentions:
        paths += [*(stretch.module for stretch in attention.inputs), attention.output]
    if block.feed_forward is not None:
        paths += [*block.feed_forward.inputs, block.feed_forward.output]
    return list(dict.fromkeys(paths))


def _heads(model: nn.Module, attention: Attention, layer: int) -> Group:
    outside = _inputs(model, attention.output, attention.head_width)
    inside = tuple(
        slot
        for stretch in attention.inputs
        for slot in _outputs(model, stretch.module, stretch.start, stretch.width)
    )
    return Group(f"{attention.module}.head", "head", attention.heads, (outside,), (*inside, outside), layer)


def _whole(
    model: nn.Module, path: str, structure: str, output: str, parts: tuple[Slot, ...], layer: int
) -> Group:
    """A whole attention or feed-forward network is one unit: its output projection with the bias."""
    projection: Any = model.get_submodule(output)
    features = projection.weight.shape[projection_axes(projection)[1]]
    gated = tuple(_outputs(model, output, 0, int(features)))
    written = {slot.module for slot in gated}
    # A fused projection is among the parts once for queries, keys and values each.
    inside = tuple(dict.fromkeys(_full(model, slot) for slot in parts if slot.module not in written))
    return Group(f"{path}.{structure}", structure, 1, gated, (*inside, *gated), layer)


def _full(model: nn.Module, slot: Slot) -> Slot:
    size = tensor_of(model, slot).shape[slot.axis]
    return Slot(slot.module, slot.tensor, slot.axis, 0, int(size))


def _hidden(model: PreTrainedModel, anatomy: Anatomy) -> Group:
    stream = anatomy.stream
    if stream.unknown:
        raise ValueError(
            f"Expected a {type(model).__name__} whose hidden dimensions the adapter of {anatomy.family!r} knows but it "
            f"also has {', '.join(stream.unknown[:3])}; leave the structure 'hidden' out."
        )
    norms = tuple(slot for path in stream.norms for slot in _norm_slots(model, path))
    sources = tuple(_slot(axis) for axis in stream.sources)
    reads, writes = [], []
    for block in anatomy.blocks:
        for attention in block.attentions:
            modules = dict.fromkeys(stretch.module for stretch in attention.inputs)
            reads += [_inputs(model, module) for module in modules]
            writes += _outputs(model, attention.output, 0, 1)
        if block.feed_forward is not None:
            reads += [_inputs(model, module) for module in block.feed_forward.inputs]
            writes += _outputs(model, block.feed_forward.output, 0, 1)
    readers = tuple(_slot(axis) for axis in stream.readers)
    gated = norms if stream.post_norm else tuple(writes)
    if not stream.normed_sources:
        gated += (*sources, *_tied(model, readers, sources))
    every = (*sources, *norms, *reads, *writes, *readers)
    return Group("hidden", "hidden", stream.size, gated, every)


def _tied(model: nn.Module, readers: Sequence[Slot], sources: Sequence[Slot]) -> list[Slot]:
    """Return the readers that share their tensor with a source: what multiplies it has to multiply both."""
    shared = {id(_stored(model, slot)) for slot in sources}
    return [slot for slot in readers if id(_stored(model, slot)) in shared]


def _stored(model: nn.Module, slot: Slot) -> Tensor:
    module: Any = model.get_submodule(slot.module)
    if parametrize.is_parametrized(module, slot.tensor):
        return module.parametrizations[slot.tensor].original
    return getattr(module, slot.tensor)


def _vocabulary(model: PreTrainedModel, anatomy: Anatomy) -> Group:
    if anatomy.word_embedding is None:
        raise ValueError(
            f"Expected a model with a vocabulary for 'vocabulary' but {type(model).__name__} reads no tokens; "
            "leave it out."
        )
    rows = Slot(anatomy.word_embedding, "weight", 0)
    stored = _stored(model, rows)
    # An output layer that is tied to the embedding reads the same rows: closed ones are zero there too.
    named = model.named_parameters(remove_duplicate=False)
    names = dict.fromkeys(plain_name(name) for name, tensor in named if tensor is stored)
    places = tuple(Slot(module, tensor, 0) for module, _, tensor in (name.rpartition(".") for name in names))
    return Group("vocabulary", "vocabulary", int(tensor_of(model, rows).shape[0]), places, places)


def _norm_slots(model: nn.Module, path: str) -> list[Slot]:
    norm = model.get_submodule(path)
    names = [name for name in ("weight", "bias") if getattr(norm, name, None) is not None]
    return [Slot(path, name, 0) for name in names]


def _inputs(model: nn.Module, path: str, width: int = 1) -> Slot:
    path, _ = ends(model.get_submodule(path), path)
    return Slot(path, "weight", projection_axes(model.get_submodule(path))[0], 0, width)


def _outputs(model: nn.Module, path: str, start: int, width: int) -> list[Slot]:
    _, path = ends(model.get_submodule(path), path)
    projection = model.get_submodule(path)
    slots = [Slot(path, "weight", projection_axes(projection)[1], start, width)]
    if projection.bias is not None:
        slots.append(Slot(path, "bias", 0, start, width))
    return slots


def _slot(axis: Axis) -> Slot:
    return Slot(axis.module, axis.tensor, axis.axis)


def tensor_of(model: nn.Module, slot: Slot) -> Tensor:
    """Return the tensor of a slot as the model computes with it."""
    return getattr(model.get_submodule(slot.module), slot.tensor)
