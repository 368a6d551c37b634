"""Whisper: encoder and decoder with one hidden size, and cross attention between them."""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from lit_compress.models.anatomy.base import Anatomy, Attention, Axis, Block, FeedForward, Stream, Stretch
from lit_compress.models.anatomy.configs import check_width
from lit_compress.models.anatomy.family import (
    Constant,
    EmptyAttention,
    Family,
    UniformShape,
    constant_of,
    replace,
)
from lit_compress.models.anatomy.heads import base_path, readers_of, sources_of, width_of

_ATTENTIONS = ("self_attn", "encoder_attn")
_NORMS = ("self_attn_layer_norm", "encoder_attn_layer_norm", "final_layer_norm")


class Whisper(Family):
    """Adapter of Whisper: blocks of the encoder, then of the decoder.

    Both have the same hidden dimensions, because the decoder reads the encoder and the configuration has one
    size for both. The channels between the two convolutions are counted among them.
    """

    def dissect(self, model: PreTrainedModel) -> Anatomy:
        """Return the anatomy; see ``Family.dissect``."""
        names = dict(model.named_modules())
        base = base_path(model)
        parts = [f"{base}{part}" for part in ("encoder", "decoder") if f"{base}{part}.layers" in names]
        lists = [f"{part}.layers" for part in parts]
        blocks = tuple(
            _block(names, f"{path}.{index}") for path in lists for index in range(len(names[path]))
        )
        embedding = f"{base}decoder.embed_tokens"
        return Anatomy(
            family=model.config.model_type,
            blocks=blocks,
            stream=_stream(model, names, parts, blocks),
            # A sum over the layers has one weight for each.
            block_lists=() if hasattr(model, "layer_weights") else tuple(lists),
            word_embedding=embedding if embedding in names else None,
        )

    def resize_attention(self, module: nn.Module, heads: int) -> None:
        """Set the number of heads; see ``Family.resize_attention``."""
        core: Any = module
        core.num_heads = heads

    def resize_hidden(self, model: PreTrainedModel, size: int) -> None:
        """Set the width where blocks and attentions keep it; see ``Family.resize_hidden``."""
        module: Any
        for module in model.modules():
            if hasattr(module, "embed_dim"):
                module.embed_dim = size

    def write_config(self, config: PreTrainedConfig, shape: UniformShape) -> None:
        """Write the shape, the same for encoder and decoder; see ``Family.write_config``."""
        hidden = {
            check_width(config, shape, heads)
            for heads in (config.encoder_attention_heads, config.decoder_attention_heads)
        }
        config.d_model = hidden.pop()
        for part in ("encoder", "decoder"):
            for entry, size in (
                (f"{part}_layers", shape.layers),
                (f"{part}_attention_heads", shape.heads),
                (f"{part}_ffn_dim", shape.neurons),
            ):
                setattr(config, entry, size or getattr(config, entry))

    def set_depth(self, model: PreTrainedModel, blocks: str, depth: int) -> None:
        """Write the depth of the encoder or of the decoder; only the latter has a cache to number."""
        part = blocks.split(".")[-2]
        setattr(model.config, f"{part}_layers", depth)
        left: Any = model.get_submodule(blocks)
        for index, block in enumerate(left):
            for module in block.modules():
                if getattr(module, "layer_idx", None) is not None:
                    module.layer_idx = index

    def empty_feed_forward(self, model: PreTrainedModel, feed_forward: FeedForward) -> None:
        """Replace the neurons; both projections are in the layer itself."""
        replace(model, feed_forward.output, constant_of(model, feed_forward.output))
        replace(model, feed_forward.module, nn.Identity())


def _block(names: dict[str, Any], path: str) -> Block:
    attentions = [
        _attention(names[f"{path}.{name}"], f"{path}.{name}")
        for name in _ATTENTIONS
        if f"{path}.{name}" in names and not isinstance(names[f"{path}.{name}"], EmptyAttention)
    ]
    emptied = isinstance(names[f"{path}.fc2"], Constant)
    return Block(path, tuple(attentions), None if emptied else _feed_forward(names, path))


def _attention(core: Any, path: str) -> Attention:
    width = core.head_dim
    return Attention(
        module=path,
        heads=core.q_proj.out_features // width,
        inputs=tuple(Stretch(f"{path}.{name}", 0, width) for name in ("q_proj", "k_proj", "v_proj")),
        output=f"{path}.out_proj",
        head_width=width,
    )


def _feed_forward(names: dict[str, Any], path: str) -> FeedForward:
    return FeedForward(f"{path}.fc1", names[f"{path}.fc1"].out_features, (f"{path}.fc1",), f"{path}.fc2")


def _stream(
    model: PreTrainedModel, names: dict[str, Any], parts: list[str], blocks: tuple[Block, ...]
) -> Stream:
    inner = [f"{block.path}.{name}" for block in blocks for name in _NORMS if f"{block.path}.{name}" in names]
    convolutions = [f"{part}.{name}" for part in parts for name in ("conv1", "conv2")]
    written = [path for path in convolutions if path in names]
    tables = [f"{part}.{name}" for part in parts for name in ("embed_tokens", "embed_positions")]
    readers, unknown = readers_of(model, ["projector"], ["proj_out", "classifier"])
    between = tuple(Axis(path, "weight", 1) for path in written if path.endswith("conv2"))
    weighted = ("layer_weights",) if hasattr(model, "layer_weights") else ()
    return Stream(
        size=width_of(model, f"{parts[0]}.layer_norm"),
        norms=(*inner, *(f"{part}.layer_norm" for part in parts)),
        sources=(
            *(Axis(path, tensor, 0) for path in written for tensor in ("weight", "bias")),
            *sources_of(model, tables),
        ),
        readers=(*between, *readers),
        post_norm=False,
        unknown=(*unknown, *weighted),
    )
