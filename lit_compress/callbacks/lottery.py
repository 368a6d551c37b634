"""The lottery ticket as a callback: train, prune, rewind, train again, all in one fit."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import nn

from lit_compress.callbacks.checkpoint import BestAndLast
from lit_compress.callbacks.transform import TransformCallback, model_of
from lit_compress.files import write_whole
from lit_compress.models.anatomy import dissect
from lit_compress.modules.optim import LRSchedule
from lit_compress.modules.progress import progress_of
from lit_compress.modules.restart import beginning_of, clear_optimizers, set_back_schedules
from lit_compress.pruning.counting import encoder_matrices
from lit_compress.pruning.masks import apply_weight_masks, masks_of, original
from lit_compress.pruning.rewind import (
    draw_anew,
    rewind,
    shuffled,
    smallest_removed,
    survivors_after,
    trained_weights,
)
from lit_compress.pruning.ticket_masks import read_masks, write_masks
from lit_compress.schedules import Progress

#: Table of the rounds, in the folder of the run.
FILE_NAME = "lottery.jsonl"
_CONTROLS = ("none", "random", "reinit")


class LotteryTicket(TransformCallback):
    """Find a sparse network that trains as well as the full one (Frankle & Carbin, arXiv:1803.03635).

    The fit is cut into ``rounds + 1`` equal parts. The first trains the full model. At the start of each other one
    ``ceil(rate * survivors)`` weights with the smallest magnitudes, over all matrices together, are removed; what
    survives gets the value it had at ``rewind_to``; and training begins anew: the state of the optimizer is
    cleared and the learning rate starts from its warm-up. With the default rate the density falls as 1, 0.8,
    0.64, 0.512, 0.41, 0.328. Removed weights stay exactly 0.

    Modules of this library get ``restart_at`` of their learning-rate schedule from the callback. Schedules of
    other modules are set back to their first step in each part: give them the length of one part.

    ``lottery.jsonl`` in the folder of the run holds a line per round with its density and validation metrics,
    ``lottery_masks`` what is left in each. A sparse network is a winning ticket if it is better than a control of the
    same density: run the same recipe again with ``ticket`` set to that folder and ``control=random`` (in every round
    as many weights in each matrix as the ticket has, at random places) and ``control=reinit`` (the places of the
    ticket, with new random weights). ``BestAndLast`` keeps the best checkpoint of the last round.

    It is for analysis: single zeros make a model neither smaller nor faster.

    Args:
        rounds: How often to prune; ``trainer.max_epochs`` (or ``max_steps``) must be a multiple of ``rounds + 1``.
        rate: Share of the surviving weights to remove in each round, between 0 and 1.
        rewind_to: Optimizer step of the first part whose weights the survivors get back. 0 are the weights that
            the fit began with: the random ones of a new model, the pretrained ones of a pretrained model. Large
            models need a later one (late rewinding, arXiv:1912.05671).
        control: ``none`` for the ticket itself, ``random`` or ``reinit`` for what it has to be compared with.
        ticket: Folder of the finished run of the ticket, for a control.
        include: Parts of the names of more weight matrices to prune, such as ``classifier``; the matrices inside
            the blocks always are, embeddings and the head of the task are not.
        seed: Seed of what the controls draw.

    Raises:
        ValueError: A number is out of range or the control is unknown.
    """

    def __init__(
        self,
        rounds: int = 5,
        rate: float = 0.2,
        rewind_to: int = 0,
        control: str = "none",
        ticket: str | None = None,
        include: list[str] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if rounds < 1:
            raise ValueError(
                f"Expected lottery rounds >= 1 but got {rounds}; without rounds nothing is pruned."
            )
        if not 0.0 < rate < 1.0:
            raise ValueError(
                f"Expected lottery rate between 0 and 1 (share of the survivors) but got {rate}."
            )
        if rewind_to < 0:
            raise ValueError(
                f"Expected rewind_to >= 0 (an optimizer step of the first part) but got {rewind_to}."
            )
        if control not in _CONTROLS:
            raise ValueError(f"Expected control to be one of {', '.join(_CONTROLS)} but got {control!r}.")
        if (control == "none") != (ticket is None):
            raise ValueError(
                "Expected ticket, the folder of a run with control: none, for a control and for nothing else but got "
                f"control={control!r} and ticket={ticket!r}; fit the ticket first, then its controls."
            )
        self.rounds, self.rate, self.rewind_to = rounds, rate, rewind_to
        self.control, self.ticket, self.include, self.seed = control, ticket, list(include or []), seed
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._round = 0
        self._saved: dict[str, torch.Tensor] = {}
        self._start: dict[str, Any] | None = None
        self._rows: list[dict[str, Any]] = []

    # -- structure -----------------------------------------------------------------------------------

    def apply(self, model: nn.Module) -> None:
        """Put a mask on every matrix that is pruned."""
        apply_weight_masks(model, self._matrices(model))

    def _matrices(self, model: nn.Module) -> list[str]:
        names = dict.fromkeys(encoder_matrices(model, dissect(model)))  # type: ignore[arg-type]
        others = {
            name.replace(".parametrizations.", ".").removesuffix(".original"): parameter
            for name, parameter in model.named_parameters()
        }
        for part in self.include:
            found = [name for name, parameter in others.items() if part in name and parameter.ndim >= 2]
            if not found:
                left = [
                    name for name, parameter in others.items() if parameter.ndim >= 2 and name not in names
                ]
                raise ValueError(
                    f"Expected lottery include to match weight matrices but {part!r} is in no name; outside the "
                    f"blocks there are {', '.join(left)}."
                )
            names |= dict.fromkeys(found)
        return list(names)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Apply the masks; refuse a fit that cannot be cut into equal parts."""
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            self._begin_anew()
            if not trainer.fast_dev_run:  # type: ignore[attr-defined]
                self._check_epochs(trainer)
                self._check_ticket(model_of(pl_module))
                _check_callbacks(trainer)
                self._set_restarts(getattr(pl_module, "schedule", None))

    def _check_epochs(self, trainer: pl.Trainer) -> None:
        epochs, parts = trainer.max_epochs or -1, self.rounds + 1
        if trainer.max_steps != -1 or epochs == -1:
            return  # steps are counted when the loaders are there
        if epochs % parts:
            raise ValueError(
                f"Expected trainer.max_epochs to be a multiple of {parts}, for {self.rounds} rounds of pruning and "
                f"the training before them, but got {epochs}; set it to {math.ceil(epochs / parts) * parts}, or "
                "change rounds."
            )
        every = trainer.check_val_every_n_epoch
        if every is not None and epochs // parts % every:
            raise ValueError(
                f"Expected a validation at the end of each part of {epochs // parts} epochs but got "
                f"trainer.check_val_every_n_epoch={every}; set it to 1."
            )

    def _check_ticket(self, model: nn.Module) -> None:
        """Read the masks of all rounds once, because a missing one would show only after hours."""
        masks = [mask.keep for _, mask in masks_of(model)]
        # What a model that was pruned before begins with is not known: a checkpoint may be loaded yet.
        left = sum(keep.numel() for keep in masks) if all(bool(keep.all()) for keep in masks) else None
        for number in range(1, self.rounds + 1) if self.ticket is not None else ():
            found = sum(int(keep.sum()) for keep in self._masks_of_ticket(model, number).values())
            if left is not None and found != survivors_after(left, self.rate):
                raise ValueError(
                    f"Expected a ticket with {survivors_after(left, self.rate)} weights in round {number}, as with "
                    f"rate={self.rate}, but {self.ticket} has {found}; give the control the settings of the ticket."
                )
            left = found

    def _masks_of_ticket(self, model: nn.Module, number: int) -> dict[str, torch.Tensor]:
        assert self.ticket is not None
        shapes = {name: mask.keep.shape for name, mask in masks_of(model)}
        return read_masks(self.ticket, number, shapes)

    def _set_restarts(self, schedule: Any) -> None:
        if not isinstance(schedule, LRSchedule):
            return
        wanted = [index / (self.rounds + 1) for index in range(1, self.rounds + 1)]
        given = schedule.restart_at
        same = len(given) == len(wanted) and all(
            math.isclose(a, b, abs_tol=1e-3) for a, b in zip(given, wanted, strict=True)
        )
        if given and not same:
            raise ValueError(
                f"Expected the learning rate to start again in each part of the fit but schedule.restart_at is "
                f"{given}; leave it out, or set it to {[round(value, 4) for value in wanted]}."
            )
        schedule.restart_at = wanted

    # -- training ------------------------------------------------------------------------------------

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Remember how optimizers and schedules begin; a resumed fit has it from its checkpoint."""
        progress = progress_of(trainer, pl_module, 0)
        if not trainer.fast_dev_run:  # type: ignore[attr-defined]
            self._check_steps(progress.total_steps)
        if self._start is None:
            self._start = beginning_of(trainer)

    def _check_steps(self, total: int) -> None:
        parts = self.rounds + 1
        if total % parts:
            raise ValueError(
                f"Expected the optimizer steps of the fit to be a multiple of {parts}, for {self.rounds} rounds of "
                f"pruning and the training before them, but got {total}; set trainer.max_steps to "
                f"{total // parts * parts}, or change rounds."
            )
        if self.rewind_to >= total // parts:
            raise ValueError(
                f"Expected rewind_to to be a step of the first part, which has {total // parts}, but got "
                f"{self.rewind_to}; take an early one, such as {total // parts // 10}."
            )

    def settled(self, progress: Progress) -> bool:
        """Return whether the last round has begun: the best checkpoint is the best of the sparsest ticket."""
        return self._part(progress) == self.rounds

    def _part(self, progress: Progress) -> int:
        length = max(1, progress.total_steps // (self.rounds + 1))
        return min(self.rounds, progress.step // length)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Save the weights to rewind to, and begin rounds, at the start of their steps."""
        if trainer.global_step != self._moved_at:
            progress = progress_of(trainer, pl_module, batch_idx)
            if progress.step == self.rewind_to and not self._saved:
                self._saved = trained_weights(_everything(pl_module))
            if self._part(progress) > self._round:
                self._report(trainer)
                self._begin_round(trainer, pl_module, self._part(progress))
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)

    def _begin_round(self, trainer: pl.Trainer, pl_module: pl.LightningModule, number: int) -> None:
        model = model_of(pl_module)
        masks = dict(masks_of(model))
        draw = self.seed * 1000 + number
        if self.control == "none":
            weights = {name: _original(model, name) for name in masks}
            keeps = smallest_removed(weights, {name: mask.keep for name, mask in masks.items()}, self.rate)
            if trainer.is_global_zero:
                write_masks(trainer.default_root_dir, number, keeps)
        else:
            keeps = self._masks_of_ticket(model, number)
        if self.control == "random":
            keeps = shuffled(keeps, torch.Generator().manual_seed(draw))
        rewind(_everything(pl_module), self._saved)
        if self.control == "reinit":
            draw_anew(model, draw)
        for name, mask in masks.items():
            mask.keep.copy_(keeps[name])
        _zero_removed(model)
        clear_optimizers(trainer)
        if self._start is not None and not _restarts(pl_module):
            set_back_schedules(trainer, self._start)
        self._round = number

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep removed weights at 0, whatever the optimizer did, so that checkpoints hold zeros."""
        _zero_removed(model_of(pl_module))

    # -- what came out -------------------------------------------------------------------------------

    def figures(self, model: nn.Module) -> dict[str, float]:
        """Return the share of the weights that is removed, and the round."""
        kept, total = _count(model)
        return {"compress/sparsity": 1.0 - kept / total, "compress/round": float(self._round)}

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note the metrics of this round, and write the table."""
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        kept, total = _count(model_of(pl_module))
        row = {
            "round": self._round,
            "control": self.control,
            "density": kept / total,
            "kept": kept,
            "weights": total,
            "step": trainer.global_step,
            "metrics": _metrics(trainer),
        }
        self._rows = [old for old in self._rows if old["round"] != self._round] + [row]
        if trainer.is_global_zero:
            write_whole(
                Path(trainer.default_root_dir) / FILE_NAME,
                "".join(json.dumps(row) + "\n" for row in self._rows),
            )

    def _report(self, trainer: pl.Trainer) -> None:
        row = self._rows[-1] if self._rows else None
        if row is None or row["round"] != self._round:
            rank_zero_warn(
                f"LotteryTicket: round {self._round} ended without a validation, so that {FILE_NAME} has no line of "
                "it; validate at the end of each part (trainer.check_val_every_n_epoch or val_check_interval)."
            )
            return
        metrics = ", ".join(f"{name} {value:.4f}" for name, value in row["metrics"].items())
        rank_zero_info(
            f"LotteryTicket: round {row['round']} of {self.rounds}, density {row['density']:.4f}: {metrics}"
        )

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Report the last round."""
        self._report(trainer)

    def state_dict(self) -> dict[str, Any]:
        """Return the round, the weights to rewind to, how optimizers began, and the table."""
        own = {"round": self._round, "saved": self._saved, "start": self._start, "rows": self._rows}
        return {**super().state_dict(), **own}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where the checkpoint was."""
        super().load_state_dict(state_dict)
        self._round, self._saved = state_dict["round"], state_dict["saved"]
        self._start, self._rows = state_dict["start"], state_dict["rows"]


