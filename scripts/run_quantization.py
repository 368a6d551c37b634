"""Quantize the fine-tuned SST-2 model by every method, trained and untrained; resumes where it was stopped.

All start from the fine-tuned teacher that scripts/run_sst2.py makes. A trained cell is `lit-compress fit` on a recipe,
selected on dev; an untrained one is `lit-compress quantize`, which reads training texts only. Test is evaluated once
per cell, with the rounded model in float32. scripts/make_quantization_table.py turns the cells into a table.

    python scripts/run_quantization.py --data DIR                                # every cell of the table
    python scripts/run_quantization.py --data DIR --only qat_int8:0,1,2 static:0
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from fit_and_test import experiment_parser, fit_and_test

from lit_compress.benchmark.runtimes.base import Batch

_GROUPS = ["--bits=4", "--group-size=32"]
_RANGES = "--trainer.callbacks.learned_steps=false"
_MEASURED = "--measured=runs/quantization/bits_mixed.json"
_W4A8 = [*_GROUPS, "--embedding-bits=4", "--embedding-group-size=32", "--activations=static"]

#: Arguments of `lit-compress sensitivity` for the files of bits that rows name; they are written when they are needed.
BITS = {
    "runs/quantization/bits_mixed.json": ["--share=0.01", "--subsets=3"],
    "runs/quantization/bits_uniform3.json": ["--bits", "3", _MEASURED],
    "runs/quantization/bits_mixed_zero_points.json": ["--zero-points", _MEASURED],
    "runs/quantization/bits_uniform3_zero_points.json": ["--zero-points", "--bits", "3", _MEASURED],
}


def mixed(name: str, *words: str) -> list[str]:
    """Arguments of a fit with bits of a file."""
    return [f"--trainer.callbacks.mixed=runs/quantization/bits_{name}.json", *words]


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Args:
        recipe: Recipe of a trained row, ``None`` for one that is not trained.
        words: Arguments of the fit, or of `lit-compress quantize`.
        seeds: Seeds of the fit, or of the texts to calibrate with; one where nothing is drawn.
    """

    recipe: str | None
    words: list[str] = field(default_factory=list)
    seeds: tuple[int, ...] = (0,)


def clusters(count: int, prefix: str = "") -> list[str]:
    """Arguments for so many values per codebook, of projections and embeddings."""
    names = ("clusters", "embedding_clusters") if prefix else ("clusters", "embedding-clusters")
    return [f"--{prefix}{name}={count}" for name in names]


#: The rows of the table, and those that its text compares them with.
ROWS: dict[str, Row] = {
    "bf16": Row(None, ["--method=bf16"]),
    "weights8": Row(None),
    "dynamic": Row(None, ["--activations=dynamic"]),
    "static": Row(None, ["--activations=static"], (0, 1, 2)),
    "qat_int8": Row("quantize/qat_int8", seeds=(0, 1, 2)),
    "w4a8_nearest": Row(None, _W4A8, (0, 1, 2)),
    "w4a8_gptq": Row(None, ["--method=gptq", *_W4A8], (0, 1, 2)),
    "qat_int4_group": Row("quantize/qat_int4_group", seeds=(0, 1, 2)),
    "channel4_nearest": Row(None, ["--bits=4", "--activations=static"], (0, 1, 2)),
    "channel4_gptq": Row(None, ["--method=gptq", "--bits=4", "--activations=static"], (0, 1, 2)),
    "lsq_w4a8": Row("quantize/lsq_w4a8"),
    "distil_qat": Row("combine/distil_qat"),
    "distil_prune_qat": Row("combine/distil_prune_qat"),
    "mixed_nearest": Row(
        None, ["--mixed=runs/quantization/bits_mixed.json", "--activations=static"], (0, 1, 2)
    ),
    "uniform3_nearest": Row(
        None, ["--mixed=runs/quantization/bits_uniform3.json", "--activations=static"], (0, 1, 2)
    ),
    "mixed_gptq": Row(
        None,
        ["--method=gptq", "--mixed=runs/quantization/bits_mixed.json", "--activations=static"],
        (0, 1, 2),
    ),
    "uniform3_gptq": Row(
        None,
        ["--method=gptq", "--mixed=runs/quantization/bits_uniform3.json", "--activations=static"],
        (0, 1, 2),
    ),
    "qbert_mixed": Row("quantize/qbert_mixed", mixed("mixed")),
    "uniform3": Row("quantize/qbert_mixed", mixed("uniform3")),
    # The grids of the paper: ranges from the least to the largest weight, with zero points.
    "qbert_ranges": Row("quantize/qbert_mixed", mixed("mixed_zero_points", _RANGES), (0, 1, 2)),
    "uniform3_ranges": Row("quantize/qbert_mixed", mixed("uniform3_zero_points", _RANGES), (0, 1, 2)),
    **{f"kmeans{k}_nearest": Row(None, ["--method=kmeans", *clusters(k)]) for k in (256, 16, 8)},
    **{f"kmeans{k}": Row("quantize/kmeans", clusters(k, "trainer.callbacks.")) for k in (256, 16, 8)},
    "kmeans_int8_hybrid": Row("quantize/kmeans_int8_hybrid"),
    "nf4": Row(None, ["--method=nf4"]),
}


