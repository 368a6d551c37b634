"""Dropping whole blocks."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from lit_compress.models.anatomy import dissect, family_of
from lit_compress.pruning.shape import renumber


def drop_blocks(model: PreTrainedModel, gone: Collection[str]) -> None:
    """Remove blocks, write the depth into the configuration, and number what is left anew.

    Args:
        model: Changed in place.
        gone: Paths of the blocks.

    Raises:
        ValueError: No block would be left, or a block is used more than once.
    """
    left_over = set(gone)
    for path in dissect(model).block_lists if gone else ():
        blocks: Any = model.get_submodule(path)
        kept = [index for index in range(len(blocks)) if f"{path}.{index}" not in gone]
        if not kept:
            raise ValueError(
                f"Expected at least one layer of {path} to be left but all {len(blocks)} are closed; lower the "
                "sparsity."
            )
        left_over -= {f"{path}.{index}" for index in range(len(blocks))}
        if len(kept) == len(blocks):
            continue
        parent, _, name = path.rpartition(".")
        setattr(model.get_submodule(parent), name, nn.ModuleList(blocks[index] for index in kept))
        family_of(model).set_depth(model, path, len(kept))
        renumber(model, path, kept)
    if left_over:
        raise ValueError(
            f"Expected layers that can be dropped but {sorted(left_over)[0]} is used more than once in "
            f"{type(model).__name__}; leave structure 'layer' out."
        )


def closed_blocks(gates: dict[str, Tensor]) -> list[str]:
    """Return the paths of the blocks that a switch skips.

    Args:
        gates: Gates of evaluation by the name of their group.

    Raises:
        ValueError: A switch is neither open nor closed.
    """
    closed = []
    for name, gate in gates.items():
        if not name.endswith(".layer"):
            continue
        value = float(gate)
        if value not in (0.0, 1.0):
            raise ValueError(
                f"Expected the switch of {name} to be open or closed but got {value:.3f}; layers cannot be half "
                "open in a smaller model."
            )
        if value == 0.0:
            closed.append(name.removesuffix(".layer"))
    return closed
