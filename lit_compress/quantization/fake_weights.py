"""Weights that are rounded in every forward pass, as parametrizations: the optimizer goes on with what they stand for.

A parametrization rounds what all others leave: whoever comes first, masks and gates are applied to the weight before
it is rounded, and what they set to zero stays zero.

Where every row of an embedding is rounded by itself, only the rows that were looked up are, behind the look-up: the
same numbers and gradients, without the seventh of a training step that rounding the whole table took.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lit_compress.models.anatomy.family import projection_axes
from lit_compress.models.parametrized import register, step_on, steps_of
from lit_compress.models.transforms import record
from lit_compress.quantization.grid import Grid, from_rows, grid_of, range_of, rows_of, storable
from lit_compress.quantization.scheme import Scheme
from lit_compress.quantization.stage import Staged
from lit_compress.quantization.straight_through import fake_quantize, fake_quantize_learned, first_step

# What shares a scale within a row.
_ROW_BY_ROW = ("channel", "group")
#: Name of the transform.
FAKE_WEIGHTS = "fake_weights"


class FakeWeight(Staged):
    """Parametrization of a matrix: rounds it to the grid that covers the values that it has at the moment.

    Args:
        shape: Shape of the matrix, as it is stored.
        scheme: How to round.
        output_axis: Axis along which the outputs lie.
        learned: Whether the step is a parameter (LSQ, arXiv:1902.08153), for symmetric schemes; its first value is
            taken from the weights when rounding begins.

    Raises:
        ValueError: Groups do not divide the inputs, or the step of a scheme with a zero point is to be learned.
    """

    #: Masks and gates of the same tensor come before, see :func:`~lit_compress.models.parametrized.register`.
    comes_last = True

    def __init__(
        self, shape: torch.Size, scheme: Scheme, output_axis: int = 0, learned: bool = False
    ) -> None:
        super().__init__()
        if learned and not scheme.symmetric:
            raise ValueError(
                f"Expected a symmetric scheme for learned steps but got {scheme}; set symmetric: true."
            )
        self.scheme, self.output_axis = scheme, output_axis
        #: Whether rows are rounded when they have been looked up, and the table stays as it is.
        self.behind_lookup = False
        #: Weights in the matrix.
        self.size = shape.numel()
        count = len(rows_of(torch.empty(shape, device="meta"), scheme, output_axis))
        #: Distance of neighbours, ``(rows, 1)``; ``None`` where it is not learned.
        self.step = nn.Parameter(torch.ones(count, 1)) if learned else None

    def begin(self, weight: Tensor) -> None:
        """Take the first step of learning from the weight as it is before rounding."""
        if self.step is not None:
            rows = rows_of(weight.detach(), self.scheme, self.output_axis)
            with torch.no_grad():
                self.step.copy_(first_step(rows, self.scheme))

    def grid(self, weight: Tensor) -> Grid:
        """Return the grid to which a weight, as it is before rounding, is rounded; its scales can be stored."""
        rows = rows_of(weight.detach().float(), self.scheme, self.output_axis)
        if self.step is None:
            return grid_of(*range_of(rows, self.scheme), self.scheme)
        step = storable(self.step.detach().abs(), self.scheme)
        return Grid(step, torch.zeros_like(step))

    def forward(self, weight: Tensor) -> Tensor:
        """Return the weight on its grid; as it is where rounding has not begun, or follows the look-up."""
        if not self.rounds or self.behind_lookup:
            return touched(weight, self.step)
        rows = rows_of(weight, self.scheme, self.output_axis)
        if self.step is not None:
            step = self.step.abs()
            step = step + (storable(step, self.scheme) - step).detach()
            rounded = fake_quantize_learned(rows, step, self.scheme)
        else:
            rounded = fake_quantize(rows, self.grid(weight), self.scheme)
        return from_rows(rounded, weight, self.scheme, self.output_axis)

    def looked_up(self, rows: Tensor) -> Tensor:
        """Return rows of a table on its grid, ``(…, columns)``; as they are where rounding has not begun."""
        if not self.rounds:
            return rows
        found = rows_of(rows.reshape(-1, rows.shape[-1]), self.scheme)
        return fake_quantize(found, self.grid(rows.reshape(-1, rows.shape[-1])), self.scheme).view(rows.shape)


def touched(weight: Tensor, idle: Tensor | None) -> Tensor:
    """Return a weight as it is, through which a parameter that does nothing yet gets a zero as its gradient.

    Several processes wait for the gradients of all parameters, and stop where one gets none.

    Args:
        weight: The weight.
        idle: The parameter.
    """
    if idle is None or not torch.is_grad_enabled():
        return weight
    return weight + 0 * idle.sum().to(weight.dtype)


def apply_fake_weights(
    model: nn.Module,
    tensors: Sequence[str],
    scheme: Mapping[str, Any],
    learned: bool = False,
    part: str = "weight",
) -> None:
    """Round matrices in every forward pass, from the stage on that says so.

    Args:
        model: Changed in place, once.
        tensors: Names of the matrices below the model.
        scheme: Arguments of :class:`~lit_compress.quantization.scheme.Scheme`.
        learned: Whether steps are learned.
        part: Name of this set, where a model has several.

    Raises:
        ValueError: A matrix is rounded already, or cannot be rounded like this.
    """
    arguments = {"tensors": list(tensors), "scheme": dict(scheme), "learned": learned, "part": part}
    if not record(model, FAKE_WEIGHTS, arguments):
        return
    for name in tensors:
        path, _, tensor = name.rpartition(".")
        try:
            _register(model.get_submodule(path), tensor, Scheme(**scheme), learned)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error


def _register(module: nn.Module, tensor: str, scheme: Scheme, learned: bool) -> None:
    if step_on(module, tensor, FakeWeight) is not None:
        raise ValueError(
            "Expected a matrix that is not rounded yet but it is; give each matrix to one callback with include and "
            "exclude."
        )
    weight: Tensor = getattr(module, tensor)
    fake = FakeWeight(weight.shape, scheme, output_axis(module), learned).train(module.training)
    register(module, tensor, fake.to(weight.device))
    if isinstance(module, nn.Embedding) and scheme.per in _ROW_BY_ROW and not learned:
        fake.behind_lookup = True
        module.register_forward_hook(round_rows)


def round_rows(module: nn.Module, inputs: Any, rows: Tensor) -> Tensor:
    """Round what an embedding looked up: its forward hook."""
    # By name and not by reference: a copy of the model has a parametrization of its own.
    fake = step_on(module, "weight", FakeWeight)
    return rows if fake is None else fake.looked_up(rows)


def output_axis(module: nn.Module) -> int:
    """Return the axis of a matrix along which its outputs lie; each row of an embedding is one."""
    return 0 if isinstance(module, nn.Embedding) else projection_axes(module)[1]


def fake_weights_of(model: nn.Module) -> Iterator[tuple[str, FakeWeight]]:
    """Yield the name of every tensor that is rounded, with what rounds it."""
    return steps_of(model, FakeWeight)


@torch.no_grad()
def before_rounding(model: nn.Module, name: str) -> Tensor:
    """Return a tensor as masks and gates leave it, before it is rounded.

    Args:
        model: The model.
        name: Name of a tensor that is rounded.
    """
    path, _, tensor = name.rpartition(".")
    chain: Any = model.get_submodule(path).parametrizations[tensor]  # type: ignore[index]
    value: Tensor = chain.original
    for step in chain:
        value = value if getattr(step, "comes_last", False) else step(value)
    return value
