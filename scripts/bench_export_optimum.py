"""Compare our ONNX files with those of Hugging Face Optimum, and write docs/bench_export.md.

The same model is exported by both: by lit-compress here, by Optimum in an environment of its own, whose Python is
given. All files are then run by the ONNX Runtime of this environment with one thread, each in a clean process, in
turns in random order; eager PyTorch with float32 weights is measured with them. Times are CPU times of the process.
Agreement is the share of texts that get the label of the original, one text at a time.

    python -m venv optimum && optimum/bin/pip install "optimum-onnx[onnxruntime]"
    python scripts/bench_export_optimum.py optimum/bin/python path/to/sst2_sentences/dev.tsv
    python scripts/bench_export_optimum.py optimum/bin/python dev.tsv --sizes 1x64 --rounds 4 --out /tmp/try.md

Exports in --folder are used again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from bench_files import EAGER, ONNX_FILE, Size, Worker, faster, measure, predictions, sizes_of
from bench_pages import write_page
from tokenizers import Tokenizer

from lit_compress.benchmark.environment import describe_environment, load_average
from lit_compress.benchmark.intervals import Spread

#: Our files, and those of Optimum that each is compared with.
RIVALS = {"onnx-fp32": ("plain", "O2", "O3"), "onnx-int8": ("int8", "int8-per-channel")}


# -- exports and measurements ----------------------------------------------------------------------


def export_ours(model: Path, folder: Path) -> dict[str, dict[str, Any]]:
    """Return path and seconds of our files."""
    from lit_compress.benchmark.runtimes import runtime

    made = {}
    for name in RIVALS:
        target, record = folder / name, folder / f"{name}.json"
        if not record.is_file():
            target.mkdir(parents=True)
            start = time.perf_counter()
            runtime(name).build(model, target)
            seconds = time.perf_counter() - start
            record.write_text(json.dumps({"file": str(target / "model.onnx"), "seconds": seconds}))
        made[name] = json.loads(record.read_text())
    return made


def export_optimum(python: str, model: Path, folder: Path) -> dict[str, Any]:
    """Return what Optimum made, and the versions of its environment."""
    if not (folder / "made.json").is_file():
        script = Path(__file__).with_name("export_with_optimum.py")
        subprocess.run([python, str(script), str(model), str(folder)], check=True)
    return json.loads((folder / "made.json").read_text())


# -- the page --------------------------------------------------------------------------------------


def table(times: dict[str, list[float]], files: dict[str, dict[str, Any]], same: dict[str, float]) -> str:
    """Return the Markdown table of one size."""
    lines = [
        "| file | made by | MB | CPU ms (10–90 %) | faster than eager | faster than Optimum's best | same label |",
        "|---|---|--:|--:|--:|--:|--:|",
    ]
    for name in times:
        spread = Spread.of([1000 * seconds for seconds in times[name]])
        size = (
            f"{sum(part.stat().st_size for part in parts(files[name])) / 1e6:.1f}" if name in files else "–"
        )
        best = "–"
        if name in RIVALS:
            rival = min(RIVALS[name], key=lambda other: float(np.median(times[other])))
            best = f"{faster(times, name, rival)}: {rival}"
        maker = "lit-compress" if name in RIVALS else "Optimum" if name in files else "–"
        cells = [name, maker, size, f"{spread.median:.2f} ({spread.p10:.2f}–{spread.p90:.2f})"]
        cells += [faster(times, name, EAGER), best, f"{100 * same[name]:.1f} %"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def parts(file: dict[str, Any]) -> list[Path]:
    """Return a file and the weights beside it, if any."""
    path = Path(file["file"])
    return [path, *path.parent.glob(f"{path.name}.data")]


def page(
    model: Path,
    times: dict[Size, dict[str, list[float]]],
    files: dict[str, dict[str, Any]],
    same: dict[str, float],
    libraries: dict[str, str],
    texts: int,
    loads: Sequence[float],
) -> list[str]:
    """Return the blocks of the document."""
    facts = describe_environment()
    rounds = len(next(iter(next(iter(times.values())).values())))
    theirs = ", ".join(f"{name} {number}" for name, number in libraries.items())
    seconds = ", ".join(f"{name} {file['seconds']:.0f} s" for name, file in files.items())
    blocks = [
        "# ONNX files of lit-compress and of Hugging Face Optimum",
        "Made by `scripts/bench_export_optimum.py`, see `--help`: the same model, exported by both, run by the same "
        f"ONNX Runtime, each file in a clean process, {rounds} rounds in turns. Ratios are medians of the rounds' "
        "ratios with their 95 % intervals; *same label* is the share of "
        f"{texts} texts on which a file agrees with the original, one text at a time.",
        f"- Model: `{model}`\n"
        f"- Machine: {facts['cpu']}, 1 thread, CPU time, load {min(loads):.1f}–{max(loads):.1f}\n"
        f"- Software: torch {facts['torch']}, transformers {facts['transformers']}, onnxruntime "
        f"{version('onnxruntime')}, lit-compress {facts['lit_compress']}\n"
        f"- Optimum's environment: {theirs}\n"
        f"- Seconds to export, under that load: {seconds} (O2, O3 and int8 of Optimum start from plain)",
    ]
    for (batch, length), found in times.items():
        title = "One text" if batch == 1 else f"Batches of {batch} texts"
        blocks.append(f"## {title} of {length} tokens\n\n{table(found, files, same)}")
    return blocks


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("python", nargs="?", help="Python of the environment that holds Optimum")
    parser.add_argument(
        "texts", type=Path, nargs="?", help="file with a text and a TAB per line, after a heading"
    )
    parser.add_argument("--model", type=Path, default=Path("runs/sst2_sentences/teacher/model"))
    parser.add_argument("--sizes", default="1x64,1x128,32x64,32x128", help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=12, help="default: %(default)s")
    parser.add_argument("--folder", type=Path, default=Path("runs/bench_export"), help="of exports")
    parser.add_argument("--out", type=Path, default=Path("docs/bench_export.md"), help="the page")
    args = parser.parse_args()
    if args.texts is None:
        parser.error("name the Python of the environment that holds Optimum, and a file of texts")
    optimum = export_optimum(args.python, args.model, args.folder / "optimum")
    files = {**export_ours(args.model, args.folder / "ours"), **optimum["files"]}
    tokenizer = Tokenizer.from_file(str(args.model / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(128)
    lines = args.texts.read_text(encoding="utf-8").splitlines()[1:]
    ids = [entry.ids for entry in tokenizer.encode_batch([line.split("\t")[0] for line in lines])]
    workers = {EAGER: Worker("torch-fp32", args.model, args.model)}
    workers |= {name: Worker(ONNX_FILE, args.model, Path(file["file"])) for name, file in files.items()}
    try:
        loads = [load_average() or 0.0]
        labels = {name: predictions(worker, ids) for name, worker in workers.items()}
        same = {name: float(np.mean(found == labels[EAGER])) for name, found in labels.items()}
        times = measure(workers, sizes_of(args.sizes), args.rounds, tokenizer.get_vocab_size())
        loads.append(load_average() or 0.0)
    finally:
        for worker in workers.values():
            worker.close()
    write_page(args.out, page(args.model, times, files, same, optimum["libraries"], len(ids), loads))
    print(f"wrote {args.out}")


if __name__ == "__main__":
    main()
