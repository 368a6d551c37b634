"""A data module in miniature: what a teacher cache needs, and batches in any order and company."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from datasets import Dataset


class TinyData:
    """Random token rows of different lengths; example ids have gaps, as after dropped rows."""

    def __init__(
        self, rows: int = 23, seed: int = 0, vocab: int = 100, name: str = "tiny", longest: int = 12
    ) -> None:
        draw = np.random.default_rng(seed)
        lengths = draw.integers(2, longest + 1, rows)
        self.ids = np.sort(draw.choice(3 * rows, rows, replace=False))
        self.tokens = [draw.integers(5, vocab, n).tolist() for n in lengths]
        self.name = name
        self.teacher_tokenizer_object = None
        self.served = 0

    def fingerprint(self, split: str, side: str = "student") -> str:
        return f"{self.name}-{split}-{side}"

    def rows(self, split: str) -> Dataset:
        return Dataset.from_dict({"input_ids": self.tokens, "example_id": self.ids.tolist()})

    def batch(self, chosen: Sequence[int], width: int | None = None) -> dict[str, torch.Tensor]:
        """Collate the rows at these positions, padded to ``width`` or to the longest."""
        width = width or max(len(self.tokens[i]) for i in chosen)
        ids = torch.tensor([self.tokens[i] + [0] * (width - len(self.tokens[i])) for i in chosen])
        return {
            "input_ids": ids,
            "attention_mask": (ids > 0).long(),
            "token_type_ids": torch.zeros_like(ids),
            "labels": torch.zeros(len(chosen), dtype=torch.long),
            "example_id": torch.tensor(self.ids[list(chosen)]),
        }

    def sequential_dataloader(self, split: str, batch_size: int) -> Iterator[dict[str, torch.Tensor]]:
        order = sorted(range(len(self.tokens)), key=lambda i: (len(self.tokens[i]), i))
        for start in range(0, len(order), batch_size):
            self.served += 1
            yield self.batch(order[start : start + batch_size])
