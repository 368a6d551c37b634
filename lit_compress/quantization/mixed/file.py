"""The file that says how each matrix is rounded: ``lit-compress sensitivity`` writes it, ``mixed`` names it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import nn

from lit_compress.quantization.choice import choose
from lit_compress.quantization.scheme import Scheme

_MATRICES = "matrices"


def write_mixed(path: str | Path, schemes: Mapping[str, Scheme], facts: Mapping[str, Any]) -> None:
    """Write the scheme of every matrix.

    Args:
        path: The file.
        schemes: By the name of the matrix below the model.
        facts: What else to keep, plain JSON data: it is for people.
    """
    content = {**facts, _MATRICES: {name: asdict(scheme) for name, scheme in schemes.items()}}
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def read_measured(path: str | Path) -> dict[str, Any]:
    """Return what a file says of how its model was measured.

    Args:
        path: What ``lit-compress sensitivity`` wrote.

    Returns:
        ``eigenvalues`` by part, ``share`` and ``seed`` of the subsets, and the ``seconds`` that it took.

    Raises:
        ValueError: There is no such file, or it does not say so.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        values = {
            part: [float(value) for value in one["eigenvalues"]] for part, one in content["parts"].items()
        }
        if not values or not all(values.values()):
            raise KeyError("eigenvalues")
        return {"eigenvalues": values, **{name: content[name] for name in ("share", "seed", "seconds")}}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            f"Expected a file that lit-compress sensitivity wrote at --measured {path} but got {type(error).__name__}: "
            f"{error}; name another one, or measure anew."
        ) from error


def read_mixed(path: str | Path, model: nn.Module) -> dict[str, Scheme]:
    """Return the scheme of every matrix that a file names.

    Args:
        path: What :func:`write_mixed` wrote.
        model: The model that is to be rounded.

    Raises:
        ValueError: There is no such file, it does not hold schemes, or they are of another model.
    """
    file = Path(path)
    if not file.is_file():
        raise ValueError(
            f"Expected a file with the bits of every matrix at mixed={path} but there is none; write it with "
            f"lit-compress sensitivity FOLDER --average-bits 3 --out {path}."
        )
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        schemes = {str(name): Scheme(**value) for name, value in content[_MATRICES].items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            f"Expected JSON with {_MATRICES}: {{name: {{bits, symmetric, per, group_size}}}} in {path} but got: "
            f"{error!s}; write it anew with lit-compress sensitivity."
        ) from error
    if not schemes:
        raise ValueError(
            f"Expected matrices in {path} but it names none; write it anew with lit-compress sensitivity."
        )
    known = {f"{name}.weight" for names in choose(model, None, ()) for name in names}
    strange = [name for name in schemes if name not in known]
    if strange:
        raise ValueError(
            f"Expected the projections and embeddings of this model in {path} but it has no {strange[0]}; write the "
            "file for this model with lit-compress sensitivity."
        )
    return schemes
