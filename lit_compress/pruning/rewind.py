"""Lottery tickets: which weights go in a round, and the way back to the weights of an earlier step."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from fractions import Fraction

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lit_compress.pruning.ranking import lowest


def survivors_after(survivors: int, rate: float) -> int:
    """Return how many weights are left after one round: ``ceil(rate * survivors)`` of them go.

    Args:
        survivors: Weights that are left now.
        rate: Share of them to remove, in (0, 1). It counts as the decimal number that was written: a fifth of
            35 is 7, although 0.2 in binary is a little more than a fifth.

    Returns:
        The number of weights left.

    Example:
        >>> [survivors_after(n, 0.2) for n in (1000, 800, 640, 512)]
        [800, 640, 512, 409]
    """
    return survivors - math.ceil(Fraction(str(rate)) * survivors)


def smallest_removed(
    weights: Mapping[str, Tensor], keeps: Mapping[str, Tensor], rate: float
) -> dict[str, Tensor]:
    """Remove a share of the surviving weights with the smallest magnitudes, over all matrices together.

    Exactly :func:`survivors_after` are left. Among equal magnitudes those that come first, in the order of the
    matrices and inside them, are removed.

    Args:
        weights: Weights by name.
        keeps: Which of them survive now, boolean tensors of the same shapes.
        rate: Share of the survivors to remove.

    Returns:
        Which survive after it, new tensors on the devices of the old ones.

    Raises:
        ValueError: A weight is not a number.
    """
    flat = torch.cat([weights[name].detach().flatten().abs().float().cpu() for name in keeps])
    alive = torch.cat([keep.flatten().cpu() for keep in keeps.values()]).nonzero().flatten()
    gone = lowest(flat[alive], len(alive) - survivors_after(len(alive), rate))
    kept = torch.zeros(len(flat), dtype=torch.bool)
    kept[alive[~gone]] = True
    parts = kept.split([keep.numel() for keep in keeps.values()])
    return {
        name: part.view_as(keep).to(keep.device)
        for (name, keep), part in zip(keeps.items(), parts, strict=True)
    }


def shuffled(keeps: Mapping[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
    """Return masks that keep as many weights of each matrix, at random places.

    Args:
        keeps: Boolean masks by name.
        generator: Draws the places, on the CPU.

    Returns:
        New masks on the devices of the old ones.
    """
    places = {}
    for name, keep in keeps.items():
        order = torch.randperm(keep.numel(), generator=generator)
        places[name] = keep.flatten().cpu()[order].view_as(keep).to(keep.device)
    return places


def trained_weights(module: nn.Module) -> dict[str, Tensor]:
    """Return copies of everything that training changes: parameters with gradient, statistics of batch norms.

    Args:
        module: A model, or a training module with all that it trains.

    Returns:
        Tensors on the CPU by the names that parameters and buffers have in the module.
    """
    found = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
    return {name: tensor.detach().cpu().clone() for name, tensor in {**found, **_statistics(module)}.items()}


def rewind(module: nn.Module, saved: Mapping[str, Tensor]) -> None:
    """Copy weights of :func:`trained_weights` back, bit for bit.

    Args:
        module: The module that they were taken from; changed in place.
        saved: The weights.

    Raises:
        ValueError: The module has other tensors than those that were saved.
    """
    present = {**dict(module.named_parameters()), **_statistics(module)}
    wrong = [name for name in saved if name not in present or present[name].shape != saved[name].shape]
    if wrong:
        raise ValueError(
            f"Expected the tensors whose weights were saved for rewinding but {wrong[0]} is not there any more or "
            "has another shape; shrink the model after the fit, not in it."
        )
    with torch.no_grad():
        for name, value in saved.items():
            present[name].copy_(value)


def _statistics(module: nn.Module) -> dict[str, Tensor]:
    return {
        f"{path}.{name}" if path else name: buffer
        for path, norm in module.named_modules()
        if isinstance(norm, _BatchNorm)
        for name, buffer in norm.named_buffers(recurse=False)
    }


def draw_anew(model: nn.Module, seed: int) -> None:
    """Give a transformers model new random weights, from the distribution that its class starts with.

    Args:
        model: A transformers model of the sizes that its configuration says; frozen parameters stay.
        seed: Seed of the draw; the global random numbers go on as if nothing had been drawn.

    Raises:
        ValueError: The model has other sizes than its configuration.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = dict(type(model)(copy.deepcopy(model.config)).named_parameters())
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            plain = name.replace(".parametrizations.", ".").removesuffix(".original")
            if plain not in fresh or not parameter.requires_grad:
                continue
            if fresh[plain].shape != parameter.shape:
                raise ValueError(
                    f"Expected a model of the sizes in its configuration to draw weights anew but {plain} has shape "
                    f"{tuple(parameter.shape)} instead of {tuple(fresh[plain].shape)}; use control 'random' or 'none'."
                )
            parameter.copy_(fresh[plain])
