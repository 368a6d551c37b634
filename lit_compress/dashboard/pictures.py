"""The map of kept heads and neurons in W&B."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from lightning.pytorch.loggers import WandbLogger

KEY = "compress/kept"


def log_maps(loggers: Sequence[Any], name: str, kept: Mapping[str, Any], step: int) -> None:
    """Log which heads and how many neurons were kept, as ``compress/kept``.

    Args:
        loggers: Lightning loggers; others than W&B's are passed over.
        name: Name of the model.
        kept: ``heads`` and ``neurons`` as ``kept_units`` returns them; nothing is logged where it is empty.
        step: Step to log at.
    """
    for logger in loggers if kept else ():
        if isinstance(logger, WandbLogger):
            logger.log_metrics({KEY: picture(name, kept)}, step=step)


def picture(name: str, kept: Mapping[str, Any]) -> Any:
    """Return the map as a W&B image; as a W&B table where matplotlib is not installed.

    Args:
        name: Name of the model.
        kept: ``heads`` and ``neurons``.
    """
    import wandb

    if find_spec("matplotlib") is None:
        columns, lines = kept_table(kept)
        return wandb.Table(columns=[*columns], data=lines)
    from lit_compress.report.map_plots import map_figure
    from lit_compress.report.maps import kept_caption

    caption = kept_caption(name, kept.get("heads") or [], kept.get("neurons"))
    return wandb.Image(map_figure({name: dict(kept)}), caption=caption)


def kept_table(kept: Mapping[str, Any]) -> tuple[list[str], list[list[int]]]:
    """Return a line per layer: its number, heads kept, heads, neurons kept, neurons."""
    heads, neurons = kept.get("heads") or [], kept.get("neurons") or []
    lines = []
    for layer in range(max(len(heads), len(neurons))):
        flags = heads[layer] if layer < len(heads) else []
        pair = neurons[layer] if layer < len(neurons) else [0, 0]
        lines.append([layer + 1, sum(map(bool, flags)), len(flags), *pair])
    return ["layer", "heads kept", "heads", "neurons kept", "neurons"], lines
