"""Say how far the differences in the SST-2 table can be trusted, and what there was to distil.

Every finished run of scripts/run_sst2.py predicts the test rows once more, as its table row did; nothing is
chosen by it. Written to --out:

- what the teacher says about its own training rows: where it is sure and right, soft targets are labels;
- each method against plain fine-tuning of the same depth: the difference of the mean accuracies over seeds, with
  a 95 % interval from a bootstrap over test rows (the same rows for both) and over seeds.

    python scripts/explain_sst2.py runs/sst2_sentences --data DIR --out docs/results_sst2_differences.md
"""

from __future__ import annotations

import argparse
import csv
import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from rich.progress import track
from transformers import AutoModelForSequenceClassification, AutoTokenizer

RESAMPLES = 10_000
BATCH = 64


def read(path: Path) -> tuple[list[str], np.ndarray]:
    """Sentences and labels of a TSV file without quoting."""
    with path.open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE))
    return [row["sentence"] for row in rows], np.array([int(row["label"]) for row in rows])


@torch.inference_mode()
def probabilities(folder: Path, texts: list[str]) -> np.ndarray:
    """Class probabilities of a model folder, (rows, classes), in float32."""
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    order = np.argsort([len(text) for text in texts], kind="stable")
    found = np.empty((len(texts), model.config.num_labels))
    for rows in np.array_split(order, -(-len(texts) // BATCH)):
        chosen = [texts[row] for row in rows]
        batch = tokenizer(chosen, truncation=True, max_length=128, padding=True, return_tensors="pt")
        found[rows] = model(**batch).logits.softmax(-1).numpy()
    return found


def difference(ours: np.ndarray, plain: np.ndarray) -> tuple[float, float, float]:
    """Difference of mean accuracies, in points, with its interval.

    Args:
        ours: Right or wrong, (seeds, rows).
        plain: The same of plain fine-tuning, (its seeds, rows).
    """
    draw = np.random.default_rng(0)
    rows = plain.shape[1]
    values = []
    for _ in range(RESAMPLES):
        weights = draw.multinomial(rows, np.full(rows, 1 / rows)) / rows
        means = [(runs[draw.integers(len(runs), size=len(runs))] @ weights).mean() for runs in (ours, plain)]
        values.append(means[0] - means[1])
    low, high = np.percentile(values, [2.5, 97.5])
    return 100 * (ours.mean() - plain.mean()), 100 * low, 100 * high


def teacher_lines(runs: Path, data: Path) -> list[str]:
    """What the teacher says about its training rows and the test rows."""
    lines = [
        "| rows | teacher right | probability of its answer above 0.95 | above 0.99 |",
        "|---|--:|--:|--:|",
    ]
    for split in ("train", "test"):
        texts, labels = read(data / f"{split}.tsv")
        found = probabilities(runs / "teacher" / "model", texts)
        sure = found.max(-1)
        shares = [(found.argmax(-1) == labels).mean(), (sure > 0.95).mean(), (sure > 0.99).mean()]
        lines.append(f"| {split} | " + " | ".join(f"{100 * share:.1f} %" for share in shares) + " |")
    return lines


def method_lines(runs: Path, data: Path) -> list[str]:
    """Every method against plain fine-tuning of the same depth."""
    texts, labels = read(data / "test.tsv")
    right: dict[tuple[int, str], list[np.ndarray]] = defaultdict(list)
    names = {}
    folders = [file.parent for file in sorted(runs.glob("*L-seed*/test_metrics.json"))]
    for folder in track(folders, description="Predicting"):
        recipe, depth = folder.name.split("-")[0], int(folder.name.split("-")[1][:-1])
        right[depth, recipe].append(probabilities(folder / "model", texts).argmax(-1) == labels)
        names[recipe] = json.loads((folder / "model" / "lit_compress.json").read_text())["method"]
    lines = ["| students | method | seeds | test accuracy minus fine-tuning's | 95 % interval |"]
    lines.append("|---|---|--:|--:|--:|")
    for (depth, recipe), runs_of in sorted(right.items(), key=lambda item: (-item[0][0], item[0][1])):
        if recipe != "finetune_baseline":
            plain = np.array(right[depth, "finetune_baseline"])
            mean, low, high = difference(np.array(runs_of), plain)
            cells = f"{mean:+.1f} | {low:+.1f} to {high:+.1f}"
            lines.append(f"| {depth} layers | {names[recipe]} | {len(runs_of)} | {cells} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, help="folder that scripts/run_sst2.py filled")
    parser.add_argument("--data", type=Path, required=True, help="folder with train.tsv and test.tsv")
    parser.add_argument("--out", type=Path, required=True, help="write the tables to this file")
    args = parser.parse_args()
    parts = [*teacher_lines(args.runs, args.data), "", *method_lines(args.runs, args.data)]
    args.out.write_text("\n".join(parts) + "\n", encoding="utf-8")
    print(args.out.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