@dataclass(frozen=True)
class Cell:
    """One row with one seed."""

    row: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.row}-seed{self.seed}"


def plan() -> list[Cell]:
    """Every cell, seed 0 of all rows first."""
    cells = [Cell(name, seed) for seed in (0, 1, 2) for name, row in ROWS.items() if seed in row.seeds]
    return sorted(cells, key=lambda cell: cell.seed)


def parse(text: str) -> list[Cell]:
    """Turn `qat_int8:0,1` into cells; `qat_int8` into all its seeds."""
    name, _, seeds = text.partition(":")
    if name not in ROWS:
        raise argparse.ArgumentTypeError(f"expected one of {', '.join(ROWS)} but got {name!r}")
    return [Cell(name, int(seed)) for seed in (seeds.split(",") if seeds else ROWS[name].seeds)]


def fit(cell: Cell, args: argparse.Namespace) -> bool:
    """Fit and test a trained cell."""
    row = ROWS[cell.row]
    words = [
        f"--config=recipes/{row.recipe}.yaml",
        f"--seed_everything={cell.seed}",
        f"--data.seed={cell.seed}",
        f"--data.source.folder={args.data}",
        f"--data.tokenizer={args.teacher}",
    ]
    if str(row.recipe).startswith("combine/"):
        words += [
            f"--model.teacher.model={args.teacher}",
            f"--model.teacher.cache={args.runs}/cache-{cell.row}",
        ]
    else:
        words.append(f"--model.baseline={args.teacher}")
    if row.recipe != "combine/distil_qat":  # its student is made from layers of the teacher
        words.append(f"--model.student.name={args.teacher}")
    return fit_and_test(Path(args.runs) / cell.name, [*words, *row.words, *args.extra])


def quantize(cell: Cell, args: argparse.Namespace) -> bool:
    """Quantize without training, and evaluate on dev and, once, on test."""
    folder = Path(args.runs) / cell.name
    if (folder / "test_metrics.json").is_file():
        print(f"{cell.name}: done before", flush=True)
        return True
    started = time.time()
    folder.mkdir(parents=True, exist_ok=True)
    row = ROWS[cell.row]
    words = [sys.executable, "-m", "lit_compress", "quantize", args.teacher, f"--out={folder}/model"]
    drawn = [f"--seed={cell.seed}"] if len(row.seeds) > 1 else []
    config = Path(args.teacher).parent / "config.yaml"
    with (folder / "log.txt").open("a") as stream:
        code = subprocess.run(
            [*words, *row.words, *drawn], stdout=stream, stderr=stream, check=False
        ).returncode
    if not code:
        for split, short in (("validation", "val"), ("test", "test")):
            value = accuracy(folder / "model", config, split)
            (folder / f"{short}_metrics.json").write_text(json.dumps({f"{short}/accuracy": value}))
    state = f"FAILED (see {folder}/log.txt)" if code else "done"
    print(f"{cell.name}: {state} in {time.time() - started:.0f} s", flush=True)
    return not code


def accuracy(folder: Path, config: Path, split: str) -> float:
    """Accuracy of a model folder on a split of the data of a run."""
    import torch

    import lit_compress
    from lit_compress.benchmark.quality import evaluate
    from lit_compress.benchmark.run_config import read_config, texts_of

    model = lit_compress.load(folder)
    if getattr(model, "hf_quantizer", None) is None:  # formats of bitsandbytes have a type of their own
        model = model.float()

    @torch.inference_mode()
    def predict(batch: Batch) -> npt.NDArray[np.float32]:
        inputs = {name: torch.from_numpy(value) for name, value in batch.items()}
        return model(**inputs).logits.float().numpy()

    return float(evaluate(predict, texts_of(read_config(config), config, split))["value"])


def write_bits(cell: Cell, teacher: str) -> None:
    """Write the files of bits that a cell names, and those that they are made from."""
    names = [name for name in BITS if any(name in word for word in ROWS[cell.row].words)]
    measured = next(iter(BITS))  # what the other files take their eigenvalues from
    for name in (measured, *names) if names else ():
        if not Path(name).is_file():
            words = ["sensitivity", teacher, "--average-bits=3", *BITS[name], f"--out={name}"]
            subprocess.run([sys.executable, "-m", "lit_compress", *words], check=True)


def main() -> int:
    parser = experiment_parser(__doc__, "runs/quantization")
    parser.add_argument(
        "--only", type=parse, nargs="+", metavar="ROW[:SEEDS]", help="these cells instead of all"
    )
    args = parser.parse_args()
    cells = [cell for group in args.only for cell in group] if args.only else plan()
    results = []
    for cell in cells:
        write_bits(cell, args.teacher)
        results.append((fit if ROWS[cell.row].recipe else quantize)(cell, args))
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
