"""The results table of the page: sorted, filtered and opened by assets/table.js, readable without it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from lit_compress.report.columns import Column, columns_of, look_up, times_better, zeros
from lit_compress.report.groups import Group, Row
from lit_compress.report.markup import Html, counted, join, tag
from lit_compress.report.scatter import scatters
from lit_compress.report.seeds import Mean, means

# Filter → where its values are, and how all of them are called.
_FILTERS = {
    "runtime": ("runtime", "all runtimes"),
    "method": ("method", "all methods"),
    "threads": ("protocol.threads", "any threads"),
}
# What is best when high is sorted from high to low at the first click.
_HIGH_FIRST = ("quality", "quality_kept")


def row_id(group: int, index: int) -> str:
    """Return the id of a row's element, by which plots find it."""
    return f"g{group}r{index}"


def results_table(group: Group, number: int) -> Html:
    """Return the table of a group with its filters.

    Args:
        group: The rows.
        number: Number of the group on the page.
    """
    columns = [
        column
        for column in columns_of(group.rows)
        if column.is_text or any(column.value(row) is not None for row in group.rows)
    ]
    on_front = {id(scatter.rows[i]) for scatter in scatters(group) for i in scatter.front}
    pooled = means(group.rows)
    body: list[Html] = []
    for index, row in enumerate(group.rows):
        body += [_mean_row(mean, columns) for mean in pooled if mean.rows[0] is row]
        body += _rows(row, columns, row_id(number, index), id(row) in on_front, pooled)
    head = tag("tr", *(_heading(column) for column in columns))
    table = tag("table", tag("thead", head), tag("tbody", *body), class_="results")
    label = f"Results, {counted(len(group.rows), 'row')}"
    box = tag("div", table, class_="scroll", tabindex="0", role="region", aria_label=label)
    return tag("div", _controls(group, bool(pooled)), box, class_="card table-card", data_table=str(number))


def _controls(group: Group, pooled: bool) -> Html:
    fields = []
    for name, (path, everything) in _FILTERS.items():
        values = sorted({str(look_up(row, path)) for row in group.rows})
        if len(values) > 1:
            options = [tag("option", everything, value="")]
            options += [tag("option", value, value=value) for value in values]
            fields.append(tag("select", *options, data_filter=name, aria_label=f"Filter by {name}"))
    if len(group.rows) > 1:
        search = tag("input", type="search", placeholder="find a model", data_filter="name")
        fields.insert(0, tag("label", tag("span", "Find a model", class_="quiet"), search))
        fields.append(_check("front", "Pareto front only"))
    if pooled:
        fields.append(_check("means", "mean over seeds"))
    count = tag("output", counted(len(group.rows), "row"), class_="count", aria_live="polite")
    return tag("div", *fields, count, class_="controls")


def _check(name: str, text: str) -> Html:
    return tag("label", tag("input", type="checkbox", data_check=name), f" {text}", class_="check")


def _heading(column: Column) -> Html:
    high = column.key in _HIGH_FIRST or column.title.startswith("×")
    button = tag("button", column.title, type="button", data_first="descending" if high else "ascending")
    return tag("th", button, scope="col", aria_sort="none", class_=None if column.is_text else "number")


def _rows(row: Row, columns: Sequence[Column], name: str, front: bool, pooled: Sequence[Mean]) -> list[Html]:
    """Return a row and the hidden one below it that holds everything else that is known."""
    member = any(row is other for mean in pooled for other in mean.rows)
    first, *others = columns
    cells = [_model_cell(row, first, name, front), *(_cell(row, column) for column in others)]
    shown = tag(
        "tr",
        *cells,
        id=name,
        class_=" ".join(_classes(row)) or None,
        data_name=row["model"].lower(),
        data_runtime=row["runtime"],
        data_method=row["method"],
        data_threads=row["protocol"]["threads"],
        data_front=front,
        data_member=member,
    )
    facts = [join(tag("dt", term), tag("dd", text)) for term, text in details(row)]
    inside = tag("td", tag("dl", *facts, class_="facts"), colspan=len(columns))
    return [shown, tag("tr", inside, class_="detail", id=f"{name}d", hidden=True)]


def _classes(row: Row) -> Iterable[str]:
    if row["is_baseline"]:
        yield "baseline"
    if row.get("error"):
        yield "failed"


def _model_cell(row: Row, column: Column, name: str, front: bool) -> Html:
    figure, *rest = column.parts(row)
    button = tag(
        "button", figure, type="button", class_="more", aria_expanded="false", aria_controls=f"{name}d"
    )
    marks = [tag("small", text) for text in rest]
    if row["is_baseline"]:
        marks.append(tag("span", "baseline", class_="mark"))
    if front:
        marks.append(tag("span", "front", class_="mark front", title="on a Pareto front of quality and cost"))
    return tag("th", button, tag("span", *marks, class_="under"), scope="row", data_v=row["model"].lower())


def _cell(row: Row, column: Column) -> Html:
    value = column.value(row)
    figure, *rest = column.parts(row)
    if column.is_text:
        return tag("td", figure, data_v=value)
    # The verdict first: "faster 1.90–2.10".
    said = [tag("span", text, class_=_verdict_class(text)) for text in reversed(rest)]
    parts = [tag("small", *said)] if said else []
    return tag("td", figure, *parts, class_="number", data_v=None if value is None else f"{value:.6g}")


