"""The transform that gives the layers of a network other numbers of channels: what pruned convolution nets record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from lit_compress.models.transforms import forget, record

#: Attributes that say the size of a layer, by its kind; weights follow from them.
_ATTRIBUTES: tuple[tuple[type[nn.Module], tuple[str, ...]], ...] = (
    (_ConvNd, ("in_channels", "out_channels", "groups")),
    (_BatchNorm, ("num_features",)),
    (nn.Linear, ("in_features", "out_features")),
)


def sizes_of(model: nn.Module) -> dict[str, list[int]]:
    """Return the sizes of all convolutions, batch norms and linear layers by their paths.

    Args:
        model: Any network.

    Returns:
        ``[in, out, groups]`` of a convolution, ``[features]`` of a batch norm, ``[in, out]`` of a linear layer.
    """
    return {
        path: [getattr(module, name) for name in attributes]
        for path, module in model.named_modules()
        if (attributes := _attributes(module))
    }


def _attributes(module: nn.Module) -> tuple[str, ...]:
    return next((names for kind, names in _ATTRIBUTES if isinstance(module, kind)), ())


def record_sizes(model: nn.Module) -> None:
    """Remember the sizes that the layers of a model have now, instead of those it remembered before."""
    forget(model, "sizes")
    record(model, "sizes", {"modules": sizes_of(model)})


def apply_sizes(model: nn.Module, modules: Mapping[str, Sequence[int]]) -> None:
    """Give layers other sizes; the weights of those that change mean nothing until a file fills them.

    Args:
        model: A network as its configuration says; changed in place, once.
        modules: What :func:`sizes_of` returned for the smaller one.

    Raises:
        ValueError: There is no such layer, or its sizes are impossible.
    """
    if not record(model, "sizes", {"modules": {path: list(sizes) for path, sizes in modules.items()}}):
        return
    layers = dict(model.named_modules())
    for path, sizes in modules.items():
        layer = layers.get(path)
        names = _attributes(layer) if layer is not None else ()
        if layer is None or len(names) != len(sizes) or any(type(s) is not int or s < 1 for s in sizes):
            raise ValueError(
                f"Expected sizes of a convolution, batch norm or linear layer of {type(model).__name__} but got "
                f"{path!r}: {list(sizes)}; the record is damaged, or belongs to another model."
            )
        _resize(path, layer, dict(zip(names, sizes, strict=True)))


def _resize(path: str, layer: Any, sizes: Mapping[str, int]) -> None:
    if all(getattr(layer, name) == size for name, size in sizes.items()):
        return
    if isinstance(layer, _ConvNd):
        groups, channels = sizes["groups"], (sizes["in_channels"], sizes["out_channels"])
        if any(size % groups for size in channels):
            raise ValueError(f"Expected channels of {path} that {groups} groups divide but got {channels}.")
        first, second = channels if layer.transposed else channels[::-1]
        _renew(layer, "weight", (first, second // groups, *layer.kernel_size))
        _renew(layer, "bias", (sizes["out_channels"],))
    elif isinstance(layer, nn.Linear):
        _renew(layer, "weight", (sizes["out_features"], sizes["in_features"]))
        _renew(layer, "bias", (sizes["out_features"],))
    else:
        for name in ("weight", "bias", "running_mean", "running_var"):
            _renew(layer, name, (sizes["num_features"],))
    for name, size in sizes.items():
        setattr(layer, name, size)


def _renew(layer: nn.Module, name: str, shape: Sequence[int]) -> None:
    old = getattr(layer, name)
    if old is None:
        return
    new = torch.zeros(*shape, dtype=old.dtype, device=old.device)
    setattr(
        layer,
        name,
        nn.Parameter(new, requires_grad=old.requires_grad) if isinstance(old, nn.Parameter) else new,
    )
