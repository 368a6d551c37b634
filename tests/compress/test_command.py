"""The whole way on a tiny task: planned, trained, measured, exported; refusals before anything runs."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from lightning.pytorch.utilities.exceptions import SIGTERMException

import lit_compress
from lit_compress.__main__ import main
from lit_compress.callbacks.checkpoint import BestAndLast
from lit_compress.compress import planner, stage
from lit_compress.compress.planning import MARGIN, Storage
from lit_compress.compress.probe import Probe, Probes
from tests.compress.pairs import write_pair_task
from tests.runs import TINY

pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    return write_pair_task(tmp_path_factory.mktemp("task"), is_regression=False)


def words(task, out, *more):
    return [
        *("compress", str(task / "teacher"), f"--data={task / 'data.yaml'}", f"--out={out}"),
        *("--quality=0.1", "--runtimes=onnx-int8", "--rounds=1", *more),
    ]


@pytest.fixture(scope="module")
def finished(task, tmp_path_factory):
    """The folder of a wish that was run to its end."""
    out = tmp_path_factory.mktemp("out") / "small"
    asked = ["--speedup=1.5", "--vocabulary=trim"]
    assert main([*words(task, out, *asked), "--fit", f"--config={TINY}"]) == 0
    return out


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.slow
def test_it_ends_with_a_model_an_export_and_the_figures(finished):
    outcome = json.loads((finished / "outcome.json").read_text())
    assert outcome["met"] and outcome["runtime"] == "onnx-int8"
    measured = rows(finished / "results.jsonl")
    mine = next(row for row in measured if (row["model"], row["runtime"]) == ("student", "onnx-int8"))
    speed = next(one for one in outcome["achieved"] if one["what"] == "speed-up")
    assert (speed["asked"], speed["found"]) == (1.5, 1 / mine["ratio"]["cpu_latency"]["median"])
    export = finished / "export"
    shipped = (export / "model.onnx").stat().st_size + (
        finished / "student/model/tokenizer.json"
    ).stat().st_size
    assert outcome["bytes"] == shipped
    assert (export / "infer.py").is_file()


def test_the_small_model_has_the_vocabulary_of_the_texts(finished, task):
    before = json.loads((task / "teacher" / "config.json").read_text())["vocab_size"]
    after = json.loads((finished / "student" / "model" / "config.json").read_text())["vocab_size"]
    assert after < before


def test_the_plan_tells_the_stages_that_ran(finished):
    plan = json.loads((finished / "plan.json").read_text())
    assert [stage["name"] for stage in plan["stages"]] == ["vocabulary"]
    assert [row["stage"] for row in rows(finished / "stages.jsonl")] == ["vocabulary", "student"]
    assert {probe["runtime"] for probe in plan["probes"]} == {"onnx-int8"}


def test_the_plan_allows_for_what_storage_costs(task, tmp_path, monkeypatch):
    """Of probes that are five times faster, before blocks are pruned; 4 bits make the whole model four times faster."""
    asked = []

    def probes(original, model, *others):
        found = [Probe(size, "onnx-int8", 5.0 * size, 0.0, 0.0, 1_000_000, 500_000, 6) for size in (1, 2)]
        return Probes(10.0, found, {})

    def stored(original, model, tokenizer, storage, route, *others):
        asked.append((storage, route))
        return 4.0

    monkeypatch.setattr(planner, "probe", probes)
    monkeypatch.setattr(planner, "speedup_as_stored", stored)
    assert main(words(task, tmp_path / "out", "--speedup=6", "--size-mb=0.9", "--plan-only")) == 0
    figures = json.loads((tmp_path / "out" / "plan.json").read_text())["figures"]
    assert asked == [(Storage(**figures["storage"]), "onnx-int8")] and asked[0][0].weight_bits == 4
    assert figures["cut"] == pytest.approx(6 * MARGIN / 4)
    assert main(words(task, tmp_path / "wide", "--speedup=6", "--plan-only")) == 0
    assert len(asked) == 1  # 8 bits are what was measured


def test_finished_work_is_not_done_again(finished, task, monkeypatch, capsys):
    monkeypatch.setattr(planner, "probe", None)
    asked = ["--speedup=1.5", "--vocabulary=trim"]
    assert main([*words(task, finished, *asked), "--fit", f"--config={TINY}"]) == 0
    said = capsys.readouterr().out
    assert said.count("finished before") == 2
    assert len(rows(finished / "stages.jsonl")) == 2


@pytest.mark.slow
def test_a_wish_that_was_missed_is_told_shipped_and_no_success(finished, task, tmp_path, capsys):
    out = copied(finished, tmp_path / "small")
    plan = json.loads((out / "plan.json").read_text())
    plan["request"]["wish"]["speedup"] = 1000
    (out / "plan.json").write_text(json.dumps(plan))
    asked = ["--speedup=1000", "--vocabulary=trim"]
    with pytest.raises(SystemExit) as stop:
        main([*words(task, out, *asked), "--fit", f"--config={TINY}"])
    assert stop.value.code == 1
    said = capsys.readouterr().out
    assert "lit-compress compress: missed speed-up (" in said and "asked for 1000)" in said
    assert "with another --out" in said and "--fit --trainer.max_epochs=" in said
    outcome = json.loads((out / "outcome.json").read_text())
    assert outcome["met"] is False and [one["share"] > 0.9 for one in outcome["achieved"]] == [False, True]
    assert (out / "export" / "model.onnx").is_file()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--speedup=2"], "its wish is"),
        (["--speedup=1.5", "--vocabulary=trim", "--seed=1"], "its seed is 0 and not 1"),
        (["--speedup=1.5", "--vocabulary=trim", "--order=chained"], "its order is 'joint' and not 'chained'"),
        (["--speedup=1.5", "--vocabulary=trim", "--fit", "--seed=0"], "its list of words behind --fit is"),
    ],
)
def test_refuses_a_folder_of_another_wish(more, message, finished, task, capsys):
    before = (finished / "plan.json").read_bytes()
    assert main(words(task, finished, *more)) == 1
    error = capsys.readouterr().err
    assert message in error and "choose another folder with --out" in error
    assert (finished / "plan.json").read_bytes() == before


def test_a_file_is_no_folder_to_put_it_in(task, tmp_path, capsys):
    place = tmp_path / "out"
    place.write_text("mine")
    assert main(words(task, place, "--speedup=2")) == 1
    assert f"Expected --out to be a folder but {place} is a file" in capsys.readouterr().err
    assert place.read_text() == "mine"


def test_the_search_is_refused_before_anything_runs_where_optuna_is_missing(
    task, tmp_path, capsys, monkeypatch
):
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert main(words(task, tmp_path / "out", "--speedup=2", "--trials=2")) == 1
    assert 'pip install "lit-compress[search]"' in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--speedup=0.5"], "Expected --speedup above 1"),
        ([], "give --speedup, --latency-ms or --size-mb"),
        (["--speedup=2", "--order=both"], "Expected --order to be one of joint, chained"),
        (["--speedup=2", "--vocabulary=big"], "Expected --vocabulary to be one of auto, keep, trim"),
        (["--speedup=2", "--runtimes=torch-fp32"], "Expected runtimes that compute with integers"),
        (["--speedup=2", "--blocks=9"], "Expected --blocks between 1 and 6"),
        (["--speedup=2", "--trials=0"], "Expected at least one trial"),
        (["--speedup=2", "--data=nowhere.yaml"], "nowhere.yaml"),
    ],
)
def test_refuses_before_anything_runs(more, message, task, tmp_path, capsys):
    assert main(words(task, tmp_path / "out", *more)) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_plans_for_as_many_blocks_as_are_given(task, tmp_path, capsys):
    assert main(words(task, tmp_path / "out", "--speedup=2", "--blocks=2", "--plan-only")) == 0
    plan = json.loads((tmp_path / "out" / "plan.json").read_text())
    assert plan["start"]["blocks"] == [1, 4]
    assert {probe["blocks"] for probe in plan["probes"]} == {2}
    assert "blocks 2 (1, 4), " in capsys.readouterr().out


@pytest.mark.slow
def test_refuses_a_wish_out_of_reach_before_training(task, tmp_path, capsys):
    assert main(words(task, tmp_path / "out", "--speedup=5000")) == 1
    error = capsys.readouterr().err
    assert "5e+03× the original; without any head or neuron in a single block the model is" in error
    assert not (tmp_path / "out" / "student").exists()


def test_refuses_a_model_that_is_rounded_already(finished, task, tmp_path, capsys):
    folder = str(finished / "student" / "model")
    assert main(["compress", folder, *words(task, tmp_path / "out", "--speedup=2")[2:]]) == 1
    assert "is rounded already; give the model that it was made from" in capsys.readouterr().err


class Processes:
    """Stands for ``run_process``: runs fits here, writes down their names and steps, and ends them at a step."""

    def __init__(self):
        self.begun, self.ended = [], {}

    def __call__(self, words):
        run = next(word.partition("=")[2] for word in words if word.startswith("--run_dir="))
        self.begun.append(Path(run).name)
        return main(words[3:])

    def on_train_batch_start(self, callback, trainer, *_):
        name = Path(trainer.default_root_dir).name
        self.begun.append(trainer.global_step)
        if self.ended.get(name) == trainer.global_step:
            raise SIGTERMException


@pytest.fixture
def processes(monkeypatch):
    found = Processes()
    monkeypatch.setattr(stage, "run_process", found)
    monkeypatch.setattr(
        BestAndLast, "on_train_batch_start", lambda *given: found.on_train_batch_start(*given)
    )
    return found


def copied(finished, out):
    """Copy a finished folder to where nothing is exported yet."""
    shutil.copytree(finished, out, ignore=shutil.ignore_patterns("export", "outcome.json"))
    for path in [*out.glob("*.json"), *out.glob("*.jsonl"), *out.glob("*.yaml")]:
        path.write_text(path.read_text().replace(str(finished), str(out)))
    return out


def is_exported(model, out):
    """Whether an export has the weights of a model, those that are not rounded."""
    onnx = pytest.importorskip("onnx")
    stored = {one.name: one for one in onnx.load(out / "export" / "model.onnx").graph.initializer}
    norms = {name: one for name, one in lit_compress.load(model).state_dict().items() if "LayerNorm" in name}
    same = {
        np.array_equal(onnx.numpy_helper.to_array(stored[f"model.{name}"]), one)
        for name, one in norms.items()
    }
    assert len(norms) > 20 and len(same) == 1
    return same.pop()


@pytest.mark.slow
def test_a_search_goes_on_where_it_stopped_and_exports_the_better_trial(finished, task, tmp_path, processes):
    pytest.importorskip("optuna")
    out = copied(finished, tmp_path / "small")
    asked = [*words(task, out, "--speedup=1.5", "--vocabulary=trim"), "--trials=2"]
    asked += ["--fit", f"--config={TINY}"]
    processes.ended = {"trial-1": 1}
    with pytest.raises(SystemExit) as stopped:
        main(asked)
    assert stopped.value.code == 130
    # The first trial is the fit that is there.
    assert processes.begun == ["trial-1", 0, 1]
    assert [row["number"] for row in rows(out / "trials.jsonl")] == [0]
    assert not (out / "export").exists()

    processes.begun, processes.ended = [], {}
    better_than_the_first(out)
    assert main(asked) == 0
    assert processes.begun == ["trial-1", 1]
    trials = rows(out / "trials.jsonl")
    assert [row["number"] for row in trials] == [0, 1] and trials[1]["value"] > trials[0]["value"]
    measured = {(row["model"], row["runtime"]) for row in rows(out / "results.jsonl")}
    names = ("teacher", "student", "trial-1")
    assert measured == {(name, where) for name in names for where in ("torch-fp32", "onnx-int8")}
    assert is_exported(out / "trial-1" / "model", out)
    assert not is_exported(out / "student" / "model", out)
    assert json.loads((out / "outcome.json").read_text()) == trials[1]["outcome"]

    before = (out / "trials.jsonl").read_bytes()
    processes.begun = []
    assert main(asked) == 0
    assert processes.begun == [] and (out / "trials.jsonl").read_bytes() == before
    assert is_exported(out / "trial-1" / "model", out)


def better_than_the_first(out):
    """Make the first trial one that every other is better than."""
    (first,) = rows(out / "trials.jsonl")
    (out / "trials.jsonl").write_text(json.dumps({**first, "value": -9.0}) + "\n")
