"""Run the distillation recipes on an SST-2 folder with several seeds; resumes where it was stopped.

Every run is `lit-compress fit` on a recipe's YAML, selected on dev; test is evaluated once, on the kept
checkpoint, in float32. scripts/make_results_table.py turns the runs into the table of the README.

    python scripts/run_sst2.py --data DIR --runs runs/sst2_sentences
    python scripts/run_sst2.py --data DIR --runs runs/sst2 --only teacher,pkd_skip --depths 3 --seeds 0
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

from fit_and_test import fit_and_test

RECIPES = (
    "finetune_baseline",
    "finetune_copies",
    "soft_targets",
    "distilbert_task",
    "pkd_skip",
    "tinybert_task",
    "minilm",
    "pkd_last",
)
#: The control of the copies: the baseline on the texts that the distilled students see, with their rows' labels.
CONTROL = ["--data.augment.copies=3", "--trainer.max_epochs=2", "--trainer.val_check_interval=0.5"]
CONTROL += ["--model.method=fine-tuning on the copies"]
#: The recipes keep every other block; two of six blocks are every third one.
LAYERS = {3: ["--model.student.depth=3"], 2: ["--model.student.layers=[0,3]", "--model.student.depth=2"]}


@dataclass(frozen=True)
class Run:
    """One fit: a recipe, a depth of the student, a seed."""

    recipe: str
    depth: int
    seed: int

    @property
    def name(self) -> str:
        return "teacher" if self.recipe == "teacher" else f"{self.recipe}-{self.depth}L-seed{self.seed}"


def plan(recipes: list[str], depths: dict[int, list[int]]) -> list[Run]:
    """Teacher first, then one seed of everything before the next seed."""
    runs = [Run("teacher", 6, 0)] if "teacher" in recipes else []
    students = [r for r in recipes if r != "teacher"]
    cells = [Run(r, d, s) for d, seeds in depths.items() for s in seeds for r in students]
    return runs + sorted(cells, key=lambda c: (c.seed, -c.depth, students.index(c.recipe)))


def command(run: Run, args: argparse.Namespace) -> list[str]:
    """The arguments of the `lit-compress fit` of one run."""
    teacher = f"{args.runs}/teacher/model"
    baseline = run.recipe.startswith("finetune_")
    words = [f"--config=recipes/distil/{'finetune_baseline' if baseline else run.recipe}.yaml"]
    if args.bf16:
        words.append("--config=recipes/overlays/bf16.yaml")
    words += [
        f"--seed_everything={run.seed}",
        f"--data.seed={run.seed}",
        f"--data.source.folder={args.data}",
    ]
    if run.recipe == "teacher":
        return words + args.extra
    words += [f"--data.tokenizer={teacher}", *LAYERS[run.depth]]
    if run.recipe == "finetune_copies":
        words += CONTROL
    if baseline:
        words += [f"--model.baseline={teacher}", f"--model.student.source={teacher}"]
    else:
        words += [
            f"--model.teacher.model={teacher}",
            f"--model.teacher.cache={args.runs}/cache/{run.recipe}-{run.depth}L",
        ]
    return words + args.extra


def execute(run: Run, args: argparse.Namespace) -> bool:
    """Fit and test one run unless that was done before; return whether it succeeded."""
    return fit_and_test(Path(args.runs) / run.name, command(run, args))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, help="folder with train.tsv, dev.tsv, test.tsv")
    parser.add_argument("--runs", default="runs/sst2_sentences", help="where the run folders go")
    parser.add_argument("--only", default=",".join(("teacher", *RECIPES)), help="recipes, comma-separated")
    parser.add_argument("--depths", default="3:0,1,2 2:0", help="depth:seeds, space-separated")
    parser.add_argument("--bf16", action=argparse.BooleanOptionalAction, default=True, help="bf16 overlay")
    parser.add_argument("extra", nargs="*", help="further arguments of lit-compress fit, after --")
    args = parser.parse_args()
    depths = {
        int(d): [int(s) for s in seeds.split(",")] for d, seeds in (x.split(":") for x in args.depths.split())
    }
    results = [execute(run, args) for run in plan(args.only.split(","), depths)]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
