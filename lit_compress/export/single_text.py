"""A text classifier as runtimes for small devices want it: one text, int32 inputs, few and plain operators."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from lit_compress.export.attention import attention_of_export
from lit_compress.export.parity import max_length

#: The longest text in tokens of an export; what is longer would take its memory on a device for every text.
LONGEST = 512
_NAME = "lit_compress_single_text"
# Added to the scores of padding: its share of the attention is exactly zero in float32.
_MASKED = -1e9


class SingleText(nn.Module):
    """A model that reads one text, (1, tokens) in int32, and returns its logits, (1, labels) in float32.

    Args:
        model: The model, within :func:`plain_attention`.
        padded: Whether there is an ``attention_mask``; without one every token counts.
    """

    def __init__(self, model: PreTrainedModel, padded: bool) -> None:
        super().__init__()
        self.model = model
        self.padded = padded

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
    ) -> Tensor:
        """Return the logits."""
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        # Some models have no such argument, not even to be told that there are no segments.
        segments: dict[str, Any] = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        return self.model(input_ids=input_ids, attention_mask=attention_mask, **segments).logits.float()

    def example(self, tokens: int) -> dict[str, Tensor]:
        """Return inputs to trace it with, by name.

        Args:
            tokens: Length of the text.
        """
        config = self.model.config
        ids = torch.full((1, tokens), config.vocab_size - 1, dtype=torch.int32)
        inputs = {"input_ids": ids}
        if self.padded:
            inputs["attention_mask"] = torch.ones_like(ids)
        if getattr(config, "type_vocab_size", 0) > 1:
            inputs["token_type_ids"] = torch.zeros_like(ids)
        return inputs


def longest_text(model: PreTrainedModel) -> int:
    """Return the length in tokens of the longest text that an export of a model reads."""
    return _within_longest(max_length(model))


def facts_of_file(facts: dict[str, Any]) -> dict[str, Any]:
    """Return the facts of a model with the longest text of its export in the place of its own.

    Args:
        facts: See :func:`~lit_compress.benchmark.facts.model_facts`.
    """
    return {**facts, "max_positions": _within_longest(facts["max_positions"])}


def _within_longest(tokens: int | None) -> int:
    return min(tokens or LONGEST, LONGEST)


@contextmanager
def plain_attention(model: PreTrainedModel, padded: bool) -> Iterator[None]:
    """Let a model compute its attention with two products and a softmax over (heads, tokens, tokens).

    Args:
        model: An encoder that supports transformers' ``AttentionInterface``.
        padded: Whether what the attention mask leaves out is left out; else the mask is not read.

    Yields:
        Nothing; within the context the model reads one text at a time.

    Raises:
        ValueError: The model computes its attention itself.
    """
    with attention_of_export(model, _NAME, _attention, _padding_scores if padded else _no_mask):
        yield


def quantize_embeddings(model: nn.Module) -> None:
    """Replace every embedding by one of a byte per weight, in place.

    Args:
        model: The model.
    """
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Embedding):
                weight = child.weight.detach().float()
                scale = weight.abs().amax(1, keepdim=True).clamp_min(1e-30) / 127
                setattr(module, name, Int8Embedding(torch.round(weight / scale).to(torch.int8), scale))


class Int8Embedding(nn.Module):
    """An embedding in int8 with one scale per row; tables of a runtime's own kind repeat their scales per graph.

    Args:
        weight: The integers, in int8.
        scale: One per row, ``(rows, 1)``.
    """

    weight: Tensor
    scale: Tensor

    def __init__(self, weight: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale)

    def forward(self, ids: Tensor) -> Tensor:
        """Return the rows of some ids."""
        return functional.embedding(ids, self.weight).float() * functional.embedding(ids, self.scale)


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Take (1, heads, tokens, width), return (1, tokens, heads, width), as transformers wants it."""
    heads, width = query.shape[1], query.shape[3]
    query, key, value = (tensor.view(heads, -1, width) for tensor in (query, key, value))
    scale = width**-0.5 if scaling is None else scaling
    scores = torch.bmm(query * scale, key.transpose(1, 2))
    if attention_mask is not None:
        scores = scores + attention_mask
    return torch.bmm(scores.softmax(-1), value).transpose(0, 1).contiguous().view(1, -1, heads, width), None


def _padding_scores(*args: Any, attention_mask: Tensor, **kwargs: Any) -> Tensor:
    """Return what is added to the scores, (1, 1, tokens)."""
    return (1 - attention_mask.float())[:, None] * _MASKED


def _no_mask(*args: Any, **kwargs: Any) -> None:
    """Return that nothing is left out."""
