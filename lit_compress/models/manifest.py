"""The JSON file in a model folder that says how the model was made and how to build it again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import transformers
from transformers import PreTrainedModel

import lit_compress
from lit_compress.models.transforms import ROUNDED, SHAPES, TRANSFORMS, transforms_of

MANIFEST = "lit_compress.json"
SCHEMA = 1


def build_manifest(model: PreTrainedModel, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Complete the facts about a run to a manifest.

    Args:
        model: The model of the folder.
        facts: What the run knows, as plain JSON data: ``method``, ``recipe``, ``teacher``, ``task``,
            ``label_names``, ``input_lengths`` (up to 200 token counts of real inputs), ``metrics``, ….

    Returns:
        The manifest; ``transforms`` is the list of ``[name, arguments]`` to replay before weights are loaded.

    Raises:
        ValueError: A fact is no plain JSON data, or something is left in the model that a folder cannot hold.
    """
    structure = transforms_of(model)
    passing = [name for name, _ in structure if name not in SHAPES]
    if passing:
        raise ValueError(
            f"Expected a finished model to save but it still has {', '.join(dict.fromkeys(passing))}; shrink it first "
            "with lit_compress.pruning.shrink.shrink(model)."
        )
    manifest = {
        **facts,
        "schema": SCHEMA,
        "library": f"lit-compress {lit_compress.__version__}",
        "base_class": type(model).__name__,
        "transforms": structure,
    }
    try:
        json.dumps(manifest, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"Expected plain JSON data in the manifest of the model folder but got {error}; "
            "pass numbers, strings, lists and dictionaries, and no NaN."
        ) from error
    return manifest


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write a manifest into a model folder."""
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")


def read_manifest(folder: str | Path) -> dict[str, Any] | None:
    """Read the manifest of a model folder.

    Args:
        folder: A model folder.

    Returns:
        The manifest; ``None`` where the folder has none, as one that stock transformers wrote.

    Raises:
        ValueError: The manifest is corrupt, from a newer version, or needs parts that are not known here.
    """
    path = Path(folder) / MANIFEST
    if not path.is_file():
        return None
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        schema, transforms, base = manifest["schema"], manifest["transforms"], manifest["base_class"]
        names = [name for name, _ in transforms]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"Expected a manifest that lit-compress wrote in {path} but it cannot be read "
            f"({type(error).__name__}: {error}); the file is corrupt: save the model folder again."
        ) from error
    if schema != SCHEMA:
        raise ValueError(
            f"Expected manifest schema {SCHEMA} in {path} but got {schema!r} (written by "
            f"{manifest.get('library')}, this is {lit_compress.__version__}); "
            "upgrade with pip install -U lit-compress."
        )
    unknown = [name for name in names if name not in TRANSFORMS]
    if unknown:
        raise ValueError(
            f"Expected transforms that lit-compress {lit_compress.__version__} knows in {path} but got "
            f"{', '.join(map(repr, unknown))}; upgrade with pip install -U lit-compress."
        )
    if not isinstance(base, str):
        raise ValueError(
            f"Expected the name of a class as base_class in {path} but got {base!r}; "
            "save the model folder again."
        )
    return manifest


def model_class(manifest: Mapping[str, Any], folder: str) -> type[PreTrainedModel]:
    """Return the class that a manifest names.

    Args:
        manifest: The manifest.
        folder: Its folder, for the message.

    Raises:
        ValueError: Transformers has no model class of that name.
    """
    name = manifest["base_class"]
    found = getattr(transformers, name, None)
    if not (isinstance(found, type) and issubclass(found, PreTrainedModel)):
        raise ValueError(
            f"Expected a model class of transformers as base_class in {Path(folder) / MANIFEST} but got "
            f"{name!r}, which transformers {transformers.__version__} does not have; use the version that "
            "wrote the folder."
        )
    return found


def is_rounded(folder: str | Path) -> bool:
    """Whether a model folder holds weights as integers, or activations that are rounded."""
    manifest = read_manifest(str(folder)) or {}
    return any(name in ROUNDED for name, _ in manifest.get("transforms", []))
