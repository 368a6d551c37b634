"""Files with the masks of a lottery ticket, one per round, for the controls that it is compared with."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

#: Folder of the masks, in that of the run.
FOLDER = "lottery_masks"


def write_masks(run: str | Path, number: int, keeps: Mapping[str, Tensor]) -> None:
    """Write the masks of a round, eight weights a byte; a kill leaves no part of a file.

    Args:
        run: Folder of the run.
        number: Number of the round.
        keeps: Boolean masks by name.
    """
    path = _path(run, number)
    path.parent.mkdir(parents=True, exist_ok=True)
    packed = {name: torch.from_numpy(np.packbits(keep.cpu().numpy())) for name, keep in keeps.items()}
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        save_file(packed, partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def read_masks(run: str | Path, number: int, shapes: Mapping[str, torch.Size]) -> dict[str, Tensor]:
    """Return the masks of a round.

    Args:
        run: Folder of the run.
        number: Number of the round.
        shapes: Shapes by name that the masks have to have.

    Returns:
        Boolean masks, on the CPU.

    Raises:
        ValueError: The file is not there or is damaged, or it is of other matrices.
    """
    path = _path(run, number)
    try:
        packed = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"Expected the masks of round {number} of a lottery ticket in {path} but they cannot be read "
            f"({type(error).__name__}); fit the recipe with control: none to its end first, and name the folder of "
            "that run as ticket."
        ) from error
    wanted = {name: -(-shape.numel() // 8) for name, shape in shapes.items()}
    found = {name: bits.numel() for name, bits in packed.items()}
    wrong = [name for name in {**wanted, **found} if wanted.get(name) != found.get(name)]
    if wrong:
        raise ValueError(
            f"Expected the masks of the {len(wanted)} matrices that are pruned here in {path} but got others "
            f"({wrong[0]}); take the same model and the same include as in the run of the ticket."
        )
    return {
        name: torch.from_numpy(np.unpackbits(packed[name].numpy(), count=shape.numel()).astype(bool)).view(
            shape
        )
        for name, shape in shapes.items()
    }


def _path(run: str | Path, number: int) -> Path:
    return Path(run) / FOLDER / f"round_{number}.safetensors"
