"""Attention as one node of an ONNX graph."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from lit_compress.export.attention import attention_of_export
from lit_compress.export.onnx_graph import MICROSOFT

_NAME = "lit_compress_onnx"


@contextmanager
def exported_attention(model: PreTrainedModel) -> Iterator[None]:
    """Let the TorchScript exporter write the attentions of a model as one node each where that node can say them.

    ``MultiHeadAttention`` knows padding, no causal masks, and has as many heads for keys as for queries: decoders are
    written as products and a softmax.

    Args:
        model: A model that supports transformers' ``AttentionInterface``.

    Yields:
        Nothing.

    Raises:
        ValueError: The model computes its attention itself.
    """
    if not any(_is_causal_or_grouped(module) for module in model.modules()):
        with fused_attention(model):
            yield
        return
    before = model.config._attn_implementation
    model.set_attn_implementation("sdpa")
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def _is_causal_or_grouped(module: Any) -> bool:
    return getattr(module, "is_causal", False) or getattr(module, "num_key_value_groups", 1) > 1


@contextmanager
def fused_attention(model: PreTrainedModel) -> Iterator[None]:
    """Let the TorchScript exporter write every attention of a model as one ``MultiHeadAttention`` node.

    The node is written here and not found afterwards by ONNX Runtime's graph fusion, because that one goes by
    patterns: it knows few graphs, wants one number of heads for all layers, and leaves what it does not know
    as it is without a word.

    Args:
        model: An encoder that supports transformers' ``AttentionInterface``.

    Yields:
        Nothing; within the context the model can be exported but not run.

    Raises:
        ValueError: The model computes its attention itself.
    """
    with attention_of_export(model, _NAME, _attention, _padding_mask):
        yield


class _MultiHeadAttention(torch.autograd.Function):
    """A stand-in while the model is traced: of the right shape, and exported as the node."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scale: float, heads: int
    ) -> Tensor:
        return torch.zeros_like(query)

    @staticmethod
    def symbolic(g: Any, query: Any, key: Any, value: Any, mask: Any, scale: float, heads: int) -> Any:
        nothing = g.op("prim::Constant")
        nothing.setType(torch._C.OptionalType.ofTensor())  # no bias: the projections have added theirs
        node = f"{MICROSOFT}::MultiHeadAttention"
        flat = (_before_reshapes(entry) for entry in (query, key, value))
        output = g.op(node, *flat, nothing, mask, num_heads_i=heads, scale_f=scale)
        output.setType(query.type())
        return output


def _before_reshapes(entry: Any) -> Any:
    """Return what was split into heads and put together again, where that is what an entry comes from.

    The reshapes, and all that computes their shapes, were half of the nodes of the graph.
    """
    source = entry
    for kind in ("Reshape", "Transpose", "Transpose", "Reshape"):
        if source.node().kind() != f"onnx::{kind}":
            return entry
        source = next(source.node().inputs())
    return source


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Take (texts, heads, tokens, width), return (texts, tokens, heads, width), as transformers wants it."""
    heads, width = int(query.shape[1]), int(query.shape[3])
    scale = width**-0.5 if scaling is None else float(scaling)
    flat = (tensor.transpose(1, 2).flatten(2) for tensor in (query, key, value))
    output = _MultiHeadAttention.apply(*flat, attention_mask, scale, heads)
    return output.unflatten(2, (heads, width)), None


def _padding_mask(*args: Any, attention_mask: Tensor, **kwargs: Any) -> Tensor:
    """Return the mask of the batch, (texts, tokens), not one of (texts, heads, tokens, tokens)."""
    return attention_mask.to(torch.int32)
