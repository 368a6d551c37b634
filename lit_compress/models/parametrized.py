"""Parametrizations in an order that does not depend on who came first."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar

from torch import nn
from torch.nn.utils import parametrize

Step = TypeVar("Step", bound=nn.Module)


def register(module: nn.Module, tensor: str, step: nn.Module) -> None:
    """Register a parametrization; what rounds comes after what masks, whichever was registered first.

    Args:
        module: The module of the tensor.
        tensor: Name of the tensor in it.
        step: The parametrization; it is put last for good where it has a true attribute ``comes_last``.

    Raises:
        ValueError: It is to come last, as does another one already.
    """
    if getattr(step, "comes_last", False) and parametrize.is_parametrized(module, tensor):
        last = [one for one in module.parametrizations[tensor] if getattr(one, "comes_last", False)]  # type: ignore[index]
        if last:
            raise ValueError(
                f"Expected a matrix that nothing rounds yet but {type(last[0]).__name__} does; give each matrix to one "
                "callback with include and exclude."
            )
    parametrize.register_parametrization(module, tensor, step)
    chain: Any = module.parametrizations[tensor]  # type: ignore[index]
    steps = sorted(chain, key=lambda one: getattr(one, "comes_last", False))
    for index, one in enumerate(steps):
        chain[index] = one


def plain_name(name: str) -> str:
    """Return the name that a parameter has without parametrizations, ``layer.weight`` for instance."""
    inside = ".parametrizations." in name
    return name.replace(".parametrizations.", ".").removesuffix(".original") if inside else name


def step_on(module: Any, tensor: str, kind: type[Step]) -> Step | None:
    """Return the parametrization of a type on a tensor, ``None`` where it has none."""
    if not parametrize.is_parametrized(module, tensor):
        return None
    return next((step for step in module.parametrizations[tensor] if isinstance(step, kind)), None)


def steps_of(model: nn.Module, kind: type[Step]) -> Iterator[tuple[str, Step]]:
    """Yield the name of every tensor with a parametrization of a type, and the parametrization."""
    for path, module in model.named_modules():
        if parametrize.is_parametrized(module):
            for tensor in list(module.parametrizations):
                found = step_on(module, str(tensor), kind)
                if found is not None:
                    yield (f"{path}.{tensor}" if path else str(tensor)), found
