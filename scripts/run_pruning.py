"""Run the pruning recipes on SST-2 at several sparsities; resumes where it was stopped.

All start from the fine-tuned teacher that scripts/run_sst2.py makes. Every run is `lit-compress fit` on a recipe's
YAML, selected on dev among the checkpoints of the final size; test is evaluated once, on the kept checkpoint, in
float32. scripts/make_pruning_table.py turns the runs into a table.

    python scripts/run_pruning.py --data DIR                                     # every cell of the table
    python scripts/run_pruning.py --data DIR --only movement:0.9:0,1,2 cofi:0.75:0
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

from fit_and_test import experiment_parser, fit_and_test

#: How each row of the table is fitted: its recipe, and what is different from it.
METHODS: dict[str, tuple[str, list[str]]] = {
    "magnitude": ("prune/magnitude_cubic", []),
    "movement": ("prune/movement", []),
    "taylor": ("prune/magnitude_cubic", ["--trainer.callbacks.score=Taylor"]),
    "l0": ("prune/l0", []),
    "l0_distilled": ("prune/cofi", ["--trainer.callbacks.structures=[head,neuron]"]),
    "flop": ("prune/flop", []),
    "cofi": ("prune/cofi", []),
}
#: The rows of the table; the others have one cell, for a question of the text.
ROWS = ("magnitude", "movement", "l0", "flop", "cofi")
SPARSITIES = (0.75, 0.9, 0.5, 0.95)
#: Cells with more seeds than 0: the comparisons that the text draws conclusions from.
REPEATED = (("l0_distilled", 0.75), ("l0", 0.75), ("movement", 0.9), ("magnitude", 0.9), ("taylor", 0.9))


@dataclass(frozen=True)
class Cell:
    """One fit: a method, a share to remove, a seed."""

    method: str
    sparsity: float
    seed: int

    @property
    def name(self) -> str:
        return f"{self.method}-{round(100 * self.sparsity)}-seed{self.seed}"


def plan() -> list[Cell]:
    """Every cell of the table with seed 0, then the repetitions."""
    cells = [Cell(method, sparsity, 0) for sparsity in SPARSITIES for method in ROWS]
    cells += [Cell(method, sparsity, seed) for seed in (0, 1, 2) for method, sparsity in REPEATED]
    return list(dict.fromkeys(cells))


def parse(text: str) -> list[Cell]:
    """Turn `movement:0.9:0,1,2` into cells."""
    method, sparsity, seeds = text.split(":")
    if method not in METHODS:
        raise argparse.ArgumentTypeError(f"expected one of {', '.join(METHODS)} but got {method!r}")
    return [Cell(method, float(sparsity), int(seed)) for seed in seeds.split(",")]


def arguments(cell: Cell, args: argparse.Namespace) -> list[str]:
    """The arguments of the `lit-compress fit` of one cell."""
    recipe, extra = METHODS[cell.method]
    words = [f"--config=recipes/{recipe}.yaml"]
    if args.bf16:
        words.append("--config=recipes/overlays/bf16.yaml")
    words += [
        f"--seed_everything={cell.seed}",
        f"--data.seed={cell.seed}",
        f"--data.source.folder={args.data}",
        f"--data.tokenizer={args.teacher}",
        f"--model.student.name={args.teacher}",
        f"--trainer.callbacks.target.sparsity={cell.sparsity}",
        f"--model.method={cell.method.replace('_', ' ')}",
    ]
    if recipe == "prune/cofi":
        words += [f"--model.teacher.model={args.teacher}", f"--model.teacher.cache={args.runs}/cache"]
    else:
        words.append(f"--model.baseline={args.teacher}")
    return words + extra + args.extra


def main() -> int:
    parser = experiment_parser(__doc__, "runs/pruning")
    parser.add_argument(
        "--only", type=parse, nargs="+", metavar="METHOD:SPARSITY:SEEDS", help="these cells instead of all"
    )
    parser.add_argument("--bf16", action=argparse.BooleanOptionalAction, default=True, help="bf16 overlay")
    args = parser.parse_args()
    cells = [cell for group in args.only for cell in group] if args.only else plan()
    results = [fit_and_test(Path(args.runs) / cell.name, arguments(cell, args)) for cell in cells]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
