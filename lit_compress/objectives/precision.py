"""Full precision inside a loss, whatever the autocast around it."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import torch
from torch import Tensor

Function = TypeVar("Function", bound=Callable[..., Tensor])


def in_float32(function: Function) -> Function:
    """Run a pure loss function with autocast off and its half-precision tensors cast to float32.

    CPU autocast leaves softmax in bfloat16, and a KL divergence came out 38 times too large that way.
    float64 stays float64.

    Args:
        function: Takes at least one tensor as a positional argument.

    Returns:
        The function with the same signature.
    """

    @wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Tensor:
        device = next(arg.device.type for arg in args if isinstance(arg, Tensor))
        with torch.autocast(device, enabled=False):
            return function(*map(_full, args), **{name: _full(value) for name, value in kwargs.items()})

    return wrapper  # type: ignore[return-value]


def _full(value: Any) -> Any:
    if not isinstance(value, Tensor) or not value.is_floating_point():
        return value
    value = value.to(torch.promote_types(value.dtype, torch.float32))
    # Autograd refuses to save a tensor that a teacher made under inference mode; a copy is an ordinary one.
    return value.clone() if value.is_inference() and not torch.is_inference_mode_enabled() else value
