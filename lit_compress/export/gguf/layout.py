"""A model in the terms of a GGUF file, before anything is rounded or written."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn


@dataclass
class Layout:
    """What goes into a file.

    Args:
        arch: Name that llama.cpp has for the architecture, such as ``"bert"``.
        fields: Metadata of the architecture; the names lack the ``arch.`` before them.
        tensors: float32 tensors by their name in the file, with the axes of torch (outputs first).
    """

    arch: str
    fields: dict[str, Any]
    tensors: dict[str, Tensor] = field(default_factory=dict)

    def add(self, name: str, module: nn.Module) -> None:
        """Add the weight of a module, and its bias if it has one.

        Args:
            name: Name in the file, without ``.weight``.
            module: A projection (low-rank ones are multiplied out), a norm or an embedding.
        """
        self.put(name, module.weight, getattr(module, "bias", None))

    def put(self, name: str, weight: Any, bias: Any = None) -> None:
        """Add a weight, and a bias if there is one.

        Args:
            name: Name in the file, without ``.weight``.
            weight: The weight.
            bias: The bias or ``None``.
        """
        self.tensors[f"{name}.weight"] = weight.detach().float().cpu()
        if bias is not None:
            self.tensors[f"{name}.bias"] = bias.detach().float().cpu()


def pad(tensor: Tensor, axis: int, units: int, size: int, to_units: int, to_size: int) -> Tensor:
    """Widen an axis that holds ``units`` runs of ``size`` numbers to ``to_units`` runs of ``to_size``, with zeros."""
    shape = tensor.shape
    runs = tensor.reshape(*shape[:axis], units, size, *shape[axis + 1 :])
    wide = torch.zeros(*shape[:axis], to_units, to_size, *shape[axis + 1 :], dtype=tensor.dtype)
    wide.narrow(axis, 0, units).narrow(axis + 1, 0, size).copy_(runs)
    return wide.reshape(*shape[:axis], to_units * to_size, *shape[axis + 1 :])
