"""Tokens without which a tokenizer cannot work."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
from torch import nn

_OF_CONFIG = ("pad", "bos", "eos", "sep", "cls", "unk", "mask", "decoder_start")


def special_tokens(trainer: pl.Trainer, model: nn.Module) -> list[int]:
    """Return the ids of the special tokens, of the data's tokenizer and of the model's configuration.

    Raises:
        ValueError: Nobody knows them.
    """
    tokenizer: Any = getattr(getattr(trainer, "datamodule", None), "tokenizer_object", None)
    ids = set(getattr(tokenizer, "all_special_ids", ()))
    config: Any = model.config
    ids |= {getattr(config, f"{name}_token_id", None) for name in _OF_CONFIG} - {None}
    if not ids:
        raise ValueError(
            "Expected a data module with a tokenizer, or special tokens in the configuration of the model, to keep "
            "their rows but there is neither; set config.pad_token_id and its like before pruning the vocabulary."
        )
    return sorted(ids)
