"""The command line: help, errors, run folders, metrics, checkpoints, interruption and resume."""

import importlib.metadata
import json
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
import yaml
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from lit_compress.__main__ import lightning_main, main
from lit_compress.modules import Distillation
from tests.runs import ROOT, arguments, logged

RECIPE = "distil/soft_targets"


def fit(task, run_dir, *more, tiny=False):
    words = arguments(RECIPE, task, run_dir, *more, tiny=tiny)
    small = [
        "--trainer.accelerator=cpu",
        "--benchmark.at_end=false",
        "--data.batch_size=16",
        "--model.optimizer.lr=5e-3",
        # The teacher of the tests knows nothing, so the student learns from the labels of the rows.
        "--model.objectives.hard=HardLabels",
        "--data.augment=null",
        "--trainer.val_check_interval=1.0",
    ]
    return main(["fit", *words[:1], *small, "--trainer.max_epochs=2", *words[1:]])


@pytest.fixture(scope="module")
def finished(cli_task, tmp_path_factory):
    """The run folder of a finished fit of two epochs."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
    assert fit(cli_task, folder) == 0
    return folder


@pytest.fixture
def refused(cli_task, tmp_path, capsys):
    """Return a function that runs a verb which must fail, and gives its message as one line."""

    def run(*more, verb="fit", status=2):
        words = arguments(RECIPE, cli_task, tmp_path / "run", *more)
        capsys.readouterr()
        try:
            code = main([verb, *words])
        except SystemExit as stop:
            code = stop.code
        lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("lit-compress: ")]
        assert code == status
        assert len(lines) == 1  # one paragraph, not a traceback
        return lines[0]

    return run


def write(path, text):
    path.write_text(text)
    return f"--config={path}"


# -- help ------------------------------------------------------------------------------------------


def test_help_is_instant_and_light():
    script = (
        "import sys, time; start = time.perf_counter()\n"
        "from lit_compress.__main__ import main\n"
        "assert main(['--help']) == 0 and main(['--version']) == 0\n"
        "heavy = {'torch', 'lightning', 'transformers', 'datasets', 'jsonargparse'} & set(sys.modules)\n"
        "print(sorted(heavy), time.perf_counter() - start)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    *text, last = done.stdout.splitlines()
    heavy, seconds = last.rsplit(" ", 1)
    assert heavy == "[]"
    assert float(seconds) < 1.0
    assert all(
        verb in "\n".join(text) for verb in ("fit", "validate", "test", "benchmark", "report", "recipes")
    )


def test_both_scripts_are_installed():
    scripts = importlib.metadata.entry_points(group="console_scripts")
    found = {script.name: script.value for script in scripts if script.value.startswith("lit_compress.")}
    assert found == {
        "lit-compress": "lit_compress.__main__:main",
        "lightning": "lit_compress.__main__:lightning_main",
    }


def test_lightning_script_takes_our_verbs(cli_task, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["lightning", "fit", *arguments(RECIPE, cli_task, tmp_path)])
    assert lightning_main() == 0
    assert (tmp_path / "model" / "model.safetensors").is_file()


def test_refuses_unknown_verbs(capsys, monkeypatch):
    assert main(["ft"]) == 2
    assert "unknown verb 'ft'. Did you mean 'fit'?" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["lightning", "run"])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert lightning_main() == 2
    assert "lightning: unknown verb 'run'" in capsys.readouterr().err


# -- configuration ---------------------------------------------------------------------------------


def merged(capsys, *words):
    with pytest.raises(SystemExit, match="0"):
        main(["fit", *words, "--print_config"])
    return yaml.safe_load(capsys.readouterr().out)


def test_a_dotted_override_changes_only_its_value(cli_task, tmp_path, capsys):
    words = arguments(RECIPE, cli_task, tmp_path)
    before = merged(capsys, *words)
    after = merged(capsys, *words, "--model.objectives.soft.weight=0.3")
    soft = after["model"]["init_args"]["objectives"]["soft"]["init_args"]
    assert soft["weight"] == 0.3
    assert before != after
    soft["weight"] = before["model"]["init_args"]["objectives"]["soft"]["init_args"]["weight"]
    assert before == after


def test_an_objective_is_added_on_the_command_line(cli_task, tmp_path, capsys):
    more = ("--model.objectives.pkd=PKD", "--model.objectives.pkd.weight=100")
    config = merged(capsys, *arguments(RECIPE, cli_task, tmp_path, *more))
    objectives = config["model"]["init_args"]["objectives"]
    assert list(objectives) == ["soft", "pkd"]
    assert objectives["pkd"]["init_args"]["weight"] == 100.0


# -- refusals --------------------------------------------------------------------------------------

OBJECTIVE = "model: {{init_args: {{objectives: {{soft: {{class_path: {}, init_args: {{{}: {}}}}}}}}}}}\n"


@pytest.mark.parametrize("words", [["--model.teacher.cache=null"], ["--model.teacher.cache", "null"]])
def test_null_takes_a_text_of_a_part_away(words, cli_task, tmp_path):
    cache = f"--model.teacher.cache={tmp_path / 'cache'}"
    assert fit(cli_task, tmp_path / "run", cache, *words, "--trainer.max_steps=1") == 0
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert config["model"]["init_args"]["teacher"]["init_args"]["cache"] is None
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (OBJECTIVE.format("SoftTarget", "weight", 1), "Did you mean 'SoftTargets' instead of 'SoftTarget'?"),
        (
            OBJECTIVE.format("SoftTargets", "temprature", 1),
            "'temprature' is not accepted. Did you mean 'temperature'",
        ),
        (OBJECTIVE.format("SoftTargets", "weight", "heavy"), "expected float or Schedule but got heavy."),
        ("model: {class_path: Distilation}\n", "Did you mean 'Distillation' instead of 'Distilation'?"),
        ("model: {init_args: {optimiser: {class_path: AdamW}}}\n", "Did you mean 'optimizer'"),
        ("trianer: {max_epochs: 3}\n", "Did you mean 'trainer' instead of 'trianer'?"),
        ("trainer: {max_epochs: many}\n", '"trainer.max_epochs": expected int or null but got many.'),
    ],
)
def test_refuses_wrong_words_in_a_file(text, message, refused, tmp_path):
    assert message in refused(write(tmp_path / "other.yaml", text))


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--trainer.max_epoch=3", "Did you mean 'max_epochs' instead of 'max_epoch'?"),
        ("--trainer.max_epochs=three", "expected int or null but got three."),
        ("--modle.method=x", "Did you mean 'model' instead of 'modle'?"),
        ("--model.objectives.soft.wieght=1", "Did you mean 'weight' instead of 'wieght'?"),
        ("--model.objectives.sfot.weight=1", "expected the class of the Objective before its arguments"),
    ],
)
def test_refuses_wrong_options(option, message, refused):
    assert message in refused(option)


def test_refuses_a_fit_without_a_recipe(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["fit"])
    assert "give a recipe with --config, see lit-compress recipes ls." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model:\n  init_args: [1, 2\ntrainer: x\n", "it does not parse: "),
        ("- model\n", "it holds none."),
        ("", "it holds none."),
        (None, "there is none; see lit-compress recipes ls."),
    ],
)
def test_refuses_files_that_are_no_recipe_by_their_name(text, message, refused, tmp_path):
    path = tmp_path / "broken.yaml"
    if text is not None:
        path.write_text(text)
    paragraph = refused(f"--config={path}", status=1)
    assert str(path) in paragraph and message in paragraph


def test_refuses_a_missing_teacher(refused):
    message = refused("--model.teacher.model=runs/nowhere/model", status=1)
    assert "Expected the model folder 'runs/nowhere/model' but found nothing" in message
    assert "train the model first" in message


def test_refuses_missing_data(refused):
    message = refused("--data.source.folder=/nowhere", status=1)
    assert "/nowhere/train.tsv" in message and "source.folder" in message


@pytest.mark.parametrize(
    ("verb", "given", "message"),
    [
        ("test", "best", "run/checkpoints/best.ckpt (ckpt_path=best) but there is none; run fit first"),
        ("fit", "last", "run/checkpoints/last.ckpt (ckpt_path=last) but there is none"),
        ("validate", "/nowhere/x.ckpt", "Expected a checkpoint at /nowhere/x.ckpt"),
        ("test", "auto", "for test but got auto, which is for fit."),
    ],
)
def test_refuses_missing_checkpoints(verb, given, message, refused):
    assert message in refused(f"--ckpt_path={given}", verb=verb, status=1)


def test_traceback_on_request(cli_task, tmp_path, monkeypatch):
    monkeypatch.setenv("LIT_COMPRESS_TRACEBACK", "1")
    with pytest.raises(ValueError, match="Expected a checkpoint"):
        main(["fit", *arguments(RECIPE, cli_task, tmp_path, "--ckpt_path=last")])


# -- run folders -----------------------------------------------------------------------------------


def accuracy_by_hand(model, task, split):
    """Share of right rows, one text at a time, with nothing of ours but the folder."""
    network = AutoModelForSequenceClassification.from_pretrained(model).eval()
    tokenizer = AutoTokenizer.from_pretrained(model)
    rows = [line.split("\t") for line in (task / f"{split}.tsv").read_text().splitlines()[1:]]
    with torch.inference_mode():
        predicted = [
            network(**tokenizer(text, return_tensors="pt")).logits.argmax().item() for text, _ in rows
        ]
    assert set(predicted) == {0, 1}  # a constant would agree by chance
    return sum(p == int(label) for p, (_, label) in zip(predicted, rows, strict=True)) / len(rows)


@pytest.mark.parametrize(("verb", "split", "prefix"), [("validate", "dev", "val"), ("test", "test", "test")])
def test_verbs_write_the_metrics_of_the_best_checkpoint(verb, split, prefix, finished, cli_task):
    assert main([verb, f"--config={finished / 'config.yaml'}", "--ckpt_path=best"]) == 0
    metrics = json.loads((finished / f"{verb}_metrics.json").read_text())
    assert set(metrics) == {f"{prefix}/accuracy", f"{prefix}/f1", f"{prefix}/mcc"}
    truth = accuracy_by_hand(finished / "model", cli_task, split)
    assert metrics[f"{prefix}/accuracy"] == pytest.approx(truth, abs=1e-6)
    if verb == "validate":
        assert truth == pytest.approx(max(logged(finished, 0)["val/accuracy"]), abs=1e-6)


def test_predict_runs(finished):
    assert main(["predict", f"--config={finished / 'config.yaml'}", "--ckpt_path=best"]) == 0


def test_checkpoints_are_plain_data_and_rebuild_the_module(finished, cli_task):
    path = finished / "checkpoints" / "best.ckpt"
    state = torch.load(path, weights_only=True)["state_dict"]
    module = Distillation.load_from_checkpoint(path)
    assert [type(o).__name__ for o in module.objectives.values()] == ["SoftTargets", "HardLabels"]
    written = yaml.safe_load((finished / "config.yaml").read_text())["model"]["init_args"]["objectives"]
    assert module.objectives["soft"].weight == written["soft"]["init_args"]["weight"]
    assert module.optimizer_factory.lr == 5e-3
    assert module.teacher_source == str(cli_task / "teacher")
    assert module.label_names == ["0", "1"]
    assert len(module.student.bert.encoder.layer) == 3
    assert all(torch.equal(state[f"student.{k}"], v) for k, v in module.student.state_dict().items())


def test_second_fit_in_the_same_folder(finished, cli_task, tmp_path, capsys):
    folder = tmp_path / "again"
    shutil.copytree(finished, folder)
    (folder / "results.jsonl").write_text('{"kept": true}\n')
    metrics = (folder / "logs" / "version_0" / "metrics.csv").read_bytes()
    assert fit(cli_task, folder, "--model.objectives.soft.weight=0.25", "--model_folder.enabled=false") == 0
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["model"]["init_args"]["objectives"]["soft"]["init_args"]["weight"] == 0.25
    assert (folder / "logs" / "version_0" / "metrics.csv").read_bytes() == metrics
    assert len(logged(folder)["val/accuracy"]) == 2
    assert (folder / "results.jsonl").read_text() == '{"kept": true}\n'
    assert (folder / "model" / "model.safetensors").read_bytes() == (
        finished / "model" / "model.safetensors"
    ).read_bytes()
    assert fit(cli_task, folder) == 0
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]
    best = max(logged(folder)["val/accuracy"])
    assert accuracy_by_hand(folder / "model", cli_task, "dev") == pytest.approx(best, abs=1e-6)


# -- interruption and resume -----------------------------------------------------------------------


def weights(path):
    state = torch.load(path, weights_only=True)["state_dict"]
    return {key: value for key, value in state.items() if key.startswith("student.")}


@pytest.mark.parametrize("step", [6, 9])
def test_a_crash_keeps_the_best_checkpoint_and_auto_resumes_bit_identical(step, finished, cli_task, tmp_path):
    """Six steps an epoch: the crash is at the start of the second epoch, or in the middle of it."""
    folder = tmp_path / "crashed"
    with pytest.raises(RuntimeError, match="killed"):
        fit(cli_task, folder, "--trainer.callbacks+=tests.runs.KillAt", f"--trainer.callbacks.step={step}")
    checkpoints = folder / "checkpoints"
    steps = [
        torch.load(checkpoints / f"{n}.ckpt", weights_only=True)["global_step"] for n in ("best", "last")
    ]
    assert steps == [6, step]
    assert not (folder / "model").exists()
    assert fit(cli_task, folder, "--ckpt_path=auto") == 0
    assert "ckpt_path" not in yaml.safe_load((folder / "config.yaml").read_text())
    for name in ("best", "last"):
        again = weights(checkpoints / f"{name}.ckpt")
        whole = weights(finished / "checkpoints" / f"{name}.ckpt")
        assert again.keys() == whole.keys()
        assert all(torch.equal(again[key], value) for key, value in whole.items())


def test_the_last_checkpoint_is_the_last_one_although_an_earlier_one_is_better(cli_task, tmp_path):
    # A rate of almost nothing: the metric of the first epoch is never surpassed.
    assert fit(cli_task, tmp_path, "--model.optimizer.lr=1e-30") == 0
    checkpoints = tmp_path / "checkpoints"
    steps = [
        torch.load(checkpoints / f"{n}.ckpt", weights_only=True)["global_step"] for n in ("best", "last")
    ]
    assert steps == [6, 12]


def test_auto_starts_where_nothing_is_there(cli_task, tmp_path):
    assert main(["fit", *arguments(RECIPE, cli_task, tmp_path, "--ckpt_path=auto")]) == 0
    assert torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 2


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_fit_that_is_stopped_leaves_a_checkpoint_to_resume_from(number, status, cli_task, tmp_path):
    words = arguments(RECIPE, cli_task, tmp_path)
    script = "import sys; from lit_compress.__main__ import lightning_main; sys.exit(lightning_main())"
    process = subprocess.Popen(
        [sys.executable, "-c", script, "fit", *words, "--trainer.max_epochs=2000"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # A background job of a shell ignores SIGINT and hands that on; a user's terminal does not.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    last = tmp_path / "checkpoints" / "last.ckpt"
    deadline = time.monotonic() + 120
    while not last.is_file() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(number)
    try:
        output, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == status, output
    assert f"saved in {last}; --ckpt_path last goes on from there." in " ".join(output.split())
    step = torch.load(last, weights_only=True)["global_step"]
    assert 0 < step < 4000
    until = f"--trainer.max_epochs={step // 2 + 2}"
    assert main(["fit", *words, until, "--ckpt_path=last"]) == 0
    assert torch.load(last, weights_only=True)["global_step"] == 2 * (step // 2 + 2)


def test_ctrl_c_before_the_first_step_has_its_own_status(cli_task, tmp_path, monkeypatch, capsys):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("lit_compress.cli.CompressCLI", interrupt)
    assert main(["fit", *arguments(RECIPE, cli_task, tmp_path)]) == 130
    assert "interrupted before the first step" in capsys.readouterr().err
