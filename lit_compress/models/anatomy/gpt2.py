"""GPT-2: a pre-norm decoder with transposed weights and one projection for queries, keys and values."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from lit_compress.models.anatomy.base import Anatomy, Attention, Block, FeedForward, Stream, Stretch
from lit_compress.models.anatomy.configs import write_sizes
from lit_compress.models.anatomy.family import EmptyAttention, EmptyFeedForward, Family, UniformShape
from lit_compress.models.anatomy.heads import base_path, readers_of, sources_of, width_of


class GPT2(Family):
    """Adapter of GPT-2."""

    def dissect(self, model: PreTrainedModel) -> Anatomy:
        """Return the anatomy; see ``Family.dissect``."""
        names = dict(model.named_modules())
        base = base_path(model)
        layers: Any = names[f"{base}h"]
        blocks = tuple(_block(names, f"{base}h.{index}") for index in range(len(layers)))
        return Anatomy(
            family=model.config.model_type,
            blocks=blocks,
            stream=_stream(model, names, base, blocks),
            block_lists=(f"{base}h",),
            word_embedding=f"{base}wte",
        )

    def resize_attention(self, module: nn.Module, heads: int) -> None:
        """Set the number of heads and where queries, keys and values part; see ``Family.resize_attention``."""
        core: Any = module
        core.num_heads = heads
        core.split_size = heads * core.head_dim

    def resize_hidden(self, model: PreTrainedModel, size: int) -> None:
        """Set the width where attentions and the model keep it; see ``Family.resize_hidden``."""
        module: Any
        for module in model.modules():
            if hasattr(module, "embed_dim"):
                module.embed_dim = size

    def write_config(self, config: PreTrainedConfig, shape: UniformShape) -> None:
        """Write the shape; see ``Family.write_config``."""
        write_sizes(config, shape, "n_inner")

    def set_depth(self, model: PreTrainedModel, blocks: str, depth: int) -> None:
        """Write the depth; scales that depend on the number of the layer go into the queries."""
        left: Any = model.get_submodule(blocks)
        if model.config.scale_attn_by_inverse_layer_idx:
            for index, block in enumerate(left):
                _rescale(block.attn, index)
        super().set_depth(model, blocks, depth)


def _rescale(attention: Any, index: int) -> None:
    """Let an attention have the scale of another layer and compute the same."""
    if isinstance(attention, EmptyAttention):
        return
    factor = (index + 1) / (attention.layer_idx + 1)
    queries = slice(0, attention.split_size)
    with torch.no_grad():
        attention.c_attn.weight[:, queries] *= factor
        attention.c_attn.bias[queries] *= factor
    attention.scaling /= factor


def _block(names: dict[str, Any], path: str) -> Block:
    inside = names[f"{path}.mlp"]
    attentions = [
        _attention(names[f"{path}.{name}"], f"{path}.{name}")
        for name in ("attn", "crossattention")
        if f"{path}.{name}" in names and not isinstance(names[f"{path}.{name}"], EmptyAttention)
    ]
    emptied = isinstance(inside, EmptyFeedForward)
    return Block(path, tuple(attentions), None if emptied else _feed_forward(inside, f"{path}.mlp"))


def _attention(core: Any, path: str) -> Attention:
    width, total = core.head_dim, core.c_proj.weight.shape[0]
    fused = f"{path}.c_attn"
    if core.is_cross_attention:
        inputs = (Stretch(f"{path}.q_attn", 0, width), Stretch(fused, 0, width), Stretch(fused, total, width))
    else:
        inputs = (Stretch(fused, 0, width), Stretch(fused, total, width), Stretch(fused, 2 * total, width))
    return Attention(path, total // width, inputs, f"{path}.c_proj", width)


def _feed_forward(inside: Any, path: str) -> FeedForward:
    return FeedForward(path, inside.c_fc.weight.shape[1], (f"{path}.c_fc",), f"{path}.c_proj")


def _stream(model: PreTrainedModel, names: dict[str, Any], base: str, blocks: tuple[Block, ...]) -> Stream:
    inner = [f"{block.path}.{name}" for block in blocks for name in ("ln_1", "ln_cross_attn", "ln_2")]
    readers, unknown = readers_of(model, [], ["lm_head", "score", "classifier", "qa_outputs"])
    # A cross attention reads the hidden states of another model.
    cross = tuple(path for path in names if path.endswith(".crossattention"))
    return Stream(
        size=width_of(model, f"{base}ln_f"),
        norms=(*(path for path in inner if path in names), f"{base}ln_f"),
        sources=sources_of(model, [f"{base}wte", f"{base}wpe"]),
        readers=readers,
        post_norm=False,
        unknown=(*unknown, *cross),
    )
