"""Another attention for a model while it is exported: one that the format has operators for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from transformers import AttentionInterface, PreTrainedModel
from transformers.masking_utils import AttentionMaskInterface


@contextmanager
def attention_of_export(
    model: PreTrainedModel, name: str, attention: Callable[..., object], mask: Callable[..., object]
) -> Iterator[None]:
    """Let a model compute its attention by other functions.

    Args:
        model: An encoder that supports transformers' ``AttentionInterface``.
        name: Under which transformers knows the functions.
        attention: Takes the module, queries, keys, values, the mask and the scale.
        mask: Makes the mask of it; see ``AttentionMaskInterface``.

    Yields:
        Nothing; afterwards the model has the attention that it had.

    Raises:
        ValueError: The model computes its attention itself.
    """
    AttentionInterface.register(name, attention)
    AttentionMaskInterface.register(name, mask)
    before = model.config._attn_implementation
    model.set_attn_implementation(name)
    try:
        if model.config._attn_implementation != name:
            raise ValueError(
                "Expected a model that supports transformers' AttentionInterface but got "
                f"{type(model).__name__}; BERT, RoBERTa, DistilBERT and ELECTRA do."
            )
        yield
    finally:
        model.set_attn_implementation(before)
