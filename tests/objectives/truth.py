"""The formulas of the papers in plain NumPy, float64, one row and one head at a time."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lit_compress.models.architecture import Architecture


def numpy(tensor: Tensor) -> np.ndarray:
    return tensor.detach().double().numpy()


def log_softmax(scores: np.ndarray) -> np.ndarray:
    """Along the last axis, by definition."""
    exp = np.exp(scores - scores.max(-1, keepdims=True))
    return np.log(exp / exp.sum(-1, keepdims=True))


def kl(teacher: np.ndarray, student: np.ndarray) -> float:
    """KL divergence between the softmaxes of two score vectors."""
    p, q = np.exp(log_softmax(teacher)), np.exp(log_softmax(student))
    return float(sum(a * (np.log(a) - np.log(b)) for a, b in zip(p, q, strict=True) if a > 0))


def average(rows: list[list[float]], reduction: str) -> float:
    """``rows`` holds the values of each row's real tokens."""
    if reduction == "token":
        return float(np.mean([value for row in rows for value in row]))
    return float(np.mean([np.mean(row) for row in rows]))


def random_mask(lengths: tuple[int, ...] = (5, 2, 4), width: int = 6) -> Tensor:
    return torch.arange(width) < torch.tensor(lengths)[:, None]


def architecture(
    layers: int = 4, hidden: int = 32, heads: int = 4, labels: int = 3, head_dim: int | None = None
) -> Architecture:
    return Architecture(
        family="bert",
        num_layers=layers,
        hidden_size=hidden,
        num_heads=heads,
        head_dim=hidden // heads if head_dim is None else head_dim,
        vocab_size=100,
        num_labels=labels,
    )
