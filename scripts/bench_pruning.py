"""Measure what pruning adds to a training step, and write docs/bench_pruning.md.

A student with the layers of the small encoder is fine-tuned on labels, plainly and with a pruning callback, in turns:
see scripts/bench_callbacks.py. Pruning is under way in every round: masks are decided every 10 steps, gates are drawn
in every step.

With one thread (the default) processor time is counted; pin the script to one core all the same:

    taskset -c 0 python scripts/bench_pruning.py
    python scripts/bench_pruning.py --data DIR --teacher FOLDER --rounds 20

What is measured is appended to a file below --runs-dir group by group; the same command goes on from there.
"""

from __future__ import annotations

from typing import Any

from bench_callbacks import Bench, main, with_callback
from bench_training import Group, Variant

SPARSITY = {"sparsity": 0.75}
#: At most this ratio to plain fine-tuning.
LIMIT = 1.15


def pruned(name: str, callback: str, limit: float | None = LIMIT, **arguments: Any) -> Variant:
    """Return a variant that prunes."""
    return with_callback(name, callback, limit, target=SPARSITY, **arguments)


def groups() -> dict[str, Group]:
    """Return everything that can be measured."""
    plain = Variant("`FineTuning`", {})
    units = ["head", "neuron"]
    return {
        "gates": Group(
            "Hard-concrete gates",
            "time",
            "Augmented Lagrangian towards a sparsity of 75 %.",
            (
                plain,
                pruned("`L0Pruning`, heads and neurons", "L0Pruning", structures=units),
                pruned(
                    "`L0Pruning`, CoFi's structures",
                    "L0Pruning",
                    structures=["head", "neuron", "attention", "feed_forward", "hidden"],
                ),
                pruned("`L0Pruning`, factorised (FLOP)", "L0Pruning", None, structures=["rank"]),
            ),
        ),
        "movement": Group(
            "Movement",
            "time",
            "Learned scores, with an optimizer of their own; hard top-v masks.",
            (
                plain,
                pruned("single weights", "Pruning", structure="weight", score="Movement", scope="local"),
                pruned("blocks of 32 × 32", "Pruning", structure="block", score="Movement", block=[32, 32]),
                pruned("heads and neurons", "Pruning", structure=units, score="Movement"),
            ),
        ),
        "scores": Group(
            "Other scores",
            "time",
            "Magnitude looks at the weights when masks are decided, Taylor at the gradient of every step.",
            (
                plain,
                pruned("magnitude, single weights", "Pruning", structure="weight", score="Magnitude"),
                pruned("magnitude, heads and neurons", "Pruning", structure=units, score="Magnitude"),
                pruned("Taylor, heads and neurons", "Pruning", structure=units, score="Taylor"),
            ),
        ),
    }


BENCH = Bench(
    "bench_pruning",
    "What pruning adds to a training step",
    f"at most {LIMIT:.2f}× for hard-concrete gates and movement",
    groups(),
    __doc__,
)

if __name__ == "__main__":
    main(BENCH)
