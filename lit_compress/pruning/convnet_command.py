"""``lit-compress shrink`` for convolution nets."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForImageClassification, PreTrainedModel

from lit_compress.models.checkpoint import load, save_folder
from lit_compress.models.factory import load_config
from lit_compress.models.loading import load_model
from lit_compress.models.manifest import read_manifest
from lit_compress.models.names import resolve_model
from lit_compress.pruning.convnets import has_convolutions, operations, prune_convnet

_PREPROCESSOR = "preprocessor_config.json"
_USUAL_SIZE = 224


def shrink_convnet(
    source: str,
    out: Path,
    sparsity: float | None = None,
    importance: str = "magnitude",
    round_to: int = 1,
    image_size: int | None = None,
) -> None:
    """Write the folder of a convolution net with fewer channels, and print what it costs.

    Args:
        source: Model folder, hub name or ``package:NAME`` of a net that classifies images.
        out: The new model folder, for ``lit_compress.load``.
        sparsity: Share of the weights to remove, between 0 and 1.
        importance: How channels are ranked, see ``prune_convnet``.
        round_to: Keep a multiple of this many channels.
        image_size: Height and width that operations are counted for; what the folder says where ``None``.

    Raises:
        ValueError: No sparsity is given, or the net cannot be pruned like this.
        ImportError: Torch-Pruning is not installed.
    """
    if sparsity is None:
        raise ValueError(
            f"Expected a sparsity for the convolution net in {source} but got none; give --sparsity 0.5 to remove half "
            "of its weights."
        )
    folder = resolve_model(source)
    model = _load(folder)
    if not has_convolutions(model):
        raise ValueError(
            f"Expected a convolution net, or a transformer of a supported family, but {type(model).__name__} in "
            f"{source} is neither: most of its weights are outside convolutions; write an adapter (see "
            "docs/adapters.md)."
        )
    size = image_size or _image_size(Path(folder), model)
    images = torch.zeros(1, getattr(model.config, "num_channels", 3), size, size)
    small = prune_convnet(model, images, sparsity, importance, round_to)
    facts = {**_facts(folder), "shrunk_from": source}
    save_folder(out, small, _Preprocessor(Path(folder)), facts)  # type: ignore[arg-type]
    before, after = (_weights(net) for net in (model, small))
    print(f"Weights: {before:,} → {after:,} (sparsity {1 - after / before:.3f})")
    before, after = (operations(net, images) for net in (model, small))
    print(
        f"Multiply-adds for one image of {size} x {size}: {before:,} → {after:,} ({before / after:.2f} times fewer)"
    )
    print(
        f"Model folder: {out} (for lit_compress.load). Its channels did something: fine-tune it, or measure it."
    )


def _load(folder: str) -> PreTrainedModel:
    if read_manifest(folder) is not None:
        return load(folder)
    return load_model(AutoModelForImageClassification, folder, load_config(folder), "auto").eval()


def _image_size(folder: Path, model: PreTrainedModel) -> int:
    size: Any = getattr(model.config, "image_size", None)
    if size is None and (folder / _PREPROCESSOR).is_file():
        size = json.loads((folder / _PREPROCESSOR).read_text(encoding="utf-8")).get("size")
    if isinstance(size, dict):
        size = next((size[key] for key in ("height", "shortest_edge") if key in size), None)
    if isinstance(size, (list, tuple)):
        size = size[0]
    return int(size or _USUAL_SIZE)


def _facts(folder: str) -> dict[str, Any]:
    """Return what stays true of the old manifest; metrics do not."""
    manifest = read_manifest(folder) or {}
    keys = ("method", "recipe", "teacher", "task", "data", "label_names")
    return {key: manifest[key] for key in keys if manifest.get(key) is not None}


def _weights(model: PreTrainedModel) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


class _Preprocessor:
    """What prepares images, carried over as it is: loading it would need more packages.

    Args:
        folder: The folder of the net.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / _PREPROCESSOR

    def save_pretrained(self, folder: Path) -> None:
        """Copy the file into a folder, if there is one."""
        if self.path.is_file():
            shutil.copyfile(self.path, Path(folder) / _PREPROCESSOR)
