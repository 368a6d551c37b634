"""BERT and RoBERTa classifiers as llama.cpp's architecture ``bert``, with their head as its ranking head.

llama.cpp computes tanh(dense(first token)) and a projection behind it where a file has the tensors ``cls`` and
``cls.output``; that is BERT's pooler and classifier. Two things of the original it does not have: every token is of
the first segment, and GELU is its tanh approximation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from lit_compress.export.gguf.layout import Layout, pad
from lit_compress.models.anatomy import dissect
from lit_compress.models.anatomy.base import Anatomy, Attention, FeedForward
from lit_compress.models.anatomy.heads import base_path

ENCODERS = ("bert", "roberta")
_ARCH = "bert"
_RANK = 4  # the pooling that ends in a classification head
_GELUS = ("gelu", "gelu_new", "gelu_pytorch_tanh")


def encoder_layout(model: PreTrainedModel) -> Layout:
    """Return a text classifier in the terms of a GGUF file.

    Args:
        model: ``BertForSequenceClassification`` or ``RobertaForSequenceClassification``.

    Returns:
        The layout.

    Raises:
        ValueError: llama.cpp cannot express the model.
    """
    _check(model)
    anatomy = dissect(model)
    sizes = _sizes(anatomy)
    parts: Any = model.get_submodule(base_path(model).rstrip("."))
    positions = _positions(parts.embeddings.position_embeddings)
    config = model.config
    layout = Layout(
        _ARCH,
        {
            "block_count": len(anatomy.blocks),
            "context_length": len(positions),
            "embedding_length": sizes.hidden,
            "feed_forward_length": sizes.neurons,
            "attention.head_count": sizes.heads,
            "attention.layer_norm_epsilon": float(config.layer_norm_eps),
            "attention.causal": False,
            "pooling_type": _RANK,
            "classifier.output_labels": _labels(config),
        },
    )
    layout.add("token_embd", parts.embeddings.word_embeddings)
    layout.put("position_embd", positions)
    layout.add("token_types", parts.embeddings.token_type_embeddings)
    layout.add("token_embd_norm", parts.embeddings.LayerNorm)
    for index, (block, layer) in enumerate(zip(anatomy.blocks, parts.encoder.layer, strict=True)):
        name = f"blk.{index}"
        _add_attention(layout, name, layer, block.attentions[0] if block.attentions else None, sizes)
        layout.add(f"{name}.attn_output_norm", layer.attention.output.LayerNorm)
        _add_feed_forward(layout, name, layer, block.feed_forward, sizes)
        layout.add(f"{name}.layer_output_norm", layer.output.LayerNorm)
    _add_head(layout, model)
    return layout


def _check(model: PreTrainedModel) -> None:
    name = type(model).__name__
    if name not in ("BertForSequenceClassification", "RobertaForSequenceClassification"):
        raise ValueError(
            f"Expected a BERT or RoBERTa text classifier, whose head llama.cpp can compute, but got {name}; use "
            "another format, such as onnx."
        )
    activation = model.config.hidden_act
    if activation not in _GELUS:
        raise ValueError(
            f"Expected the activation gelu, the only one of llama.cpp's architecture {_ARCH!r}, but got "
            f"{activation!r}; use another format, such as onnx."
        )


@dataclass(frozen=True)
class _Sizes:
    """The one size of all blocks in the file; the heads are together exactly as wide as the hidden states."""

    hidden: int
    heads: int
    width: int
    neurons: int


def _sizes(anatomy: Anatomy) -> _Sizes:
    hidden = anatomy.stream.size
    attentions = [attention for block in anatomy.blocks for attention in block.attentions]
    heads = max((attention.heads for attention in attentions), default=1)
    width = max((attention.head_width for attention in attentions), default=hidden)
    neurons = max((block.feed_forward.neurons for block in anatomy.blocks if block.feed_forward), default=1)
    for places in range(heads, hidden // width + 1):
        if hidden % places == 0:
            return _Sizes(hidden, places, hidden // places, neurons)
    raise ValueError(
        f"Expected hidden dimensions that {heads} or more heads of {width} or more can share out evenly, since "
        f"llama.cpp's architecture {_ARCH!r} knows no other attention, but got {hidden}; shrink to one number N of "
        f"heads with `lit-compress shrink --heads N --hidden {width}*N`, or use another format, such as onnx."
    )


def _labels(config: Any) -> list[str]:
    return [str(config.id2label[index]) for index in range(config.num_labels)]


def _positions(embedding: Any) -> Tensor:
    # RoBERTa's positions begin behind the padding id; llama.cpp's begin at zero.
    first = 0 if embedding.padding_idx is None else embedding.padding_idx + 1
    return embedding.weight[first:]


def _add_attention(layout: Layout, name: str, layer: Any, attention: Attention | None, sizes: _Sizes) -> None:
    output, letters = layer.attention.output.dense, ("q", "k", "v")
    if attention is None:
        nothing = torch.zeros(sizes.hidden, sizes.hidden)
        for letter in letters:
            layout.put(f"{name}.attn_{letter}", nothing, nothing[0])
        layout.put(f"{name}.attn_output", nothing, output.bias)
        return
    inner = layer.attention.self
    runs = (attention.heads, attention.head_width, sizes.heads, sizes.width)
    # The scores are divided by the root of the width in the file.
    scale = (sizes.width / attention.head_width) ** 0.5
    for letter, linear in zip(letters, (inner.query, inner.key, inner.value), strict=True):
        factor = scale if letter == "q" else 1.0
        weight, bias = (pad(tensor.detach() * factor, 0, *runs) for tensor in (linear.weight, linear.bias))
        layout.put(f"{name}.attn_{letter}", weight, bias)
    layout.put(f"{name}.attn_output", pad(output.weight.detach(), 1, *runs), output.bias)


def _add_feed_forward(
    layout: Layout, name: str, layer: Any, feed_forward: FeedForward | None, sizes: _Sizes
) -> None:
    up, down = layer.intermediate, layer.output.dense
    if feed_forward is None:
        nothing = torch.zeros(sizes.neurons, sizes.hidden)
        layout.put(f"{name}.ffn_up", nothing, nothing[:, 0])
        layout.put(f"{name}.ffn_down", nothing.T, down.bias)
        return
    run = (1, feed_forward.neurons, 1, sizes.neurons)
    weight, bias = (pad(tensor.detach(), 0, *run) for tensor in (up.dense.weight, up.dense.bias))
    layout.put(f"{name}.ffn_up", weight, bias)
    layout.put(f"{name}.ffn_down", pad(down.weight.detach(), 1, *run), down.bias)


def _add_head(layout: Layout, model: Any) -> None:
    if model.config.model_type == "roberta":
        layout.add("cls", model.classifier.dense)
        layout.add("cls.output", model.classifier.out_proj)
    else:
        layout.add("cls", model.bert.pooler.dense)
        layout.add("cls.output", model.classifier)
