"""Parametrizations in an order that does not depend on who came first."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn.utils import parametrize


def register(module: nn.Module, tensor: str, step: nn.Module) -> None:
    """Register a parametrization; what rounds comes after what masks, whichever was registered first.

    Args:
        module: The module of the tensor.
        tensor: Name of the tensor in it.
        step: The parametrization; it is put last for good where it has a true attribute ``comes_last``.
    """
    parametrize.register_parametrization(module, tensor, step)
    chain: Any = module.parametrizations[tensor]  # type: ignore[index]
    steps = sorted(chain, key=lambda one: getattr(one, "comes_last", False))
    for index, one in enumerate(steps):
        chain[index] = one
