"""Maps of what is left of a model: layers × heads of pruned ones, layers × bits of mixed precision.

They are drawn for rows whose ``shape`` says so:

- ``shape["heads"]``: one list per layer, with 1 for each head that was kept and 0 for each that was removed;
- ``shape["neurons"]``: ``[kept, of]`` per layer, drawn as bars beside the heads;
- ``shape["bits"]``: bits per weight by the name of the layer, such as
  ``{"encoder.layer.0.attention.self.query": 4}``. A number in a name is the row of the map, what follows it
  the column; names without a number come below, one by one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from lit_compress.report.groups import Row, distinct
from lit_compress.report.markup import Html, join, tag

_NUMBERED = re.compile(r"^(?:.*?\.)?(\d+)\.(.+)$")


def maps(rows: Sequence[Row]) -> Html:
    """Return the maps of all models that have any, nothing where none has.

    Args:
        rows: Rows of one group; the same map of a model in several runtimes is drawn once.

    Returns:
        One figure per map.
    """
    figures: dict[tuple[str, str], Html] = {}
    for row in rows:
        shape = row.get("shape") or {}
        heads, neurons, bits = shape.get("heads"), shape.get("neurons"), shape.get("bits")
        if heads or neurons:
            key = (row["model"], repr((heads, neurons)))
            figures.setdefault(key, heads_map(row["model"], heads or [[] for _ in neurons or ()], neurons))
        if bits:
            figures.setdefault((row["model"], repr(bits)), bits_map(row["model"], bits))
    return join(*figures.values())


def heads_map(
    model: str, heads: Sequence[Sequence[int]], neurons: Sequence[Sequence[int]] | None = None
) -> Html:
    """Return which heads and how many neurons of each layer were kept.

    Args:
        model: Name of the model.
        heads: One list of flags per layer.
        neurons: ``[kept, of]`` per layer; ``None`` where they are not known.

    Returns:
        A figure with a table: layers down, heads across, the count behind them, then a bar of neurons.
    """
    width = max(map(len, heads))
    titles = [*(str(n + 1) for n in range(width)), *(["", "neurons"] if neurons else [])]
    head = tag("tr", tag("th", "layer", scope="col"), *(_column(title) for title in titles))
    body = []
    for number, flags in enumerate(heads):
        cells = [_head(kept) for kept in flags] + [tag("td")] * (width - len(flags))
        cells.append(tag("td", f"{sum(map(bool, flags))} of {len(flags)}" if flags else "", class_="count"))
        if neurons:
            cells.append(_bar(*neurons[number]) if number < len(neurons) else tag("td"))
        body.append(tag("tr", tag("th", str(number + 1), scope="row"), *cells))
    return _figure(kept_caption(model, heads, neurons), tag("thead", head), tag("tbody", *body))


def kept_caption(model: str, heads: Sequence[Sequence[int]], neurons: Sequence[Sequence[int]] | None) -> str:
    """Return what a map says in words, such as ``student: 4 of 8 heads and 100 of 400 neurons kept``."""
    parts = []
    if any(heads):
        kept = sum(bool(flag) for flags in heads for flag in flags)
        parts.append(f"{kept} of {sum(map(len, heads))} heads")
    if neurons:
        parts.append(f"{sum(kept for kept, _ in neurons)} of {sum(of for _, of in neurons)} neurons")
    return f"{model}: {' and '.join(parts)} kept"


def _head(kept: int) -> Html:
    inside = tag("span", "kept" if kept else "removed", class_="quiet")
    return tag("td", inside, class_=f"head {_state(kept)}")


def _bar(kept: int, of: int) -> Html:
    share = 100 * kept / of if of else 0
    bar = tag("span", tag("span", class_="fill", style=f"width:{share:.1f}%"), class_="track")
    return tag("td", bar, tag("span", f"{kept} of {of}", class_="count"), class_="bar")


def bits_map(model: str, bits: dict[str, float]) -> Html:
    """Return how many bits the weights of each layer have.

    Args:
        model: Name of the model.
        bits: Bits by the name of the layer.

    Returns:
        A figure with a table: numbered layers down, their parts across, other layers below.
    """
    cells, others = {}, {}
    for name, value in bits.items():
        if found := _NUMBERED.match(name):
            cells[int(found[1]), found[2]] = value
        else:
            others[name] = value
    parts, layers = distinct(part for _, part in cells), sorted({layer for layer, _ in cells})
    caption = f"{model}: {_range(list(bits.values()))} per weight"
    head = tag("tr", tag("th", "layer", scope="col"), *(_column(part) for part in parts))
    body = [
        tag("tr", tag("th", str(layer), scope="row"), *(_bits(cells.get((layer, part))) for part in parts))
        for layer in layers
    ]
    span = max(1, len(parts))
    body += [tag("tr", tag("th", name, scope="row"), _bits(value, span)) for name, value in others.items()]
    return _figure(caption, *([tag("thead", head)] if parts else []), tag("tbody", *body), kind="bits")


def _bits(value: float | None, span: int = 1) -> Html:
    if value is None:
        return tag("td", colspan=span)
    # Full strength at 2 bits: the more was taken away, the stronger the colour.
    strength = max(0, min(100, round(100 * (16 - value) / 14)))
    return tag("td", f"{value:g}", class_="bit", style=f"--strength:{strength}%", colspan=span)


def _range(values: list[float]) -> str:
    low, high = min(values), max(values)
    return f"{low:g} bits" if low == high else f"{low:g} to {high:g} bits"


def _state(kept: int) -> str:
    return "kept" if kept else "gone"


def _column(title: str) -> Html:
    # Names of layers are long and have no spaces: they may break behind their dots.
    parts = [join(part, ".", Html("<wbr>")) for part in title.split(".")[:-1]]
    return tag("th", *parts, title.split(".")[-1], scope="col")


def _figure(caption: str, *parts: str, kind: str = "heads") -> Html:
    table = tag("table", *parts, class_=f"map {kind}")
    box = tag("div", table, class_="scroll", tabindex="0", role="region", aria_label=caption)
    return tag("figure", tag("figcaption", caption), box, class_=f"card {kind}-card")
