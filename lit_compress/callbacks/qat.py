"""Quantization-aware training as a callback."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict

import lightning.pytorch as pl
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from lit_compress.callbacks.transform import TransformCallback, model_of, own_group
from lit_compress.pruning.masks import refuse_tied
from lit_compress.quantization.choice import choose
from lit_compress.quantization.fake_weights import apply_fake_weights, before_rounding, fake_weights_of
from lit_compress.quantization.inputs import DYNAMIC, OBSERVERS, apply_input_quantizers, input_quantizers_of
from lit_compress.quantization.mixed.file import read_mixed
from lit_compress.quantization.scheme import Scheme
from lit_compress.quantization.shrunk import refuse_shared_scales
from lit_compress.quantization.stage import FROZEN, OBSERVE, ROUND
from lit_compress.schedules import Progress

_NONE = "none"


class QAT(TransformCallback):
    """Round weights and activations in every forward pass, so that the model learns to do with few bits.

    At first ranges of activations are only observed. From ``quantize_at`` on values are rounded, with the
    straight-through estimator as gradient, and ranges follow; from ``freeze_at`` on they are fixed, the statistics of
    batch norms too, and the best checkpoint is one from then on. At the end of fit the weights are stored as
    integers: ``lit_compress.load`` gives a model that computes exactly what was trained.

    All projections and embeddings are rounded, the head of the task too. What was pruned stays exactly zero, and units
    that another callback closes are cut out before the integers are stored; list the two in any order, and let
    ``quantize_at`` lie behind the point where the pruning is decided.

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
        mixed: File with the bits of every matrix, which ``lit-compress sensitivity`` writes (Q-BERT, arXiv:1909.05840),
            in the place of ``weights``, ``embeddings``, ``include`` and ``exclude``.

    Raises:
        ValueError: The settings do not fit together.
    """

    aim = "ranges had not been frozen (freeze_at)"

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
        mixed: str | None = None,
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
        if mixed is not None and any((weights, embeddings, include, exclude)):
            raise ValueError(
                f"Expected no weights, embeddings, include and exclude with mixed={mixed}, whose file says how every "
                "matrix is rounded; leave them out."
            )
        self.weights = weights or Scheme(8, symmetric=True, per="channel")
        self.activations = activations or Scheme(8, symmetric=False, per="tensor")
        self.embeddings = embeddings or Scheme(8, symmetric=True, per="channel")
        self.ranges, self.learned_steps, self.step_lr = ranges, learned_steps, step_lr
        self.quantize_at, self.freeze_at = quantize_at, freeze_at
        self.include, self.exclude, self.mixed = include, list(exclude or []), mixed
        if step_lr <= 0:
            raise ValueError(
                f"Expected step_lr above 0 (learning rate of the learned steps) but got {step_lr}."
            )
        if learned_steps and not self.weights.symmetric:
            raise ValueError(
                f"Expected symmetric weights for learned_steps but got {self.weights}; set symmetric: true."
            )

    # -- structure -----------------------------------------------------------------------------------

    def apply(self, model: nn.Module) -> None:
        """Round matrices, embeddings and inputs; see ``TransformCallback.apply``."""
        projections, embeddings = choose(model, self.include, self.exclude)
        sets = {"projections": (self.weights, projections), "embeddings": (self.embeddings, embeddings)}
        if self.mixed is not None:
            sets = _mixed_sets(read_mixed(self.mixed, model), projections, embeddings)
            projections = [name for part in sets if part.startswith("projections") for name in sets[part][1]]
        refuse_tied(model, [f"{name}.weight" for _, names in sets.values() for name in names])
        for part, (scheme, names) in sets.items():
            if names:
                learned = self.learned_steps and part.startswith("projections")
                tensors = [f"{name}.weight" for name in names]
                apply_fake_weights(model, tensors, asdict(scheme), learned, part)
        if self.ranges != _NONE:
            apply_input_quantizers(model, projections, asdict(self.activations), self.ranges)

    # -- training ------------------------------------------------------------------------------------

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Refuse schemes that do not outlive what other callbacks cut out; see ``TransformCallback.on_fit_start``."""
        refuse_shared_scales(model_of(pl_module))
        super().on_fit_start(trainer, pl_module)

    def own_optimizer(self, model: nn.Module) -> Optimizer | None:
        """Return the optimizer of the learned steps."""
        steps = [fake.step for _, fake in fake_weights_of(model) if fake.step is not None]
        return torch.optim.Adam([own_group(steps, self.step_lr, follow=True)]) if steps else None

    def idle(self, model: nn.Module) -> list[nn.Parameter]:
        """Return the steps of matrices that are not rounded yet; see ``TransformCallback.idle``."""
        return [f.step for _, f in fake_weights_of(model) if f.step is not None and not f.rounds]

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


def _mixed_sets(
    schemes: Mapping[str, Scheme], projections: Sequence[str], embeddings: Sequence[str]
) -> dict[str, tuple[Scheme, list[str]]]:
    """Return the modules whose matrices are rounded alike, by a name of the set."""
    sets: dict[str, tuple[Scheme, list[str]]] = {}
    for kind, names in (("projections", projections), ("embeddings", embeddings)):
        for name in names:
            scheme = schemes.get(f"{name}.weight")
            if scheme is not None:
                sets.setdefault(f"{kind} {scheme}", (scheme, []))[1].append(name)
    return sets
