"""The physical shrink of a model that was trained with rounding: what is left is rounded as it was."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from lit_compress.models.transforms import transforms_of
from lit_compress.pruning.bake import bake
from lit_compress.pruning.gates import gates_of
from lit_compress.pruning.shrink import cut_dead
from lit_compress.quantization.convert import refuse_unfinished
from lit_compress.quantization.fake_weights import (
    FakeWeight,
    before_rounding,
    fake_weights_of,
)
from lit_compress.quantization.grid import Grid
from lit_compress.quantization.inputs import (
    INPUT_QUANTIZERS,
    apply_input_quantizers,
    fix_ranges,
    input_quantizers_of,
)
from lit_compress.quantization.packed import apply_packed_weights, packed_of
from lit_compress.quantization.unround import unround

_BEFORE = "_name_before_shrink"
# What shares a scale in these stays together when units go.
_WHOLE = ("tensor", "channel")


def refuse_shared_scales(model: nn.Module) -> None:
    """Refuse schemes in which a scale belongs to units that may go and to others that stay.

    The scale of an output, or of the whole matrix, stays when others are cut out. A group of inputs or of outputs would
    be made up of other weights, unless nothing of its matrix can go.

    Args:
        model: A model that is pruned and rounded in the same fit.

    Raises:
        ValueError: It has factors, or groups in a matrix that gates cut, or gates on heads and dynamic ranges.
    """
    if any(name == "low_rank" for name, _ in transforms_of(model)):
        raise ValueError(
            "Expected structures that are cut out, such as head and neuron, beside QAT but got rank, whose factors are "
            "multiplied with each other at the end; prune in a first fit, and round its folder in a second one."
        )
    gates = gates_of(model)
    if gates is None:
        return
    torn = {slot.name for group in gates.groups for slot in group.cut}
    grouped = [
        (name, fake)
        for name, fake in fake_weights_of(model)
        if fake.scheme.per not in _WHOLE and name in torn
    ]
    dynamic = [name for name, quantizer in input_quantizers_of(model) if quantizer.observer is None]
    if dynamic and any(group.structure == "head" for group in gates.groups):
        raise ValueError(
            f"Expected activations with fixed ranges beside the pruning of heads but {dynamic[0]} has dynamic ones, "
            "which heads that are closed would widen until they are cut out; set ranges: moving_average."
        )
    if grouped:
        name, fake = grouped[0]
        raise ValueError(
            f"Expected weights with per: channel or per: tensor beside structured pruning but {name} has "
            f"{fake.scheme}, whose groups would be torn apart; prune in a first fit, and round its folder in a second "
            "one."
        )


@torch.no_grad()
def shrink_to_integers(model: PreTrainedModel, round_to: int = 1) -> PreTrainedModel:
    """Return a copy of a model without the units that do nothing, with what is left stored as integers.

    Args:
        model: A model with gates that was trained with rounding; not changed.
        round_to: See :func:`~lit_compress.pruning.shrink.shrink`.

    Returns:
        The smaller model, in eval mode; it computes what the model computes.

    Raises:
        ValueError: Rounding has not begun, or something would be rounded differently, see
            :func:`refuse_shared_scales`.
    """
    refuse_shared_scales(model)
    refuse_unfinished(model)
    small: Any = copy.deepcopy(model).eval()
    for name, module in small.named_modules():
        setattr(module, _BEFORE, name)
    gates = bake(unround(small))
    fakes = dict(fake_weights_of(model))
    numbers, ones = _marked(small, fakes, number=True), _marked(small, fakes, number=False)
    for each in (small, numbers, ones):
        cut_dead(each, gates, round_to=round_to)
    now = {
        old: name
        for name, module in small.named_modules()
        if (old := vars(module).pop(_BEFORE, None)) is not None
    }
    left = {
        name: f"{now[path]}.{tensor}"
        for name in fakes
        for path, _, tensor in [name.rpartition(".")]
        if path in now
    }
    weights = {name: small.get_parameter(new).detach().clone() for name, new in left.items()}
    apply_packed_weights(small, {new: asdict(fakes[name].scheme) for name, new in left.items()})
    stores = dict(packed_of(small))
    for name, new in left.items():
        # The grid of the whole matrix: inputs that are gone have widened its ranges.
        grid = fakes[name].grid(before_rounding(model, name))
        if fakes[name].scheme.per not in _WHOLE:
            stores[new].fill(weights[name], grid)  # nothing of it can go
            continue
        marks = (each.get_parameter(new).movedim(fakes[name].output_axis, 0) for each in (numbers, ones))
        stores[new].fill(weights[name], _grid_left(name, grid, *marks))
    _round_inputs(model, small, now)
    return small.eval()


def _marked(model: PreTrainedModel, fakes: Mapping[str, FakeWeight], number: bool) -> PreTrainedModel:
    """Return a copy whose weights that are not 0 are the number of their output, from 1, or all 1."""
    marked = copy.deepcopy(model)
    for name, fake in fakes.items():
        weight = marked.get_parameter(name)
        outputs = weight.movedim(fake.output_axis, -1)
        count = outputs.shape[-1]
        marks = (
            torch.arange(1, count + 1, device=weight.device)
            if number
            else torch.ones(count, device=weight.device)
        )
        outputs.copy_((outputs != 0) * marks.to(weight.dtype))
    return marked


def _grid_left(name: str, grid: Grid, numbers: Tensor, ones: Tensor) -> Grid:
    """Return the grid of the outputs that are left.

    Args:
        name: Name of the matrix.
        grid: That of all outputs.
        numbers: Number of the output in the place of each weight, 0 where it is zero, outputs first.
        ones: The same with ones. The shrink multiplies outputs whose scale depends on the place of their block (GPT-2).
    """
    factors = ones.flatten(1).amax(1, keepdim=True)
    # Outputs that are all zeros fit any grid.
    factors = torch.where(factors == 0, 1.0, factors)
    if len(grid.scale) == 1:
        if bool((factors != 1).any()):
            raise ValueError(
                f"Expected one scale per output for {name}, of which the shrink multiplies some, but it has one for "
                "all; train with weights: {per: channel}."
            )
        return grid
    rows = ((numbers.flatten(1).amax(1) / factors[:, 0]).round().long() - 1).clamp(min=0)
    return Grid(grid.scale[rows] * factors.to(grid.scale.dtype), grid.zero_point[rows])


def _round_inputs(model: PreTrainedModel, small: PreTrainedModel, now: Mapping[str, str]) -> None:
    for name, arguments in transforms_of(model):
        if name == INPUT_QUANTIZERS:
            left = [now[path] for path in arguments["modules"] if path in now]
            apply_input_quantizers(small, **{**arguments, "modules": left})
    found = dict(input_quantizers_of(small))
    for path, quantizer in input_quantizers_of(model):
        if path in now:
            found[now[path]].load_state_dict(quantizer.state_dict())
    fix_ranges(small)
