"""Quantization-aware training as a callback."""

from __future__ import annotations

from dataclasses import asdict

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from lit_compress.callbacks.transform import TransformCallback, own_group
from lit_compress.pruning.masks import refuse_tied
from lit_compress.quantization.choice import choose
from lit_compress.quantization.fake_weights import apply_fake_weights, before_rounding, fake_weights_of
from lit_compress.quantization.inputs import DYNAMIC, OBSERVERS, apply_input_quantizers, input_quantizers_of
from lit_compress.quantization.scheme import Scheme
from lit_compress.quantization.stage import FROZEN, OBSERVE, ROUND
from lit_compress.schedules import Progress

_NONE = "none"


class QAT(TransformCallback):
    """Round weights and activations in every forward pass, so that the model learns to do with few bits.

    At first ranges of activations are only observed. From ``quantize_at`` on values are rounded, with the
    straight-through estimator as gradient, and ranges follow; from ``freeze_at`` on they are fixed, the statistics of
    batch norms too, and the best checkpoint is one from then on. At the end of fit the weights are stored as
    integers: ``lit_compress.load`` gives a model that computes exactly what was trained.

    All projections and embeddings are rounded, the head of the task too. What was pruned stays exactly zero.

    Args:
        weights: How matrices are rounded; 8 bits, symmetric, per output channel where ``None``.
        activations: How the inputs of projections are rounded; 8 bits with a zero point, per tensor, where ``None``.
        embeddings: How embeddings are rounded; 8 bits, symmetric, per row where ``None``.
        ranges: How ranges of activations are found: ``moving_average``, ``min_max``, ``percentile`` or ``mse`` of what
            training saw; ``dynamic``, anew in every forward pass; ``none`` leaves activations as they are.
        learned_steps: Learn the steps of the matrices (LSQ, arXiv:1902.08153) instead of covering their values; for
            4 bits and less.
        step_lr: Learning rate of the steps; it follows the schedule of the module's optimizer.
        quantize_at: Fraction of the fit from which values are rounded.
        freeze_at: Fraction of the fit from which ranges are fixed, at the latest at its last step.
        include: Parts of the names of the projections and embeddings to round; all where ``None``.
        exclude: Parts of the names of those to leave as they are, such as ``classifier``.

    Raises:
        ValueError: The settings do not fit together.
    """

    def __init__(
        self,
        weights: Scheme | None = None,
        activations: Scheme | None = None,
        embeddings: Scheme | None = None,
        ranges: str = "moving_average",
        learned_steps: bool = False,
        step_lr: float = 5e-5,
        quantize_at: float = 0.1,
        freeze_at: float = 0.7,
        include: list[str] | None = None,
        exclude: list[str] | None = None,
    ) -> None:
        super().__init__()
        known = (*OBSERVERS, DYNAMIC, _NONE)
        if ranges not in known:
            raise ValueError(f"Expected ranges to be one of {', '.join(known)} but got {ranges!r}.")
        if ranges == _NONE and activations is not None:
            raise ValueError(
                f"Expected no activations with ranges=none but got {activations}; leave one of them out."
            )
        if not 0.0 <= quantize_at < freeze_at < 1.0:
            raise ValueError(
                "Expected 0 <= quantize_at < freeze_at < 1 (fractions of the fit) but got "
                f"quantize_at={quantize_at}, freeze_at={freeze_at}."
            )
        self.weights = weights or Scheme(8, symmetric=True, per="channel")
        self.activations = activations or Scheme(8, symmetric=False, per="tensor")
        self.embeddings = embeddings or Scheme(8, symmetric=True, per="channel")
        self.ranges, self.learned_steps, self.step_lr = ranges, learned_steps, step_lr
        self.quantize_at, self.freeze_at = quantize_at, freeze_at
        self.include, self.exclude = include, list(exclude or [])
        if learned_steps and not self.weights.symmetric:
            raise ValueError(
                f"Expected symmetric weights for learned_steps but got {self.weights}; set symmetric: true."
            )

    # -- structure -----------------------------------------------------------------------------------

    def apply(self, model: nn.Module) -> None:
        """Round matrices, embeddings and inputs; see ``TransformCallback.apply``."""
        projections, embeddings = choose(model, self.include, self.exclude)
        matrices = [f"{name}.weight" for name in projections]
        tables = [f"{name}.weight" for name in embeddings]
        refuse_tied(model, [*matrices, *tables])
        apply_fake_weights(model, matrices, asdict(self.weights), self.learned_steps, "projections")
        if tables:
            apply_fake_weights(model, tables, asdict(self.embeddings), False, "embeddings")
        if self.ranges != _NONE:
            apply_input_quantizers(model, projections, asdict(self.activations), self.ranges)

    # -- training ------------------------------------------------------------------------------------

    def own_optimizer(self, model: nn.Module) -> Optimizer | None:
        """Return the optimizer of the learned steps."""
        steps = [fake.step for _, fake in fake_weights_of(model) if fake.step is not None]
        return torch.optim.Adam([own_group(steps, self.step_lr, follow=True)]) if steps else None

    def move(self, model: nn.Module, progress: Progress) -> None:
        """Begin to round, and freeze ranges."""
        stage = OBSERVE if progress.fraction < self.quantize_at else ROUND
        stage = FROZEN if self.settled(progress) else stage
        for name, fake in fake_weights_of(model):
            if stage != OBSERVE and not fake.rounds:
                fake.begin(before_rounding(model, name))
            fake.set_stage(stage)
        for _, quantizer in input_quantizers_of(model):
            # A fit of one step observes, rounds and ends in it.
            unseen = stage == FROZEN and quantizer.observer is not None and not quantizer.observer.has_seen
            quantizer.set_stage(ROUND if unseen else stage)
        if stage == FROZEN:
            for module in model.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()

    def settled(self, progress: Progress) -> bool:
        """Return whether ranges are fixed: a checkpoint from before would not compute what it was judged by."""
        return progress.fraction >= self.freeze_at or progress.step >= progress.total_steps - 1

    def figures(self, model: nn.Module) -> dict[str, float]:
        """Return the bits per weight of what is rounded, and how far rounding has come."""
        found = list(fake_weights_of(model))
        sizes = [fake.size for _, fake in found]
        bits = sum(size * fake.scheme.bits for size, (_, fake) in zip(sizes, found, strict=True))
        return {"compress/weight_bits": bits / sum(sizes), "compress/rounds": float(found[0][1].rounds)}
