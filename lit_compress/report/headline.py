"""Says in plain words which model to ship, and no more than the intervals allow."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from lit_compress.report.columns import look_up, name_of, times_better
from lit_compress.report.groups import Group, Row
from lit_compress.report.scatter import AXES, cost_interval

#: Shares of the teacher's quality that are asked for.
SHARES = (0.98, 0.95)
# Sizes closer than this count as equal: a file of the same shape differs by some bytes of header.
_SAME_SIZE = 0.01


@dataclass(frozen=True)
class Pick:
    """The answer to one wish.

    Args:
        wish: What is wanted: ``Fastest``, ``Smallest`` or ``Best quality``.
        row: The row that fulfils it, ``None`` where none does.
        ties: Rows that cannot be told apart from it in what was wished for.
        share: The share of the teacher's quality that must be kept, ``None`` where none must.
    """

    wish: str
    row: Row | None
    ties: list[Row] = field(default_factory=list)
    share: float | None = None


@dataclass(frozen=True)
class Headline:
    """What the page says first.

    Args:
        answer: The model to ship.
        reason: Why, in one or two sentences.
        picks: Answers to the single wishes.
        caveats: What limits all of it.
    """

    answer: str
    reason: str
    picks: list[Pick]
    caveats: list[str]


def headline(group: Group) -> Headline:
    """Return what a group of rows says about which model to ship."""
    rows = [row for row in group.rows if not row.get("error") and (row["cpu"] or row["gpu"])]
    caveats = _caveats(group, rows)
    if not rows:
        return Headline(
            "Nothing to ship yet", "No model could be measured; the failures are below.", [], caveats
        )
    if len(rows) == 1:
        text = "It is the only row here, so there is nothing to compare it with."
        return Headline(f"Only {name_of(rows[0])} was measured", text, [], caveats)
    devices = [device for device in ("cpu", "gpu") if any(row[device] for row in rows)]
    picks = [*_best(rows, devices[0]), *_wishes(rows, devices)]
    return Headline(*_answer(rows, devices[0]), picks, caveats)


def share(row: Row) -> float | None:
    """Return the share of the teacher's quality that a row keeps, ``None`` where it is not known."""
    return 1.0 if row["is_baseline"] and row.get("quality") else look_up(row, "ratio.quality")


def fastest(rows: Sequence[Row], device: str) -> Pick:
    """Return the fastest row, and those that are not measurably slower; among them the best quality leads."""
    timed = [row for row in rows if row[device]]
    if not timed:
        return Pick("", None)
    limit = min(_time(row, device) for row in timed)[2]
    return _first([row for row in timed if _time(row, device)[1] <= limit], device)


def smallest(rows: Sequence[Row], device: str) -> Pick:
    """Return the smallest row, and those of the same size; among them the best quality leads."""
    sized = [row for row in rows if row["bytes"]]
    if not sized:
        return Pick("", None)
    limit = min(row["bytes"] for row in sized) * (1 + _SAME_SIZE)
    equal = [row for row in sized if row["bytes"] <= limit]
    return _first(equal, device)


def speed(row: Row, device: str) -> str:
    """Return in words how fast a row is beside the baseline."""
    ratio = look_up(row, f"ratio.{device}_latency")
    if not ratio:
        return ""
    where = {"cpu": "on the CPU", "gpu": "on the GPU"}[device]
    median, low, high = (times_better(ratio) or ())[:3]
    if ratio["verdict"] == "faster":
        return f"{median:.1f} times faster {where} ({low:.1f}–{high:.1f})"
    if ratio["verdict"] == "slower":
        return f"{1 / median:.1f} times slower {where} ({1 / high:.1f}–{1 / low:.1f})"
    return f"no measurable difference in speed {where} ({low:.2f}–{high:.2f})"


def size(row: Row) -> str:
    """Return in words how large a row is beside the baseline."""
    ratio = look_up(row, "ratio.size")
    if not ratio:
        return ""
    if abs(ratio - 1) <= _SAME_SIZE:
        return "the same size"
    return f"{1 / ratio:.1f} times smaller" if ratio < 1 else f"{ratio:.1f} times larger"


