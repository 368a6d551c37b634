"""What a command line asks for, found and checked before anything runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lit_compress.auto.routes import find_routes
from lit_compress.benchmark.candidates import Models, find_models
from lit_compress.benchmark.folders import local_folder, weight_fingerprint
from lit_compress.benchmark.protocol import BASELINE_RUNTIME
from lit_compress.benchmark.quality import Texts
from lit_compress.benchmark.run_config import data_file, read_config
from lit_compress.benchmark.runtimes import RUNTIMES, runtime
from lit_compress.compress.wish import Wish
from lit_compress.models.manifest import is_rounded
from lit_compress.models.names import resolve_model

#: Whether the vocabulary is cut down to the training texts.
VOCABULARIES = ("auto", "keep", "trim")


@dataclass(frozen=True)
class Request:
    """A request that can be worked on.

    Args:
        original: The model folder.
        data: The ``data`` section.
        wish: What is wanted.
        routes: Runtimes of integers to measure in.
        models: The original, as the benchmark knows it.
        texts: The labelled texts of the validation split.
        trims: Whether the vocabulary is cut down.
    """

    original: Path
    data: dict[str, Any]
    wish: Wish
    routes: list[str]
    models: Models
    texts: Texts
    trims: bool

    def to_dict(self) -> dict[str, Any]:
        """Return what another run in the same folder has to agree with, ready for JSON."""
        return {
            "wish": self.wish.to_dict(),
            "model": weight_fingerprint(self.original),
            "data": self.texts.describe(),
            "runtimes": self.routes,
            "vocabulary": "trim" if self.trims else "keep",
        }


def make_request(
    folder: str, wish: Wish, data: str | None, routes: list[str] | None, vocabulary: str
) -> Request:
    """Find and check what a command line names.

    Args:
        folder: Model folder, hub name or ``package:NAME``.
        wish: What is wanted.
        data: YAML file with a ``data`` section; the ``config.yaml`` of the folder's run where ``None``.
        routes: Runtimes to measure in; all of integers that are installed where ``None``.
        vocabulary: One of :data:`VOCABULARIES`; ``auto`` trims where a size is asked for.

    Raises:
        ValueError: Something cannot be used.
        ImportError: No runtime of integers is installed.
    """
    if vocabulary not in VOCABULARIES:
        raise ValueError(
            f"Expected --vocabulary to be one of {', '.join(VOCABULARIES)} but got {vocabulary!r}."
        )
    place = local_folder(resolve_model(folder))
    if is_rounded(place):
        raise ValueError(
            f"Expected a model with ordinary weights to begin with but {folder} is rounded already; give the model "
            "that it was made from."
        )
    section, where = _data_section(place, data)
    models = find_models([str(place)], str(place), [], str(where), "validation")
    assert models.texts is not None
    if not models.texts.datamodule.has_split("train"):
        raise ValueError(f"Expected a train split in {where} to train with but there is none; name its file.")
    trims = vocabulary == "trim" or (vocabulary == "auto" and wish.size_mb is not None)
    return Request(place, section, wish, _routes(routes), models, models.texts, trims)


def write_data(path: Path, section: dict[str, Any], **changes: Any) -> Path:
    """Write a ``data`` section as a file of its own.

    Args:
        path: The file.
        section: The section.
        **changes: Arguments of the data module that are other ones here.
    """
    arguments = {**section.get("init_args", {}), **changes}
    path.parent.mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump({"data": {**section, "init_args": arguments}}, sort_keys=False, allow_unicode=True)
    path.write_text(text, encoding="utf-8")
    return path


def _data_section(place: Path, data: str | None) -> tuple[dict[str, Any], Path]:
    where = data_file(place, data, "train and judge with")
    section = read_config(where).get("data")
    if not isinstance(section, dict) or "class_path" not in section:
        raise ValueError(f"Expected a data section with a class_path in {where} but there is none; add it.")
    return section, where


def _routes(names: list[str] | None) -> list[str]:
    """Return the runtimes that compute with the integers that were trained."""
    integers = [name for name in RUNTIMES if runtime(name).rounded]
    other = [name for name in names or [] if name not in integers]
    if other:
        raise ValueError(
            f"Expected runtimes that compute with integers ({', '.join(integers)}) but got {', '.join(other)}."
        )
    usable, missing = find_routes(names or integers)
    found = [name for name in usable if name != BASELINE_RUNTIME]
    if not found:
        raise ImportError(next(iter(missing)))
    return found
