"""What callbacks that change a network while it trains have in common."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch import Tensor, nn
from torch.optim import Optimizer
from transformers import PreTrainedModel

from lit_compress.callbacks.alive import tell_alive
from lit_compress.models.transforms import transforms_of
from lit_compress.modules.progress import progress_of
from lit_compress.pruning.target import Target
from lit_compress.schedules import Progress

#: What matrix products of batches like; measured in docs/bench_speedup_target.md.
FAST_MULTIPLE = 16


class TransformCallback(pl.Callback, ABC):
    """Applies a transform in ``setup``, moves it at the start of optimizer steps, adds a term to the loss.

    Works on any LightningModule that has one transformers model, as ``student`` or as its only one. What the
    transform adds to the parameters is taken out of the module's optimizer and trained by one of the callback's
    own: with a learning rate of its own, without weight decay, and whatever ``configure_optimizers`` says.
    """

    #: What is asked for, where that is a number; the achieved speed-up is reported beside it at the end of fit.
    target: Target | None = None
    #: What is shipped keeps a multiple of this many neurons per block.
    round_to: int = 1
    #: What a fit has missed that ends before the callback has settled.
    aim: str = "the size to end with had not been reached"

    def __init__(self) -> None:
        self.optimizer: Optimizer | None = None
        self._optimizer_state: dict[str, Any] | None = None
        self._moved_at = -1
        self._unwrap: Callable[[], None] | None = None

    # -- what a subclass gives -----------------------------------------------------------------------

    @abstractmethod
    def apply(self, model: nn.Module) -> None:
        """Change the structure of the model; called in every stage, so it has to be idempotent."""

    def restructure(self, model: nn.Module) -> None:
        """Put other modules in the place of the model's own.

        Called of every callback of the trainer before the first ``apply``: gates, masks and rounding lie on the modules
        that are there in the end, in whatever order callbacks are listed. Idempotent too.
        """

    def move(self, model: nn.Module, progress: Progress) -> None:
        """Move gates, masks and schedules; called once at the start of every optimizer step."""

    def penalty(self, model: nn.Module) -> Tensor | None:
        """Return a term of the loss of this step, ``None`` for none; called after the training step."""
        return None

    def own_optimizer(self, model: nn.Module) -> Optimizer | None:
        """Return the optimizer over what the transform added, ``None`` where that is nothing to learn."""
        return None

    def idle(self, model: nn.Module) -> list[nn.Parameter]:
        """Return parameters of the callback's own optimizer that have nothing to do yet."""
        return []

    def settled(self, progress: Progress) -> bool:
        """Return whether the model has the size that it is to end with, so that a checkpoint may be the best.

        Before that it is better because it is larger.

        Args:
            progress: Where the fit stood when its last step began.
        """
        return True

    def figures(self, model: nn.Module) -> dict[str, float]:
        """Return what to log, such as ``compress/sparsity``."""
        return {}

    # -- structure -----------------------------------------------------------------------------------

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Apply the transform before weights are loaded and before the optimizer is made.

        States of callbacks are loaded after this, from the checkpoint of a validation too: what an earlier stage left
        is not where this one goes on from.
        """
        self._optimizer_state, self._moved_at = None, -1
        pl_module.configure_model()  # else a model that is built there would not be there yet
        model = model_of(pl_module)
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, TransformCallback):
                callback.restructure(model)
        self.apply(model)
        if stage == "fit" and self._unwrap is None:
            self._unwrap = _wrap_training_step(pl_module, self)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Leave the training step as it was."""
        if self._unwrap is not None:
            self._unwrap()
            self._unwrap = None

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Write the transforms into the checkpoint, also for modules that do not do it themselves."""
        checkpoint["transforms"] = transforms_of(model_of(pl_module))

    # -- training ------------------------------------------------------------------------------------

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the added parameters out of the module's optimizer, into one of their own."""
        self.optimizer = self.own_optimizer(model_of(pl_module))
        if self.optimizer is None:
            return
        own = {id(parameter) for group in self.optimizer.param_groups for parameter in group["params"]}
        for optimizer in trainer.optimizers:
            for group in optimizer.param_groups:
                group["params"] = [parameter for parameter in group["params"] if id(parameter) not in own]
        if self._optimizer_state is not None:
            self.optimizer.load_state_dict(self._optimizer_state)
            self._optimizer_state = None

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Move once per optimizer step: masks must not change between validation and saving."""
        if trainer.global_step == self._moved_at:
            return
        self._moved_at = trainer.global_step
        model = model_of(pl_module)
        self.move(model, progress_of(trainer, pl_module, batch_idx))
        tell_alive(pl_module, model)  # type: ignore[arg-type]
        if trainer.global_step % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            pl_module.log_dict(self.figures(model))

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the figures beside the metrics of the same weights."""
        if not trainer.sanity_checking:
            pl_module.log_dict(self.figures(model_of(pl_module)))

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        """Step the callback's own optimizer when the module's steps; gradients are complete and not yet clipped."""
        if self.optimizer is None:
            return
        # A schedule of the main optimizer, warm-up and decay, holds for the added parameters too.
        main = optimizer.param_groups[0]
        factor = main["lr"] / main["initial_lr"] if main.get("initial_lr") else 1.0
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak_lr"] * (factor if group["follow"] else 1.0)
        for leaf in self.idle(model_of(pl_module)):
            leaf.grad = None  # no step is counted, and no average begun
        unscale(trainer, [leaf for group in self.optimizer.param_groups for leaf in group["params"]])
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.after_own_step(model_of(pl_module))

    def after_own_step(self, model: nn.Module) -> None:
        """Bring parameters back into their range after a step of the callback's own optimizer."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the callback's own optimizer."""
        return {} if self.optimizer is None else {"optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the state until the optimizer is made."""
        self._optimizer_state = state_dict.get("optimizer")


def own_group(
    parameters: list[nn.Parameter], lr: float, follow: bool = False, **options: Any
) -> dict[str, Any]:
    """Return a parameter group of a callback's own optimizer, never decayed.

    Args:
        parameters: The parameters.
        lr: Peak learning rate.
        follow: Whether the rate follows the schedule of the module's optimizer; else it is constant.
        options: More options of the optimizer, such as ``maximize`` for Lagrange multipliers.
    """
    return {"params": parameters, "lr": lr, "peak_lr": lr, "follow": follow, "weight_decay": 0.0, **options}


def rounding_of(trainer: pl.Trainer) -> int:
    """Return what the numbers of neurons in the shipped model are multiples of, as its callbacks say."""
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    return math.lcm(*(callback.round_to for callback in callbacks if isinstance(callback, TransformCallback)))


def rounding_for(round_to: int | None, structures: Sequence[str], target: Target | None) -> int:
    """Return what the number of neurons that a block keeps is a multiple of.

    Args:
        round_to: As the user said; where ``None``, :data:`FAST_MULTIPLE` for a speed-up by neurons, else 1.
        structures: What is cut.
        target: How much.

    Raises:
        ValueError: It is below 1, or no neurons are cut that it could count.
    """
    if round_to is None:
        fast = target is not None and target.speedup is not None and "neuron" in structures
        return FAST_MULTIPLE if fast else 1
    if round_to < 1:
        raise ValueError(f"Expected round_to >= 1 (neurons per block) but got {round_to}.")
    if round_to > 1 and "neuron" not in structures:
        raise ValueError(
            f"Expected the structure neuron for round_to={round_to}, which counts the neurons that are kept, but got "
            f"{', '.join(structures)}; leave round_to out."
        )
    return round_to


def unscale(trainer: pl.Trainer, leaves: Iterable[Tensor]) -> None:
    """Undo the loss scale of float16 training, which Lightning undoes only for its own optimizers."""
    scaler = getattr(trainer.precision_plugin, "scaler", None)
    if scaler is not None:
        for leaf in leaves:
            if leaf.grad is not None:
                leaf.grad.div_(scaler.get_scale()).nan_to_num_(0.0, 0.0, 0.0)


def model_of(pl_module: pl.LightningModule) -> nn.Module:
    """Return the transformers model of a module: its ``student``, or the only one that it holds.

    Raises:
        ValueError: There is none, or more than one.
    """
    student = getattr(pl_module, "student", None)
    if isinstance(student, nn.Module):
        return student
    found = [child for child in pl_module.children() if isinstance(child, PreTrainedModel)]
    if len(found) != 1:
        raise ValueError(
            f"Expected a module with one transformers model, or with one called 'student', but "
            f"{type(pl_module).__name__} has {len(found)}; name the model that is to be compressed 'student'."
        )
    return found[0]


def _wrap_training_step(pl_module: Any, callback: TransformCallback) -> Callable[[], None]:
    """Add the callback's penalty to the loss; return what takes that back."""
    original = pl_module.training_step

    def training_step(*args: Any, **kwargs: Any) -> STEP_OUTPUT:
        output = original(*args, **kwargs)
        penalty = None if output is None else callback.penalty(model_of(pl_module))
        if penalty is None:
            return output
        if isinstance(output, Tensor):
            return output + penalty
        return {**output, "loss": output["loss"] + penalty}

    pl_module.training_step = training_step

    def unwrap() -> None:
        # Several callbacks wrap one another; the first one to leave takes all wraps with it.
        vars(pl_module).pop("training_step", None)

    return unwrap