def _first(rows: list[Row], device: str) -> Pick:
    ordered = sorted(rows, key=lambda row: (-_quality(row), _time(row, device)))
    return Pick("", ordered[0], ordered[1:])


def _time(row: Row, device: str) -> tuple[float, float, float]:
    """Return time with lower and upper end in milliseconds, the longest where there is none."""
    if not row[device]:
        return math.inf, math.inf, math.inf
    axis = next(axis for axis in AXES if axis.path == f"{device}.latency_ms.p50")
    return look_up(row, axis.path), *cost_interval(row, axis)


def _quality(row: Row) -> float:
    quality = row.get("quality")
    if not quality:
        return -math.inf
    return quality["value"] if quality.get("higher_is_better", True) else -quality["value"]


def _best(rows: Sequence[Row], device: str) -> list[Pick]:
    judged = [row for row in rows if row.get("quality")]
    if not judged:
        return []
    top = max(map(_quality, judged))
    equal = sorted((row for row in judged if _quality(row) == top), key=lambda row: _time(row, device))
    return [Pick("Best quality", equal[0], equal[1:])]


def _wishes(rows: Sequence[Row], devices: Sequence[str]) -> list[Pick]:
    """Return fastest per device and smallest, for each share of the teacher's quality."""
    shares: Sequence[float | None] = SHARES if any(share(row) is not None for row in rows) else (None,)
    picks: list[Pick] = []
    for least in shares:
        enough = [row for row in rows if least is None or (share(row) or 0) >= least]
        for device in devices:
            wish = f"Fastest{_on(device, devices)}"
            picks.append(replace(fastest(enough, device), wish=wish, share=least))
        picks.append(replace(smallest(enough, devices[0]), wish="Smallest", share=least))
    return picks


def _on(device: str, devices: Sequence[str]) -> str:
    return f" on the {device.upper()}" if len(devices) > 1 else ""


def _answer(rows: Sequence[Row], device: str) -> tuple[str, str]:
    baseline = next((row for row in rows if row["is_baseline"]), None)
    if all(share(row) is None for row in rows):
        quickest = fastest(rows, device).row or rows[0]
        why = (
            "No model here was measured beside a teacher whose quality is known, so that nobody can say how "
            "much of it is kept. Choose by the plots below."
        )
        return f"{name_of(quickest)} is the fastest", why
    for least in SHARES:
        pick = fastest([row for row in rows if (share(row) or 0) >= least], device).row
        if pick is not None and pick is not baseline:
            return f"Ship {name_of(pick)}", _reason(pick, device, least)
    name = name_of(baseline) if baseline else "the teacher"
    return f"Keep {name}", (
        f"Nothing else here keeps {100 * SHARES[-1]:.0f} % of its quality and is measurably faster. "
        "Train longer, or compress less."
    )


def _reason(row: Row, device: str, least: float) -> str:
    kept, metric = share(row) or 0.0, row["quality"]["metric"]
    said = [f"keeps {100 * kept:.1f} % of the teacher’s {metric}"]
    for words in filter(None, (speed(row, device), size(row))):
        said.append(f"shows {words}" if words.startswith("no ") else f"is {words}")
    text = f"It {', '.join(said[:-1])} and {said[-1]}." if len(said) > 1 else f"It {said[0]}."
    if least != SHARES[0]:
        text += f" Nothing faster than the teacher keeps {100 * SHARES[0]:.0f} %."
    return text


def _caveats(group: Group, rows: Sequence[Row]) -> list[str]:
    failed = len([row for row in group.rows if row.get("error")])
    found = (
        [f"{failed} of {len(group.rows)} rows could not be measured; see below."] if failed and rows else []
    )
    quality = next((row["quality"] for row in rows if row.get("quality")), None)
    if (
        len(rows) > 1
        and quality
        and quality["metric"] == "accuracy"
        and quality["n"]
        and 0 < quality["value"] < 1
    ):
        half = 1.96 * math.sqrt(quality["value"] * (1 - quality["value"]) / quality["n"])
        found.append(
            f"Accuracy on {quality['n']} texts is known to about ± {100 * half:.1f} points (95 %): smaller "
            "differences between models may be chance."
        )
    if len(rows) > 1 and not any(row["is_baseline"] for row in rows):
        found.append("There is no baseline here, so times carry the drift of the machine.")
    return found
