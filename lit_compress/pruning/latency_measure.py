"""Measuring a table of latencies: copies of the model with units cut out, timed in turns."""

from __future__ import annotations

import copy
import gc
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, track
from torch import Tensor, nn
from transformers import PreTrainedModel

from lit_compress.benchmark.devices import open_device
from lit_compress.benchmark.protocol import BASELINE_RUNTIME
from lit_compress.benchmark.runtimes import runtime
from lit_compress.export.parity import max_length
from lit_compress.models.anatomy import dissect
from lit_compress.pruning.bake import bake
from lit_compress.pruning.depth import drop_blocks
from lit_compress.pruning.gates import Gate
from lit_compress.pruning.latency import CONSTANT, LAYER, Curve, is_last_attention, parts_of, pattern
from lit_compress.pruning.latency_runtime import forward_pass
from lit_compress.pruning.latency_setting import Setting
from lit_compress.pruning.shape import cut_further
from lit_compress.quantization.unround import unround

# Rounds that count: no more than this many, and no further one begins when the seconds are spent.
_ROUNDS, _LEAST_ROUNDS, _SECONDS = 30, 5, 40.0
# A short pass is run a few times in a row and only the later ones count: as in use, its weights are in the cache then.
_SHORT_PASS, _PASSES = 0.05, 3
# A pass that takes longer than this is not bound by reading weights, and copies need not have all blocks.
_LONG_PASS, _DEPTH = 0.2, 2
# Widths of feed-forward networks and hidden sizes to measure at, as shares.
_NEURONS = (1 / 32, 1 / 16, 1 / 8, 3 / 16, 1 / 4, 3 / 8, 1 / 2, 5 / 8, 3 / 4, 7 / 8, 1)
_HIDDEN = (1 / 4, 1 / 2, 3 / 4, 1)
_NEURON_STEP, _MOST_HEADS = 16, 16
# Where every size has to be exported: the smallest of these, and all halved so often.
_HALVINGS = 3


@dataclass(frozen=True)
class Variant:
    """A size to measure: every part of a kind has the same number of units, and parts of other kinds have none.

    Where the last block is of kinds of its own, its attention keeps a few heads in all sizes: without them the last
    attention would be that of the block before, and all behind that would be computed for one token.

    Args:
        kind: The kind that has units; ``None`` where no part has any.
        units: How many.
        hidden: Hidden dimensions.
        short: Pattern of the list of blocks of which only one block stays; ``None`` where all stay.
    """

    hidden: int
    kind: str | None = None
    units: int = 0
    short: str | None = None


@dataclass(frozen=True)
class Figures:
    """What a table is made of; see ``LatencyTable``.

    Args:
        curves: Milliseconds of one part by its kind.
        layer: Milliseconds of one block by its pattern.
        constant: Milliseconds of all else.
        hidden: Factors over the hidden size.
    """

    curves: dict[str, Curve]
    layer: dict[str, float]
    constant: float
    hidden: dict[str, Curve] | None = field(default=None)


def measure_figures(model: PreTrainedModel, varied: bool, setting: Setting) -> Figures:
    """Measure a model part by part.

    Copies are cut as the shrink does it, exported where the runtime needs that, and run in turns, in another random
    order each round, and the median of the rounds counts; with one thread in processor time, as in the benchmark. A
    curve is then made monotone (isotonic regression), because a larger part is not faster, and all curves are
    scaled alike so that the whole is what the full model takes.

    Args:
        model: The model; not changed.
        varied: Whether to vary the hidden size too.
        setting: What to measure with.
    """
    base = plain_copy(model).to(torch.device(setting.device))  # type: ignore[arg-type]
    inputs = make_inputs(base, setting.batch, setting.length)
    name, threads = setting.runtime, setting.threads
    with quiet(threads):
        clock = open_device(setting.device, threads)
        whole = forward_pass(base, inputs, name, threads)
        whole()
        last_differs = runtime(name).narrow_end
        shallow = _shallow(base, last_differs) if clock.time(whole).seconds > _LONG_PASS else base
        calls: dict[Variant | None, Callable[[], Any]] = {None: whole}
        title, is_eager = f"Making models of every size for {name}", name == BASELINE_RUNTIME
        variants = _variants(shallow, varied, last_differs, few=not is_eager)
        for variant in track(variants, title, transient=True, disable=is_eager):
            calls[variant] = forward_pass(_cut(shallow, variant, last_differs), inputs, name, threads)
        times = time_in_turns(calls, lambda call: clock.time(call).seconds, "Measuring latencies")
    ms = {variant: 1000.0 * float(np.median(values)) for variant, values in times.items()}
    return _figures(base, shallow, ms, varied, last_differs)


