"""What gates cannot do by multiplying weights: skipping a layer, and normalising over the open dimensions only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lit_compress.models.hooks import remove_hooks

if TYPE_CHECKING:
    from lit_compress.pruning.gates import Gate


class LayerSwitch:
    """Forward hook that mixes the input and the output of a block: gate 1 keeps the block, gate 0 skips it.

    Args:
        gate: One gate.
    """

    def __init__(self, gate: Gate) -> None:
        self.gate = gate

    def __call__(
        self, module: nn.Module, inputs: tuple[Any, ...], options: dict[str, Any], output: Any
    ) -> Any:
        """Return the output of the block as it counts."""
        states = inputs[0] if inputs else options["hidden_states"]
        result = output[0] if isinstance(output, tuple) else output
        mixed = torch.lerp(states, result, self.gate.current().to(result.dtype))
        return (mixed, *output[1:]) if isinstance(output, tuple) else mixed


def add_switch(block: nn.Module, gate: Gate) -> None:
    """Let a gate of one unit switch a block."""
    block.register_forward_hook(LayerSwitch(gate), with_kwargs=True)


def remove_switches(block: nn.Module) -> None:
    """Take the switches of a block out again."""
    remove_hooks(block, lambda hook: isinstance(hook, LayerSwitch))


class KeptNorm:
    """Takes the place of the ``forward`` of a norm: statistics over the open dimensions, zero in the closed ones.

    A norm over all dimensions, of which some are zero, has another mean and another variance than the norm of
    the model from which they were cut out.

    Args:
        norm: A ``LayerNorm``, or one of the root-mean-square norms of transformers.
        gate: Gates of the hidden dimensions.
    """

    def __init__(self, norm: nn.Module, gate: Gate) -> None:
        self.norm: Any = norm
        self.gate = gate

    def __call__(self, states: Tensor) -> Tensor:
        """Return the normalised states, computed in at least float32."""
        wide = states.to(torch.promote_types(states.dtype, torch.float32))
        kept = (self.gate.current() != 0).to(wide.dtype)
        count = kept.sum().clamp(min=1)
        norm = self.norm
        if isinstance(norm, nn.LayerNorm):
            wide = (wide - (wide * kept).sum(-1, keepdim=True) / count) * kept
            eps = norm.eps
        else:
            eps = norm.variance_epsilon
        scale = torch.rsqrt((wide.square() * kept).sum(-1, keepdim=True) / count + eps)
        result = wide * scale * kept * norm.weight
        bias = getattr(norm, "bias", None)
        return (result if bias is None else result + bias * kept).to(states.dtype)


def keep_norm(norm: nn.Module, gate: Gate) -> None:
    """Let a norm work on the open dimensions only.

    Raises:
        ValueError: The norm is of a kind that is not known.
    """
    known = isinstance(norm, nn.LayerNorm) or hasattr(norm, "variance_epsilon")
    if not known or "forward" in vars(norm):
        raise ValueError(
            f"Expected a LayerNorm or a root-mean-square norm with variance_epsilon but got {type(norm).__name__}; "
            "hidden dimensions cannot be pruned in this model."
        )
    norm.forward = KeptNorm(norm, gate)


def release_norm(norm: nn.Module) -> None:
    """Let a norm work on all dimensions again."""
    if isinstance(vars(norm).get("forward"), KeptNorm):
        del norm.forward
