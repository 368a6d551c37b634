"""Pad rows to one batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

_SIDES = ("", "teacher_")


@dataclass(frozen=True)
class Collate:
    """Right-pad token columns, add attention masks and stack the rest.

    Args:
        padding: Padding value of every token column, such as ``{"input_ids": 0, "token_type_ids": 0}``.
        width: Pad to this many tokens; None pads to the longest row of the batch.
    """

    padding: dict[str, int]
    width: int | None = None

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        """Return int64 tensors ``(rows, tokens)``, and ``labels`` and ``example_id`` of shape ``(rows,)``."""
        batch: dict[str, Tensor] = {}
        for name, value in self.padding.items():
            batch[name] = torch.from_numpy(self._pad([row[name] for row in rows], value))
        for side in _SIDES:
            if f"{side}input_ids" in self.padding:
                lengths = [len(row[f"{side}input_ids"]) for row in rows]
                batch[f"{side}attention_mask"] = _mask(lengths, batch[f"{side}input_ids"].shape[1])
        for name in rows[0]:
            if name not in self.padding:
                batch[name] = torch.from_numpy(np.array([row[name] for row in rows]))
        return batch

    def _pad(self, tokens: list[np.ndarray], value: int) -> np.ndarray:
        width = self.width or max(len(row) for row in tokens)
        padded = np.full((len(tokens), width), value, dtype=np.int64)
        for line, row in zip(padded, tokens, strict=True):
            line[: len(row)] = row
        return padded


def _mask(lengths: list[int], width: int) -> Tensor:
    return (torch.arange(width) < torch.tensor(lengths)[:, None]).long()
