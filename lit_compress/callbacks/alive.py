"""Telling objectives which layers of a student are left while it is pruned."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from lit_compress.models.anatomy import dissect
from lit_compress.pruning.gates import gates_of


def tell_alive(pl_module: Any, model: PreTrainedModel) -> None:
    """Tell every objective with a method ``set_alive`` which blocks still attend.

    Args:
        pl_module: The module; what it has as ``objectives`` is asked.
        model: The model that is pruned.
    """
    objectives = getattr(pl_module, "objectives", None)
    listeners = [
        o for o in (objectives.values() if objectives is not None else []) if hasattr(o, "set_alive")
    ]
    if listeners:
        alive = alive_blocks(model)
        # A block that is called several times (ALBERT) is listed once.
        alive = [state for state in alive for _ in range(model.config.num_hidden_layers // len(alive))]
        for objective in listeners:
            objective.set_alive(alive)


def alive_blocks(model: PreTrainedModel) -> list[bool]:
    """Return for each block whether it, its attention and any of its heads are open.

    As in the code of CoFi (arXiv:2204.00408), a block without attention counts as gone even where its feed-forward
    network is left.

    Args:
        model: A model with or without gates.
    """
    gates = gates_of(model)
    decided = {} if gates is None else gates.decided()

    def is_open(name: str) -> bool:
        gate: Tensor | None = decided.get(name)
        return gate is None or bool(gate.any())

    return [
        bool(block.attentions)
        and is_open(f"{block.path}.layer")
        and any(
            is_open(f"{attention.module}.attention") and is_open(f"{attention.module}.head")
            for attention in block.attentions
        )
        for block in dissect(model).blocks
    ]
