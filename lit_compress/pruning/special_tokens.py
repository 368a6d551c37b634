"""Tokens without which a tokenizer cannot work."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
from torch import nn

from lit_compress.pruning.tokenizers import indispensable

_OF_CONFIG = ("pad", "bos", "eos", "sep", "cls", "unk", "mask", "decoder_start")


def special_tokens(trainer: pl.Trainer, model: nn.Module) -> list[int]:
    """Return the ids of what the data's tokenizer cannot do without, and of the model's special tokens.

    Those are special and added tokens, single characters and bytes: with them every text can still be encoded when
    ``lit-compress shrink`` cuts the other pieces out.

    Raises:
        ValueError: Nobody knows them, or the tokenizer is one that cannot be rewritten.
    """
    tokenizer: Any = getattr(getattr(trainer, "datamodule", None), "tokenizer_object", None)
    ids: set[Any] = set() if tokenizer is None else indispensable(tokenizer, set())
    config: Any = model.config
    ids |= {getattr(config, f"{name}_token_id", None) for name in _OF_CONFIG} - {None}
    if not ids:
        raise ValueError(
            "Expected a data module with a tokenizer, or special tokens in the configuration of the model, to keep "
            "their rows but there is neither; set config.pad_token_id and its like before pruning the vocabulary."
        )
    return sorted(ids)
