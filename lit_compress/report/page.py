"""The report as one HTML page that needs nothing else: no network, no other file.

Sections that have nothing to show are left out; :mod:`lit_compress.report.maps` says what the maps of
pruned and of mixed precision models are drawn from.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files

from lit_compress.report.columns import look_up, name_of
from lit_compress.report.curves import Points
from lit_compress.report.groups import Group, Row, differences
from lit_compress.report.headline import Headline, Pick, headline, share, size, speed
from lit_compress.report.maps import maps
from lit_compress.report.markup import Html, counted, script_data, tag
from lit_compress.report.page_data import chosen_run, group_data
from lit_compress.report.page_table import results_table
from lit_compress.report.scatter import scatters
from lit_compress.report.setup import setup
from lit_compress.report.table import notes

_SCRIPTS = ("common.js", "table.js", "scatter.js", "curves.js", "main.js")
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
_NAMED_TIES = 3


def page(groups: Sequence[Group], curves: dict[str, dict[str, Points]] | None = None) -> str:
    """Return the page.

    Args:
        groups: Groups of comparable rows, the largest first; each has sections of its own.
        curves: Training curves by run and metric, as :func:`~lit_compress.report.curves.read_curves`
            returns them.
    """
    curves = curves or {}
    data = {
        "groups": [group_data(group, number) for number, group in enumerate(groups)],
        "curves": curves,
        "chosen": chosen_run(groups, list(curves)),
    }
    main = [_several(groups)] if len(groups) > 1 else []
    main += [_group(group, number, len(groups)) for number, group in enumerate(groups)]
    main += [_curves(curves)] if curves else []
    scripts = "\n".join(_asset(name) for name in _SCRIPTS)
    body = tag(
        "body",
        _header(groups),
        tag("main", *main),
        tag("footer", _footer(groups)),
        script_data("data", data),
        tag("script", Html(f'(() => {{\n"use strict";\n{scripts}}})();')),
    )
    return f"<!doctype html>\n{tag('html', _head(), body, lang='en')}\n"


def _asset(name: str) -> str:
    return (files("lit_compress.report") / "assets" / name).read_text(encoding="utf-8")


def _head() -> Html:
    return tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", "Compression report"),
        # Without this a browser asks the server for an icon.
        tag("link", rel="icon", href="data:,"),
        tag("style", Html(_asset("page.css"))),
    )


def _header(groups: Sequence[Group]) -> Html:
    rows = [row for group in groups for row in group.rows]
    models = len({(row["run"], row["model"]) for row in rows})
    days = sorted({row["time"][:10] for row in rows if row.get("time")})
    about = [
        counted(models, "model"),
        counted(len(rows), "row"),
        " to ".join(days[:1] + days[1:][-1:]),
    ]
    return tag(
        "header",
        tag("p", tag("strong", "lit-compress"), " report", class_="brand"),
        tag("p", " · ".join(about), class_="about"),
        tag("button", "Theme", type="button", id="theme", aria_label="Switch between light and dark"),
    )


def _several(groups: Sequence[Group]) -> Html:
    differ = ", ".join(differences(groups))
    text = (
        f"These results come from {len(groups)} set-ups that differ in {differ}. Each has its own answer, table and "
        "plots below: do not compare figures across them."
    )
    links = [
        tag("li", tag("a", group.title, href=f"#group{number}"), f" – {counted(len(group.rows), 'row')}")
        for number, group in enumerate(groups)
    ]
    return tag("aside", tag("p", text), tag("ol", *links), class_="note")


def _group(group: Group, number: int, total: int) -> Html:
    found = headline(group)
    parts = [_answer(group, found, number, total)]
    if len(group.rows) > 1 and scatters(group):
        parts.append(_plots(group, number))
    explanation = (
        "Click a heading to sort, a model for all its figures. Times are of the median text; ratios are to the "
        "baseline, with their 95 % interval: faster and slower are said only where the interval says so."
    )
    parts.append(_section("Results", explanation, results_table(group, number)))
    drawn = maps(group.rows)
    if drawn:
        text = (
            "Which heads and how many neurons pruning has kept, and how many bits each layer's weights have."
        )
        parts.append(_section("What is left inside", text, tag("div", drawn, class_="maps")))
    remarks = notes(group.rows)
    if remarks:
        items = [tag("li", note, class_="bad" if " failed: " in note else None) for note in remarks]
        parts.append(_section("Failures and warnings", None, tag("ul", *items, class_="card remarks")))
    parts.append(_section("How it was measured", None, setup(group)))
    return tag("div", *parts, class_="group", id=f"group{number}")


def _section(title: str, text: str | None, *content: str, kind: str | None = None) -> Html:
    intro = [tag("p", text, class_="intro")] if text else []
    return tag("section", tag("h2", title), *intro, *content, class_=kind)


def _answer(group: Group, found: Headline, number: int, total: int) -> Html:
    above = f"Which one do I ship? · set-up {number + 1} of {total}" if total > 1 else "Which one do I ship?"
    cards = [_card(pick) for pick in _merged(found.picks)]
    parts = [
        tag("p", above, class_="eyebrow"),
        tag("h1" if number == 0 else "h2", found.answer, class_="answer"),
        tag("p", found.reason, class_="reason"),
        *([tag("ul", *cards, class_="picks")] if cards else []),
        *_front(group),
        *(
            [tag("ul", *(tag("li", text) for text in found.caveats), class_="caveats")]
            if found.caveats
            else []
        ),
    ]
    return tag("section", *parts, class_="headline")


def _merged(picks: Sequence[Pick]) -> list[list[Pick]]:
    """Put wishes together that have the same answer."""
    merged: dict[int, list[Pick]] = {}
    for pick in picks:
        merged.setdefault(id(pick.row), []).append(pick)
    return list(merged.values())


def _goal(picks: Sequence[Pick]) -> str:
    """Return wishes in words, such as ``Fastest and smallest that keeps at least 98 %``."""
    wishes: dict[float | None, list[str]] = {}
    for pick in picks:
        first = pick.share not in wishes
        wishes.setdefault(pick.share, []).append(pick.wish if first else pick.wish[0].lower() + pick.wish[1:])
    conditions: dict[str, list[float]] = {}
    for least, words in wishes.items():
        conditions.setdefault(" and ".join(words), []).extend([least] if least is not None else [])
    parts = []
    for text, shares in conditions.items():
        kept = " and ".join(f"{100 * least:.0f} %" for least in shares)
        parts.append(f"{text} that keeps at least {kept}" if kept else text)
    return ". ".join(parts)


def _card(picks: Sequence[Pick]) -> Html:
    heads, pick = tag("p", _goal(picks), class_="goal"), picks[0]
    if pick.row is None:
        return tag("li", heads, tag("p", "None of the models here.", class_="tie"), class_="card pick")
    row = pick.row
    kept, quality = share(row), row.get("quality")
    facts = [
        f"{quality['metric']} {quality['value']:.4f}"
        + (f", {100 * kept:.1f} % kept" if kept is not None else "")
        if quality
        else "quality not evaluated",
        *(
            ["the baseline itself"]
            if row["is_baseline"]
            else [speed(row, "cpu"), speed(row, "gpu"), size(row)]
        ),
    ]
    figures = [text for text in (_ms(row, "cpu"), _ms(row, "gpu"), _megabytes(row)) if text]
    ties = [tag("p", _tied(pick), class_="tie")] if pick.ties else []
    return tag(
        "li",
        heads,
        tag("p", tag("strong", row["model"]), " ", tag("span", row["runtime"], class_="chip"), class_="name"),
        tag("p", *(tag("span", text) for text in figures), class_="figures"),
        tag("ul", *(tag("li", fact) for fact in facts if fact), class_="plain"),
        *ties,
        class_="card pick",
    )


def _ms(row: Row, device: str) -> str:
    value = look_up(row, f"{device}.latency_ms.p50")
    return "" if value is None else f"{value:#.3g} ms{' GPU' if device == 'gpu' else ''}"


def _megabytes(row: Row) -> str:
    return "" if not row.get("bytes") else f"{row['bytes'] / 1e6:#.3g} MB"


def _tied(pick: Pick) -> str:
    names = [name_of(row) for row in pick.ties[:_NAMED_TIES]]
    more = len(pick.ties) - len(names)
    listed = ", ".join(names) + (f" and {more} more" if more > 0 else "")
    same = {"Smallest": "The same size", "Best quality": "The same quality"}
    return f"{same.get(pick.wish, 'No measurable difference in speed')}: {listed}."


def _front(group: Group) -> list[Html]:
    found = scatters(group)
    if not found or len(found[0].front) < 2:
        return []
    scatter = found[0]
    steps = [tag("li", name_of(scatter.rows[i])) for i in scatter.front]
    text = f"On the Pareto front of quality and {scatter.axis.short}, cheapest first:"
    return [tag("div", tag("p", text), tag("ol", *steps), class_="front-list")]


def _plots(group: Group, number: int) -> Html:
    figures = [
        tag(
            "figure",
            tag("figcaption", f"Quality and {scatter.axis.short}"),
            tag("div", class_="plot", data_scatter=f"{number}:{index}"),
            class_="card",
        )
        for index, scatter in enumerate(scatters(group))
    ]
    legend = tag("div", class_="legend", data_legend=str(number))
    text = (
        "The line is the Pareto front: nothing is both better and cheaper. Where whiskers overlap, costs count as "
        "equal. Point at a dot, tap it, or walk along with the arrow keys."
    )
    return _section("What quality costs", text, legend, tag("div", *figures, class_="plots"))


def _curves(curves: dict[str, dict[str, Points]]) -> Html:
    options = [tag("option", run, value=run) for run in curves]
    choice = tag("label", "Run ", tag("select", *options, id="run"))
    return _section(
        "Training curves",
        "One plot per objective and metric of the chosen run; the others are grey.",
        tag("div", choice, class_="controls"),
        tag("div", class_="plots curves", id="curves"),
        kind="training",
    )


def _footer(groups: Sequence[Group]) -> str:
    versions = sorted({str(row["environment"].get("lit_compress")) for group in groups for row in group.rows})
    return f"Made by lit-compress report from rows of lit-compress {', '.join(versions)}."
