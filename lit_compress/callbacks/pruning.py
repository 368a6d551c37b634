"""Pruning while training: structures, scores and ramps, freely combined."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lit_compress.callbacks.transform import TransformCallback, model_of, rounding_for, unscale
from lit_compress.modules.progress import progress_of
from lit_compress.pruning.compressed_size import compressed_size
from lit_compress.pruning.latency import record_of, speedup_figures
from lit_compress.pruning.movement import SoftMovement
from lit_compress.pruning.patterns import pattern_of
from lit_compress.pruning.scores import Magnitude, Score
from lit_compress.pruning.sites import Site
from lit_compress.pruning.special_tokens import special_tokens
from lit_compress.pruning.target import Target
from lit_compress.pruning.unit_pattern import Units
from lit_compress.pruning.weight_patterns import NofM
from lit_compress.schedules import Cubic, Progress, Schedule

_END = 1.0 - 1e-9


class Pruning(TransformCallback):
    """Close a growing share of a model's weights or units, those with the lowest scores.

    Only matrices inside the blocks are pruned; embeddings, heads of tasks, norms and biases stay, except the bias of
    an output that is left without any weight. Masks move at the start of optimizer steps, the last time at the
    first step at which the ramp is at 1, at the latest at the last step of the fit; from then on they are fixed,
    and the rest of the fit is for recovery. Until then what is closed may come back. The target is reached
    exactly: ``round(sparsity * n)`` weights or blocks are zero, and units are closed until the cost is down, to
    within the size of one unit.

    Whole units are cut out at the end of fit, and heads and neurons that are left without a block (beside ``QAT`` they
    stay zeros). Single weights become zeros in an ordinary model, which is not faster; closed rows of the vocabulary
    do too until ``lit-compress shrink`` cuts them out, with the tokenizer.

    Args:
        structure: ``weight``; ``block`` (give ``block``); ``n:m``, such as ``"2:4"`` in quotes, n of m consecutive
            inputs kept; or one or more of ``head``, ``neuron``, ``attention``, ``feed_forward``, ``layer``,
            ``hidden``, ``vocabulary``.
        score: What units are worth; ``Magnitude`` where ``None``.
        target: ``{sparsity: 0.9}`` (share removed of what is pruned; for units of the matrices in the blocks), or
            ``{speedup: 4.0}`` for units. ``SoftMovement`` has none.
        ramp: Share of the target over the fit, from 0 to 1; ``Cubic`` from 10 % to 70 % of the fit where ``None``.
            Before its ``begin`` the model warms up, after its ``finish`` it recovers. ``Staircase`` prunes in one
            shot or in a few.
        scope: ``global`` compares all matrices or groups; ``local`` removes the same share of each.
        block: Outputs and inputs per block.
        include: Parts of the names of more matrices to prune, such as ``word_embeddings``.
        exclude: Parts of the names of matrices or groups that stay whole.
        keep_at_least: Units that stay in every group; 1 where ``None``. Attentions, feed-forward networks and
            layers, of which every block has one, count as one group each.
        every_n_steps: Optimizer steps from one decision to the next.
        round_to: Ship a multiple of this many neurons per block; those that are too many are zeros. 1 for a sparsity,
            16 for a speed-up, which odd numbers miss in batches: ``docs/bench_speedup_target.md``.

    Raises:
        ValueError: The settings do not fit together.
    """

    def __init__(
        self,
        structure: str | list[str],
        score: Score | None = None,
        target: Target | None = None,
        ramp: Schedule | None = None,
        scope: str = "global",
        block: list[int] | None = None,
        include: list[str] | None = None,
        exclude: list[str] | None = None,
        keep_at_least: int | None = None,
        every_n_steps: int = 10,
        round_to: int | None = None,
    ) -> None:
        super().__init__()
        if every_n_steps < 1:
            raise ValueError(f"Expected every_n_steps >= 1 but got {every_n_steps}.")
        structures = [structure] if isinstance(structure, str) else structure
        self.structure, self.round_to = structure, rounding_for(round_to, structures, target)
        self.score = score or Magnitude()
        self.target = target
        self.ramp = ramp or Cubic(begin=0.1, finish=0.7)
        self.every_n_steps = every_n_steps
        self.pattern = pattern_of(structure, scope, block, include or [], exclude or [], keep_at_least)
        self._settings = {"structure": structure, "block": block, "include": include, "exclude": exclude}
        self._sites: list[Site] = []
        self._kept: dict[str, Tensor] = {}
        self._restored: dict[str, Any] | None = None
        self._begin_anew()
        self._check_target()

    def _begin_anew(self) -> None:
        self._position, self._floor = 0.0, 0.0
        self._collected, self._frozen = False, False

    def _check_target(self) -> None:
        soft = isinstance(self.score, SoftMovement)
        if soft and isinstance(self.pattern, NofM):
            raise ValueError(
                "Expected Movement for n:m, whose share is set, but got SoftMovement, which sets none; take Movement."
            )
        if soft and self.target is not None:
            raise ValueError(
                "Expected no target for SoftMovement, whose penalty decides how much is closed, but got "
                f"{self.target}; leave it out, or take Movement."
            )
        if not soft and self.target is None:
            raise ValueError(
                f"Expected a target for {type(self.score).__name__} but got None; set target: {{sparsity: 0.9}}."
            )
        if isinstance(self.pattern, Units):
            self.pattern.per_cost = self.score.adds_up

    @property
    def state_key(self) -> str:
        """Name of the state in checkpoints, which tells several instances apart."""
        return self._generate_state_key(**self._settings)

    # -- structure -----------------------------------------------------------------------------------

    def apply(self, model: nn.Module) -> None:
        """Put masks or gates on the model; see ``TransformCallback.apply``."""
        self.pattern.apply(model)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Apply the structure; what an earlier validation loaded is not where this fit goes on from."""
        self._restored = None
        super().setup(trainer, pl_module, stage)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Check the target against the model, and begin to score."""
        model = model_of(pl_module)
        self._sites = self.pattern.sites(model)
        self.score.check(self._sites)
        if isinstance(self.pattern, Units) and "vocabulary" in self.pattern.structures:
            self.pattern.stay = {"vocabulary": special_tokens(trainer, model)}
        if isinstance(self.pattern, Units):
            self.pattern.known_table = (self._restored or {}).get("latency")
        self.pattern.prepare(model, self._sites, self.target)
        self._resume() if self._restored is not None else self._begin_anew()
        if self._restored is None and self.target is not None:
            self.pattern.refuse_less(self._sites, self.target)
            self._floor = self.pattern.gone({site.name: site.open for site in self._sites})
        if not self._frozen:
            self._start_scores()
        self._restored = None
        super().on_fit_start(trainer, pl_module)

    def _resume(self) -> None:
        assert self._restored is not None
        self._position, self._floor = self._restored["position"], self._restored["floor"]
        self._collected, self._frozen = self._restored["collected"], self._restored["frozen"]
        self.score.load(self._restored["score"])

    def _start_scores(self) -> None:
        self._kept = self.score.start(self._sites)
        if self._restored is not None:
            with torch.no_grad():
                for name, numbers in self._restored["kept"].items():
                    self._kept[name].copy_(numbers)
        if self.score.listens:
            for site in self._sites:
                site.listen(self._kept[site.name])

    def own_optimizer(self, model: nn.Module) -> Optimizer | None:
        """Return the optimizer of learned scores; see ``TransformCallback.own_optimizer``."""
        return None if self._frozen else self.score.optimizer(self._kept)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Refuse a fit at whose end the ramp is not at 1, and one without a step after a decision."""
        steps = progress_of(trainer, pl_module, 0).total_steps
        batches = trainer.num_training_batches
        epochs = (
            steps * trainer.accumulate_grad_batches / batches if batches not in (0, float("inf")) else 0.0
        )
        end = self.ramp.value(Progress(step=steps, total_steps=steps, epoch=epochs))
        if end < _END:
            raise ValueError(
                f"Expected a ramp that is at 1 at the end of the fit of {steps} steps, so that the target is "
                f"reached, but {type(self.ramp).__name__} is at {end:.4f}; set its end to 1.0, or let it finish "
                "before the fit does."
            )
        if steps < 2 and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            raise ValueError("Expected a fit of two steps or more for Pruning but got one; train longer.")

    # -- steps ---------------------------------------------------------------------------------------

    def move(self, model: nn.Module, progress: Progress) -> None:
        """Decide anew which units are open, every few steps and when the ramp ends."""
        if self._frozen:
            return
        # The last step decides too, where the ramp goes to the very end of the fit.
        ends = self.ramp.value(progress) >= _END or progress.step >= progress.total_steps - 1 > 0
        self._position = 1.0 if ends else self.ramp.value(progress)
        if (ends or progress.step % self.every_n_steps == 0) and self._position > 0.0:
            self._decide()
        if ends:
            self._freeze()

    def _decide(self) -> None:
        if self.score.listens and not self._collected:
            raise ValueError(
                f"Expected gradients to score by ({type(self.score).__name__}) before the first units are closed but "
                "there are none; let the ramp begin later, such as at begin: 0.1."
            )
        with torch.no_grad():
            values = {site.name: self.score.values(site, self._kept.get(site.name)) for site in self._sites}
            opened = self._opened(values)
            for site in self._sites:
                site.close(opened[site.name])

    def _opened(self, values: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        if isinstance(self.score, SoftMovement):
            return self.score.decide(
                self.pattern.protect(values), self.pattern.pools, self.pattern.kept_of_pools(), self._position
            )
        assert self.target is not None
        return self.pattern.decide(values, max(self._floor, self._position * self.target.removed))

    def _freeze(self) -> None:
        """Leave the masks as they are: nothing is scored any more."""
        self._frozen = True
        self._kept, self.optimizer = {}, None
        for site in self._sites:
            site.listen(None)

    def penalty(self, model: nn.Module) -> Tensor | None:
        """Return the penalty of a soft threshold; see ``TransformCallback.penalty``."""
        if self._frozen or not isinstance(self.score, SoftMovement) or self._position == 0.0:
            return None
        return self.score.regularization(self._kept, self._position)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Move at the start of an optimizer step, then look at the batch."""
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        if not self._frozen:
            self.score.observe(self._kept, batch, partial(trainer.strategy.reduce, reduce_op="sum"))

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        """Take in the gradients of the gates, of all processes, before they are clipped."""
        if self.score.listens and not self._frozen:
            for numbers in self._kept.values():
                if numbers.grad is not None:
                    numbers.grad = trainer.strategy.reduce(numbers.grad, reduce_op="mean")
                    self._collected = True
        super().on_before_optimizer_step(trainer, pl_module, optimizer)
        if self.score.listens and self.optimizer is None:
            unscale(trainer, self._kept.values())
            for numbers in self._kept.values():
                if numbers.grad is not None:
                    self.score.collect(numbers, numbers.grad)
                    numbers.grad = None

    # -- what is told --------------------------------------------------------------------------------

    def settled(self, progress: Progress) -> bool:
        """Return whether the ramp has ended; see ``TransformCallback.settled``."""
        return self._frozen or self.ramp.value(progress) >= _END

    def figures(self, model: Any) -> dict[str, float]:
        """Return the sparsity of the blocks as it is and as the ramp has it, and the parameters that are left."""
        sparsity, params = compressed_size(model)
        found = {"compress/sparsity": sparsity, "compress/params": float(params)}
        if self.target is not None and self.target.sparsity is not None:
            found["compress/target_sparsity"] = self._position * self.target.sparsity
        elif self.target is not None:
            found["compress/target_speedup"] = 1.0 / (1.0 - self._position * self.target.removed)
            if self._sites and isinstance(self.pattern, Units):
                open_units = {site.name: site.open for site in self._sites}
                found |= speedup_figures(self.pattern.cost, self.target, open_units)
        return found

    # -- checkpoints ---------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return where the ramp is, with the numbers that are kept per unit, and the table of latencies."""
        return {
            **super().state_dict(),
            **(record_of(self.pattern.cost) if isinstance(self.pattern, Units) else {}),
            "position": self._position,
            "floor": self._floor,
            "collected": self._collected,
            "frozen": self._frozen,
            "kept": {name: numbers.detach() for name, numbers in self._kept.items()},
            "score": self.score.state(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the state until the fit starts."""
        super().load_state_dict(state_dict)
        self._restored = state_dict
