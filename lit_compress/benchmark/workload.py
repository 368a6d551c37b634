"""The inputs of a measurement: random tokens with the lengths of real texts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def token_batch(
    lengths: Sequence[int], vocab_size: int, pad_token_id: int | None, seed: int
) -> dict[str, Tensor]:
    """Return one right-padded batch of random tokens.

    Which tokens they are does not change the time of a dense encoder; their number does.

    Args:
        lengths: Token length of each row.
        vocab_size: Token ids are drawn below it.
        pad_token_id: Never drawn, since some models find their positions by it; ``None`` pads with 0.
        seed: Seed of the draw.

    Returns:
        ``input_ids`` and ``attention_mask``, both ``(len(lengths), max(lengths))`` int64.
    """
    pad = pad_token_id or 0
    generator = torch.Generator().manual_seed(seed)
    shape = (len(lengths), max(lengths))
    ids = torch.randint(0, vocab_size, shape, generator=generator)
    ids[ids == pad] = (pad + 1) % vocab_size
    mask = torch.arange(shape[1]) < torch.tensor(list(lengths))[:, None]
    return {"input_ids": ids.masked_fill(~mask, pad), "attention_mask": mask.long()}
