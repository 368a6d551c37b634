"""Optimizers of bitsandbytes that remember in 8 bits what they have seen (arXiv:2110.02861)."""

from __future__ import annotations

from typing import Any

from torch.optim import Optimizer

from lit_compress.modules.optim import AdamW, OptimizerFactory
from lit_compress.quantization.formats.bnb_check import require_bitsandbytes


class AdamW8bit(AdamW):
    """AdamW with moments of 8 bits, in blocks of 256 with a scale each: a quarter of the memory of AdamW's moments.

    The first step is that of AdamW; later ones differ by the rounding of the moments. It is meant for models whose
    optimizer does not fit on a GPU: on a CPU a step takes many times as long as that of the fused AdamW.

    Args:
        lr: Peak learning rate.
        weight_decay: Decay of weights; biases, normalisation and gates are never decayed.
        betas: Decay rates of the two moments.
        eps: Term added to the denominator.
        min_size: Tensors with fewer entries keep moments of 32 bits: biases and gates are small and matter.
        paged: Whether moments move to the memory of the CPU while the GPU has too little; without a GPU they are
            there anyway.
    """

    def __init__(
        self,
        lr: float = 5e-5,
        weight_decay: float = 0.01,
        betas: list[float] | None = None,
        eps: float = 1e-8,
        min_size: int = 4096,
        paged: bool = False,
    ) -> None:
        super().__init__(lr, weight_decay, betas, eps)
        self.min_size, self.paged = _checked(min_size), paged

    def build(self, groups: list[dict[str, Any]]) -> Optimizer:
        """Return the optimizer over ready parameter groups."""
        require_bitsandbytes("the optimizer AdamW8bit")
        from bitsandbytes import optim

        on_gpu = any(parameter.is_cuda for group in groups for parameter in group["params"])
        return optim.AdamW8bit(
            groups,
            lr=self.lr,
            betas=self.betas,
            eps=self.eps,
            min_8bit_size=self.min_size,
            # On a CPU it does nothing but warn.
            is_paged=self.paged and on_gpu,
        )


class Lion8bit(OptimizerFactory):
    """Lion (arXiv:2302.06675), which steps by the sign of its one moment, of 8 bits in blocks of 256.

    It needs an eighth of the memory of AdamW's moments, a rate 3 to 10 times smaller than AdamW's, and as much more
    decay. What holds for :class:`AdamW8bit` on a CPU holds here.

    Args:
        lr: Peak learning rate.
        weight_decay: Decay of weights; biases, normalisation and gates are never decayed.
        betas: Share of the moment in a step, and its own decay rate.
        min_size: Tensors with fewer entries keep a moment of 32 bits.
    """

    def __init__(
        self,
        lr: float = 1e-5,
        weight_decay: float = 0.1,
        betas: list[float] | None = None,
        min_size: int = 4096,
    ) -> None:
        if lr <= 0:
            raise ValueError(f"Expected optimizer lr > 0 but got {lr}.")
        if weight_decay < 0:
            raise ValueError(f"Expected optimizer weight_decay >= 0 but got {weight_decay}.")
        self.lr, self.weight_decay, self.min_size = lr, weight_decay, _checked(min_size)
        first, second = betas or (0.9, 0.99)
        self.betas = (first, second)

    def build(self, groups: list[dict[str, Any]]) -> Optimizer:
        """Return the optimizer over ready parameter groups."""
        require_bitsandbytes("the optimizer Lion8bit")
        from bitsandbytes import optim

        return optim.Lion8bit(groups, lr=self.lr, betas=self.betas, min_8bit_size=self.min_size)


def _checked(min_size: int) -> int:
    if min_size < 0:
        raise ValueError(f"Expected optimizer min_size >= 0 (entries of a tensor) but got {min_size}.")
    return min_size
