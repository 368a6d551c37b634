"""What a model folder tells without its weights being loaded: place, name, method, bytes, digest."""

from __future__ import annotations

import hashlib
from pathlib import Path

from lit_compress.models.manifest import read_manifest
from lit_compress.models.names import resolve_model


def local_folder(source: str) -> Path:
    """Return the folder on this machine that holds a model.

    Args:
        source: Model folder, ``package:NAME``, or the name of a hub model that was downloaded before.

    Returns:
        The folder with ``config.json`` and the weights.

    Raises:
        ValueError: The model is not on this machine.
    """
    resolved = resolve_model(source)
    if Path(resolved).is_dir():
        return Path(resolved)
    from transformers.utils import cached_file

    try:
        config = cached_file(resolved, "config.json", local_files_only=True)
    except OSError as error:
        raise ValueError(
            f"Expected the hub model {source!r} to be downloaded already but it is not in the cache; "
            "load it once with from_pretrained, or give a model folder."
        ) from error
    return Path(str(config)).parent


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files of a model folder, in order."""
    return sorted(folder.glob("*.safetensors"))


def weight_bytes(folder: Path) -> int:
    """Return the bytes of the weights on disk."""
    return sum(path.stat().st_size for path in weight_files(folder))


def weight_fingerprint(folder: Path) -> str:
    """Return a short digest of the weights: equal for copies of a model, whatever they are called."""
    digest = hashlib.sha256()
    for path in weight_files(folder):
        with path.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()[:16]


def display_name(source: str) -> str:
    """Return a short name for a model: ``teacher`` for ``runs/teacher/model``, hub names as they are."""
    path = Path(source)
    if not path.is_dir():
        return source
    path = path.resolve()
    return path.parent.name if path.name == "model" else path.name


def beside(source: str, suffix: str) -> Path:
    """Return the folder for what a command makes of a model: beside it, or here where it is no folder.

    Args:
        source: Model folder, hub name or ``package:NAME``.
        suffix: What its name is followed by, such as ``"-auto"``.
    """
    path = Path(source).expanduser()
    if not path.is_dir():
        return Path(f"{display_name(source).split('/')[-1]}{suffix}")
    place = path.resolve()
    return place.with_name(f"{place.name}{suffix}")


def recorded_method(source: str, default: str) -> str:
    """Return the method that a model folder's manifest names, ``default`` where it names none."""
    manifest = read_manifest(source)
    return (manifest or {}).get("method") or default
