"""Measures what a fit ended with beside the original, holds it against the wish, and exports it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lit_compress.benchmark.command import benchmark_folders
from lit_compress.benchmark.folders import weight_fingerprint
from lit_compress.benchmark.protocol import BASELINE_RUNTIME
from lit_compress.benchmark.results import FILE_NAME as RESULTS
from lit_compress.benchmark.results import read_results
from lit_compress.compress.outcome import Outcome, judge
from lit_compress.compress.request import Request, write_data

#: Data that both models read, each with its own tokenizer.
DATA = "measure.yaml"


def verdict(request: Request, model: Path, out: Path, settings: dict[str, Any]) -> Outcome:
    """Measure a model and the original in all runtimes, unless that was done before, and judge.

    Args:
        request: What was asked for.
        model: The small model's folder.
        out: Folder of the results.
        settings: Further settings of the protocol.

    Raises:
        ValueError: The model runs in no runtime of integers.
    """
    changes: dict[str, Any] = {"tokenizer": str(model), "augment": None}
    if request.trims:
        changes["teacher_tokenizer"] = str(request.original)
    data = write_data(out / DATA, request.data, **changes)
    runtimes = [BASELINE_RUNTIME, *request.routes]
    benchmark_folders(
        [str(model)],
        str(request.original),
        runtimes,
        str(data),
        out=str(out / RESULTS),
        fixed_lengths=(),
        devices=("cpu",),
        **settings,
    )
    rows = read_results(out / RESULTS)
    small, original = weight_fingerprint(model), weight_fingerprint(request.original)
    return judge(request.wish, rows, small, original, tokenizer_bytes(model))


def ship(model: Path, outcome: Outcome, out: Path) -> None:
    """Export a model to the runtime in which it was judged.

    Args:
        model: Its folder.
        outcome: What came of the wish.
        out: Folder that the export is put into, as ``export``.
    """
    from lit_compress.export.command import export_folder

    format, precision = outcome.row["runtime"].split("-", 1)
    # Its quality was judged on every row of the split, and its time was measured.
    export_folder(
        str(model),
        format,
        precision,
        str(out / "export"),
        str(out / DATA),
        least_same=0.0,
        benchmark=False,
    )


def tokenizer_bytes(folder: Path) -> int:
    """Return the bytes of a model folder's tokenizer, which is shipped beside the model."""
    path = folder / "tokenizer.json"
    return path.stat().st_size if path.is_file() else 0
