"""The model inside a worker: loading it and running it once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING

from lit_compress.benchmark.workload import token_batch
from lit_compress.models.checkpoint import load

#: What is measured, for the rows of the results.
RUNTIME = "torch eager fp32"


def import_model_code(folder: str) -> None:
    """Import everything that a model needs, so that memory counted from here on is the model's own."""
    config = AutoConfig.from_pretrained(folder)
    if type(config) not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING:
        raise ValueError(
            f"Expected a model that classifies texts but {folder} holds a {config.model_type!r}; "
            "give a folder that AutoModelForSequenceClassification loads."
        )
    # Looking the class up imports its module; the product makes the math libraries take their buffers.
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING[type(config)]
    torch.ones(64, 64) @ torch.ones(64, 64)


class EagerModel:
    """A model folder in eager PyTorch with float32 weights.

    Args:
        folder: Folder that ``from_pretrained`` loads.
        device: ``"cpu"`` or ``"cuda"``.
    """

    def __init__(self, folder: str, device: str) -> None:
        self.device = device
        self.model = load(folder)
        nn.Module.to(self.model, device=torch.device(device), dtype=torch.float32)
        self.vocab_size: int = self.model.config.vocab_size
        self.pad_token_id: int | None = self.model.config.pad_token_id

    def facts(self) -> dict[str, Any]:
        """Return parameters and shape of the model."""
        config = self.model.config
        return {
            "params": sum(parameter.numel() for parameter in self.model.parameters()),
            "shape": {
                "family": config.model_type,
                "layers": getattr(config, "num_hidden_layers", None),
                "hidden": getattr(config, "hidden_size", None),
                "vocab": self.vocab_size,
            },
        }

    def inputs(self, lengths: Sequence[int], seed: int) -> dict[str, Tensor]:
        """Return a batch of random texts of these lengths on the model's device."""
        batch = token_batch(lengths, self.vocab_size, self.pad_token_id, seed)
        return {name: tensor.to(self.device) for name, tensor in batch.items()}

    @torch.inference_mode()
    def run(self, inputs: dict[str, Tensor]) -> Tensor:
        """Return the logits."""
        return self.model(**inputs).logits
