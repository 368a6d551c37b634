"""The options of ``lit-compress quantize`` as a YAML file."""

from __future__ import annotations

from argparse import ArgumentError
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any, get_type_hints

import yaml

from lit_compress.errors import check_yaml
from lit_compress.quantization.command import quantize_folder
from lit_compress.quantization.methods import method_for

#: Keys that are for the verb, whatever the method; the places are given on the command line.
_OF_THE_VERB = ("method", "data", "length")


def is_quantize_recipe(path: str | Path) -> bool:
    """Whether a YAML file has the options of ``lit-compress quantize``, and is not for ``lit-compress fit``.

    Raises:
        ValueError: The file is missing or not YAML.
    """
    content = _read(path)
    return "method" in content and "model" not in content


def refuse_quantize_recipes(paths: Iterable[str], verb: str) -> None:
    """Refuse recipes that are not for training.

    Args:
        paths: YAML files.
        verb: What they were given to.

    Raises:
        ValueError: One has the options of ``lit-compress quantize``.
    """
    for path in paths:
        if is_quantize_recipe(path):
            raise ValueError(
                f"Expected a recipe for lit-compress {verb} but {path} rounds a finished model; run lit-compress "
                f"quantize --config {path} FOLDER --out DIR."
            )


def read_quantize_recipe(path: str | Path) -> dict[str, Any]:
    """Return the options that a YAML file gives.

    Args:
        path: A mapping of ``method``, of options of that method (with ``_`` in their names), and of ``data`` and
            ``length`` as on the command line.

    Raises:
        ValueError: The file is missing or not YAML, a key is no option of the method, or a value is not of its type.
    """
    content = _read(path)
    if not is_quantize_recipe(path):
        raise ValueError(
            f"Expected a method in {path}, such as method: gptq, but got {', '.join(map(str, content))}; recipes for "
            "lit-compress fit are not for lit-compress quantize, see lit-compress recipes ls."
        )
    try:
        types = _types(content)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    for key, value in content.items():
        if not _fits(value, types[key]):
            wanted = str(getattr(types[key], "__name__", types[key]))
            raise ValueError(f"Expected {wanted} as {key} in {path} but got {value!r}; correct the file.")
    return content


def _read(path: str | Path) -> dict[str, Any]:
    check_yaml([str(path)])
    content: dict[str, Any] = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    return content


def _types(content: dict[str, Any]) -> dict[str, Any]:
    """Return the type of every option; refuse those that the method does not take."""
    options = {key: value for key, value in content.items() if key not in _OF_THE_VERB}
    method = method_for(content["method"], options)
    of_verb = {key: kind for key, kind in get_type_hints(quantize_folder).items() if key in _OF_THE_VERB}
    return get_type_hints(method.func if isinstance(method, partial) else method) | of_verb


def _fits(value: Any, kind: Any) -> bool:
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--value", type=kind)
    try:
        parser.parse_object({"value": value})
    except ArgumentError:
        return False
    return True
