"""The joint recipe on pairs of texts and on scores."""

import json

import pytest
import yaml

import lit_compress
from lit_compress import cli
from lit_compress.compress.objectives import soft_targets_for
from tests.compress.pairs import write_pair_task
from tests.runs import RECIPES, TINY, logged

RECIPE = RECIPES / "combine" / "distil_prune_qat.yaml"


def words(task, run_dir, *more):
    """The joint recipe with two tiny steps on pairs."""
    teacher = task / "teacher"
    return [
        *("fit", f"--config={RECIPE}", f"--config={task / 'data.yaml'}", f"--config={TINY}"),
        *(f"--run_dir={run_dir}", f"--model.teacher.model={teacher}", f"--model.student.name={teacher}"),
        "--trainer.callbacks.target={sparsity: 0.5, speedup: null}",
        *more,
    ]


@pytest.fixture
def task(tmp_path, request):
    (tmp_path / "task").mkdir()
    return write_pair_task(tmp_path / "task", request.param)


@pytest.mark.parametrize("task", [False, True], ids=["classes", "scores"], indirect=True)
def test_the_recipe_with_the_words_fits(task, tmp_path):
    is_regression = isinstance(json.loads((task / "dev.jsonl").read_text().split("\n")[0])["label"], float)
    run = tmp_path / "run"
    assert cli.run([*words(task, run), *soft_targets_for(is_regression)]) == 0
    objectives = yaml.safe_load((run / "config.yaml").read_text())["model"]["init_args"]["objectives"]
    assert list(objectives) == ["soft", "layers"]
    name = "LogitMSE" if is_regression else "SoftTargets"
    assert objectives["soft"]["class_path"].split(".")[-1] == name
    assert objectives["soft"]["init_args"]["weight"] == 1.0
    values = logged(run)
    assert values["train/soft"] and values["train/layers"]
    assert ("val/spearman" in values, "val/accuracy" in values) == (is_regression, not is_regression)
    model = lit_compress.load(run / "model")
    assert model.num_labels == (1 if is_regression else 2)
    assert model.config.problem_type == ("regression" if is_regression else "single_label_classification")


@pytest.mark.parametrize("task", [True], ids=["scores"], indirect=True)
def test_refuses_scores_without_the_words(task, tmp_path, capsys):
    assert cli.run(words(task, tmp_path / "run")) == 1
    assert "set model.init_args.task to Regression" in capsys.readouterr().err
    assert cli.run([*words(task, tmp_path / "run"), "--model.task=Regression"]) == 1
    assert "use LogitMSE for regression" in capsys.readouterr().err
