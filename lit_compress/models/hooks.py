"""Forward hooks that are taken out again by those who did not keep their handles: a copied model has none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn


def remove_hooks(module: nn.Module, is_ours: Callable[[Any], bool]) -> None:
    """Remove hooks before and after the forward pass of a module.

    Args:
        module: The module itself; those below it keep theirs.
        is_ours: Whether a hook goes.
    """
    before = (module._forward_pre_hooks, module._forward_pre_hooks_with_kwargs)
    after = (
        module._forward_hooks,
        module._forward_hooks_with_kwargs,
        module._forward_hooks_always_called,
    )
    for hooks, *marks in (before, after):
        for key in [key for key, hook in hooks.items() if is_ours(hook)]:
            del hooks[key]
            for mark in marks:
                mark.pop(key, None)