def _restarts(pl_module: pl.LightningModule) -> bool:
    """Return whether the learning rate of a module starts again by itself, at ``restart_at``."""
    return isinstance(getattr(pl_module, "schedule", None), LRSchedule)


def _everything(pl_module: pl.LightningModule) -> nn.Module:
    """Return all that a module trains, the model first: its names then do not depend on where it was built."""
    return nn.ModuleDict({"model": model_of(pl_module), "rest": pl_module})


def _original(model: nn.Module, name: str) -> torch.Tensor:
    """Return the trained weights behind a mask."""
    module, _, tensor = name.rpartition(".")
    return original(model.get_submodule(module), tensor)


@torch.no_grad()
def _zero_removed(model: nn.Module) -> None:
    for name, mask in masks_of(model):
        _original(model, name).mul_(mask.keep)


def _count(model: nn.Module) -> tuple[int, int]:
    masks = [mask for _, mask in masks_of(model)]
    return sum(int(mask.keep.sum()) for mask in masks), sum(mask.keep.numel() for mask in masks)


def _check_callbacks(trainer: pl.Trainer) -> None:
    callbacks: list[Any] = list(trainer.callbacks)  # type: ignore[attr-defined]
    if any(isinstance(callback, EarlyStopping) for callback in callbacks):
        raise ValueError(
            "Expected every round of a lottery ticket to train to its end but got an EarlyStopping callback, which "
            "would stop as soon as a sparser round is worse; leave it out."
        )
    ranking = [c for c in callbacks if isinstance(c, ModelCheckpoint) and c.monitor is not None]
    if any(not isinstance(callback, BestAndLast) for callback in ranking):
        rank_zero_warn(
            "LotteryTicket: ModelCheckpoint keeps the best checkpoint of all rounds, usually of the densest one; use "
            "lit_compress.callbacks.checkpoint.BestAndLast, which keeps the best of the last round."
        )


def _metrics(trainer: pl.Trainer) -> dict[str, float]:
    logged = trainer.callback_metrics.items()
    return {name: float(value) for name, value in logged if name.startswith("val")}
