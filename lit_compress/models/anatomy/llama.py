"""Llama, Qwen2, Qwen3 and Mistral: pre-norm decoders with grouped queries and gated feed-forward networks."""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from lit_compress.models.anatomy.base import Anatomy, Attention, Block, FeedForward, Stream, Stretch
from lit_compress.models.anatomy.configs import write_free_sizes
from lit_compress.models.anatomy.family import EmptyAttention, EmptyFeedForward, Family, UniformShape
from lit_compress.models.anatomy.heads import base_path, readers_of, sources_of, width_of


class Llama(Family):
    """Adapter of Llama, Qwen2, Qwen3 and Mistral.

    A head is a key-value head with all query heads that read it. Rotary embeddings turn the dimensions of a head
    and know nothing of the hidden dimensions; Qwen3's norms of queries and keys are as wide as a head.
    """

    def dissect(self, model: PreTrainedModel) -> Anatomy:
        """Return the anatomy; see ``Family.dissect``."""
        names = dict(model.named_modules())
        base = base_path(model)
        layers: Any = names[f"{base}layers"]
        blocks = tuple(_block(names, f"{base}layers.{index}") for index in range(len(layers)))
        return Anatomy(
            family=model.config.model_type,
            blocks=blocks,
            stream=_stream(model, base, blocks),
            block_lists=(f"{base}layers",),
            word_embedding=f"{base}embed_tokens",
        )

    def resize_feed_forward(self, module: nn.Module, neurons: int) -> None:
        """Set the width inside; see ``Family.resize_feed_forward``."""
        inside: Any = module
        inside.intermediate_size = neurons

    def resize_hidden(self, model: PreTrainedModel, size: int) -> None:
        """Set the width where blocks and feed-forward networks keep it; see ``Family.resize_hidden``."""
        module: Any
        for module in model.modules():
            if hasattr(module, "self_attn") or hasattr(module, "gate_proj"):
                module.hidden_size = size

    def write_config(self, config: PreTrainedConfig, shape: UniformShape) -> None:
        """Write the shape; see ``Family.write_config``."""
        write_free_sizes(config, shape)
        if shape.layers is not None and getattr(config, "layer_types", None) is not None:
            config.layer_types = config.layer_types[: shape.layers]

    def set_depth(self, model: PreTrainedModel, blocks: str, depth: int) -> None:
        """Write the depth; layers with a sliding window keep it."""
        kinds = getattr(model.config, "layer_types", None)
        if kinds is not None:
            left: Any = model.get_submodule(blocks)
            model.config.layer_types = [kinds[block.self_attn.layer_idx] for block in left]
        super().set_depth(model, blocks, depth)


def _block(names: dict[str, Any], path: str) -> Block:
    core, inside = names[f"{path}.self_attn"], names[f"{path}.mlp"]
    attentions = () if isinstance(core, EmptyAttention) else (_attention(core, f"{path}.self_attn"),)
    emptied = isinstance(inside, EmptyFeedForward)
    return Block(path, attentions, None if emptied else _feed_forward(inside, f"{path}.mlp"))


def _attention(core: Any, path: str) -> Attention:
    queries = core.head_dim * core.num_key_value_groups
    return Attention(
        module=path,
        heads=core.k_proj.out_features // core.head_dim,
        inputs=(
            Stretch(f"{path}.q_proj", 0, queries),
            Stretch(f"{path}.k_proj", 0, core.head_dim),
            Stretch(f"{path}.v_proj", 0, core.head_dim),
        ),
        output=f"{path}.o_proj",
        head_width=queries,
    )


def _feed_forward(inside: Any, path: str) -> FeedForward:
    neurons = inside.up_proj.out_features
    return FeedForward(path, neurons, (f"{path}.gate_proj", f"{path}.up_proj"), f"{path}.down_proj")


def _stream(model: PreTrainedModel, base: str, blocks: tuple[Block, ...]) -> Stream:
    names = ("input_layernorm", "post_attention_layernorm")
    inner = [f"{block.path}.{name}" for block in blocks for name in names]
    readers, unknown = readers_of(model, [], ["lm_head", "score", "qa_outputs"])
    return Stream(
        size=width_of(model, f"{base}norm"),
        norms=(*inner, f"{base}norm"),
        sources=sources_of(model, [f"{base}embed_tokens"]),
        readers=readers,
        post_norm=False,
        unknown=unknown,
    )
