"""LiteRT files of models that were trained with rounding: the same integers, the same ranges, in integer arithmetic.

LiteRT's fast product of float activations with int8 weights rounds every row of the activations to the range of its
own values. A row that is cut off at the ends of the trained range, and has both ends in it, is rounded exactly as in
training: two columns hold the ends, and their weights are zero.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from lit_compress.benchmark.runtimes.litert import check_litert
from lit_compress.export.first_token import last_attention
from lit_compress.export.litert import convert, graph_lengths, write_checked
from lit_compress.export.litert_integers import IntegerGraphs
from lit_compress.export.single_text import Int8Embedding, longest_text
from lit_compress.export.trained import Product, refuse_dynamic
from lit_compress.quantization.grids import StoredInput, take_apart

# See onnx_trained. A MiniLM whose normalizations were changed by a millionth differs from itself by 3 to 19 % on two
# random texts of 40 tokens, whose few logits are the worst of all; its file by 15 %. Real texts are compared too.
_TOLERANCE = 0.25
# How many numbers LiteRT rounds to.
_LEVELS = 256


def export_trained_litert(model: PreTrainedModel, path: str | Path) -> float:
    """Write a text classifier that was trained with rounding as a LiteRT file that computes with its integers.

    Matrices are int8 constants with a scale per output, or int4 where no integer needs more; tables are int8.

    Args:
        model: What :func:`lit_compress.load` gives: 8 or fewer bits for weights, per tensor or output channel, and
            activations with fixed ranges.
        path: The file, see :func:`~lit_compress.export.litert.export_litert`; it is there only after it has passed
            the parity check against the rounded model.

    Returns:
        The error that :func:`~lit_compress.export.parity.check_parity` found.

    Raises:
        ImportError: A library is missing.
        ValueError: LiteRT has no integer product for a scheme, or a matrix is not found in the graph.
        OSError: The file could not be written.
    """
    check_litert()
    model = copy.deepcopy(model).cpu().float().eval()
    plain, matrices, inputs = take_apart(model)
    where = last_attention(model)
    refuse_dynamic(inputs, "LiteRT")
    products: dict[str, Product] = {}
    for name, stored in matrices.items():
        path_of_module = name.rpartition(".")[0]
        product = Product(name, stored, inputs.get(path_of_module))
        _check_integers(product)
        module = plain.get_submodule(path_of_module)
        if isinstance(module, nn.Embedding):
            plain.set_submodule(path_of_module, _table(product))
        else:
            products[name] = product
            plain.set_submodule(path_of_module, RoundedLinear(module, product))
    wanted = {name: plain.get_parameter(name).detach().numpy() for name in products}
    lengths = graph_lengths(longest_text(model))

    def make() -> bytes:
        return IntegerGraphs(convert(plain, lengths, where), products, wanted).rounded()

    return write_checked(make, Path(path), model, lengths, _TOLERANCE, "the LiteRT file of the rounded model")


class RoundedLinear(nn.Module):
    """A projection whose input is cut off at the ends of its range, which two further columns hold.

    Args:
        full: A ``Linear`` or ``Conv1D`` module with the values of the integers.
        product: How its input is rounded.
    """

    ends: Tensor | None

    def __init__(self, full: Any, product: Product) -> None:
        super().__init__()
        weight: Tensor = full.weight.detach()
        outputs_first = weight.t() if isinstance(full, Conv1D) else weight
        largest = float(torch.finfo(torch.float32).max)
        self.low, self.high, columns = -largest, largest, 0
        ends = None
        if product.source is not None:
            self.low, self.high, ends = _range(product.source, outputs_first.shape[1])
            columns = len(ends)
        self.register_buffer("ends", ends)
        self.weight = nn.Parameter(functional.pad(outputs_first, (0, columns)).contiguous(), False)
        self.bias: nn.Parameter | None = full.bias

    def forward(self, values: Tensor) -> Tensor:
        """Return the outputs for inputs of shape (…, inputs)."""
        # Cutting off changes nothing where there is no range, but without it the converter would multiply the weights
        # by those of the normalization before.
        values = values.clamp(self.low, self.high)
        if self.ends is not None:
            values = torch.cat([values, self.ends.expand(*values.shape[:-1], -1)], -1)
        return functional.linear(values, self.weight, self.bias)


def _range(source: StoredInput, inputs: int) -> tuple[float, float, Tensor]:
    """Return where activations are cut off, and the values that make LiteRT round them to their own grid."""
    assert source.grid is not None  # asked before
    scale, zero = float(source.grid.scale[0, 0]), float(source.grid.zero_point[0, 0])
    below = _LEVELS / 2 if source.scheme.symmetric else zero
    ends = [-below * scale, (_LEVELS - 1 - below) * scale]
    # A byte holds two integers of four bits: an even number of columns.
    columns = torch.tensor([*ends, *ends[:1] * (inputs % 2)])
    return (source.scheme.lowest - zero) * scale, (source.scheme.highest - zero) * scale, columns


def _check_integers(product: Product) -> None:
    scheme = product.stored.scheme
    if scheme.per == "group":
        raise ValueError(
            f"Expected one scale per output channel, or per tensor, for products of LiteRT but {product.name} has "
            f"{scheme}; train with weights: {{per: channel}}, or export to onnx or openvino."
        )
    if scheme.bits == 8 and not scheme.symmetric:
        raise ValueError(
            f"Expected 8 bits around zero, or fewer bits, for weights in LiteRT but {product.name} has {scheme}; train "
            "with weights: {symmetric: true}."
        )


def _table(product: Product) -> Int8Embedding:
    grid = product.stored.grid
    # Seven bits with a zero point, minus the zero point, fit into eight.
    integers = product.stored.integers - grid.zero_point.to(torch.int16)
    return Int8Embedding(integers.to(torch.int8), grid.scale.expand(len(integers), 1).contiguous())
