"""Which modules of a model are rounded."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn
from transformers.pytorch_utils import Conv1D


def choose(
    model: nn.Module, include: Sequence[str] | None, exclude: Sequence[str]
) -> tuple[list[str], list[str]]:
    """Return the projections and the embeddings to round.

    Args:
        model: The model.
        include: Parts of names; all where ``None``.
        exclude: Parts of the names of those to leave as they are.

    Returns:
        Names of ``Linear`` and ``Conv1D`` modules, and of ``Embedding`` modules.

    Raises:
        ValueError: A part is in no name, or no projection is left.
    """
    modules = dict(model.named_modules())
    projections = [name for name, module in modules.items() if isinstance(module, (nn.Linear, Conv1D))]
    embeddings = [name for name, module in modules.items() if isinstance(module, nn.Embedding)]
    everything = [*projections, *embeddings]
    for part in [*(include or []), *exclude]:
        if not any(part in name for name in everything):
            raise ValueError(
                f"Expected include and exclude to match projections or embeddings but {part!r} is in no name; "
                f"there are {', '.join(everything[:6])}, …."
            )

    def wanted(name: str) -> bool:
        asked = include is None or any(part in name for part in include)
        return asked and not any(part in name for part in exclude)

    found = [name for name in projections if wanted(name)], [name for name in embeddings if wanted(name)]
    if not found[0]:
        raise ValueError("Expected projections to round but include and exclude leave none; leave them out.")
    return found
