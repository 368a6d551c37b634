"""Measure a model that was trained with rounding in its runtimes, beside what they make of the original.

Everything runs with one thread, each in a clean process, in turns in random order; eager PyTorch with the float32
weights of the original is the baseline. Times are CPU times of the process. *Quality* is the accuracy of the measured
file on the validation texts of the models' run.

    python scripts/bench_quantized.py runs/quantization/qat_int8-seed0/model
    python scripts/bench_quantized.py MODEL --teacher FOLDER --sizes 1x64 --rounds 4 --out /tmp/try.md
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench_files import EAGER, Size, Worker, faster, measure, sizes_of, speedup
from bench_pages import write_page
from compare_twins import predict_all

from lit_compress.benchmark.artefacts import PrepareError, prepare
from lit_compress.benchmark.candidates import texts_of_models
from lit_compress.benchmark.environment import describe_environment, load_average
from lit_compress.benchmark.intervals import Spread
from lit_compress.benchmark.protocol import BASELINE_RUNTIME
from lit_compress.benchmark.quality import Texts
from lit_compress.benchmark.runtimes import runtime
from lit_compress.models.factory import load_config

ORIGINAL = ("torch-bf16", "onnx-fp32", "onnx-int8", "openvino-bf16", "openvino-int8", "litert-int8")
TRAINED = ("onnx-int8", "openvino-int8", "litert-int8")
#: At least so many times faster than eager PyTorch, in the best runtime.
TARGETS: dict[Size, float] = {(1, 64): 5.0, (32, 128): 4.5}
_TIMEOUT = 1800.0


def prepared(model: Path, teacher: Path, texts: Texts) -> dict[str, tuple[str, Any]]:
    """Runtime and artefact of everything that can be measured here, by its name in the table."""
    wanted = {EAGER: (teacher, BASELINE_RUNTIME)}
    wanted |= {f"original, {name}": (teacher, name) for name in ORIGINAL}
    wanted |= {f"trained with rounding, {name}": (model, name) for name in TRAINED}
    found = {}
    for label, (folder, name) in wanted.items():
        try:
            samples = texts.samples("student") if runtime(name).calibrated else ()
            found[label] = name, prepare(str(folder), name, _TIMEOUT, samples)
        except PrepareError as error:
            print(f"{label} is left out: {error}", file=sys.stderr)
    return found


def table(
    times: dict[str, list[float]], sizes: dict[str, int], quality: dict[str, float], target: float | None
) -> str:
    """Return the Markdown table of one size, with a sentence about the target."""
    lines = [
        "| model and runtime | MB | CPU ms (10–90 %) | faster than eager | accuracy |",
        "|---|--:|--:|--:|--:|",
    ]
    for name, seconds in times.items():
        spread = Spread.of([1000 * value for value in seconds])
        milliseconds = f"{spread.median:.2f} ({spread.p10:.2f}–{spread.p90:.2f})"
        cells = [name, f"{sizes[name] / 1e6:.1f}", milliseconds, faster(times, name, EAGER)]
        lines.append(f"| {' | '.join(cells)} | {100 * quality[name]:.1f} |")
    if target is None:
        return "\n".join(lines)
    # As it stands in the table, with two digits.
    trained = {
        name: round(speedup(times, name, EAGER).median, 2) for name in times if name.startswith("trained")
    }
    best = max(trained, key=lambda name: trained[name])
    verdict = "met" if trained[best] >= target else "missed"
    lines.append(
        f"\nTarget: {target:g}× for what was trained with rounding, in its best runtime: **{verdict}**, {best}."
    )
    return "\n".join(lines)


def page(
    model: Path,
    times: dict[Size, dict[str, list[float]]],
    sizes: dict[str, int],
    quality: dict[str, float],
    loads: Sequence[float],
) -> list[str]:
    """Return the blocks of the document."""
    facts = describe_environment()
    rounds = len(next(iter(next(iter(times.values())).values())))
    blocks = [
        "# A model trained with rounding, in its runtimes",
        "Made by `scripts/bench_quantized.py`, see `--help`: each file in a clean process, "
        f"{rounds} rounds in turns. Ratios are medians of the rounds' ratios with their 95 % intervals. *Accuracy* is "
        "that of the measured file on the validation texts.",
        f"- Model: `{model}`\n"
        f"- Machine: {facts['cpu']}, 1 thread, CPU time, load {min(loads):.1f}–{max(loads):.1f}\n"
        f"- Software: torch {facts['torch']}, transformers {facts['transformers']}, onnxruntime "
        f"{version('onnxruntime')}, openvino {version('openvino')}, lit-compress {facts['lit_compress']}",
    ]
    for size, found in times.items():
        title = "One text" if size[0] == 1 else f"Batches of {size[0]} texts"
        blocks.append(f"## {title} of {size[1]} tokens\n\n{table(found, sizes, quality, TARGETS.get(size))}")
    return blocks


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, help="model folder that was trained with rounding")
    parser.add_argument("--teacher", type=Path, default=Path("runs/sst2_sentences/teacher/model"))
    parser.add_argument("--sizes", default="1x64,32x128", help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=12, help="default: %(default)s")
    parser.add_argument("--out", type=Path, default=Path("docs/bench_quantized.md"), help="the page")
    args = parser.parse_args()
    texts = texts_of_models([args.model], None, "validation")
    if texts is None:
        parser.error("give a model folder in its run, whose config.yaml names the data")
    artefacts = prepared(args.model, args.teacher, texts)
    quality = {
        label: predict_all(runtime(name).open(found.folder, found.path, "cpu", 1), texts).value
        for label, (name, found) in artefacts.items()
    }
    workers = {label: Worker(name, found.folder, found.path) for label, (name, found) in artefacts.items()}
    try:
        loads = [load_average() or 0.0]
        times = measure(workers, sizes_of(args.sizes), args.rounds, load_config(str(args.teacher)).vocab_size)
        loads.append(load_average() or 0.0)
    finally:
        for worker in workers.values():
            worker.close()
    sizes = {label: found.bytes for label, (_, found) in artefacts.items()}
    write_page(args.out, page(args.model, times, sizes, quality, loads))
    print(f"wrote {args.out}")


if __name__ == "__main__":
    main()
