"""What the exports of models that were trained with rounding have in common: matrices are found by what they hold."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from transformers import PreTrainedModel

from lit_compress.models.manifest import read_manifest
from lit_compress.models.transforms import ROUNDED
from lit_compress.quantization.clustering.codebook_weights import CODEBOOK_WEIGHTS
from lit_compress.quantization.grids import StoredInput, StoredMatrix
from lit_compress.quantization.inputs import INPUT_QUANTIZERS
from lit_compress.quantization.packed import PACKED_WEIGHTS
from lit_compress.quantization.scheme import Scheme

# Precisions that round weights themselves.
_ROUNDS = ("int8", "int8-static", "q8_0", "q4_0")
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

    @property
    def in_float(self) -> bool:
        """Whether it is multiplied in float32: its input is, or sums of integers would need a scale for each group."""
        return self.source is None or self.stored.scheme.per == "group"


class Matrices:
    """The matrices of a model by what they hold, to be found in its graph.

    Blocks that start as copies hold the same and may read otherwise: they are taken in their order in the model, which
    is that of the graph.
    """

    def __init__(self) -> None:
        self._known: dict[str, list[Product]] = {}
        self._taken: dict[str, int] = {}

    def add(self, values: Floats, product: Product) -> None:
        """Add a matrix.

        Args:
            values: What it holds, outputs first.
            product: The matrix; left out where another one holds and reads the same.
        """
        known = self._known.setdefault(digest(values), [])
        if not any(_alike(product, other) for other in known):
            known.append(product)

    def take(self, values: Floats | None) -> Product | None:
        """Return the next of the matrices that hold some values, ``None`` where there is none.

        Args:
            values: Outputs first, or nothing.

        Raises:
            ValueError: Matrices hold the same and read otherwise, and the graph multiplies more often than there are.
        """
        if values is None:
            return None
        key = digest(values)
        known = self._known.get(key, [])
        place = self._taken[key] = self._taken.get(key, -1) + 1
        if len(known) <= 1:  # a layer that is used again has one matrix for all of its uses
            return known[0] if known else None
        if place >= len(known):
            raise ValueError(
                f"Expected a product for each of {' and '.join(product.name for product in known)}, which hold the "
                "same values and round what they read otherwise, but the graph has more; this model cannot be exported "
                "with its integers."
            )
        return known[place]

    def names(self) -> set[str]:
        """Return the names of all matrices that are to be found."""
        return {product.name for known in self._known.values() for product in known}


def _alike(one: Product, other: Product) -> bool:
    """Whether two matrices with the same values are rounded, and read, alike."""
    grids = [(one.stored.grid, other.stored.grid)]
    if one.source is not None and other.source is not None:
        if (one.source.grid is None) != (other.source.grid is None):
            return False
        if one.source.grid is not None and other.source.grid is not None:
            grids.append((one.source.grid, other.source.grid))
    schemes = [(p.stored.scheme, p.source and p.source.scheme) for p in (one, other)]
    return schemes[0] == schemes[1] and all(
        torch.equal(a, b) for pair in grids for a, b in zip(*pair, strict=True)
    )


def by_content(
    plain: PreTrainedModel, matrices: dict[str, StoredMatrix], inputs: dict[str, StoredInput], runtime: str
) -> tuple[Matrices, Matrices]:
    """Return the matrices of products, and the tables of embeddings, by what they hold.

    Args:
        plain: The model without rounding, see :func:`~lit_compress.quantization.grids.take_apart`.
        matrices: Its matrices by name.
        inputs: How modules round what they read, by their names.
        runtime: Name of the runtime, for the message.

    Raises:
        ValueError: Integer products of runtimes cannot have such a scheme.
    """
    products, tables = Matrices(), Matrices()
    for name, stored in matrices.items():
        module = name.rpartition(".")[0]
        source = inputs.get(module)
        product = Product(name, stored, source)
        if source is not None and source.scheme.symmetric:
            raise ValueError(
                f"Expected activations with a zero point for {runtime} but the input of {name} has {source.scheme}; "
                "train with activations: {symmetric: false, per: tensor}."
            )
        values = plain.get_parameter(name).detach()
        turned = values if stored.output_axis == 0 else values.t()
        is_table = hasattr(plain.get_submodule(module), "num_embeddings")
        (tables if is_table else products).add(turned.numpy(), product)
    return products, tables


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
                "train with ranges: moving_average, quantize with --activations static, or export to onnx."
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


def per_group(rows: Floats, outputs: int) -> Floats:
    """Return numbers of rows as one per output and group of inputs, ``(outputs, groups)``."""
    return rows.reshape(outputs, -1) if len(rows) >= outputs else np.broadcast_to(rows, (outputs, 1))


def outputs_first(stored: StoredMatrix) -> npt.NDArray[np.int16]:
    """Return the integers of a matrix, ``(outputs, inputs)``."""
    return (stored.integers if stored.output_axis == 0 else stored.integers.t()).numpy()


def notes_of(folder: Path, runtime: str) -> list[str]:
    """Return where a file does not do with weights what their bits promise; nothing for a model that rounds nothing.

    Args:
        folder: Model folder.
        runtime: Name of the runtime.
    """
    transforms = (read_manifest(folder) or {}).get("transforms", [])
    rounded = {
        module for name, found in transforms if name == INPUT_QUANTIZERS for module in found["modules"]
    }
    schemes = {
        name: Scheme(**scheme)
        for kind, found in transforms
        if kind == PACKED_WEIGHTS
        for name, scheme in found["tensors"].items()
    }
    notes = []
    kinds = {name for name, _ in transforms}
    if CODEBOOK_WEIGHTS in kinds and kinds.isdisjoint(ROUNDED) and runtime.partition("-")[2] in _ROUNDS:
        notes.append(
            f"Weights in codebooks are rounded again: {runtime} has integers of its own, and not the values of the "
            "codebooks; a precision of floats keeps them."
        )
    if any(scheme.per == "group" for scheme in schemes.values()):
        notes.append("Weights with scales per group are stored as integers and multiplied in float32.")
    small = {
        scheme.bits
        for name, scheme in schemes.items()
        if scheme.per != "group" and scheme.bits <= 4 and name.rpartition(".")[0] in rounded
    }
    if runtime == "openvino-int8" and small:
        bits = " and ".join(map(str, sorted(small)))
        notes.append(f"Weights of {bits} bits take a byte each: OpenVINO multiplies no smaller integers.")
    return notes