def plain_copy(model: nn.Module) -> PreTrainedModel:
    """Return a copy in eval mode without gates, masks and rounding, at full size, with the fast attention kernel."""
    for module in model.modules():
        if isinstance(module, Gate):
            module.drawn = None  # of a forward pass that is over; its graph cannot be copied
    plain: Any = copy.deepcopy(model).eval()
    bake(unround(plain))
    try:
        plain.set_attn_implementation("sdpa")
    except (ValueError, ImportError):
        plain.set_attn_implementation("eager")
    return plain


def make_inputs(model: PreTrainedModel, batch: int, length: int) -> dict[str, Tensor]:
    """Return inputs of a size: token ids without padding, or images, or audio features.

    Raises:
        ValueError: The model reads no texts of this length, or something else.
    """
    config, name, device = model.config, model.main_input_name, model.device
    generator = torch.Generator().manual_seed(0)
    if name == "input_ids":
        most = max_length(model)
        if most is not None and not 0 < length <= most:
            raise ValueError(
                f"Expected target.length from 1 to {most}, what the model can read, but got {length}."
            )
        ids = torch.randint(config.vocab_size, (batch, length), generator=generator)
        return {"input_ids": ids.to(device), "attention_mask": torch.ones_like(ids).to(device)}
    if name == "pixel_values":
        shape = (batch, config.num_channels, config.image_size, config.image_size)
        return {name: torch.randn(shape, generator=generator).to(device, model.dtype)}
    if name == "input_features":
        audio = (batch, config.num_mel_bins, 2 * config.max_source_positions)
        ids = torch.ones((batch, min(length, config.max_target_positions)), dtype=torch.long, device=device)
        features = torch.randn(audio, generator=generator).to(device, model.dtype)
        return {name: features, "decoder_input_ids": ids}
    raise ValueError(
        f"Expected a model that reads texts, images or audio for target.speedup but {type(model).__name__} reads "
        f"{name!r}; give target.sparsity."
    )


def time_in_turns(
    calls: Mapping[Any, Callable[[], None]],
    clock: Callable[[Callable[[], None]], float],
    title: str,
    seconds: float = _SECONDS,
) -> dict[Any, list[float]]:
    """Time some calls round by round, each round in another random order, so that drift hits all alike.

    Args:
        calls: What to time.
        clock: Returns the seconds of a call.
        title: What the progress bar says.
        seconds: No further round is begun when they are spent.

    Returns:
        The seconds of each call, one per round; two rounds to warm up do not count.
    """
    times: dict[Any, list[float]] = {key: [] for key in calls}
    passes: dict[Any, int] = {}
    turns, begun = random.Random(0), time.monotonic()
    columns = (TextColumn(title), BarColumn(), TimeElapsedColumn())
    # Without a thread of its own, which would take processor time from the figures.
    with Progress(*columns, transient=True, auto_refresh=False) as bar:
        task = bar.add_task("", total=1.0)
        for number in range(-2, _ROUNDS):
            spent = time.monotonic() - begun
            if number >= _LEAST_ROUNDS and spent > seconds:
                break
            bar.update(task, completed=max((number + 2) / (_ROUNDS + 2), min(0.99, spent / seconds)))
            bar.refresh()
            for key in turns.sample(list(calls), len(calls)):
                took = [clock(calls[key]) for _ in range(passes.get(key, 1))]
                passes[key] = 1 + _PASSES if took[-1] < _SHORT_PASS else 1
                if number >= 0:
                    times[key].append(sum(took[-_PASSES:]) / len(took[-_PASSES:]))
    return times


