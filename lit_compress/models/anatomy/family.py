"""The interface of an adapter, and what most families have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from lit_compress.models.anatomy.base import Anatomy, Attention, FeedForward
from lit_compress.models.low_rank import LowRankLinear


@dataclass(frozen=True)
class UniformShape:
    """One size for all blocks, ``None`` where it stays as it is.

    Args:
        layers: Number of blocks.
        heads: Units per attention (key-value heads where queries share them).
        neurons: Width of the feed-forward networks.
        hidden: Hidden dimensions.
    """

    layers: int | None = None
    heads: int | None = None
    neurons: int | None = None
    hidden: int | None = None


class Family(ABC):
    """An adapter: tells where a family keeps its units, and keeps its attributes true when they are cut."""

    #: Projections of task heads that are as wide as the hidden states because the configuration has one number for
    #: both, each with what reads it. Paths below the model, whatever stands before the first.
    square_heads: tuple[tuple[str, str], ...] = ()

    @abstractmethod
    def dissect(self, model: PreTrainedModel) -> Anatomy:
        """Return the anatomy of a model as its modules are now, with or without a task head."""

    @abstractmethod
    def write_config(self, config: PreTrainedConfig, shape: UniformShape) -> None:
        """Write a shape that is the same in all blocks into the configuration.

        Raises:
            ValueError: The configuration of this family cannot say it.
        """

    def set_depth(self, model: PreTrainedModel, blocks: str, depth: int) -> None:
        """Write another number of blocks into the configuration, and number the blocks that are left anew.

        Args:
            model: The model, from which blocks were dropped.
            blocks: Path of their list, one of ``Anatomy.block_lists``.
            depth: Blocks that are left.
        """
        model.config.num_hidden_layers = depth
        left: Any = model.get_submodule(blocks)
        for index, block in enumerate(left):
            for module in block.modules():
                if hasattr(module, "layer_idx"):
                    module.layer_idx = index

    def resize_attention(self, module: nn.Module, heads: int) -> None:
        """Set the attributes of an attention whose projections were cut to ``heads`` units.

        Here ``num_attention_heads`` and ``all_head_size`` where it has them.
        """
        core: Any = module
        if hasattr(core, "num_attention_heads"):
            core.num_attention_heads = heads
        if hasattr(core, "all_head_size"):
            core.all_head_size = heads * core.attention_head_size

    def resize_hidden(self, model: PreTrainedModel, size: int) -> None:  # noqa: B027 - some have nothing to do
        """Set the attributes of the modules (not the configuration) for another number of hidden dimensions."""

    def resize_feed_forward(self, module: nn.Module, neurons: int) -> None:  # noqa: B027 - most have nothing to do
        """Set the attributes of a feed-forward network whose projections were cut; most have none to set."""

    def empty_attention(self, model: PreTrainedModel, attention: Attention) -> None:
        """Replace an attention without heads; what is left is the bias of its output projection."""
        layer = getattr(model.get_submodule(attention.module), "layer_idx", None)
        constant = constant_of(model, attention.output)
        replace(model, attention.module, EmptyAttention(attention.output, constant, layer))

    def empty_feed_forward(self, model: PreTrainedModel, feed_forward: FeedForward) -> None:
        """Replace a feed-forward network without neurons; what is left is the bias of its output projection."""
        output = feed_forward.output
        replace(model, feed_forward.module, EmptyFeedForward(output, constant_of(model, output)))


class Constant(nn.Module):
    """What is left of a projection without inputs: its bias, at every position.

    Args:
        features: Outputs.
        bias: Whether there is a bias; without one the output is zero.
    """

    def __init__(self, features: int, bias: bool = True) -> None:
        super().__init__()
        self.features = features
        self.bias = nn.Parameter(torch.zeros(features)) if bias else None

    def forward(self, states: Tensor) -> Tensor:
        """Return ``(..., features)`` for states ``(..., any width)``."""
        if self.bias is None:
            return states.new_zeros(*states.shape[:-1], self.features)
        return self.bias.expand(*states.shape[:-1], self.features)


class EmptyFeedForward(nn.Module):
    """A feed-forward network without neurons.

    Args:
        output: Path of its output projection, whose name the constant keeps.
        constant: What is left of it.
    """

    def __init__(self, output: str, constant: Constant) -> None:
        super().__init__()
        self.output_name = output.rpartition(".")[2]
        self.add_module(self.output_name, constant)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Return the constant at every position."""
        return getattr(self, self.output_name)(hidden_states)


class EmptyAttention(EmptyFeedForward):
    """An attention without heads, with the signature that most families share.

    Args:
        output: Path of its output projection, whose name the constant keeps.
        constant: What is left of it.
        layer_idx: Number of the block in a cache of keys and values.
    """

    def __init__(self, output: str, constant: Constant, layer_idx: int | None = None) -> None:
        super().__init__(output, constant)
        self.layer_idx = layer_idx

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, None]:  # type: ignore[override]
        """Return the constant at every position, and no attention weights."""
        count_positions(hidden_states, self.layer_idx, **kwargs)
        return super().forward(hidden_states), None


def count_positions(
    hidden_states: Tensor,
    layer_idx: int | None,
    past_key_values: Any = None,
    layer_past: Any = None,
    key_value_states: Tensor | None = None,
    encoder_hidden_states: Tensor | None = None,
    **kwargs: Any,
) -> None:
    """Let a cache of keys and values know how far it is, in the name of an attention that has none.

    Models ask their first layer for the number of positions in the cache, whatever is left of that layer.

    Args:
        hidden_states: ``(batch, length, hidden)``.
        layer_idx: Number of the block in the cache.
        past_key_values: The cache, if there is one.
        layer_past: The same, under the name that GPT-NeoX gives it.
        key_value_states: What a cross attention reads; its length is not the number of positions.
        encoder_hidden_states: The same, under its other name.
        **kwargs: Further arguments of the attention.
    """
    cache = layer_past if past_key_values is None else past_key_values
    if cache is None or key_value_states is not None or encoder_hidden_states is not None:
        return
    cache = getattr(cache, "self_attention_cache", cache)
    batch, length, _ = hidden_states.shape
    nothing = hidden_states.new_zeros(batch, 1, length, 1)
    cache.update(nothing, nothing, layer_idx)


def constant_of(model: nn.Module, path: str) -> Constant:
    """Return a projection as the constant that it is without inputs, with its bias."""
    projection: Any = model.get_submodule(path)
    constant = Constant(projection.weight.shape[projection_axes(projection)[1]], projection.bias is not None)
    if projection.bias is not None:
        constant.bias = projection.bias
    return constant


def replace(model: nn.Module, path: str, module: nn.Module) -> None:
    """Put another module in the place of a path below the model."""
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, module)


def projection_axes(module: nn.Module) -> tuple[int, int]:
    """Return the axes of the inputs and of the outputs of a projection's weight.

    Args:
        module: A ``Linear``, low-rank or not, or GPT-2's ``Conv1D``, whose weight is transposed.

    Returns:
        ``(input axis, output axis)``.

    Raises:
        ValueError: It is no projection.
    """
    if isinstance(module, Conv1D) or (isinstance(module, LowRankLinear) and module.transposed):
        return 0, 1
    if isinstance(module, (nn.Linear, LowRankLinear)):
        return 1, 0
    raise ValueError(
        f"Expected a Linear or Conv1D as projection but got {type(module).__name__}; name the module that holds "
        "the weight in the adapter of this family."
    )
