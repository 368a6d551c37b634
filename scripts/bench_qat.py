"""Measure what quantization-aware training adds to a training step, and write docs/bench_qat.md.

A student with the layers of the small encoder is fine-tuned on labels, plainly and with `QAT`, in turns: see
scripts/bench_callbacks.py. Values are rounded in every round, embeddings too; ranges are observed in every step where
a variant does not say that they are fixed.

With one thread (the default) processor time is counted; pin the script to one core all the same:

    taskset -c 0 python scripts/bench_qat.py
    python scripts/bench_qat.py --data DIR --teacher FOLDER --rounds 20

What is measured is appended to a file below --runs-dir group by group; the same command goes on from there.
"""

from __future__ import annotations

from typing import Any

from bench_callbacks import Bench, main, with_callback
from bench_training import Group, Variant

#: At most this ratio to plain fine-tuning, for 8 bits.
LIMIT = 1.35
_GROUPS = {"bits": 4, "per": "group", "group_size": 32}


def rounded(name: str, limit: float | None = None, **arguments: Any) -> Variant:
    """Return a variant that rounds from the first step on."""
    return with_callback(name, "QAT", limit, **{"quantize_at": 0.0, "freeze_at": 0.999, **arguments})


def groups() -> dict[str, Group]:
    """Return everything that can be measured."""
    plain = Variant("`FineTuning`", {})
    return {
        "int8": Group(
            "8 bits for weights, embeddings and activations",
            "time",
            "One scale per output channel and per row of an embedding; one range per activation.",
            (
                plain,
                rounded("moving averages", LIMIT),
                rounded("ranges fixed", LIMIT, freeze_at=0.001),
                rounded("dynamic ranges", LIMIT, ranges="dynamic"),
                rounded("ranges by squared error", ranges="mse"),
            ),
        ),
        "int4": Group(
            "4 bits for weights",
            "time",
            "Activations of 8 bits with moving averages.",
            (
                plain,
                rounded("groups of 32", weights=_GROUPS, embeddings=_GROUPS),
                rounded("learned steps (LSQ)", weights={"bits": 4}, learned_steps=True),
                rounded("weights only", weights=_GROUPS, ranges="none"),
            ),
        ),
    }


BENCH = Bench(
    "bench_qat",
    "What quantization-aware training adds to a training step",
    f"at most {LIMIT:.2f}× for 8 bits",
    groups(),
    __doc__,
)

if __name__ == "__main__":
    main(BENCH)
