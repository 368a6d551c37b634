"""Activations that are rounded before a projection reads them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lit_compress.models.hooks import remove_hooks
from lit_compress.models.transforms import record, rewrite, transforms_of
from lit_compress.quantization.grid import Grid, grid_of
from lit_compress.quantization.observers import MeanSquaredError, MinMax, MovingAverage, Observer, Percentile
from lit_compress.quantization.scheme import Scheme
from lit_compress.quantization.stage import FROZEN, Staged
from lit_compress.quantization.straight_through import fake_quantize

#: Name of the transform.
INPUT_QUANTIZERS = "input_quantizers"
#: How ranges of activations are found. ``dynamic``: from the values at hand, in every forward pass.
OBSERVERS: dict[str, type[Observer]] = {
    "moving_average": MovingAverage,
    "min_max": MinMax,
    "percentile": Percentile,
    "mse": MeanSquaredError,
}
DYNAMIC = "dynamic"
_NAME = "input_quantizer"


class InputQuantizer(Staged):
    """Rounds what a module reads, to the grid of a range that was observed or of the values themselves.

    Args:
        scheme: How to round; one range for the whole tensor.
        ranges: One of :data:`OBSERVERS`, or ``dynamic``.

    Raises:
        ValueError: The scheme has more than one range, or there are no such ranges.
    """

    def __init__(self, scheme: Scheme, ranges: str) -> None:
        super().__init__()
        if scheme.per != "tensor":
            raise ValueError(
                f"Expected activations with per: tensor, as integer runtimes have them, but got {scheme}."
            )
        if ranges not in (*OBSERVERS, DYNAMIC):
            raise ValueError(
                f"Expected ranges to be one of {', '.join((*OBSERVERS, DYNAMIC))} but got {ranges!r}."
            )
        self.scheme = scheme
        self.observer = None if ranges == DYNAMIC else OBSERVERS[ranges]()
        # Of what was observed so far: some observers search for their range.
        self._found: Grid | None = None

    def grid(self, values: Tensor | None = None) -> Grid:
        """Return the grid, with one row.

        Args:
            values: The values to be rounded, where ranges are dynamic.
        """
        if self.observer is None:
            assert values is not None
            return self._covering(*torch.aminmax(values.detach().float()))
        if self._found is None or self._found.scale.device != self.observer.low.device:
            self._found = self._covering(*self.observer.range(self.scheme))
        return self._found

    @torch.inference_mode(False)  # what a validation finds is there in training, too
    @torch.no_grad()
    def _covering(self, low: Tensor, high: Tensor) -> Grid:
        return grid_of(low.float().view(1, 1), high.float().view(1, 1), self.scheme)

    def after_load(self) -> None:
        """Find the grid anew, too; see :meth:`Staged.after_load`."""
        super().after_load()
        self._found = None

    def forward(self, values: Tensor) -> Tensor:
        """Return values of any shape on the grid; as they are where rounding has not begun."""
        if self.observer is not None and self.training and not self.is_frozen:
            self.observer.observe(values)
            self._found = None
        if not self.rounds:
            return values
        return fake_quantize(values.reshape(1, -1), self.grid(values), self.scheme).view(values.shape)


def apply_input_quantizers(
    model: nn.Module, modules: Sequence[str], scheme: Mapping[str, Any], ranges: str, part: str = "input"
) -> None:
    """Round what modules read, from the stage on that says so.

    Args:
        model: Changed in place, once.
        modules: Names of projections below the model.
        scheme: Arguments of :class:`~lit_compress.quantization.scheme.Scheme`.
        ranges: How ranges are found, see :class:`InputQuantizer`.
        part: Name of this set, where a model has several.

    Raises:
        ValueError: A module has a quantizer, or the scheme is not one of activations.
    """
    arguments = {"modules": list(modules), "scheme": dict(scheme), "ranges": ranges, "part": part}
    if not record(model, INPUT_QUANTIZERS, arguments):
        return
    for name in modules:
        module = model.get_submodule(name)
        if input_quantizer_on(module) is not None:
            raise ValueError(
                f"Expected a module whose input is not rounded yet but {name} has a quantizer; give each module to "
                "one callback with include and exclude."
            )
        quantizer = InputQuantizer(Scheme(**scheme), ranges).train(module.training)
        device = next((tensor.device for tensor in module.parameters()), None)
        module.add_module(_NAME, quantizer.to(device))
        module.register_forward_pre_hook(_round_input)


def _round_input(module: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
    # By name and not by reference: a copy of the model has a quantizer of its own.
    quantizer = input_quantizer_on(module)
    return None if quantizer is None else (quantizer(inputs[0]), *inputs[1:])


def input_quantizer_on(module: nn.Module) -> InputQuantizer | None:
    """Return what rounds the input of a module, ``None`` where nothing does."""
    found = getattr(module, _NAME, None)
    return found if isinstance(found, InputQuantizer) else None


def input_quantizers_of(model: nn.Module) -> Iterator[tuple[str, InputQuantizer]]:
    """Yield the name of every module whose input is rounded, with what rounds it."""
    for name, module in model.named_modules():
        found = input_quantizer_on(module)
        if found is not None:
            yield name, found


def fix_ranges(model: nn.Module) -> None:
    """End observing, in place: every quantizer keeps its range, and nothing else of what it saw."""
    for _, quantizer in input_quantizers_of(model):
        if quantizer.observer is not None:
            fixed = MinMax().to(quantizer.observer.low.device)
            for end, value in zip(
                (fixed.low, fixed.high), quantizer.observer.range(quantizer.scheme), strict=True
            ):
                end.copy_(value)
            quantizer.observer, quantizer._found = fixed, None
        quantizer.eval()
        quantizer.set_stage(FROZEN)
    for name, arguments in transforms_of(model):
        if name == INPUT_QUANTIZERS and arguments["ranges"] != DYNAMIC:
            rewrite(model, name, {**arguments, "ranges": "min_max"})


def remove_input_quantizers(model: nn.Module) -> None:
    """Let every module read what comes, in place; what was recorded of it stays."""
    for name, _ in list(input_quantizers_of(model)):
        module = model.get_submodule(name)
        delattr(module, _NAME)
        remove_hooks(module, lambda hook: hook is _round_input)
