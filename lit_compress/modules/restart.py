"""Optimizers and learning-rate schedules, set back to where a fit began."""

from __future__ import annotations

import copy
from typing import Any

import lightning.pytorch as pl


def beginning_of(trainer: pl.Trainer) -> dict[str, Any]:
    """Return the settings of all optimizers, without parameters, and the states of all schedules.

    Args:
        trainer: At the start of its fit.

    Returns:
        Plain data that a checkpoint can hold.
    """
    groups = [
        [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
        for optimizer in trainer.optimizers
    ]
    schedules = [config.scheduler.state_dict() for config in trainer.lr_scheduler_configs]
    return copy.deepcopy({"groups": groups, "schedules": schedules})


def clear_optimizers(trainer: pl.Trainer) -> None:
    """Forget what the optimizers have gathered, moments above all, as if no step had been taken."""
    for optimizer in trainer.optimizers:
        optimizer.state.clear()


def set_back_schedules(trainer: pl.Trainer, beginning: dict[str, Any]) -> None:
    """Set learning rates and their schedules back.

    Args:
        trainer: In the same fit, or in one that goes on with it.
        beginning: What :func:`beginning_of` returned.
    """
    beginning = copy.deepcopy(beginning)
    for optimizer, groups in zip(trainer.optimizers, beginning["groups"], strict=True):
        for group, begun in zip(optimizer.param_groups, groups, strict=True):
            group.update(begun)
    for config, state in zip(trainer.lr_scheduler_configs, beginning["schedules"], strict=True):
        config.scheduler.load_state_dict(state)
