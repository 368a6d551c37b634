"""The figures of a model that objectives, layer maps and students have to agree on."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel


@dataclass(frozen=True)
class Architecture:
    """Shape of a transformer encoder.

    Args:
        family: ``model_type`` of the configuration, such as ``"bert"``.
        num_layers: Number of blocks.
        hidden_size: Width of the hidden states.
        num_heads: Attention heads per block.
        head_dim: Width of one head.
        vocab_size: Rows of the word embedding; ``None`` for models without one.
        num_labels: Outputs of the task head.
    """

    family: str
    num_layers: int
    hidden_size: int
    num_heads: int
    head_dim: int
    vocab_size: int | None
    num_labels: int
