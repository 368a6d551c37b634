"""The fits of a plan: all methods in one, or pruning first and rounding in a fit of the smaller model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lit_compress.compress.objectives import soft_targets_for
from lit_compress.compress.plan import Plan
from lit_compress.compress.search import Knobs
from lit_compress.compress.stage import Stage
from lit_compress.recipes import recipe_folder

#: Orders of the methods.
ORDERS = ("joint", "chained")
# Copies of the training texts for the teacher to label.
_COPIES = 3


def fits_of(
    plan: Plan, out: Path, name: str, is_regression: bool, knobs: Knobs | None = None
) -> tuple[list[Stage], Path]:
    """Return the fits, and the model folder that they end with.

    Args:
        plan: The plan.
        out: Its folder; the fits put theirs below.
        name: Of the last fit.
        is_regression: Whether the model predicts a number.
        knobs: Settings of a trial; those of the recipes where ``None``.
    """
    prunes, chained = plan.figures.structural > 1, plan.request["order"] == "chained"
    start, stages = plan.start.student, []

    def fit(name: str, recipe: str, why: str, *words: str) -> Stage:
        own = knobs.words(is_regression, "prune" in recipe) if knobs is not None else []
        run = f"--run_dir={out / name}"
        every = [*soft_targets_for(is_regression), *words, *own, *plan.request["words"]]
        return Stage(name, why, ("fit", *_common(plan, out, recipe, start), run, *every))

    if prunes and not chained:
        stages.append(fit(name, "distil_prune_qat", "distil, prune and round in one fit", *_aim(plan)))
        return stages, out / name / "model"
    if prunes:
        stages.append(fit(f"{name}-pruned", "distil_prune", "distil and prune", *_aim(plan)))
        start = str(out / f"{name}-pruned" / "model")
    # The relations of this recipe compare heads, of which a pruned block may have none.
    match = "--model.objectives.relations=LayerMatch"
    stages.append(fit(name, "distil_qat", "distil and round", match))
    return stages, out / name / "model"


def _common(plan: Plan, out: Path, recipe: str, student: str) -> Sequence[str]:
    seed = plan.request["seed"]
    return (
        f"--config={recipe_folder() / 'combine' / f'{recipe}.yaml'}",
        f"--config={plan.start.data}",
        f"--seed_everything={seed}",
        f"--data.seed={seed}",
        f"--data.tokenizer={plan.start.teacher}",
        f"--data.augment.copies={_COPIES}",
        f"--model.teacher.model={plan.start.teacher}",
        f"--model.teacher.cache={out / 'cache'}",
        "--model.student=Pretrained",
        f"--model.student.name={student}",
        "--ckpt_path=auto",
        "--benchmark.at_end=false",
    )


def _aim(plan: Plan) -> Sequence[str]:
    return (
        f"--trainer.callbacks.target.speedup={plan.figures.structural:.4g}",
        f"--trainer.callbacks.target.length={plan.start.length}",
    )
