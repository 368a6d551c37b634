"""What the milliseconds of models of several sizes say about the parts of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from lit_compress.pruning.latency import CONSTANT, LAYER, Curve, pattern
from lit_compress.pruning.latency_sizes import Size, Sizes


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


def figures_of(
    whole: Sizes, whole_ms: float, tried: Sizes, ms: Mapping[Size, float], varied: bool
) -> Figures:
    """Return the figures of a model.

    A curve is made monotone (isotonic regression), because a larger part is not faster, and all curves are scaled
    alike so that the whole is what the full model takes.

    Args:
        whole: The model.
        whole_ms: Milliseconds of the model.
        tried: The model whose sizes were measured: the same, or one of fewer blocks.
        ms: Milliseconds of its sizes.
        varied: Whether the hidden size was varied.
    """
    found = {hidden: _at_hidden(tried, ms, hidden) for hidden in sorted({size.hidden for size in ms})}
    curves, layer, constant = found[whole.hidden]
    # What the parts take together is not quite what they take alone: the full model decides.
    alone = sum(curves[part.kind].values[-1] for part in whole.parts)
    rest = constant + sum(layer[pattern(block.path)] for block in whole.anatomy.blocks)
    scale = max((whole_ms - rest) / alone, 0.1) if alone else 1.0
    scaled = {k: Curve(c.units, tuple(scale * value for value in c.values)) for k, c in curves.items()}
    return Figures(scaled, layer, constant, _factors(found, whole.hidden) if varied else None)


_Parts = tuple[dict[str, Curve], dict[str, float], float]


def _at_hidden(sizes: Sizes, ms: Mapping[Size, float], hidden: int) -> _Parts:
    """Return curves of parts, milliseconds of blocks, and the constant, at one hidden size."""
    least, base = sizes.least_heads, ms[Size(hidden)]
    curves, always = {}, 0.0
    for kind in sizes.kinds:
        count = sum(part.kind == kind for part in sizes.parts)
        steps = sorted(size.units for size in ms if size.hidden == hidden and size.kind == kind)
        took = [max(0.0, ms[Size(hidden, kind, units)] - base) / count for units in steps]
        if kind in least:
            # The few heads that are in all sizes cost what further ones cost; what their attention costs besides is
            # constant, since no other attention can take its place.
            few = took[-1] * least[kind] / (steps[-1] - least[kind]) if steps else 0.0
            steps, took = [least[kind], *steps], [few, *(few + value for value in took)]
            always += count * few
        curves[kind] = Curve((0, *steps), (0.0, *monotone(took)))
    layer, blocks = {}, [pattern(block.path) for block in sizes.anatomy.blocks]
    for name in dict.fromkeys(blocks):
        short, count = Size(hidden, short=name), blocks.count(name)
        # One block alone cannot be dropped: what it costs is part of the constant.
        layer[name] = max(0.0, base - ms[short]) / (count - 1) if count > 1 and short in ms else 0.0
    return curves, layer, max(0.0, base - always - sum(layer[name] for name in blocks))


def _factors(found: Mapping[int, _Parts], full: int) -> dict[str, Curve]:
    """Return how much of each part is left at smaller hidden sizes."""

    def figures(parts: _Parts) -> dict[str, float]:
        curves, layer, constant = parts
        whole = {kind: curve.values[-1] for kind, curve in curves.items()}
        return {**whole, CONSTANT: constant, LAYER: sum(layer.values())}

    sizes, at = sorted(found), {size: figures(parts) for size, parts in found.items()}
    return {
        name: Curve(tuple(sizes), tuple(monotone([at[s][name] / (at[full][name] or 1.0) for s in sizes])))
        for name in at[full]
    }


def monotone(values: Sequence[float]) -> list[float]:
    """Return the nearest values, by least squares, that do not fall (pool adjacent violators)."""
    pools: list[tuple[float, int]] = []
    for value in values:
        pools.append((value, 1))
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            (one, n), (other, m) = pools[-2], pools[-1]
            pools[-2:] = [((one * n + other * m) / (n + m), n + m)]
    return [value for value, count in pools for _ in range(count)]
