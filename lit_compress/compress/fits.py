"""The fits of a plan: all methods in one, or pruning first and rounding in a fit of the smaller model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from lit_compress.compress.objectives import soft_targets_for
from lit_compress.compress.plan import Plan
from lit_compress.compress.search import Knobs
from lit_compress.compress.stage import Stage
from lit_compress.recipes import recipe_folder

#: Orders of the methods.
ORDERS = ("joint", "chained")


def fits_of(
    plan: Plan, out: Path, name: str, is_regression: bool, knobs: Knobs | None = None
) -> tuple[list[Stage], Path]:
    """Write the recipes of the fits, and return the fits and the model folder that they end with.

    Args:
        plan: The plan.
        out: Its folder; recipes and run folders are put there.
        name: Of the last fit.
        is_regression: Whether the model predicts a number.
        knobs: Settings of a trial; those of the recipes where ``None``.
    """
    prunes, chained = plan.figures.cut > 1, plan.request["order"] == "chained"
    # What is left of a model that lost whole blocks has as much to learn as what gates leave.
    only = not prunes and plan.start.blocks is not None
    stages: list[Stage] = []

    def add(
        name: str,
        recipe: str,
        why: str,
        student: list[str],
        *changes: Callable[[dict[str, Any], Plan], None],
    ) -> None:
        config = yaml.safe_load((recipe_folder() / "combine" / f"{recipe}.yaml").read_text(encoding="utf-8"))
        for change in (_aim, _freeze, *changes):
            change(config, plan)
        path = out / f"{name}.yaml"
        path.write_text(yaml.safe_dump(config, sort_keys=False, allow_unicode=True), encoding="utf-8")
        pruning = "prune" in recipe
        own = knobs.words(is_regression, pruning) if knobs is not None else []
        length = plan.start.length.words(pruning or only)
        words = [*_words(plan, out), *student, *length, *soft_targets_for(is_regression), *own]
        run = f"--run_dir={out / name}"
        stages.append(Stage(name, why, ("fit", f"--config={path}", run, *words, *plan.request["words"])))

    student = _first(plan)
    if prunes and not chained:
        add(name, "distil_prune_qat", "distil, prune and round in one fit", student, _bits)
        return stages, out / name / "model"
    if prunes:
        add(f"{name}-pruned", "distil_prune", "distil and prune", student)
        student = _pretrained(str(out / f"{name}-pruned" / "model"))
    add(name, "distil_qat", "distil and round", student, _bits, _match)
    return stages, out / name / "model"


def _first(plan: Plan) -> list[str]:
    """Return the student of the first fit."""
    start = plan.start
    if start.blocks is None:
        return _pretrained(start.student)
    return [
        "--model.student=LayerSubset",
        f"--model.student.source={start.student}",
        f"--model.student.layers={list(start.blocks)}",
    ]


def _pretrained(folder: str) -> list[str]:
    return ["--model.student=Pretrained", f"--model.student.name={folder}"]


def _words(plan: Plan, out: Path) -> list[str]:
    seed = plan.request["seed"]
    return [
        f"--config={plan.start.data}",
        f"--seed_everything={seed}",
        f"--data.seed={seed}",
        f"--data.tokenizer={plan.start.teacher}",
        f"--model.teacher.model={plan.start.teacher}",
        f"--model.teacher.cache={out / 'cache'}",
        "--ckpt_path=auto",
        "--benchmark.at_end=false",
    ]


def _callback(config: dict[str, Any], name: str) -> dict[str, Any] | None:
    callbacks = config["trainer"]["callbacks"]
    return next((one["init_args"] for one in callbacks if one["class_path"] == name), None)


def _aim(config: dict[str, Any], plan: Plan) -> None:
    pruning = _callback(config, "L0Pruning")
    if pruning is not None:
        figures = plan.figures
        pruning["target"] = {
            "speedup": round(figures.cut, 4),
            "length": plan.start.tokens,
            "runtime": figures.runtime,
        }


def _freeze(config: dict[str, Any], plan: Plan) -> None:
    if plan.figures.storage.rank is not None:
        # The map behind the table has to learn what the rank took away.
        config["model"]["init_args"]["freeze"] = ["word_embeddings.table"]


def _bits(config: dict[str, Any], plan: Plan) -> None:
    rounding, storage = _callback(config, "QAT"), plan.figures.storage
    assert rounding is not None
    if storage.weight_bits < 8:
        rounding["weights"] = {**rounding["weights"], "bits": storage.weight_bits}
        rounding["learned_steps"], rounding["step_lr"] = True, 1e-4
    if storage.word_bits < 8:
        rounding["embeddings"] = asdict(storage.words)


def _match(config: dict[str, Any], plan: Plan) -> None:
    # The relations of this recipe compare heads, of which a pruned block may have none.
    objectives = config["model"]["init_args"]["objectives"]
    del objectives["relations"]
    objectives["layers"] = {"class_path": "LayerMatch", "init_args": {"weight": 1.0}}
