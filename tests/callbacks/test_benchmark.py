import json

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from transformers import AutoModelForSequenceClassification

from lit_compress.benchmark.results import read_results
from lit_compress.callbacks import Benchmark
from lit_compress.callbacks import benchmark as module
from lit_compress.models import LayerSubset, Teacher
from lit_compress.modules import Distillation, FineTuning
from lit_compress.objectives import SoftTargets
from tests.callbacks.conftest import data_module
from tests.tiny import tiny_bert, tiny_tokenizer


def distillation(texts, **options):
    teacher = Teacher(str(texts / "teacher" / "model"), precision="fp32")
    student = LayerSubset("every_other", depth=2)
    return Distillation(student, teacher, {"soft": SoftTargets(1.0)}, method="soft targets", **options)


def fine_tuning(**options):
    return FineTuning(tiny_bert(layers=2, labels=2), **options)


def results(tmp_path):
    return read_results(tmp_path / "run" / "results.jsonl")


@pytest.fixture
def measured(monkeypatch):
    """Record what the callback measures, and measure it all the same."""
    calls = []

    def spy(candidates, baseline, protocol, texts):
        calls.append((candidates, baseline, protocol))
        return real(candidates, baseline, protocol, texts)

    real = module.measure
    monkeypatch.setattr(module, "measure", spy)
    return calls


def test_best_checkpoint_is_measured_beside_the_teacher(
    fake_workers, texts, data, make_trainer, tmp_path, capsys
):
    trainer = make_trainer(Benchmark(rounds=3), logger=CSVLogger(tmp_path / "run"))
    trainer.fit(distillation(texts, recipe="distil/x"), datamodule=data)
    teacher, student = results(tmp_path)
    assert (teacher["role"], teacher["model"], teacher["method"]) == ("teacher", "teacher", "fine-tuning")
    assert (student["role"], student["model"], student["method"]) == ("student", "run", "soft targets")
    assert (student["recipe"], student["checkpoint"]) == ("distil/x", "best.ckpt")
    # Two layers of four: the fake worker is exactly twice as fast.
    assert student["ratio"]["cpu_latency"]["median"] == pytest.approx(0.5)
    lengths = sorted(set(data.lengths("validation").tolist()))
    assert set(student["protocol"]["lengths"]) <= set(lengths) and len(student["protocol"]["lengths"]) == 32
    assert "soft targets" in capsys.readouterr().out
    header, *lines = (
        (tmp_path / "run" / "lightning_logs" / "version_0" / "metrics.csv").read_text().splitlines()
    )
    assert "benchmark/cpu/latency_ms" in header and "benchmark/cpu/speedup" in header
    assert [path.name for path in (tmp_path / "run").glob(".benchmark*")] == []
    assert lines


