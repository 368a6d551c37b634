"""``lit-compress sensitivity``: measures what each block of a model can stand, and writes its bits."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from lit_compress.benchmark.candidates import texts_of_models
from lit_compress.benchmark.folders import local_folder
from lit_compress.pruning.source import open_source
from lit_compress.quantization.mixed.allocation import Option, allocate
from lit_compress.quantization.mixed.file import read_measured, write_mixed
from lit_compress.quantization.mixed.plan import MixedPlan, plan_of
from lit_compress.quantization.mixed.sensitivity import Sensitivity, draw_subsets, sensitivities
from lit_compress.quantization.progress import progress

_DOING = "power iteration"
_SHARE, _SUBSETS = 0.1, 5
# Of what is not measured anew.
_DEFAULTS = (None, _SHARE, _SUBSETS, 0)


def sensitivity_command(
    folder: str,
    out: str,
    budget_mb: float | None = None,
    average_bits: float | None = None,
    bits: Sequence[int] = (2, 3, 4),
    group_size: int = 8,
    zero_points: bool = False,
    embedding_bits: int = 8,
    per: str = "block",
    data: str | None = None,
    share: float = _SHARE,
    subsets: int = _SUBSETS,
    seed: int = 0,
    include: Sequence[str] | None = None,
    exclude: Sequence[str] = (),
    measured: str | None = None,
) -> dict[str, Sensitivity]:
    """Measure every block, choose its bits, print a Markdown table, and write a file for ``mixed``.

    Args:
        folder: Folder of a fine-tuned model, hub name or ``package:NAME``.
        out: The JSON file.
        budget_mb: Megabytes (1e6) of all weights of the model, as they are stored.
        average_bits: In its place: bits that a weight of the blocks may have on average.
        bits: Widths to choose from.
        group_size: Consecutive outputs that share a scale.
        zero_points: Whether grids have zero points, as in Q-BERT; learned steps (LSQ) cannot have them.
        embedding_bits: Bits of the embeddings; 0 leaves them as they are.
        per: What gets bits of its own: ``block`` or ``matrix``.
        data: YAML file with a ``data`` section; the ``config.yaml`` of the folder's run where ``None``.
        share: Share of the training rows in every subset.
        subsets: Number of random subsets.
        seed: Of the subsets and of the power iteration.
        include: Parts of the names of projections and embeddings to round; all where ``None``.
        exclude: Parts of the names of those to leave as they are.
        measured: File of an earlier call for the same model, whose eigenvalues are taken; nothing is measured then.

    Returns:
        The sensitivity of every part.

    Raises:
        ValueError: A setting, the data or the model cannot be used, or the budget cannot be reached.
    """
    if (budget_mb is None) == (average_bits is None):
        raise ValueError(
            "Expected one budget, --budget-mb or --average-bits, but got "
            f"{'none' if budget_mb is None else 'both'}; give one of them."
        )
    place = local_folder(folder)
    model = open_source(str(place)).model
    plan = plan_of(model, bits, group_size, zero_points, embedding_bits, per, include, exclude)
    fixed = plan.fixed_bytes()
    budget = round(1e6 * (budget_mb or 0)) - fixed if average_bits is None else plan.budget(average_bits)
    try:
        allocate(plan.sizes(), budget)  # before the time that measuring takes
    except ValueError as error:
        raise ValueError(f"{error} Other weights take {fixed / 1e6:.3f} MB besides.") from error
    if measured is None:
        found, facts = _measure(model, plan, place, data, share, subsets, seed)
    else:
        found, facts = _known(measured, plan, (data, share, subsets, seed))
    chosen = allocate(plan.options({part: one.omega for part, one in found.items()}), budget)
    total = fixed + sum(option.bytes for option in chosen.values())
    parts = {
        part: {"eigenvalues": list(one.eigenvalues), "omega": one.omega, **chosen[part]._asdict()}
        for part, one in found.items()
    }
    write_mixed(out, plan.schemes(chosen), {"model": str(folder), **facts, "bytes": total, "parts": parts})
    print(_table(found, chosen))
    print(
        f"\n{plan.average(chosen):.3g} bits per weight of the blocks; all weights {total / 1e6:,.2f} MB, of which "
        f"{fixed / 1e6:,.2f} MB are outside of the blocks. {len(next(iter(found.values())).eigenvalues)} subsets of "
        f"{100 * facts['share']:g} % of the training rows took {facts['seconds']:,.0f} s.\n{out}: for QAT with mixed, "
        "and lit-compress quantize --mixed"
    )
    return found


def _measure(
    model: PreTrainedModel,
    plan: MixedPlan,
    place: Path,
    data: str | None,
    share: float,
    subsets: int,
    seed: int,
) -> tuple[dict[str, Sensitivity], dict[str, Any]]:
    known = texts_of_models([place], data, "train")
    if known is None:
        raise ValueError(
            "Expected training texts but nothing names data; give a YAML file with a data section with --data."
        )
    drawn = draw_subsets(known.datamodule, share, subsets, seed)
    begun = time.perf_counter()
    with progress(_DOING) as tell:
        found = sensitivities(model, plan.parts, drawn, seed, tell=lambda share: tell(_DOING, share))
    return found, {"share": share, "seed": seed, "seconds": round(time.perf_counter() - begun, 1)}


def _known(
    measured: str, plan: MixedPlan, settings: tuple[Any, ...]
) -> tuple[dict[str, Sensitivity], dict[str, Any]]:
    if settings != _DEFAULTS:
        raise ValueError(
            "Expected either --measured, whose file has the eigenvalues, or --data, --share, --subsets and --seed, but "
            "got both; leave one out."
        )
    facts = read_measured(measured)
    found = {part: Sensitivity(tuple(values)) for part, values in facts.pop("eigenvalues").items()}
    if set(found) != set(plan.parts):
        odd = sorted(set(found) ^ set(plan.parts))[0]
        raise ValueError(
            f"Expected the eigenvalues of the parts of this model in {measured} but {odd} is in one of them only; "
            "measure this model, with the same --per, --include and --exclude."
        )
    return {part: found[part] for part in plan.parts}, facts


def _table(found: Mapping[str, Sensitivity], chosen: Mapping[str, Option]) -> str:
    lines = ["| part | mean λ | std λ | Ω | bits | bytes |", "| --- | ---: | ---: | ---: | ---: | ---: |"]
    for part, one in found.items():
        option = chosen[part]
        figures = [f"{value:.4g}" for value in (one.mean, one.std, one.omega)]
        lines.append(f"| {part} | {' | '.join(figures)} | {option.bits} | {option.bytes:,} |")
    return "\n".join(lines)
