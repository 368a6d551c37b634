"""Maps of what is left of a model: layers × heads of pruned ones, layers × bits of mixed precision.

They are drawn for rows whose ``shape`` says so:

- ``shape["heads"]``: one list per layer, with 1 for each head that was kept and 0 for each that was removed;
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
        for key, draw in (("heads", heads_map), ("bits", bits_map)):
            if shape.get(key):
                figures.setdefault((row["model"], repr(shape[key])), draw(row["model"], shape[key]))
    return join(*figures.values())


def heads_map(model: str, heads: Sequence[Sequence[int]]) -> Html:
    """Return which heads of each layer were kept.

    Args:
        model: Name of the model.
        heads: One list of flags per layer.

    Returns:
        A figure with a table: layers down, heads across, the count at the end.
    """
    width = max(map(len, heads))
    head = tag("tr", tag("th", "layer", scope="col"), *(_column(str(n + 1)) for n in range(width)))
    body = []
    for number, flags in enumerate(heads):
        cells = [
            tag(
                "td",
                tag("span", "kept" if kept else "removed", class_="quiet"),
                class_=f"head {_state(kept)}",
            )
            for kept in flags
        ]
        cells += [tag("td")] * (width - len(flags))
        count = tag("td", f"{sum(map(bool, flags))} of {len(flags)}", class_="count")
        body.append(tag("tr", tag("th", str(number + 1), scope="row"), *cells, count))
    kept, total = sum(bool(flag) for flags in heads for flag in flags), sum(map(len, heads))
    caption = f"{model}: {kept} of {total} heads kept"
    return _figure(caption, tag("thead", head), tag("tbody", *body))


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
