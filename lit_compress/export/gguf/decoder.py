"""Llama, Mistral, Qwen2 and Qwen3 language models as llama.cpp's architectures of these names.

Blocks that differ in size become ``deci``, its architecture for models found by a search, whose figures are arrays
with one entry per block.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from lit_compress.export.gguf.layout import Layout
from lit_compress.models.anatomy import dissect
from lit_compress.models.anatomy.base import Anatomy, Block

_ARCHS = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}
DECODERS = tuple(_ARCHS)
_RAGGED = "deci"
#: Architectures whose rotary embedding turns neighbours, not the two halves of a head.
NEIGHBOURS = ("llama", _RAGGED)


def decoder_layout(model: PreTrainedModel) -> Layout:
    """Return a language model in the terms of a GGUF file.

    Args:
        model: A ``…ForCausalLM`` of one of :data:`DECODERS`.

    Returns:
        The layout.

    Raises:
        ValueError: llama.cpp cannot express the model.
    """
    _check(model)
    anatomy = dissect(model)
    config = model.config
    parts: Any = model.base_model
    core: Any = next(
        (layer.self_attn for layer in parts.layers if hasattr(layer.self_attn, "head_dim")), None
    )
    if core is None:
        raise _refuse_ragged(model, _RAGGED)
    width, groups = core.head_dim, core.num_key_value_groups
    arch = _arch(model, anatomy, width * groups)
    # A block without heads or neurons keeps one of zeros: llama.cpp takes the width of all heads from the first
    # block, and forgets the attention of a block that has no neurons.
    heads = [block.attentions[0].heads if block.attentions else 1 for block in anatomy.blocks]
    neurons = [block.feed_forward.neurons if block.feed_forward else 1 for block in anatomy.blocks]
    layout = Layout(
        arch,
        {
            "vocab_size": parts.embed_tokens.weight.shape[0],
            "block_count": len(anatomy.blocks),
            "context_length": config.max_position_embeddings,
            "embedding_length": anatomy.stream.size,
            "feed_forward_length": _one_or_all(neurons, arch),
            "attention.head_count": _one_or_all([groups * count for count in heads], arch),
            "attention.head_count_kv": _one_or_all(heads, arch),
            "attention.key_length": width,
            "attention.value_length": width,
            "attention.layer_norm_rms_epsilon": float(config.rms_norm_eps),
            "rope.dimension_count": width,
        },
    )
    _add_rope(layout, config.rope_parameters, width)
    layout.add("token_embd", parts.embed_tokens)
    layout.add("output_norm", parts.norm)
    head: Any = model.get_output_embeddings()
    if head.weight is not parts.embed_tokens.weight:
        layout.add("output", head)
    for index, (block, layer) in enumerate(zip(anatomy.blocks, parts.layers, strict=True)):
        _add_block(layout, f"blk.{index}", block, layer, (width, groups))
    return layout


def _check(model: PreTrainedModel) -> None:
    name = type(model).__name__
    if not name.endswith("ForCausalLM"):
        raise ValueError(
            f"Expected a language model (…ForCausalLM) or a BERT or RoBERTa text classifier but got {name}, whose head "
            "llama.cpp cannot compute; use another format, such as onnx."
        )
    config = model.config
    if config.hidden_act != "silu":
        raise ValueError(
            f"Expected the activation silu, the only one of llama.cpp's {_ARCHS[config.model_type]!r}, but got "
            f"{config.hidden_act!r}; use another format, such as onnx."
        )
    kinds = getattr(config, "layer_types", None)
    window = getattr(config, "sliding_window", None)
    windowed = window is not None if kinds is None else "sliding_attention" in kinds
    if windowed and window < config.max_position_embeddings:
        raise ValueError(
            f"Expected attention to all tokens, the only one of llama.cpp's {_ARCHS[config.model_type]!r}, but got a "
            f"{name} with a sliding window of {window} tokens; where no text is longer than that, set "
            f"max_position_embeddings to {window} in its config.json and export again."
        )


def _arch(model: PreTrainedModel, anatomy: Anatomy, unit: int) -> str:
    arch = _ARCHS[model.config.model_type]
    heads = _uniform_heads(anatomy)
    # Qwen2's heads are together as wide as the hidden states.
    if heads is not None and not (arch == "qwen2" and heads * unit != anatomy.stream.size):
        return arch
    if arch == "qwen3":  # the norms of queries and keys are in no architecture with arrays
        raise _refuse_ragged(model, arch)
    return _RAGGED


def _uniform_heads(anatomy: Anatomy) -> int | None:
    """Return the number of heads if all blocks have the same shape."""
    shapes = {
        (sum(a.heads for a in block.attentions), block.feed_forward.neurons if block.feed_forward else 0)
        for block in anatomy.blocks
    }
    (heads, neurons), *others = shapes
    return heads if heads and neurons and not others else None


def _refuse_ragged(model: PreTrainedModel, arch: str) -> ValueError:
    return ValueError(
        f"Expected blocks of one size, the only ones that llama.cpp has for its architecture {arch!r}, but got a "
        f"{type(model).__name__} whose blocks differ in heads or neurons; make them alike with "
        "`lit-compress shrink --heads … --neurons …`, or export to a format that takes them as they are, such as "
        "onnx."
    )


def _one_or_all(counts: list[int], arch: str) -> int | list[int]:
    return counts if arch == _RAGGED else counts[0]


def _add_rope(layout: Layout, rope: dict[str, Any], width: int) -> None:
    kind = rope.get("rope_type", "default")
    layout.fields["rope.freq_base"] = float(rope["rope_theta"])
    if kind == "linear":
        layout.fields |= {"rope.scaling.type": "linear", "rope.scaling.factor": float(rope["factor"])}
    elif kind == "llama3":
        layout.put("rope_freqs", _llama3_factors(rope, width))
    elif kind != "default":
        raise ValueError(
            f"Expected rotary embeddings of the kinds default, linear or llama3 but got {kind!r}, of which this writer "
            "does not know what llama.cpp computes; use llama.cpp's own convert_hf_to_gguf.py for this model."
        )


def _llama3_factors(rope: dict[str, Any], width: int) -> Tensor:
    """Return by what each frequency is divided, ``(width / 2,)``: long waves by the factor, short ones by one."""
    low, high, factor = (float(rope[name]) for name in ("low_freq_factor", "high_freq_factor", "factor"))
    exponents = torch.arange(0, width, 2, dtype=torch.float64) / width
    waves = 2 * math.pi * float(rope["rope_theta"]) ** exponents
    smooth = ((rope["original_max_position_embeddings"] / waves - low) / (high - low)).clamp(0, 1)
    return 1 / ((1 - smooth) / factor + smooth)


def _add_block(layout: Layout, name: str, block: Block, layer: Any, head: tuple[int, int]) -> None:
    layout.add(f"{name}.attn_norm", layer.input_layernorm)
    layout.add(f"{name}.ffn_norm", layer.post_attention_layernorm)
    if block.attentions:
        _add_attention(layout, name, layer.self_attn, head[0])
    else:
        _add_no_heads(layout, name, layer, *head)
    if block.feed_forward:
        for part in ("gate", "up", "down"):
            layout.add(f"{name}.ffn_{part}", getattr(layer.mlp, f"{part}_proj"))
    else:
        nothing = torch.zeros(1, _hidden(layer))
        layout.put(f"{name}.ffn_gate", nothing)
        layout.put(f"{name}.ffn_up", nothing)
        layout.put(f"{name}.ffn_down", nothing.T, layer.mlp.down_proj.bias)


def _add_attention(layout: Layout, name: str, core: Any, width: int) -> None:
    for letter in "qkv":
        linear = getattr(core, f"{letter}_proj")
        weight, bias = linear.weight, linear.bias
        if letter != "v" and layout.arch in NEIGHBOURS:
            weight = _as_neighbours(weight, width)
            bias = None if bias is None else _as_neighbours(bias, width)
        layout.put(f"{name}.attn_{letter}", weight, bias)
    layout.add(f"{name}.attn_output", core.o_proj)
    for norm in ("q_norm", "k_norm"):
        if isinstance(getattr(core, norm, None), nn.Module):
            layout.add(f"{name}.attn_{norm}", getattr(core, norm))


def _add_no_heads(layout: Layout, name: str, layer: Any, width: int, groups: int) -> None:
    hidden = _hidden(layer)
    layout.put(f"{name}.attn_q", torch.zeros(groups * width, hidden))
    layout.put(f"{name}.attn_k", torch.zeros(width, hidden))
    layout.put(f"{name}.attn_v", torch.zeros(width, hidden))
    layout.put(f"{name}.attn_output", torch.zeros(hidden, groups * width), layer.self_attn.o_proj.bias)


def _hidden(layer: Any) -> int:
    return layer.input_layernorm.weight.shape[0]


def _as_neighbours(tensor: Tensor, width: int) -> Tensor:
    """Reorder the outputs of each head: dimension i of the first half, then i of the second, and so on."""
    shape = tensor.shape
    return tensor.reshape(-1, 2, width // 2, *shape[1:]).transpose(1, 2).reshape(shape)