@contextmanager
def quiet(threads: int) -> Iterator[None]:
    """Compute with some threads, and without a collection of garbage in the middle of a figure."""
    before, collecting = torch.get_num_threads(), gc.isenabled()
    torch.set_num_threads(threads)
    gc.disable()
    try:
        yield
    finally:
        torch.set_num_threads(before)
        if collecting:
            gc.enable()


def _kinds(model: PreTrainedModel, last_differs: bool) -> dict[str, int]:
    return {part.kind: part.units for part in parts_of(model, last_differs)}


def _shallow(model: PreTrainedModel, last_differs: bool) -> PreTrainedModel:
    """Return a copy with fewer blocks where all kinds of parts are still in it, else the model."""
    small = _shared_copy(model)
    for path in dissect(model).block_lists:
        _keep_blocks(small, path, _DEPTH)
    return small if _kinds(small, last_differs) == _kinds(model, last_differs) else model


def _shared_copy(model: PreTrainedModel) -> PreTrainedModel:
    """Return a copy of the modules with the same weights: those that are cut get new ones."""
    tensors = [*model.parameters(), *model.buffers()]
    return copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})


def _keep_blocks(model: PreTrainedModel, path: str, depth: int) -> None:
    blocks: Any = model.get_submodule(path)
    drop_blocks(model, [f"{path}.{number}" for number in range(depth, len(blocks))])


def _variants(model: PreTrainedModel, varied: bool, last_differs: bool, few: bool) -> list[Variant]:
    anatomy = dissect(model)
    full = anatomy.stream.size
    sizes = {full} | ({max(1, round(share * full)) for share in _HIDDEN} if varied else set())
    found, least = [], _least_heads(model, last_differs)
    for hidden in sorted(sizes):
        found.append(Variant(hidden))
        found += [Variant(hidden, short=f"{pattern(path)}.*") for path in anatomy.block_lists]
        for kind, units in _kinds(model, last_differs).items():
            steps = _grid(kind, units)[1:] if hidden == full else [units]
            if few:
                halves = (units / 2**count for count in range(_HALVINGS + 1))
                near = {min(steps, key=lambda step: abs(step - half)) for half in halves}
                steps = sorted({steps[0], *near})
            found += [Variant(hidden, kind, count) for count in steps if count > least.get(kind, 0)]
    return list(dict.fromkeys(found))


def _least_heads(model: PreTrainedModel, last_differs: bool) -> dict[str, int]:
    """Return how many heads of the last block stay in all sizes, by the kind of their attention."""
    parts = parts_of(model, last_differs)
    return {part.kind: _grid(part.kind, part.units)[1] for part in parts if is_last_attention(part)}


def _grid(kind: str, units: int) -> list[int]:
    """Return the numbers of units to measure at, from 0 to all."""
    if kind.rpartition("/")[0].endswith(".neuron"):
        step = _NEURON_STEP if units >= 8 * _NEURON_STEP else 1
        return sorted(
            {0, units, *(min(units, step * max(1, round(share * units / step))) for share in _NEURONS)}
        )
    return sorted({round(units * i / _MOST_HEADS) for i in range(_MOST_HEADS + 1)})


def _cut(model: PreTrainedModel, variant: Variant, last_differs: bool) -> PreTrainedModel:
    small = _shared_copy(model)
    for path in dissect(model).block_lists:
        if f"{pattern(path)}.*" == variant.short:
            _keep_blocks(small, path, 1)
    units = dict.fromkeys(_kinds(small, last_differs), 0) | _least_heads(small, last_differs)
    if variant.kind is not None:
        units[variant.kind] = variant.units
    parts = parts_of(small, last_differs)
    keep = {part.inside: list(range(units[part.kind])) for part in parts if units[part.kind] < part.units}
    if variant.hidden != dissect(model).stream.size:
        keep["hidden"] = list(range(variant.hidden))
    cut_further(small, keep)
    return small


