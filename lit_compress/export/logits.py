"""What torch's own exporters see of a model: named tensors in, logits out."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING

from lit_compress.export.parity import max_length

# Neither of one text nor of one token: both are sizes that exporters take for constants.
_TEXTS, _TOKENS = 4, 50


def is_text_classifier(model: PreTrainedModel) -> bool:
    """Whether a model gives one row of logits per text."""
    classifier: Any = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING.get(type(model.config), None)
    return classifier is not None and isinstance(model, classifier)


def check_text_classifier(model: PreTrainedModel) -> None:
    """Refuse a model that gives anything but one row of logits per text.

    Raises:
        ValueError: It is no text classifier.
    """
    if not is_text_classifier(model):
        raise ValueError(
            f"Expected a text classifier (…ForSequenceClassification) but got {type(model).__name__}; fine-tune one "
            "from it, or export a language model with --format gguf."
        )


class Logits(nn.Module):
    """A text classifier with nothing but its logits as output, in float32.

    Args:
        model: The model.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> Tensor:
        """Return the logits, (texts, labels)."""
        # Some models have no such argument, not even to be told that there are no segments.
        segments: dict[str, Any] = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        return self.model(input_ids=input_ids, attention_mask=attention_mask, **segments).logits.float()


def example_inputs(model: PreTrainedModel) -> dict[str, Tensor]:
    """Return a batch with padding to trace a model with.

    Args:
        model: The model.

    Returns:
        ``input_ids`` and ``attention_mask``, and ``token_type_ids`` where the model tells segments apart, of shape
        (4, 50) or shorter.
    """
    tokens = min(_TOKENS, max_length(model) or _TOKENS)
    lengths = torch.arange(_TEXTS, 0, -1)[:, None] * tokens // _TEXTS
    mask = (torch.arange(tokens) < lengths).long()
    ids = torch.where(mask == 1, model.config.vocab_size - 1, model.config.pad_token_id or 0)
    inputs = {"input_ids": ids, "attention_mask": mask}
    if getattr(model.config, "type_vocab_size", 0) > 1:
        inputs["token_type_ids"] = torch.zeros_like(ids)
    return inputs
