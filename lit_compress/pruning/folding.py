"""Taking parametrizations out of a model again, with what they did to the weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize


def fold(model: nn.Module, kind: type[nn.Module] | tuple[type[nn.Module], ...]) -> None:
    """Fold all parametrizations of some types into the weights.

    Parametrizations of other types on the same tensors stay. The kinds of this library commute, so it does not
    matter which of them was registered first.

    Args:
        model: Changed in place; a tensor without any parametrization left is an ordinary parameter again, under
            its ordinary name and, for an optimizer, the same object.
        kind: Types to fold.
    """
    folded: set[int] = set()
    for module in list(model.modules()):
        if parametrize.is_parametrized(module):
            _take_own_class(module)
            for tensor in list(module.parametrizations):  # type: ignore[arg-type]
                _fold_tensor(module, str(tensor), kind, folded)


def _take_own_class(module: nn.Module) -> None:
    """Give a module a copy of the class that torch made for it.

    Deep copies share that class, and torch removes the tensor from the class: the original would lose it too.
    """
    made = type(module)
    members = {name: value for name, value in vars(made).items() if name not in ("__dict__", "__weakref__")}
    module.__class__ = type(made.__name__, made.__bases__, members)


def _fold_tensor(
    module: nn.Module, tensor: str, kind: type[nn.Module] | tuple[type[nn.Module], ...], folded: set[int]
) -> None:
    chain: Any = module.parametrizations[tensor]  # type: ignore[index]
    ours = [index for index, step in enumerate(chain) if isinstance(step, kind)]
    if not ours:
        return
    # A tied tensor has the same parametrizations in both places, and changes once.
    first = id(chain.original) not in folded
    folded.add(id(chain.original))
    if len(ours) == len(chain):
        parametrize.remove_parametrizations(module, tensor, leave_parametrized=first)
        return
    with torch.no_grad():
        value = chain.original
        for index in ours if first else []:
            value = chain[index](value)
        chain.original.copy_(value)
    for index in reversed(ours):
        del chain[index]
