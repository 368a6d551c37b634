"""``lit-compress export``: a model folder in, a checked folder for another runtime out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from lit_compress.benchmark.artefacts import Artefact, PrepareError, prepare
from lit_compress.benchmark.candidates import side_of, texts_of_models
from lit_compress.benchmark.command import benchmark_folders
from lit_compress.benchmark.environment import usable_cores
from lit_compress.benchmark.folders import beside, local_folder
from lit_compress.benchmark.quality import ROUNDING, Texts, score
from lit_compress.benchmark.results import FILE_NAME as RESULTS
from lit_compress.benchmark.runtimes.base import Batch
from lit_compress.export.check import Agreement, agreement
from lit_compress.export.folder import check_export_place, read_export, write_export
from lit_compress.export.formats import builder, full_name, is_runtime
from lit_compress.export.parity import ParityError
from lit_compress.export.real_texts import refuse_longer, refuse_pairs, typical_texts
from lit_compress.models.checkpoint import is_language_model
from lit_compress.models.factory import load_config
from lit_compress.models.manifest import is_rounded, read_manifest

# Compiling takes a minute on a free machine.
_TIMEOUT = 1800.0
# What a model that was trained with rounding and its file may differ by on real texts: logits, labels, and the metric,
# for which two texts may fall on either side however few there are.
_ROUNDED_ERROR, _ROUNDED_SAME, _ROUNDED_QUALITY, _EITHER_SIDE = 0.05, 0.99, 0.002, 2
# Texts that an export is compared with the original on; more where differences of a few per mille count.
_TEXTS, _ROUNDED_TEXTS = 256, 1024
_SPLIT, _LEAST_SAME = "validation", 0.95


def export_folder(
    folder: str,
    format: str,
    precision: str | None = None,
    out: str | None = None,
    data: str | None = None,
    split: str | None = None,
    least_same: float | None = None,
    benchmark: bool = True,
) -> Path:
    """Export a model folder, prove that it computes the same, and add its row to a table.

    The artefact is compared with the original in eager float32, each in a clean process: on random tokens, and
    on real texts in batches of 1, 2, 8 and 32 where the data are known.

    Args:
        folder: Model folder, hub name or ``package:NAME``.
        format: One of :data:`~lit_compress.export.formats.FORMATS`.
        precision: One of the format's; the usual one where ``None``.
        out: The new folder; ``<folder>-<format>-<precision>`` beside the model, or here where it is no folder,
            where ``None``. An export that is already there is replaced when the new one has passed.
        data: YAML file with a ``data`` section; the ``config.yaml`` of the folder's run where ``None``.
        split: Split whose texts are compared, ``"validation"`` where ``None``; calibration always reads the training
            split.
        least_same: Share of the real texts that must get the same label as from the original, 0.95 where ``None``.
        benchmark: Whether to measure it beside the original, and write the rows to ``results.jsonl`` in ``out``; left
            out where nothing here runs the format, or neither data nor lengths of real texts are known.

    Returns:
        The folder.

    Raises:
        ValueError: The model, the data or a setting cannot be used, or the artefact computes something else.
        ImportError: A library is missing; the message names the ``pip install`` line.
        OSError: The folder could not be written; nothing is left of it.
    """
    if least_same is not None and not 0 <= least_same <= 1:
        raise ValueError(f"Expected the share of same labels between 0 and 1 but got {least_same}.")
    name = full_name(format, precision)
    way = builder(name)
    way.check()
    place = local_folder(folder)
    target = Path(out) if out is not None else beside(folder, f"-{name}")
    check_export_place(target.absolute(), place)
    config = load_config(str(place))
    # What nothing here runs is compared on no texts; they only tell whether they are pairs.
    reads = is_runtime(name) or not (way.pairs or is_language_model(config))
    _refuse_idle(name, reads, {"--data": data, "--split": split, "--least-same": least_same})
    with _progress() as tell:
        tell("reading the data")
        texts = texts_of_models([place], data, split or _SPLIT) if reads else None
        side = side_of(place, texts, is_teacher=False)
        count = _ROUNDED_TEXTS if is_rounded(place) else _TEXTS
        rows = typical_texts(texts, side, count) if texts is not None else []
        if texts is not None and not way.pairs and getattr(config, "type_vocab_size", 0) > 1:
            refuse_pairs(name, texts, rows)
        tell(f"converting to {name}")
        samples = texts.samples(side) if texts is not None and way.calibrated else ()
        artefact = _prepared(str(place), name, samples)
        parity: dict[str, Any] = {"random_tokens": artefact.facts["parity_error"]}
        if texts is not None and is_runtime(name):
            refuse_longer(name, texts, side, artefact.facts["max_positions"])
            tell("comparing with the original on real texts")
            least = _LEAST_SAME if least_same is None else least_same
            found = _on_texts(artefact, name, texts, rows, least)
            parity["texts"] = {"data": texts.describe(), **found.to_dict()}
        tell("writing")
        write_export(target, artefact, way, config, parity)
    print(_told(name, target, artefact, parity))
    if benchmark and is_runtime(name):
        if texts is None and not (read_manifest(place) or {}).get("input_lengths"):
            print("  not measured: no data and no lengths of real texts known; name them with --data")
            return target
        original, results = str(place), str(target / RESULTS)
        benchmark_folders([original], original, [name], data, split or _SPLIT, out=results)
    return target


def _refuse_idle(name: str, reads: bool, options: dict[str, Any]) -> None:
    """Refuse options that would do nothing for a format that nothing here runs."""
    if is_runtime(name):
        return
    used = ("--data", "--split") if reads else ()
    idle = [option for option, value in options.items() if value is not None and option not in used]
    if idle:
        raise ValueError(
            f"Expected no {idle[0]} for {name}, which nothing here runs, so that it is compared on random tokens "
            f"alone, but got {options[idle[0]]}; leave it out."
        )


def _prepared(folder: str, name: str, samples: Sequence[Batch]) -> Artefact:
    try:
        return prepare(folder, name, _TIMEOUT, samples)
    except PrepareError as error:
        raise ValueError(str(error)) from error


def _on_texts(
    artefact: Artefact, name: str, texts: Texts, rows: list[dict[str, Any]], least_same: float
) -> Agreement:
    pad = artefact.facts["pad_token_id"] or 0
    targets = torch.tensor([row["labels"] for row in rows])
    found = agreement(artefact, name, rows, lambda logits: score(logits, targets, texts), pad, usable_cores())
    tolerance = builder(name).tolerance
    if is_rounded(artefact.folder):  # it computes with the same integers
        tolerance, least_same = min(tolerance, _ROUNDED_ERROR), max(least_same, _ROUNDED_SAME)
        _check_quality(found, name, artefact, texts.task.monitor)
    if found.error > tolerance:
        raise ParityError(
            f"Expected {name} to compute the logits of {artefact.folder} within {tolerance:g} of their size on "
            f"{found.texts} real texts but got a difference of {found.error:.3g}; nothing was kept: choose another "
            "format or precision."
        )
    if found.same_label is not None and found.same_label < least_same:
        raise ParityError(
            f"Expected {name} to give at least {100 * least_same:g} % of {found.texts} real texts the label that "
            f"{artefact.folder} gives but got {100 * found.same_label:.1f} %; nothing was kept: choose another format "
            "or precision, or accept fewer with --least-same."
        )
    return found


def _check_quality(found: Agreement, name: str, artefact: Artefact, metric: str) -> None:
    most = max(_ROUNDED_QUALITY, _EITHER_SIDE / found.texts)
    # Not "larger than": a metric that is no number must not pass.
    if not abs(found.quality - found.wanted) <= most + ROUNDING:
        raise ParityError(
            f"Expected {name} to have the {metric} of {artefact.folder} within {most:.4f} on {found.texts} real texts, "
            f"{found.wanted:.4f}, but got {found.quality:.4f}; nothing was kept: choose another format."
        )


def _told(name: str, target: Path, artefact: Artefact, parity: dict[str, Any]) -> str:
    lines = [f"Exported to {target}: {name}, {artefact.bytes / 1e6:,.1f} MB"]
    if parity["random_tokens"] is not None:
        lines.append(
            f"  difference to the original on random tokens: {parity['random_tokens']:.2g} of its logits"
        )
    real = parity.get("texts")
    if not is_runtime(name):
        lines.append(f"  not compared on real texts and not measured: nothing here runs {name}")
    elif real is None:
        lines.append("  not compared on real texts: no data known; name them with --data")
    else:
        same = "" if real["same_label"] is None else f", same label for {100 * real['same_label']:.1f} %"
        lines.append(
            f"  on {real['texts']} real texts ({real['data']}): difference {real['error']:.2g}{same}, quality "
            f"{real['quality']:.4f} of {real['quality_of_original']:.4f}"
        )
    lines += [f"  {note}" for note in read_export(target)["notes"]]
    if (target / "infer.py").is_file():
        lines.append(f'  python {target / "infer.py"} "a text"')
    return "\n".join(lines)


@contextmanager
def _progress() -> Iterator[Any]:
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, transient=True) as bar:
        task = bar.add_task("starting", total=None)
        yield lambda text: bar.update(task, description=text)
