"""Inputs of a size, to run a model with."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import PreTrainedModel

from lit_compress.export.parity import max_length


def make_inputs(model: PreTrainedModel, batch: int, length: int) -> dict[str, Tensor]:
    """Return inputs of a size: token ids without padding, or images, or audio features.

    Raises:
        ValueError: The model reads no texts of this length, or something else.
    """
    config, name, device = model.config, model.main_input_name, model.device
    generator = torch.Generator().manual_seed(0)
    if name == "input_ids":
        most = max_length(model)
        if most is not None and not 0 < length <= most:
            raise ValueError(
                f"Expected target.length from 1 to {most}, what the model can read, but got {length}."
            )
        ids = torch.randint(config.vocab_size, (batch, length), generator=generator)
        return {"input_ids": ids.to(device), "attention_mask": torch.ones_like(ids).to(device)}
    if name == "pixel_values":
        shape = (batch, config.num_channels, config.image_size, config.image_size)
        return {name: torch.randn(shape, generator=generator).to(device, model.dtype)}
    if name == "input_features":
        audio = (batch, config.num_mel_bins, 2 * config.max_source_positions)
        ids = torch.ones((batch, min(length, config.max_target_positions)), dtype=torch.long, device=device)
        features = torch.randn(audio, generator=generator).to(device, model.dtype)
        return {name: features, "decoder_input_ids": ids}
    raise ValueError(
        f"Expected a model that reads texts, images or audio for target.speedup but {type(model).__name__} reads "
        f"{name!r}; give target.sparsity."
    )
