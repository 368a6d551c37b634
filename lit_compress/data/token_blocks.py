"""A plain text file as blocks of tokens, for language models."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase


def token_blocks(path: str | Path, tokenizer: PreTrainedTokenizerBase, length: int) -> Tensor:
    """Tokenise a text file as one text, without special tokens, and cut it into blocks.

    Args:
        path: A text file in UTF-8.
        tokenizer: The model's tokenizer.
        length: Tokens per block; what is left at the end is dropped.

    Returns:
        Token ids ``(blocks, length)`` in the order of the file.

    Raises:
        ValueError: The file is missing, is no text, or is shorter than a block.
    """
    if length < 2:
        raise ValueError(f"Expected blocks of at least 2 tokens but got length={length}.")
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = "there is none" if isinstance(error, FileNotFoundError) else str(error)
        raise ValueError(
            f"Expected a text file in UTF-8 at {path} but {reason}; correct the path of the texts."
        ) from error
    # Not verbose: that the text is longer than the model reads at once is what the blocks are for.
    found = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    count = len(found) // length
    if not count:
        raise ValueError(
            f"Expected at least one block of {length} tokens in {path} but got {len(found)} tokens; give a longer "
            "text, or shorter blocks with --length."
        )
    return torch.tensor(found[: count * length]).view(count, length)
