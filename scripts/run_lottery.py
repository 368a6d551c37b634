"""Run the lottery-ticket recipe on SST-2 with its controls, and write the page; resumes where it was stopped.

The ticket (arXiv:1803.03635) is found first, from the pretrained encoder; then the same fit runs with a control of the
same density in every round: as many weights per matrix at random places, and the ticket's places with new random
weights. A callback that knows nothing of masks looks at the weights at the start of every round.

    python scripts/run_lottery.py --data DIR --out docs/lottery_ticket.md
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from fit_and_test import fit_and_test

from lit_compress.files import read_json_lines

RUNS = {"ticket": "none", "random places": "random", "new weights": "reinit"}


def arguments(control: str, args: argparse.Namespace) -> list[str]:
    """The arguments of the `lit-compress fit` of one run."""
    words = [
        "--config=recipes/prune/lottery_ticket.yaml",
        "--config=recipes/overlays/bf16.yaml",
        f"--seed_everything={args.seed}",
        f"--data.seed={args.seed}",
        f"--data.source.folder={args.data}",
        f"--data.tokenizer={args.teacher}",
        f"--model.baseline={args.teacher}",
    ]
    if control != "none":
        words += [
            f"--trainer.callbacks.control={control}",
            f"--trainer.callbacks.ticket={folder_of('none', args)}",
        ]
    return [*words, "--trainer.callbacks+=lottery_witness.Witness", *args.extra]


def chosen(args: argparse.Namespace) -> dict[str, str]:
    return {name: control for name, control in RUNS.items() if control in ("none", *args.controls)}


def folder_of(control: str, args: argparse.Namespace) -> Path:
    return Path(args.runs) / f"{'ticket' if control == 'none' else control}-seed{args.seed}"


def page(args: argparse.Namespace) -> str:
    """The page with the ladder of densities, what the witness saw, and the controls."""
    runs = chosen(args)
    rows = {
        name: read_json_lines(folder_of(control, args) / "lottery.jsonl") for name, control in runs.items()
    }
    saw = {
        name: read_json_lines(folder_of(control, args) / "witness.jsonl") for name, control in runs.items()
    }
    weights = rows["ticket"][0]["weights"]
    text = [
        "# The lottery ticket, with its controls",
        "",
        f"Written by `python scripts/run_lottery.py --data DIR --out FILE` (seed {args.seed}). MiniLM's pretrained "
        "encoder (6 layers, 384 wide) is fine-tuned on sst2_sentences for two epochs; then, five times, a fifth of the "
        f"weights that are left (of {weights:,} in the matrices of the blocks) goes and training begins anew from the "
        "weights of the beginning. Accuracy on dev is that at the end of each round, of the last step, not of the "
        "best one; test was evaluated once, on the kept checkpoint of the last round.",
        "",
        f"| round | weights left | density | {' | '.join(runs)} |",
        f"|--:|--:|--:|{'--:|' * len(runs)}",
    ]
    for number, ticket in enumerate(rows["ticket"]):
        dev = [100 * rows[name][number]["metrics"]["val/accuracy"] for name in runs]
        cells = " | ".join(f"{value:.1f}" for value in dev)
        text.append(f"| {number} | {ticket['kept']:,} | {ticket['density']:.4f} | {cells} |")
    tests = [
        json.loads((folder_of(control, args) / "test_metrics.json").read_text())["test/accuracy"]
        for control in runs.values()
    ]
    text.append("| test | | | " + " | ".join(f"{100 * value:.1f}" for value in tests) + " |")
    text += ["", "## The ladder", "", *ladder(rows["ticket"], args.rate), "", "## The rewound weights", ""]
    text += [
        "At the first step of every round a callback that only reads the weights compared all that are not zero "
        "(matrices, norms, embeddings and head) with those of the fit's first step, bit by bit:",
        "",
        "| run | round | weights compared | different |",
        "|---|--:|--:|--:|",
    ]
    for name, found in saw.items():
        text += [
            f"| {name} | {number} | {row['checked']:,} | {row['changed']:,} |"
            for number, row in enumerate(found)
        ]
    if "new weights" in runs:
        text += ["", "New weights are different on purpose: that control draws the matrices anew."]
    return "\n".join([*text, ""])


def ladder(rows: list[dict[str, Any]], rate: float) -> list[str]:
    """Sentences on whether each round left what the rule says: the ceiling of the rate of the survivors goes."""
    left = rows[0]["weights"]
    wanted = [left] + [left := left - -(-left * round(1000 * rate) // 1000) for _ in rows[1:]]
    same = [row["kept"] for row in rows] == wanted
    words = ", ".join(f"{value:,}" for value in wanted)
    return [
        f"By the rule, with a rate of {rate}, the rounds leave {words} weights. "
        + ("The run left exactly these." if same else "**The run left others.**")
    ]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, help="folder with train.tsv, dev.tsv, test.tsv")
    parser.add_argument("--teacher", default="runs/sst2_sentences/teacher/model", help="(%(default)s)")
    parser.add_argument("--runs", default="runs/lottery", help="where the run folders go (%(default)s)")
    parser.add_argument(
        "--controls", nargs="+", choices=["random", "reinit"], default=["random", "reinit"], help="(both)"
    )
    parser.add_argument("--seed", type=int, default=0, help="(%(default)s)")
    parser.add_argument("--out", type=Path, help="write the page to this file")
    parser.add_argument(
        "--extra", nargs=argparse.REMAINDER, default=[], help="more arguments of lit-compress fit"
    )
    args = parser.parse_args()
    args.rate = 0.2  # of the recipe
    os.environ["PYTHONPATH"] = os.pathsep.join(
        filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")])
    )
    for control in chosen(args).values():
        if not fit_and_test(folder_of(control, args), arguments(control, args)):
            return 1
    text = page(args)
    print(text)
    if args.out:
        args.out.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