def _verdict_class(text: str) -> str | None:
    return {"faster": "good", "slower": "bad", "no difference": "same"}.get(text)


def _mean_row(mean: Mean, columns: Sequence[Column]) -> Html:
    row = mean.rows[0]
    cells = [
        tag(
            "th",
            mean.name,
            tag("span", tag("small", f"mean of {len(mean.rows)} seeds"), class_="under"),
            scope="row",
            data_v=mean.name.lower(),
        )
    ]
    for column in columns[1:]:
        value, spread = mean.value(column), mean.spread(column)
        if column.is_text or column.key == "threads":
            cells.append(_cell(row, column))
        elif value is None or spread is None:
            cells.append(tag("td", "–", class_="number"))
        else:
            kept = column.key in ("quality_kept", "zeros")
            digits = (
                4 if column.key == "quality" else 2 if column.key.endswith("ms") or "×" in column.title else 1
            )
            scale, unit = (100, " %") if kept else (1, "")
            figure = f"{scale * value:.{digits}f}{unit}"
            small = tag("small", f"± {scale * spread:.{digits}f}")
            cells.append(tag("td", figure, small, class_="number", data_v=f"{value:.6g}"))
    return tag(
        "tr",
        *cells,
        class_="mean",
        hidden=True,
        data_name=mean.name.lower(),
        data_runtime=row["runtime"],
        data_method=row["method"],
        data_threads=row["protocol"]["threads"],
    )


def details(row: Row) -> list[tuple[str, str]]:
    """Return what else is known about a row, as pairs of term and text."""
    found: list[tuple[str, Any]] = [
        ("failed", row.get("error")),
        ("warnings", "; ".join(row.get("warnings") or [])),
        ("parameters", _millions(row.get("params"))),
        ("nonzero", _nonzero(row)),
        ("each layer", _per_layer(row)),
        ("multiply-adds", _macs(row)),
        ("checkpoint", row.get("checkpoint")),
        ("recipe", row.get("recipe")),
        ("seed", row.get("seed")),
        ("run", row.get("run")),
    ]
    for device in ("cpu", "gpu"):
        if row[device]:
            found += _device_details(row, device)
    return [(term, str(text)) for term, text in found if text not in (None, "")]


def _device_details(row: Row, device: str) -> list[tuple[str, Any]]:
    figures, name = row[device], device.upper()
    latency = figures["latency_ms"]
    percentiles = [
        f"{key} {latency[key]:.2f}" for key in ("p50", "p90", "p99") if latency.get(key) is not None
    ]
    found: list[tuple[str, Any]] = [(f"{name} ms per text", " · ".join(percentiles))]
    for batch, rate in (figures.get("throughput") or {}).items():
        text = f"{rate['texts_per_second']:.0f} texts/s{_better(row, f'{device}_throughput_{batch}', False)}"
        found.append((f"{name}, {batch} at once", text))
    for length, part in (figures.get("fixed") or {}).items():
        text = f"{part['latency_ms']['p50']:.2f} ms{_better(row, f'{device}_latency_{length}', True)}"
        found.append((f"{name}, {length} tokens", text))
        for batch, rate in (part.get("throughput") or {}).items():
            found.append((f"{name}, {batch} × {length} tokens", f"{rate['texts_per_second']:.0f} texts/s"))
    if figures.get("rss_growth_mb") is not None:
        found.append(("RAM grew by", f"{figures['rss_growth_mb']:.1f} MB"))
    if figures.get("vram_reserved_mb") is not None:
        found.append(("VRAM reserved", f"{figures['vram_reserved_mb']:.0f} MB"))
    if figures.get("energy_j_per_text") is not None:
        found.append((f"{name} energy", f"{figures['energy_j_per_text']:.3g} J per text"))
    return [*found, (f"{name} rounds", figures.get("rounds"))]


def _better(row: Row, name: str, invert: bool) -> str:
    """Return a ratio in brackets, such as `` (1.80× (1.67–2.00) faster)``, nothing where there is none."""
    found = times_better(look_up(row, f"ratio.{name}"), invert)
    if not found or len(found) < 3:
        return ""
    return f" · {found[0]:.2f}× ({found[1]:.2f}–{found[2]:.2f}), {look_up(row, f'ratio.{name}.verdict')}"


def _nonzero(row: Row) -> str | None:
    share, text = zeros(row), _millions(row.get("nonzero_params"))
    return text if share is None else f"{text}: sparsity {100 * share:.0f} % (zeros, not removed)"


def _per_layer(row: Row) -> str | None:
    found = look_up(row, "shape.per_layer")
    return f"{found['heads']} heads, {found['neurons']} neurons" if found else None


def _millions(count: int | None) -> str | None:
    return None if count is None else f"{count / 1e6:.2f} M"


def _macs(row: Row) -> str | None:
    macs = row.get("macs")
    return f"{macs['count'] / 1e9:.3g} G for {macs['length']} tokens" if macs else None
