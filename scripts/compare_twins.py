"""Compare a model that was trained with rounding with its files for other runtimes, text by text of a split.

Each file is built, or taken from the cache, as ``lit-compress export`` does, and predicts every text of the split
beside the model folder in eager float32 torch, which rounds as in training. The Markdown table says what the metric
loses, how often the label is the same, and how far the logits are apart; differences are the file's minus the
folder's. Times are of one process, batch by batch of 64 texts, and no benchmark: the runtimes run one after the other.

    python scripts/compare_twins.py runs/qat/model --runtimes onnx-int8 openvino-int8 litert-int8 --out twins.md
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lit_compress.benchmark.artefacts import Artefact, PrepareError, prepare
from lit_compress.benchmark.candidates import texts_of_models
from lit_compress.benchmark.folders import local_folder
from lit_compress.benchmark.protocol import BASELINE_RUNTIME
from lit_compress.benchmark.quality import Texts, evaluate
from lit_compress.benchmark.runtimes import runtime
from lit_compress.benchmark.runtimes.base import Batch

TWINS = ("onnx-int8", "openvino-int8", "litert-int8")
_TIMEOUT = 1800.0
_COLUMNS = ("Same label", "Largest logit error", "RMS logit error", "ms per text")


@dataclass(frozen=True)
class Run:
    """What a runtime said about every text of the split.

    Args:
        name: The runtime.
        size: Bytes of what it loads.
        value: The metric.
        logits: ``(texts, labels)``.
        seconds: Time of all forward passes.
    """

    name: str
    size: int
    value: float
    logits: npt.NDArray[np.float32]
    seconds: float


def predict_all(artefact: Artefact, name: str, texts: Texts, threads: int) -> Run:
    """Predict every text of the split in a runtime.

    Args:
        artefact: What it opens.
        name: The runtime.
        texts: The split.
        threads: CPU threads.
    """
    session = runtime(name).open(artefact.folder, artefact.path, "cpu", threads)
    found: list[npt.NDArray[np.float32]] = []
    seconds = 0.0

    def predict(batch: Batch) -> npt.NDArray[np.float32]:
        nonlocal seconds
        inputs = session.inputs(batch)
        start = time.perf_counter()
        output = session.run(inputs)
        seconds += time.perf_counter() - start
        found.append(session.logits(output))
        return found[-1]

    quality = evaluate(predict, texts)
    return Run(name, artefact.bytes, quality["value"], np.concatenate(found), seconds)


def row(run: Run, original: Run) -> str:
    """Return a row of the table.

    Args:
        run: What the runtime said.
        original: What the folder says.
    """
    count, labels = original.logits.shape
    error = run.logits.astype(np.float64) - original.logits
    same = float(np.mean(run.logits.argmax(1) == original.logits.argmax(1))) if labels > 1 else float("nan")
    cells: list[Any] = [
        run.name,
        f"{run.size / 1e6:.1f}",
        f"{run.value:.4f}",
        f"{100 * (run.value - original.value):+.2f}",
        f"{100 * same:.2f} %",
        f"{np.abs(error).max():.3g}",
        f"{np.sqrt(np.mean(error**2)):.3g}",
        f"{1e3 * run.seconds / count:.2f}",
    ]
    return f"| {' | '.join(cells)} |"


def compare(folder: str, names: list[str], data: str | None, split: str, threads: int) -> list[str]:
    """Return the lines of the table.

    Args:
        folder: The model folder.
        names: Runtimes to compare with.
        data: YAML file with a ``data`` section; the ``config.yaml`` of the folder's run where ``None``.
        split: Split whose texts are predicted.
        threads: CPU threads.

    Raises:
        ValueError: Nothing names data.
    """
    place = local_folder(folder)
    texts = texts_of_models([place], data, split)
    if texts is None:
        raise ValueError(
            "Expected labelled texts but nothing names data; give a YAML file with a data section with --data."
        )
    original = predict_all(prepare(folder, BASELINE_RUNTIME, _TIMEOUT), BASELINE_RUNTIME, texts, threads)
    columns = ["Runtime", "MB", texts.task.monitor, "Difference (points)", *_COLUMNS]
    lines = [f"| {' | '.join(columns)} |", "|---|" + "---:|" * 7, row(original, original)]
    for name in names:
        try:
            samples = texts.samples("student") if runtime(name).calibrated else ()
            artefact = prepare(folder, name, _TIMEOUT, samples)
        except PrepareError as error:
            lines.append(f"| {name} | {' | '.join(['—'] * 7)} |")
            print(f"{name}: {error}", file=sys.stderr)
            continue
        lines.append(row(predict_all(artefact, name, texts, threads), original))
    return [*lines, "", f"{len(original.logits)} texts of {texts.describe()}."]


def main() -> None:
    """Read the arguments, print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", help="model folder")
    parser.add_argument("--runtimes", nargs="+", default=list(TWINS), help="runtimes to compare with")
    parser.add_argument("--data", help="YAML file with a data section; that of the folder's run by default")
    parser.add_argument("--split", default="validation", help="split whose texts are predicted")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--out", type=Path, help="file for the table, which is printed too")
    args = parser.parse_args()
    table = "\n".join(compare(args.folder, args.runtimes, args.data, args.split, args.threads))
    print(table)
    if args.out is not None:
        args.out.write_text(table + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
