"""Channels of convolution nets, removed by the Torch-Pruning library (DepGraph, Fang et al., arXiv:2301.12900)."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from lit_compress.extras import require
from lit_compress.models.sizes import record_sizes, sizes_of
from lit_compress.pruning.ranking import lowest

#: How channels are ranked: name → class in torch_pruning.importance.
IMPORTANCE = {
    "magnitude": "MagnitudeImportance",
    "batch_norm": "BNScaleImportance",
    "lamp": "LAMPImportance",
    "fpgm": "FPGMImportance",
    "random": "RandomImportance",
}
_TRIALS = 8
# Weights more than asked for that end the search.
_CLOSE = 0.005


def prune_convnet(
    model: nn.Module,
    example_inputs: Tensor | Mapping[str, Tensor],
    sparsity: float,
    importance: str = "magnitude",
    round_to: int = 1,
    keep: Sequence[str] | None = None,
    seed: int = 0,
) -> Any:
    """Return a copy of a convolution net without its least important channels.

    Every layer loses the same share of its channels, with everything that depends on them: filters, batch norms,
    residual sums, groups. The share is the smallest with which ``sparsity`` of the weights are gone. The sizes are
    recorded, so that ``save_folder`` writes the net and ``lit_compress.load`` builds it again.

    Args:
        model: A net of convolutions, batch norms and linear layers; not changed.
        example_inputs: What the net takes, such as images ``(1, 3, 224, 224)``, or a dictionary of arguments.
        sparsity: Share of the weights to remove, between 0 and 1.
        importance: How channels are ranked: ``magnitude`` (norm of the filters), ``batch_norm`` (scales of the batch
            norms), ``lamp`` (arXiv:2010.07611), ``fpgm`` (distance from the geometric median, arXiv:1811.00250),
            ``random``.
        round_to: Keep a multiple of this many channels, as hardware likes it.
        keep: Paths of layers whose outputs all stay; the layer that is called last, the classifier, where ``None``.
        seed: Seed of ``random``.

    Returns:
        The smaller net, in eval mode.

    Raises:
        ValueError: The net has no convolution, a number is out of range, so much cannot be removed, or the sizes of
            a layer of another kind would change.
        ImportError: Torch-Pruning is not installed.
    """
    _check(model, sparsity, importance, round_to)
    require("convnets", "pruning convolution nets", "torch_pruning")
    kept = [_last_called(model, example_inputs)] if keep is None else list(keep)
    best = _search(
        model,
        sparsity,
        lambda share: _without_channels(model, example_inputs, share, importance, round_to, kept, seed),
    )
    _check_shapes(model, best, example_inputs)
    record_sizes(best)
    return best


def has_convolutions(model: nn.Module) -> bool:
    """Return whether a model is a convolution net: most of its weights are in convolutions."""
    inside = sum(
        p.numel() for m in model.modules() if isinstance(m, _ConvNd) for p in m.parameters(recurse=False)
    )
    return inside > _weights(model) / 2


def operations(model: nn.Module, example_inputs: Tensor | Mapping[str, Tensor]) -> int:
    """Return the multiply-add operations of the convolutions and linear layers for some inputs.

    Args:
        model: A net.
        example_inputs: What it takes.
    """
    count = 0

    def add(layer: Any, inputs: Any, output: Tensor) -> None:
        nonlocal count
        # Each number of the output is a sum over a filter; a transposed convolution spreads each of its input.
        spread = inputs[0] if getattr(layer, "transposed", False) else output
        count += spread.numel() * layer.weight[0].numel()

    _call_with_hooks(model, example_inputs, add)
    return count


def _check(model: nn.Module, sparsity: float, importance: str, round_to: int) -> None:
    if not any(isinstance(module, _ConvNd) for module in model.modules()):
        raise ValueError(
            f"Expected a net with convolutions but {type(model).__name__} has none; transformers are shrunk by "
            "lit_compress.pruning.shrink."
        )
    if not 0.0 < sparsity < 1.0:
        raise ValueError(
            f"Expected sparsity between 0 and 1 (share of the weights removed) but got {sparsity}."
        )
    if importance not in IMPORTANCE:
        raise ValueError(f"Expected importance to be one of {', '.join(IMPORTANCE)} but got {importance!r}.")
    if round_to < 1:
        raise ValueError(f"Expected round_to >= 1 but got {round_to}.")


def _search(model: nn.Module, sparsity: float, without: Callable[[float], nn.Module]) -> nn.Module:
    """Return the net with the smallest share of removed channels that reaches a sparsity.

    Weights are about quadratic in channels, so that their root is interpolated.
    """
    total, wanted = _weights(model), (1.0 - sparsity) ** 0.5
    low, high = (0.0, 1.0), (1.0, 0.0)  # share of the channels removed, root of the share of the weights left
    best: nn.Module | None = None
    for trial in range(_TRIALS + 1):
        step = (low[1] - wanted) / (low[1] - high[1])
        share = low[0] + min(0.9, max(0.1, step)) * (high[0] - low[0]) if trial < _TRIALS else high[0]
        if trial == _TRIALS and best is not None:
            break
        small = without(share)
        left = _weights(small) / total
        if 1.0 - left < sparsity:
            low = (share, left**0.5)
            continue
        best, high = small, (share, left**0.5)
        if 1.0 - left - sparsity < _CLOSE:
            break
    if best is None:
        raise ValueError(
            f"Expected a sparsity that the channels of {type(model).__name__} allow but got {sparsity}; at most "
            f"{1.0 - low[1] ** 2:.3f} of the weights can go: lower the sparsity, or round_to."
        )
    return best


def _without_channels(
    model: nn.Module,
    inputs: Tensor | Mapping[str, Tensor],
    share: float,
    importance: str,
    round_to: int,
    keep: Sequence[str],
    seed: int,
) -> nn.Module:
    """Return a copy without a share of the channels; every layer keeps at least one."""
    import torch_pruning

    small = copy.deepcopy(model).eval()
    frozen = {name for name, parameter in small.named_parameters() if not parameter.requires_grad}
    small.requires_grad_(True)  # dependencies are read from the graph of the gradients
    layers = {_layer(small, path) for path in keep}
    graph = torch_pruning.DependencyGraph().build_dependency(small, inputs)
    rank = getattr(torch_pruning.importance, IMPORTANCE[importance])()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        plan = [
            (
                group[0].dep.target.module,
                group[0].dep.handler,
                _least(rank(group), _groups(group), share, round_to),
            )
            for group in graph.get_all_groups(root_module_types=[_ConvNd, nn.Linear])
            if not any(
                dep.target.module in layers and graph.is_out_channel_pruning_fn(dep.handler)
                for dep, _ in group
            )
        ]
    for module, handler, channels in plan:
        if channels:
            graph.get_pruning_group(module, handler, channels).prune()
    for name, parameter in small.named_parameters():
        parameter.requires_grad_(name not in frozen)
        parameter.grad = None
    return small


def _layer(model: nn.Module, path: str) -> nn.Module:
    try:
        return model.get_submodule(path)
    except AttributeError as error:
        raise ValueError(
            f"Expected paths of layers in keep but {type(model).__name__} has no {path!r}; correct it."
        ) from error


def _groups(group: Any) -> int:
    """Return the number of equal parts whose channels have to go together: those of grouped convolutions."""
    convolutions = [dep.target.module for dep, _ in group if isinstance(dep.target.module, _ConvNd)]
    return max((c.groups for c in convolutions if c.groups < c.out_channels), default=1)


def _least(scores: Tensor | None, groups: int, share: float, round_to: int) -> list[int]:
    """Return the channels to remove, the same ones in every part; none where there is nothing to rank by."""
    if scores is None:
        return []
    size = len(scores) // groups
    # The smallest number per part that is no less than asked for and gives a multiple of round_to in all parts.
    multiple = round_to // math.gcd(round_to, groups)
    wanted = max(1, math.ceil((1.0 - share) * size - 1e-9))
    kept = min(size, math.ceil(wanted / multiple) * multiple)
    least = lowest(scores.detach().cpu().view(groups, size).mean(0), size - kept).nonzero().flatten()
    return [part * size + int(channel) for part in range(groups) for channel in least]


def _weights(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _last_called(model: nn.Module, inputs: Tensor | Mapping[str, Tensor]) -> str:
    called: list[nn.Module] = []
    _call_with_hooks(model, inputs, lambda layer, _, output: called.append(layer))
    return next(path for path, module in model.named_modules() if module is called[-1])


def _call_with_hooks(model: nn.Module, inputs: Tensor | Mapping[str, Tensor], hook: Any) -> Any:
    """Call a net in eval mode, with a hook on its convolutions and linear layers; leave it as it was."""
    layers = [module for module in model.modules() if isinstance(module, (_ConvNd, nn.Linear))]
    handles = [layer.register_forward_hook(hook) for layer in layers]
    modes = {module: module.training for module in model.modules()}
    try:
        with torch.no_grad():
            return model.eval()(**inputs) if isinstance(inputs, Mapping) else model.eval()(inputs)
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in modes.items():
            module.training = mode


def _check_shapes(model: nn.Module, small: nn.Module, inputs: Tensor | Mapping[str, Tensor]) -> None:
    """Refuse what cannot be loaded again, or is no longer the same task."""
    recorded = sizes_of(small)
    before = model.state_dict()
    for name, tensor in small.state_dict().items():
        if tensor.shape != before[name].shape and name.rpartition(".")[0] not in recorded:
            raise ValueError(
                f"Expected a net whose channels lie in convolutions, batch norms and linear layers but {name} of "
                f"{type(model).__name__} would change; name the layers before it in keep."
            )
    old, new = (_shapes(_call_with_hooks(net, inputs, lambda *_: None)) for net in (model, small))
    if old != new:
        raise ValueError(
            f"Expected a net that still gives outputs of shapes {old} but it would give {new}; name the layers "
            "that make the outputs in keep."
        )


def _shapes(output: Any) -> list[list[int]]:
    if isinstance(output, Tensor):
        return [list(output.shape)]
    parts = (
        output.values()
        if isinstance(output, Mapping)
        else output
        if isinstance(output, (list, tuple))
        else ()
    )
    return [shape for part in parts for shape in _shapes(part)]
