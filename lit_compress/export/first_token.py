"""Models whose last block computes only the token that the head reads, while they are exported."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel
from transformers.masking_utils import AttentionMaskInterface

from lit_compress.benchmark.runtimes.base import Batch
from lit_compress.benchmark.workload import token_batch
from lit_compress.export.attention import attention_of_export
from lit_compress.export.logits import is_text_classifier
from lit_compress.export.parity import max_length, reference
from lit_compress.models.anatomy import FAMILIES, Attention, dissect
from lit_compress.quantization.inputs import input_quantizers_of

_NAME = "lit_compress_first_token"
_FUSED = "sdpa"
_TOKENS = 8
_WHOLE_MASK = 4  # axes of one for (texts, heads, queries, keys)


@dataclass(frozen=True)
class LastAttention:
    """Where tokens are mixed for the last time: all behind it can be computed for one token alone.

    Args:
        block: Path of its block.
        attention: The attention.
        calls: How often a forward pass calls the block: more than once where blocks share their weights.
    """

    block: str
    attention: Attention
    calls: int


def last_attention(model: PreTrainedModel) -> LastAttention | None:
    """Return the last attention of a classifier whose head reads the first token of the last block alone.

    Args:
        model: The model, on the CPU and in eval mode.

    Returns:
        ``None`` where the head reads more, queries are computed together with keys, the family is not known, or
        inputs are rounded to the range of the batch at hand, which is that of all its tokens.
    """
    dynamic = any(quantizer.observer is None for _, quantizer in input_quantizers_of(model))
    if dynamic or model.config.model_type not in FAMILIES or not is_text_classifier(model):
        return None
    blocks = dissect(model).blocks
    found = [(block.path, block.attentions) for block in blocks if block.attentions]
    if not found or len(found[-1][1]) > 1:
        return None
    path, (attention,) = found[-1]
    apart = len({stretch.module for stretch in attention.inputs}) == len(attention.inputs)
    alike = all(stretch.width == attention.head_width for stretch in attention.inputs)
    if not apart or not alike:
        return None
    last = blocks[-1].path
    logits, calls = _called(model, {path, last})
    # The same bits: nothing of the other tokens is read.
    reads_first = np.array_equal(_spoiled(model, last, calls[last]), logits)
    return LastAttention(path, attention, calls[path]) if reads_first else None


@contextmanager
def first_token_alone(model: PreTrainedModel, where: LastAttention | None) -> Iterator[None]:
    """Let a model compute the first token alone from its last attention on.

    The head of a classifier of BERT's kind reads the first token of the last block. Nothing reads the others there:
    their queries, what they attend to, and their feed-forward network are left out, and the logits stay. The keys and
    values of that block are needed of all tokens. A MiniLM of six blocks in int8 is 1.11 to 1.16 times as fast, and a
    small model of two blocks 1.18 times.

    Args:
        model: The model, or a copy whose modules were replaced by others of the same names. Its attention is that of a
            context around this one, or else torch's fused one.
        where: What :func:`last_attention` gave; with ``None`` the model stays as it is.

    Yields:
        Nothing; afterwards the model computes all tokens.

    Raises:
        ValueError: The model computes its attention itself.
    """
    with ExitStack() as stack:
        if where is not None:
            name = model.config._attn_implementation
            name = name if name in AttentionInterface() else _FUSED
            last = _Last(model, where, AttentionInterface()[name])
            stack.enter_context(
                attention_of_export(model, _NAME, last.attend, AttentionMaskInterface()[name])
            )
            for handle in last.hooks(model):
                stack.callback(handle.remove)
        yield


class _Last:
    """The last attention while a model computes. No module, since torch.export lets none be given a tensor."""

    def __init__(self, model: PreTrainedModel, where: LastAttention, inside: Any) -> None:
        self.where, self.inside = where, inside
        self.core = model.get_submodule(where.attention.module)
        self.calls = 0
        self.states: Tensor | None = None  # of all tokens, within the last call
        self.rows: dict[str, Tensor] = {}  # keys and values of all tokens

    def hooks(self, model: PreTrainedModel) -> Iterator[Any]:
        block = model.get_submodule(self.where.block)
        yield block.register_forward_pre_hook(self.keep_first)
        _, *others = self.where.attention.inputs
        for name, stretch in zip(("key", "value"), others, strict=True):
            module = model.get_submodule(stretch.module)
            # Before those that round what it reads.
            yield module.register_forward_pre_hook(self.read_all, prepend=True)
            yield module.register_forward_hook(partial(self.keep_rows, name))

    def keep_first(self, block: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        self.calls += 1
        self.states = None if self.calls % self.where.calls else args[0]
        return None if self.states is None else (self.states[:, :1], *args[1:])

    def read_all(self, projection: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        return None if self.states is None else (self.states,)

    def keep_rows(self, name: str, projection: nn.Module, args: Any, output: Tensor) -> None:
        self.rows[name] = output

    def attend(
        self,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        **kwargs: Any,
    ) -> Any:
        if module is self.core and self.states is not None:
            # The model's code has split keys and values as if they were of one token.
            heads = (-1, self.where.attention.head_width)
            key, value = (self.rows[name].unflatten(2, heads).transpose(1, 2) for name in ("key", "value"))
            if attention_mask is not None and attention_mask.dim() == _WHOLE_MASK:
                attention_mask = attention_mask[:, :, :1]
        return self.inside(module, query, key, value, attention_mask, **kwargs)


def _called(model: PreTrainedModel, paths: set[str]) -> tuple[npt.NDArray[np.float32], Counter[str]]:
    """Return the logits of a text, and how often a forward pass calls each of some modules."""
    calls: Counter[str] = Counter()
    handles = [
        model.get_submodule(path).register_forward_hook(lambda *_, path=path: calls.update([path]))
        for path in paths
    ]
    try:
        return reference(model, _text(model)), calls
    finally:
        for handle in handles:
            handle.remove()


def _spoiled(model: PreTrainedModel, last_block: str, calls: int) -> npt.NDArray[np.float32]:
    """Return the logits of the text when all tokens of the last block but the first are NaN."""
    done = 0

    def spoil(block: nn.Module, args: Any, output: Any) -> Any:
        nonlocal done
        done += 1
        if done < calls:
            return None
        states, *others = output if isinstance(output, tuple) else (output,)
        states = states.clone()
        states[:, 1:] = torch.nan
        return (states, *others) if isinstance(output, tuple) else states

    handle = model.get_submodule(last_block).register_forward_hook(spoil)
    try:
        return reference(model, _text(model))
    finally:
        handle.remove()


def _text(model: PreTrainedModel) -> Batch:
    tokens = min(_TOKENS, max_length(model) or _TOKENS)
    return token_batch((tokens,), model.config.vocab_size, model.config.pad_token_id, 0)