@pytest.mark.slow
def test_quality_is_that_of_the_saved_weights_in_their_runtime(texts, data, make_trainer, tmp_path):
    # Real workers: the number must come out of the process that was timed.
    bench = Benchmark(rounds=1, max_seconds=0, runtimes=["torch-fp32", "torch-bf16"])
    trainer = make_trainer(bench, max_epochs=3)
    trainer.fit(distillation(texts), datamodule=data)
    best = torch.load(tmp_path / "run" / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    model = AutoModelForSequenceClassification.from_pretrained(
        texts / "teacher" / "model", num_hidden_layers=2
    )
    model.load_state_dict(
        {k.removeprefix("student."): v for k, v in best.items() if k.startswith("student.")}
    )
    right = []
    for row in data.rows("validation"):
        logits = model.eval()(torch.tensor([row["input_ids"]])).logits
        right.append(int(logits.argmax()) == row["labels"])
    teacher, plain, half = results(tmp_path)
    assert plain["quality"] == {
        "metric": "accuracy",
        "split": "validation",
        "value": pytest.approx(np.mean(right)),
        "n": 16,
        "higher_is_better": True,
    }
    assert plain["quality"]["value"] == pytest.approx(float(trainer.checkpoint_callback.best_model_score))
    assert [row["runtime"] for row in (teacher, plain, half)] == ["torch-fp32", "torch-fp32", "torch-bf16"]
    assert half["quality"] is not None and half["cpu"] is not None
    assert half["weights"] == plain["weights"] != teacher["weights"]


def test_every_checkpoint_in_every_runtime_in_sessions_of_four(
    fake_workers, texts, data, make_trainer, tmp_path
):
    keep = ModelCheckpoint(tmp_path / "run" / "ck", monitor="val/accuracy", save_top_k=-1, filename="{epoch}")
    bench = Benchmark(rounds=1, runtimes=["torch-fp32", "torch-bf16"])
    logger = CSVLogger(tmp_path / "run")
    trainer = make_trainer(bench, keep, checkpoint=False, max_epochs=3, logger=logger)
    trainer.fit(distillation(texts), datamodule=data)
    rows = results(tmp_path)
    students = [(row["checkpoint"], row["runtime"]) for row in rows if row["role"] == "student"]
    expected = [(f"epoch={n}.ckpt", name) for n in range(3) for name in ("torch-fp32", "torch-bf16")]
    assert sorted(students) == sorted(expected)
    # Six candidates are two sessions, each with its own baseline.
    assert sum(row["is_baseline"] for row in rows) == len({row["session"] for row in rows}) == 2
    assert rows == json.loads(json.dumps(bench.rows))
    ratios = {row["runtime"]: row["ratio"]["cpu_latency"]["median"] for row in rows if not row["is_baseline"]}
    assert ratios == {"torch-fp32": pytest.approx(0.5), "torch-bf16": pytest.approx(0.25)}
    text = (tmp_path / "run" / "lightning_logs" / "version_0" / "metrics.csv").read_text()
    assert "benchmark/torch-bf16/cpu/latency_ms" in text and "benchmark/seconds" in text


def test_every_kept_checkpoint_gets_a_row_of_the_same_session(
    fake_workers, texts, data, make_trainer, tmp_path
):
    keep = ModelCheckpoint(
        tmp_path / "run" / "ck",
        monitor="val/accuracy",
        mode="max",
        save_top_k=-1,
        filename="{epoch}",
        save_last=True,
    )
    trainer = make_trainer(Benchmark(rounds=3), keep, checkpoint=False)
    trainer.fit(distillation(texts), datamodule=data)
    rows = results(tmp_path)
    assert sorted(row["model"] for row in rows) == ["run/epoch=0", "run/epoch=1", "teacher"]
    assert len({row["session"] for row in rows}) == 1
    assert rows[1]["checkpoint"] == keep.best_model_path.rsplit("/", 1)[1]
    assert rows[1]["weights"] != rows[2]["weights"]


def test_final_weights_where_nothing_was_kept(fake_workers, texts, data, make_trainer, tmp_path):
    make_trainer(Benchmark(rounds=3), checkpoint=False).fit(distillation(texts), datamodule=data)
    assert results(tmp_path)[1]["checkpoint"] is None


def test_without_a_teacher_there_is_no_ratio(fake_workers, data, make_trainer, tmp_path):
    make_trainer(Benchmark(rounds=3)).fit(fine_tuning(), datamodule=data)
    (row,) = results(tmp_path)
    assert row["ratio"] == {} and row["cpu"] is not None and row["quality"] is not None


def test_baseline_of_the_callback_comes_before_that_of_the_module(
    fake_workers, texts, data, make_trainer, tmp_path
):
    other = texts / "other"
    tiny_bert(layers=1, labels=2).save_pretrained(other)
    trainer = make_trainer(Benchmark(rounds=3, baseline=str(other)))
    trainer.fit(fine_tuning(baseline=str(texts / "teacher" / "model")), datamodule=data)
    baseline, student = results(tmp_path)
    assert baseline["model"] == "other"
    assert student["ratio"]["cpu_latency"]["median"] == pytest.approx(2.0)


def test_teacher_is_measured_on_its_own_tokens(fake_workers, texts, make_trainer, measured, tmp_path):
    # A tokenizer without words spells everything out, so that its texts are longer.
    data = data_module(texts, teacher_tokenizer=str(tiny_tokenizer(tmp_path / "letters", words=())))
    make_trainer(Benchmark(rounds=3)).fit(distillation(texts), datamodule=data)
    ((student,), teacher, protocol) = measured[0]
    rows = data.rows("validation")
    pairs = {(len(row["input_ids"]), len(row["teacher_input_ids"])) for row in rows}
    assert student.lengths is None
    assert set(zip(protocol.lengths, teacher.lengths, strict=True)) <= pairs
    assert sum(teacher.lengths) > sum(protocol.lengths)


def test_figures_during_fit_can_be_monitored(fake_workers, texts, data, make_trainer, measured, tmp_path):
    keep = ModelCheckpoint(tmp_path / "ck", monitor="benchmark/cpu/latency_ms", mode="min", save_top_k=-1)
    stop = EarlyStopping(monitor="benchmark/cpu/speedup", mode="max", patience=99)
    bench = Benchmark(every_n_epochs=2, at_end=False, rounds=3)
    trainer = make_trainer(bench, keep, stop, checkpoint=False, max_epochs=4, num_sanity_val_steps=1)
    trainer.fit(distillation(texts), datamodule=data)
    assert len(measured) == 2, "epochs 0 and 2 are measured, the others repeat"
    assert len(keep.best_k_models) == 4
    assert trainer.callback_metrics["benchmark/cpu/speedup"] == pytest.approx(2.0)
    assert stop.best_score == pytest.approx(2.0)
    assert not (tmp_path / "run" / "results.jsonl").exists()


def test_measuring_does_not_change_the_training(fake_workers, texts, data, make_trainer):
    weights = []
    for bench in (Benchmark(at_end=False), Benchmark(every_n_epochs=1, at_end=False, rounds=3)):
        pl.seed_everything(3)
        model = distillation(texts)
        make_trainer(bench).fit(model, datamodule=data)
        weights.append(torch.cat([p.detach().flatten() for p in model.student.parameters()]))
    assert torch.equal(*weights)


def fail(monkeypatch, after):
    """Let measurements fail from the one numbered ``after`` on."""
    real, count = module.measure, []

    def measure(candidates, baseline, protocol, texts):
        found = real(candidates, baseline, protocol, texts)
        count.append(1)
        if len(count) > after:
            object.__setattr__(found[-1], "error", "cpu: the worker was killed")
            object.__setattr__(found[-1], "cpu", None)
        return found

    monkeypatch.setattr(module, "measure", measure)


def test_failed_measurement_at_the_end_is_a_row_with_its_error(
    fake_workers, texts, data, make_trainer, tmp_path, monkeypatch
):
    fail(monkeypatch, after=0)
    with pytest.warns(
        UserWarning, match="run in torch-fp32 could not be measured: cpu: the worker was killed"
    ):
        make_trainer(Benchmark(rounds=3)).fit(distillation(texts), datamodule=data)
    _, student = results(tmp_path)
    assert student["error"] == "cpu: the worker was killed"
    assert student["cpu"] is None and student["quality"]["n"] == 16


def test_failed_measurement_during_fit_repeats_the_last_figures(
    fake_workers, texts, data, make_trainer, monkeypatch
):
    fail(monkeypatch, after=1)
    trainer = make_trainer(Benchmark(every_n_epochs=1, at_end=False, rounds=3))
    with pytest.warns(UserWarning, match="its last figures are logged again: cpu: the worker was killed"):
        trainer.fit(distillation(texts), datamodule=data)
    assert trainer.callback_metrics["benchmark/cpu/speedup"] == pytest.approx(2.0)


def test_refuses_to_train_on_without_a_first_figure(fake_workers, texts, data, make_trainer, monkeypatch):
    fail(monkeypatch, after=0)
    with pytest.raises(ValueError, match="Expected a student that can be measured but got cpu: the worker"):
        make_trainer(Benchmark(every_n_epochs=1, rounds=3)).fit(distillation(texts), datamodule=data)


def test_missing_quality_is_said_and_left_empty(fake_workers, texts, data, make_trainer, tmp_path):
    other = texts / "five_labels"
    tiny_bert(layers=2, labels=5).save_pretrained(other)
    with pytest.warns(
        UserWarning,
        match="five_labels in torch-fp32: quality could not be evaluated: Expected a model with 2",
    ):
        make_trainer(Benchmark(rounds=3, baseline=str(other))).fit(fine_tuning(), datamodule=data)
    baseline, student = results(tmp_path)
    assert baseline["quality"] is None and "quality" not in student["ratio"]


def test_refuses_a_module_without_a_student(data, make_trainer):
    class Plain(pl.LightningModule):
        def training_step(self, batch, batch_idx):
            return None

        def configure_optimizers(self):
            return None

    trainer = make_trainer(Benchmark(), checkpoint=False)
    with pytest.raises(ValueError, match="transformers model as 'student' to benchmark but got Plain"):
        trainer.fit(Plain(), datamodule=data)


def test_refuses_data_without_text_lengths(data, make_trainer):
    trainer = make_trainer(Benchmark())
    with pytest.raises(ValueError, match="real text lengths from but got NoneType; pass datamodule"):
        trainer.fit(fine_tuning(num_labels=2), data.train_dataloader(), data.val_dataloader())


def test_refuses_a_split_that_is_not_there_before_training(data, make_trainer):
    with pytest.raises(ValueError, match="Expected a test split"):
        make_trainer(Benchmark(split="test")).fit(fine_tuning(), datamodule=data)


def test_refuses_a_missing_baseline_before_training(data, make_trainer):
    with pytest.raises(ValueError, match="Expected the model folder 'runs/nothing/model'"):
        make_trainer(Benchmark(baseline="runs/nothing/model")).fit(fine_tuning(), datamodule=data)


def test_refuses_an_unknown_runtime_before_training(data, make_trainer):
    with pytest.raises(ValueError, match="but got 'onnx-int9'; did you mean onnx-int8"):
        make_trainer(Benchmark(runtimes=["onnx-int9"])).fit(fine_tuning(), datamodule=data)


def test_refuses_results_of_an_older_release_before_training(data, make_trainer, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "results.jsonl").write_text('{"schema": 1}\n')
    module = fine_tuning()
    with pytest.raises(ValueError, match="got schema 1, measured by an older release; move the file away"):
        make_trainer(Benchmark()).fit(module, datamodule=data)
    assert module.global_step == 0


def test_refuses_to_measure_every_zeroth_epoch():
    with pytest.raises(ValueError, match="every_n_epochs to be at least 1 but got 0"):
        Benchmark(every_n_epochs=0)
