"""The data and the task of a run, read from its configuration."""

from __future__ import annotations

import importlib
from argparse import ArgumentError
from pathlib import Path
from typing import Any

import yaml

from lit_compress.benchmark.quality import Texts
from lit_compress.errors import check_yaml, tidy
from lit_compress.models.manifest import read_manifest

FILE_NAME = "config.yaml"
#: Fact of a manifest: where the file with the data lies, from the model folder on, so that both may move together.
DATA_FILE = "data_file"


def run_folder(model: Path) -> Path:
    """Return the run folder that a model folder lies in; the folder itself where it lies in none."""
    return model.parent if (model.parent / FILE_NAME).is_file() else model


def known_data(model: Path) -> Path | None:
    """Return the file that describes the data of a model.

    Args:
        model: Model folder.

    Returns:
        The file that a verb without training read, where it is still there; else the ``config.yaml`` of the folder's
        run; ``None`` where there is neither.
    """
    named = (read_manifest(model) or {}).get(DATA_FILE)
    file = model.resolve() / named if named is not None else None
    if file is not None and file.is_file():
        return file
    run = run_folder(model)
    return run / FILE_NAME if run != model else None


def data_file(model: Path, data: str | None, purpose: str) -> Path:
    """Return the file that describes the labelled texts of a model.

    Args:
        model: Model folder.
        data: YAML file that the user gave; see :func:`known_data` where ``None``.
        purpose: What they are needed for, for the message.

    Raises:
        ValueError: None was given, and the folder leads to none.
    """
    if data is not None:
        return Path(data)
    found = known_data(model)
    if found is None:
        raise ValueError(
            f"Expected labelled texts to {purpose} but there is no config.yaml beside {model}; give a YAML "
            "file with a data section with --data, such as a recipe or the config.yaml of a run."
        )
    return found


def read_config(path: Path) -> dict[str, Any]:
    """Return a configuration as plain data.

    Raises:
        ValueError: The file is missing or not YAML.
    """
    check_yaml([str(path)], "YAML file with a data section", "correct the path (--data)")
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def texts_of(config: dict[str, Any], where: Path, split: str) -> Texts:
    """Build the data and the task that a configuration describes.

    Args:
        config: A configuration with a ``data`` section, such as that of a run; its ``model`` section tells the
            task, otherwise the labels do.
        where: The file it comes from, for messages.
        split: Split to measure on.

    Returns:
        The labelled texts.

    Raises:
        ValueError: There is no data section, it does not parse, or the split is missing or empty.
    """
    import lightning.pytorch as pl
    from jsonargparse import ArgumentParser

    from lit_compress.modules.tasks import Classification, Regression, Task

    if "data" not in config:
        raise ValueError(
            f"Expected a data section in {where} but got only {', '.join(map(str, config))}; give the config.yaml "
            "of a run, or a recipe."
        )
    # So that the configuration may name the classes without their path.
    importlib.import_module("lit_compress.data")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(pl.LightningDataModule, "data", required=True)
    parser.add_subclass_arguments(Task, "task", required=False)
    task = ((config.get("model") or {}).get("init_args") or {}).get("task")
    given = {"data": config["data"], **({"task": task} if task else {})}
    try:
        built = parser.instantiate_classes(parser.parse_object(given))
    except (ArgumentError, ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"Expected a data section that can be built in {where} but got: {tidy(str(error))}"
        ) from error
    default = Regression() if built.data.is_regression else Classification()
    return Texts(built.data, split, built.get("task") or default)
