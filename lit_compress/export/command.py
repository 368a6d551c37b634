"""``lit-compress export``: a model folder in, a checked folder for another runtime out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from lit_compress.benchmark.artefacts import Artefact, PrepareError, prepare
from lit_compress.benchmark.candidates import texts_of_models
from lit_compress.benchmark.command import benchmark_folders
from lit_compress.benchmark.environment import usable_cores
from lit_compress.benchmark.folders import local_folder
from lit_compress.benchmark.protocol import typical_rows
from lit_compress.benchmark.quality import Texts
from lit_compress.benchmark.results import FILE_NAME as RESULTS
from lit_compress.export.check import Agreement, agreement
from lit_compress.export.folder import check_export_place, write_export
from lit_compress.export.formats import builder, full_name, is_runtime
from lit_compress.export.parity import ParityError
from lit_compress.export.trained import notes_of
from lit_compress.models.factory import load_config
from lit_compress.models.manifest import is_rounded

# Compiling takes a minute on a free machine.
_TIMEOUT = 1800.0
# What a model that was trained with rounding and its file may differ by on real texts.
_ROUNDED_ERROR, _ROUNDED_SAME = 0.05, 0.99
#: Texts that an export is compared with the original on.
_TEXTS = 256


def export_folder(
    folder: str,
    format: str,
    precision: str | None = None,
    out: str | None = None,
    data: str | None = None,
    split: str = "validation",
    least_same: float = 0.95,
    benchmark: bool = True,
) -> Path:
    """Export a model folder, prove that it computes the same, and add its row to a table.

    The artefact is compared with the original in eager float32, each in a clean process: on random tokens, and
    on real texts in batches of 1, 2, 8 and 32 where the data are known.

    Args:
        folder: Model folder, hub name or ``package:NAME``.
        format: One of :data:`~lit_compress.export.formats.FORMATS`.
        precision: One of the format's; the usual one where ``None``.
        out: The new folder; ``<folder>-<format>-<precision>`` beside the model where ``None``. An export that is
            already there is replaced when the new one has passed.
        data: YAML file with a ``data`` section; the ``config.yaml`` of the folder's run where ``None``.
        split: Split whose texts are compared; calibration always reads the training split.
        least_same: Share of the real texts that must get the same label as from the original.
        benchmark: Whether to measure it beside the original, and write the rows to ``results.jsonl`` in ``out``.

    Returns:
        The folder.

    Raises:
        ValueError: The model, the data or a setting cannot be used, or the artefact computes something else.
        ImportError: A library is missing; the message names the ``pip install`` line.
        OSError: The folder could not be written; nothing is left of it.
    """
    if not 0 <= least_same <= 1:
        raise ValueError(f"Expected the share of same labels between 0 and 1 but got {least_same}.")
    name = full_name(format, precision)
    way = builder(name)
    way.check()
    place = local_folder(folder)
    target = Path(out) if out is not None else place.with_name(f"{place.name}-{name}")
    check_export_place(target.absolute())
    config = load_config(str(place))
    with _progress() as tell:
        tell("reading the data")
        texts = texts_of_models([place], data, split)
        rows = _typical(texts) if texts is not None else []
        tell(f"converting to {name}")
        artefact = _prepared(str(place), name, texts if way.calibrated else None)
        parity: dict[str, Any] = {"random_tokens": artefact.facts["parity_error"]}
        if texts is not None and is_runtime(name):
            tell("comparing with the original on real texts")
            found = _on_texts(artefact, name, rows, least_same)
            parity["texts"] = {"data": texts.describe(), **found.to_dict()}
        tell("writing")
        write_export(target, artefact, way, config, parity)
    print(_told(name, target, artefact, parity))
    for note in (*notes_of(artefact.folder, name), way.note(artefact.path)):
        if note:
            print(f"  {note}")
    if benchmark and is_runtime(name):
        benchmark_folders([str(place)], str(place), [name], data, split, out=str(target / RESULTS))
    return target


def _prepared(folder: str, name: str, texts: Texts | None) -> Artefact:
    try:
        return prepare(folder, name, _TIMEOUT, texts.samples("student") if texts is not None else ())
    except PrepareError as error:
        raise ValueError(str(error)) from error


def _typical(texts: Texts) -> list[dict[str, Any]]:
    """Return tokenised texts of the split, in its order: sorted ones would need no padding."""
    rows = texts.datamodule.rows(texts.split)
    chosen = typical_rows(texts.datamodule.lengths(texts.split), min(_TEXTS, len(rows)))
    return list(rows.select(sorted(chosen)))


def _on_texts(artefact: Artefact, name: str, rows: list[dict[str, Any]], least_same: float) -> Agreement:
    pad = artefact.facts["pad_token_id"] or 0
    found = agreement(artefact, name, rows, pad, usable_cores())
    tolerance = builder(name).tolerance
    if is_rounded(artefact.folder):  # it computes with the same integers
        tolerance, least_same = min(tolerance, _ROUNDED_ERROR), max(least_same, _ROUNDED_SAME)
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


def _told(name: str, target: Path, artefact: Artefact, parity: dict[str, Any]) -> str:
    lines = [f"Exported to {target}: {name}, {artefact.bytes / 1e6:,.1f} MB"]
    if parity["random_tokens"] is not None:
        lines.append(
            f"  difference to the original on random tokens: {parity['random_tokens']:.2g} of its logits"
        )
    real = parity.get("texts")
    if real is None and is_runtime(name):
        lines.append("  not compared on real texts: no data known; name them with --data")
    elif real is not None:
        same = "" if real["same_label"] is None else f", same label for {100 * real['same_label']:.1f} %"
        lines.append(
            f"  on {real['texts']} real texts ({real['data']}): difference {real['error']:.2g}{same}"
        )
    if (target / "infer.py").is_file():
        lines.append(f'  python {target / "infer.py"} "a text"')
    return "\n".join(lines)


@contextmanager
def _progress() -> Iterator[Any]:
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, transient=True) as bar:
        task = bar.add_task("starting", total=None)
        yield lambda text: bar.update(task, description=text)
