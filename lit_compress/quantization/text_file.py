"""A plain text file that a language model is calibrated with and compared on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lit_compress.benchmark.runtimes.base import Batch
from lit_compress.data.token_blocks import token_blocks

# Blocks at the end of the file on which the result is compared with the original: at most a tenth of it.
_COMPARED = 64
_BATCH = 8


class TextFile:
    """Blocks of tokens of a text file; the last ones are kept apart to compare on.

    Args:
        path: A text file in UTF-8.
        tokenizer: The model's tokenizer.
        length: Tokens per block.

    Raises:
        ValueError: The file is missing, is no text, or has less than two blocks.
    """

    def __init__(self, path: Path, tokenizer: PreTrainedTokenizerBase, length: int) -> None:
        self.path = path
        blocks = token_blocks(path, tokenizer, length)
        if len(blocks) < 2:
            raise ValueError(
                f"Expected at least two blocks of {length} tokens in {path}, one to calibrate with and one to compare "
                f"on, but got {len(blocks)}; give a longer text, or shorter blocks with --length."
            )
        apart = min(_COMPARED, max(1, len(blocks) // 10))
        self._blocks, self._apart = blocks[:-apart], blocks[-apart:]

    def samples(self, side: str, count: int = 128, seed: int | None = None) -> list[Batch]:
        """Return blocks to calibrate with, one batch each.

        Args:
            side: Whose tokens; there are only those of the model.
            count: How many.
            seed: Draws them at random; where ``None`` they are spread evenly over the file.

        Raises:
            ValueError: The file has fewer.
        """
        if count > len(self._blocks):
            raise ValueError(
                f"Expected {count} blocks of {self._blocks.shape[1]} tokens in {self.path} to calibrate with but there "
                f"are {len(self._blocks)}; lower --texts or --length, or give a longer text."
            )
        if seed is None:
            rows = torch.linspace(0, len(self._blocks) - 1, count).long()
        else:
            draw = torch.Generator().manual_seed(seed)
            rows = torch.randperm(len(self._blocks), generator=draw)[:count]
        ids = [block.numpy()[None] for block in self._blocks[rows]]
        return [{"input_ids": block, "attention_mask": np.ones_like(block)} for block in ids]

    @torch.inference_mode()
    def losses(self, model: PreTrainedModel) -> Tensor:
        """Return the mean loss of the next token in each block that is kept apart, in float64."""
        found = []
        for batch in self._apart.split(_BATCH):
            logits = model(input_ids=batch, use_cache=False).logits[:, :-1].float()
            loss = torch.nn.functional.cross_entropy(logits.transpose(1, 2), batch[:, 1:], reduction="none")
            found.append(loss.double().mean(1))
        return torch.cat(found)

    def compared(self, before: Tensor, after: Tensor) -> str:
        """Say how the loss has changed.

        Args:
            before: What :meth:`losses` gave for the original.
            after: What it gave for the new model.
        """
        first, second = (float(losses.mean().exp()) for losses in (before, after))
        return (
            f"On the last {len(before)} blocks of {self.path.name}, which nothing was calibrated with, the "
            f"perplexity goes from {first:.4g} to {second:.4g}."
        )