def _figures(
    base: PreTrainedModel,
    shallow: PreTrainedModel,
    ms: Mapping[Variant | None, float],
    varied: bool,
    last_differs: bool,
) -> Figures:
    full = dissect(base).stream.size
    sizes = sorted({variant.hidden for variant in ms if variant is not None})
    found = {size: _at_hidden(shallow, ms, size, last_differs) for size in sizes}
    curves, layer, constant = found[full]
    # What the parts take together is not quite what they take alone: the full model decides.
    alone = sum(curves[part.kind].values[-1] for part in parts_of(base, last_differs))
    rest = constant + sum(layer[pattern(block.path)] for block in dissect(base).blocks)
    scale = max((ms[None] - rest) / alone, 0.1) if alone else 1.0
    scaled = {k: Curve(c.units, tuple(scale * value for value in c.values)) for k, c in curves.items()}
    hidden = _factors(found, full) if varied else None
    return Figures(scaled, layer, constant, hidden)


_Parts = tuple[dict[str, Curve], dict[str, float], float]


def _at_hidden(
    model: PreTrainedModel, ms: Mapping[Variant | None, float], hidden: int, last_differs: bool
) -> _Parts:
    """Return curves of parts, milliseconds of blocks, and the constant, at one hidden size."""
    parts, blocks = parts_of(model, last_differs), dissect(model).blocks
    least, base = _least_heads(model, last_differs), ms[Variant(hidden)]
    curves, always = {}, 0.0
    for kind in _kinds(model, last_differs):
        count = sum(part.kind == kind for part in parts)
        steps = sorted(v.units for v in ms if v is not None and v.hidden == hidden and v.kind == kind)
        took = [max(0.0, ms[Variant(hidden, kind, units)] - base) / count for units in steps]
        if kind in least:
            # The few heads that are in all sizes cost what further ones cost; what their attention costs besides is
            # constant, since no other attention can take its place.
            few = took[-1] * least[kind] / (steps[-1] - least[kind]) if steps else 0.0
            steps, took = [least[kind], *steps], [few, *(few + value for value in took)]
            always += count * few
        curves[kind] = Curve((0, *steps), (0.0, *_monotone(took)))
    layer = {}
    for name in dict.fromkeys(pattern(block.path) for block in blocks):
        short, count = Variant(hidden, short=name), sum(pattern(block.path) == name for block in blocks)
        # One block alone cannot be dropped: what it costs is part of the constant.
        layer[name] = max(0.0, base - ms[short]) / (count - 1) if count > 1 and short in ms else 0.0
    own = sum(layer[pattern(block.path)] for block in blocks)
    return curves, layer, max(0.0, base - always - own)


def _factors(found: Mapping[int, _Parts], full: int) -> dict[str, Curve]:
    """Return how much of each part is left at smaller hidden sizes."""

    def figures(parts: _Parts) -> dict[str, float]:
        curves, layer, constant = parts
        whole = {kind: curve.values[-1] for kind, curve in curves.items()}
        return {**whole, CONSTANT: constant, LAYER: sum(layer.values())}

    sizes, at = sorted(found), {size: figures(parts) for size, parts in found.items()}
    return {
        name: Curve(tuple(sizes), tuple(_monotone([at[s][name] / (at[full][name] or 1.0) for s in sizes])))
        for name in at[full]
    }


def _monotone(values: Sequence[float]) -> list[float]:
    """Return the nearest values, by least squares, that do not fall (pool adjacent violators)."""
    pools: list[tuple[float, int]] = []
    for value in values:
        pools.append((value, 1))
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            (one, n), (other, m) = pools[-2], pools[-1]
            pools[-2:] = [((one * n + other * m) / (n + m), n + m)]
    return [value for value, count in pools for _ in range(count)]
