"""Each of distillation, structured pruning and rounding alone, each pair, and all three, from the same teacher.

Every cell begins with the fine-tuned teacher that scripts/run_sst2.py makes. What is pruned aims at the same speed-up
of the structure; what is distilled without pruning keeps every third block, which is as fast. A chain prunes first,
cuts out, and rounds in a second fit. Checkpoints are selected on dev, test is evaluated once per cell, with the
rounded model in float32. Finished cells are not run again, stopped ones go on.

    python scripts/run_ablation.py --data DIR
    python scripts/run_ablation.py --data DIR --only prune prune_qat:1
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from fit_and_test import experiment_parser, fit_and_test

#: How many times faster the structure is to be, by the table of latencies.
SPEEDUP = 3.0
_EIGHT = "{bits: 8, symmetric: true, per: channel}"
#: Rounding as in recipes/combine/distil_prune_qat.yaml, for recipes without it.
QAT = [
    "--trainer.callbacks+=QAT",
    f"--trainer.callbacks.weights={_EIGHT}",
    "--trainer.callbacks.activations={bits: 8, symmetric: false, per: tensor}",
    f"--trainer.callbacks.embeddings={_EIGHT}",
    "--trainer.callbacks.ranges=moving_average",
    "--trainer.callbacks.quantize_at=0.55",
    "--trainer.callbacks.freeze_at=0.85",
]
_AIM = f"--trainer.callbacks.target={{sparsity: null, speedup: {SPEEDUP}}}"
_SHORT = ["--model.student.layers=[0,3]", "--model.student.depth=2"]
_WHOLE = ["--model.student=Pretrained", "--model.student.name={teacher}"]
#: Cell -> its recipe, and words for it.
CELLS: dict[str, tuple[str, list[str]]] = {
    "distil": ("distil/minilm", _SHORT),
    "prune": (
        "prune/l0",
        [*_WHOLE, _AIM, "--trainer.callbacks.evaluation=expected", "--trainer.callbacks.freeze_at=0.5"],
    ),
    "qat": ("quantize/qat_int8", _WHOLE),
    "distil_prune": ("combine/distil_prune", [*_WHOLE, _AIM]),
    "distil_qat": ("combine/distil_qat", _SHORT),
    "prune_qat": (
        "prune/l0",
        [*_WHOLE, _AIM, "--trainer.callbacks.evaluation=expected", "--trainer.callbacks.freeze_at=0.5", *QAT],
    ),
    "distil_prune_qat": ("combine/distil_prune_qat", [*_WHOLE, _AIM]),
    "chain": (
        "combine/distil_qat",
        [
            "--model.student=Pretrained",
            "--model.student.name={runs}/distil_prune-seed{seed}/model",
            # The relations of this recipe compare heads, of which a pruned block may have none.
            "--model.objectives.relations=LayerMatch",
        ],
    ),
}


def words(cell: str, seed: int, args: argparse.Namespace) -> list[str]:
    """Return the arguments of the `lit-compress fit` of a cell."""
    recipe, own = CELLS[cell]
    found = [
        f"--config=recipes/{recipe}.yaml",
        f"--seed_everything={seed}",
        f"--data.seed={seed}",
        f"--data.source.folder={args.data}",
        f"--data.tokenizer={args.teacher}",
    ]
    if recipe.startswith(("combine/", "distil/")):
        found += [f"--model.teacher.model={args.teacher}", f"--model.teacher.cache={args.runs}/cache-{cell}"]
    else:
        found.append(f"--model.baseline={args.teacher}")
    return [*found, *(word.replace("{teacher}", args.teacher) for word in _placed(own, seed, args))]


def _placed(own: list[str], seed: int, args: argparse.Namespace) -> list[str]:
    return [word.replace("{runs}", args.runs).replace("{seed}", str(seed)) for word in own]


def parse(text: str) -> tuple[str, int]:
    """Turn `prune_qat:1` into a cell and a seed; `prune_qat` has seed 0."""
    name, _, seed = text.partition(":")
    if name not in CELLS:
        raise argparse.ArgumentTypeError(f"expected one of {', '.join(CELLS)} but got {name!r}")
    return name, int(seed or 0)


def main() -> int:
    parser = experiment_parser(__doc__, "runs/ablation")
    parser.add_argument("--only", type=parse, nargs="+", metavar="CELL[:SEED]", help="these cells, not all")
    args = parser.parse_args()
    cells = args.only or [(name, 0) for name in CELLS]
    done = [
        fit_and_test(Path(args.runs) / f"{name}-seed{seed}", [*words(name, seed, args), *args.extra])
        for name, seed in cells
    ]
    return 0 if all(done) else 1


if __name__ == "__main__":
    sys.exit(main())
