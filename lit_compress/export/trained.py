"""What the exports of models that were trained with rounding have in common: matrices are found by what they hold."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from transformers import PreTrainedModel

from lit_compress.quantization.grids import StoredInput, StoredMatrix

Floats = npt.NDArray[np.float32]


class Product(NamedTuple):
    """A matrix of the model with what its product reads.

    Args:
        name: Name of the matrix.
        stored: Its integers.
        source: How its input is rounded; ``None`` where it is not.
    """

    name: str
    stored: StoredMatrix
    source: StoredInput | None


def by_content(
    plain: PreTrainedModel, matrices: dict[str, StoredMatrix], inputs: dict[str, StoredInput], runtime: str
) -> tuple[dict[str, Product], dict[str, Product]]:
    """Return the matrices of products, and the tables of embeddings, by what they hold, see :func:`digest`.

    Args:
        plain: The model without rounding, see :func:`~lit_compress.quantization.grids.take_apart`.
        matrices: Its matrices by name.
        inputs: How modules round what they read, by their names.
        runtime: Name of the runtime, for the message.

    Raises:
        ValueError: Integer products of runtimes cannot have such a scheme.
    """
    products: dict[str, Product] = {}
    tables: dict[str, Product] = {}
    for name, stored in matrices.items():
        module = name.rpartition(".")[0]
        source = inputs.get(module)
        check_scheme(product := Product(name, stored, source), runtime)
        if source is not None and source.scheme.symmetric:
            raise ValueError(
                f"Expected activations with a zero point for {runtime} but the input of {name} has {source.scheme}; "
                "train with activations: {symmetric: false, per: tensor}."
            )
        values = plain.get_parameter(name).detach()
        outputs_first = values if stored.output_axis == 0 else values.t()
        kind = tables if hasattr(plain.get_submodule(module), "num_embeddings") else products
        kind[digest(outputs_first.numpy())] = product
    return products, tables


def check_scheme(product: Product, runtime: str) -> None:
    """Refuse a matrix in groups.

    Raises:
        ValueError: It shares scales in groups of inputs.
    """
    if product.stored.scheme.per == "group":
        raise ValueError(
            f"Expected one scale per output channel, or per tensor, for integer products of {runtime} but "
            f"{product.name} has {product.stored.scheme}; train with weights: {{per: channel}}."
        )


def refuse_dynamic(inputs: Mapping[str, StoredInput], runtime: str) -> None:
    """Refuse activations whose ranges are those of the values at hand.

    Args:
        inputs: How modules round what they read, by their names.
        runtime: Name of the runtime, for the message.

    Raises:
        ValueError: There are some.
    """
    for name, source in inputs.items():
        if source.grid is None:
            raise ValueError(
                f"Expected activations with fixed ranges for {runtime} but the input of {name} has dynamic ones; "
                "train with ranges: moving_average, or export to onnx."
            )


def digest(matrix: Floats) -> str:
    """Return what tells a matrix, outputs first, from others."""
    contiguous = np.ascontiguousarray(matrix, dtype=np.float32)
    return f"{contiguous.shape} {hashlib.sha256(contiguous.tobytes()).hexdigest()}"


def refuse_missing(missing: Iterable[str]) -> None:
    """Refuse a graph that does not hold a matrix: it would be computed in float without a word.

    Raises:
        ValueError: There is a name.
    """
    for name in sorted(missing):
        raise ValueError(
            f"Expected to find the matrix {name} in the graph of the model but it is not there as it is; this "
            "architecture cannot be exported with its integers."
        )


def per_output(rows: Floats, outputs: int) -> Floats:
    """Return numbers of rows as one per output, ``(outputs,)``."""
    return np.broadcast_to(rows[:, 0], (outputs,)) if len(rows) == 1 else rows[:, 0]
