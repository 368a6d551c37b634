"""The checkpoint that a fit ends in, where figures are told per epoch instead of measured."""

import copy
import itertools
import json

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from transformers import AutoModelForSequenceClassification

from lit_compress import cli
from lit_compress.benchmark.results import FILE_NAME, SCHEMA, append_rows, read_results
from lit_compress.callbacks import Benchmark, ModelFolder, SelectBest
from lit_compress.callbacks.student import kept_checkpoints
from lit_compress.modules import AdamW, FineTuning
from tests.runs import RECIPES, KillAt, arguments
from tests.tiny import tiny_bert

TEACHER = 0.9
#: epoch → (quality, latency)
FIGURES = {0: (0.95, 9.0), 1: (0.89, 4.0), 2: (0.70, 2.0), 3: (0.89, 6.0)}


class Told(Benchmark):
    """Writes rows with the figures it is told."""

    def __init__(self, figures=FIGURES, teacher=TEACHER, session="s", **options):
        super().__init__(**options)
        self.figures, self.teacher, self.session = figures, teacher, session

    def on_fit_end(self, trainer, pl_module):
        # The file also holds a fit before this one, in which the last epoch was the fastest.
        old = [row(f"epoch_{e}.ckpt", 0.99, 9.0 - e, "old") for e in self.figures]
        self.rows = [row(None, self.teacher, 8.0, self.session, role="teacher", is_baseline=True)]
        for path in kept_checkpoints(trainer):
            self.rows.append(row(path.name, *self.figures[int(path.stem.split("_")[1])], self.session))
        append_rows(f"{trainer.default_root_dir}/{FILE_NAME}", [*old, *self.rows])


def row(checkpoint, quality, latency, session, **more):
    judged = {
        "metric": "accuracy",
        "split": "validation",
        "value": quality,
        "n": 16,
        "higher_is_better": True,
    }
    return {
        "schema": SCHEMA,
        "run": "run",
        "model": checkpoint or "teacher",
        "method": "fine-tuning",
        "role": "student",
        "is_baseline": False,
        "checkpoint": checkpoint,
        "weights": checkpoint or "teacher",
        "runtime": "torch-fp32",
        "bytes": 1000,
        "cpu": {"latency_ms": {"p50": latency}},
        "gpu": None,
        "quality": None if quality is None else judged,
        "ratio": {},
        "session": session,
        "environment": {},
        "protocol": {"threads": 1},
        **more,
    }


def select(at_least="0.98*teacher", **options):
    return SelectBest("val/accuracy", at_least, **options)


def fine_tuning(texts):
    return FineTuning(
        tiny_bert(layers=1, labels=2), baseline=str(texts / "teacher" / "model"), optimizer=AdamW(lr=1e-2)
    )


@pytest.fixture
def keep(tmp_path):
    def make(**options):
        options = {"monitor": "val/accuracy", "mode": "max", "save_top_k": -1, "save_last": True, **options}
        options = {"filename": "epoch_{epoch}", "auto_insert_metric_name": False, **options}
        return ModelCheckpoint(tmp_path / "run" / "checkpoints", **options)

    return make


@pytest.fixture
def fit(texts, data, make_trainer, keep):
    def run(*callbacks, ckpt_path=None, **options):
        trainer = make_trainer(*callbacks, keep(), checkpoint=False, max_epochs=4, **options)
        trainer.fit(fine_tuning(texts), data, ckpt_path=ckpt_path)
        return trainer

    return run


def classifier(folder):
    return AutoModelForSequenceClassification.from_pretrained(folder).classifier.weight


def kept_classifier(tmp_path, name):
    checkpoint = torch.load(tmp_path / "run" / "checkpoints" / name, weights_only=True)
    return checkpoint["state_dict"]["student.classifier.weight"]


@pytest.mark.parametrize("order", itertools.permutations(range(3)))
def test_everything_called_best_is_the_chosen_checkpoint(order, fit, data, tmp_path):
    callbacks = (Told(), select(), ModelFolder())
    trainer = fit(*(callbacks[i] for i in order))
    folder = tmp_path / "run" / "checkpoints"
    assert trainer.checkpoint_callback.best_model_path == str(folder / "epoch_1.ckpt")
    assert (folder / "best.ckpt").read_bytes() == (folder / "epoch_1.ckpt").read_bytes()
    assert torch.equal(classifier(tmp_path / "run" / "model"), kept_classifier(tmp_path, "epoch_1.ckpt"))
    others = [kept_classifier(tmp_path, f"epoch_{epoch}.ckpt") for epoch in (0, 2, 3)]
    assert not any(torch.equal(other, kept_classifier(tmp_path, "best.ckpt")) for other in others)
    trainer.test(datamodule=None, dataloaders=data.val_dataloader(), ckpt_path="best", verbose=False)
    assert trainer.ckpt_path == str(folder / "epoch_1.ckpt")


def test_it_says_which_one_and_why(fit, caplog):
    with caplog.at_level("INFO", logger="lightning.pytorch"):
        fit(Told(), select())
    (said,) = [record.message for record in caplog.records if record.message.startswith("SelectBest")]
    assert said == (
        "SelectBest: epoch_1.ckpt is the lowest in cpu/latency_ms, 4, of the 3 of 4 checkpoints with val/accuracy "
        "of at least 0.8820 (0.98*teacher, whose is 0.9000); its val/accuracy is 0.8900."
    )


def test_sessions_are_compared_by_their_ratios_to_the_baseline(fit):
    """The machine was three times slower in the second session: only the ratios tell the fastest."""

    class TwoSessions(Told):
        def on_fit_end(self, trainer, pl_module):
            super().on_fit_end(trainer, pl_module)
            teacher, *students = self.rows
            second = {**copy.deepcopy(teacher), "session": "slow", "cpu": {"latency_ms": {"p50": 24.0}}}
            for student in students:
                if student["checkpoint"] == "epoch_1.ckpt":
                    student["session"] = "slow"
                    student["cpu"]["latency_ms"]["p50"] *= 3
            self.rows.append(second)

    trainer = fit(TwoSessions(), select())
    assert trainer.checkpoint_callback.best_model_path.endswith("epoch_1.ckpt")


def test_the_figures_of_another_runtime_decide_where_they_are_asked_for(fit):
    class TwoRuntimes(Told):
        def on_fit_end(self, trainer, pl_module):
            super().on_fit_end(trainer, pl_module)
            for student in self.rows[1:]:
                other = {**copy.deepcopy(student), "runtime": "torch-bf16"}
                # The other way round: what was slow is fast.
                other["cpu"]["latency_ms"]["p50"] = 10 - student["cpu"]["latency_ms"]["p50"]
                self.rows.append(other)

    both = TwoRuntimes(runtimes=["torch-fp32", "torch-bf16"])
    trainer = fit(both, select(minimise="benchmark/torch-bf16/cpu/latency_ms"))
    assert trainer.checkpoint_callback.best_model_path.endswith("epoch_0.ckpt")


def test_an_absolute_floor_needs_no_teacher(fit, texts, data, make_trainer, keep):
    trainer = make_trainer(Told(teacher=None), select(0.95), keep(), checkpoint=False, max_epochs=4)
    trainer.fit(FineTuning(tiny_bert(layers=1, labels=2)), data)
    assert trainer.checkpoint_callback.best_model_path.endswith("epoch_0.ckpt")


def test_where_none_qualifies_the_nearest_is_kept_and_a_warning_says_so(fit, tmp_path):
    with pytest.warns(
        UserWarning, match=r"none of 4 .* nearest is epoch_0.ckpt with 0.9500, short of it by 0.13"
    ):
        trainer = fit(Told(), select("1.2*teacher"), ModelFolder())
    assert trainer.checkpoint_callback.best_model_path.endswith("epoch_0.ckpt")
    assert torch.equal(classifier(tmp_path / "run" / "model"), kept_classifier(tmp_path, "epoch_0.ckpt"))


def test_where_nothing_can_be_judged_the_checkpoint_of_the_monitor_stays(fit, tmp_path):
    with pytest.warns(
        UserWarning, match=r"the teacher's val/accuracy was not evaluated. epoch_\d.ckpt is kept"
    ):
        trainer = fit(Told(teacher=None), select())
    keep = trainer.checkpoint_callback
    best = max(keep.best_k_models.values())
    assert keep.best_k_models[keep.best_model_path] == keep.best_model_score == best
    name = keep.best_model_path.rsplit("/", 1)[1]
    assert torch.equal(kept_classifier(tmp_path, "best.ckpt"), kept_classifier(tmp_path, name))


def test_loggers_end_with_the_figures_of_the_chosen_checkpoint(fit, tmp_path):
    fit(Told(), select(), logger=CSVLogger(tmp_path / "run"))
    header, *lines = (tmp_path / "run/lightning_logs/version_0/metrics.csv").read_text().splitlines()
    column = header.split(",").index("benchmark/cpu/latency_ms")
    assert [line.split(",")[column] for line in lines if line.split(",")[column]] == ["4.0"]


def test_killed_and_resumed_it_chooses_as_if_never_killed(fit, tmp_path):
    whole = fit(Told(), select())
    chosen = kept_classifier(tmp_path, "best.ckpt")
    score = float(whole.checkpoint_callback.best_model_score)
    (tmp_path / "run").rename(tmp_path / "whole")
    with pytest.raises(RuntimeError, match="killed"):
        fit(Told(), select(), KillAt(10))
    assert not (tmp_path / "run/checkpoints/best.ckpt").exists()
    last = str(tmp_path / "run/checkpoints/last.ckpt")
    trainer = fit(Told(), select(), ckpt_path=last)
    assert trainer.checkpoint_callback.best_model_path.endswith("epoch_1.ckpt")
    assert len(trainer.checkpoint_callback.best_k_models) == 4
    assert torch.equal(kept_classifier(tmp_path, "best.ckpt"), chosen)
    assert float(trainer.checkpoint_callback.best_model_score) == score


def test_a_fit_killed_before_its_choice_chooses_when_it_is_resumed(fit, tmp_path):
    class Kill(Told):
        def on_fit_end(self, trainer, pl_module):
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        fit(Kill(), select())
    trainer = fit(Told(), select(), ckpt_path=str(tmp_path / "run/checkpoints/last.ckpt"))
    assert trainer.checkpoint_callback.best_model_path.endswith("epoch_1.ckpt")
    assert (tmp_path / "run/checkpoints/best.ckpt").is_file()


@pytest.mark.slow
def test_from_the_overlay_to_validation_of_the_best(cli_task, tmp_path):
    """The quality that decided is that of the checkpoint reloaded. All are equally fast here."""
    overlay = f"--config={RECIPES / 'overlays' / 'select_best.yaml'}"
    words = arguments("distil/finetune_baseline", cli_task, tmp_path, "--trainer.max_epochs=2", tiny=False)
    words += [
        "--model.optimizer.lr=0.003",
        "--benchmark.rounds=5",
        "--benchmark.max_seconds=1",
        "--trainer.accelerator=cpu",
    ]
    assert cli.run(["fit", words[0], overlay, *words[1:]]) == 0
    rows = read_results(tmp_path / FILE_NAME)
    students = [row for row in rows if row["role"] == "student"]
    assert {row["checkpoint"] for row in students} == {f"epoch_{epoch}.ckpt" for epoch in range(2)}
    chosen = json.loads((tmp_path / "model" / "lit_compress.json").read_text())["result"]
    best = (tmp_path / "checkpoints" / "best.ckpt").read_bytes()
    assert best == (tmp_path / "checkpoints" / chosen["checkpoint"]).read_bytes()
    assert cli.run(["validate", "--config", str(tmp_path / "config.yaml"), "--ckpt_path", "best"]) == 0
    metrics = json.loads((tmp_path / "validate_metrics.json").read_text())
    assert metrics["val/accuracy"] == pytest.approx(chosen["quality"]["value"])
    assert len({row["quality"]["value"] for row in students}) > 1


def test_a_fast_run_chooses_nothing(texts, data, make_trainer):
    trainer = make_trainer(Told(), select(), checkpoint=False, fast_dev_run=True)
    trainer.fit(fine_tuning(texts), data)


def refused(message, texts, data, make_trainer, *callbacks, module=None, checkpoint=False):
    module = module or fine_tuning(texts)
    with pytest.raises(ValueError, match=message):
        make_trainer(*callbacks, checkpoint=checkpoint).fit(module, data)
    assert module.global_step == 0


def test_refuses_to_choose_without_a_benchmark(texts, data, make_trainer, keep):
    refused("rows SelectBest chooses by but there is none", texts, data, make_trainer, select(), keep())
    callbacks = (Benchmark(at_end=False), select(), keep())
    refused("its at_end is false; set benchmark.at_end=true", texts, data, make_trainer, *callbacks)


def test_refuses_to_choose_among_one_checkpoint(texts, data, make_trainer, keep):
    single = keep(save_top_k=1, filename="best")
    message = (
        r"checkpoint.save_top_k is 1 and checkpoint.filename is 'best'; set checkpoint.save_top_k=-1 \(or how many to "
        r"keep\), checkpoint.filename='epoch_\{epoch\}'"
    )
    refused(message, texts, data, make_trainer, Told(), select(), single)


def test_refuses_checkpoints_without_a_monitor(texts, data, make_trainer, keep):
    refused("checkpoint.monitor is not set", texts, data, make_trainer, Told(), select(), keep(monitor=None))


def test_refuses_another_quality_than_the_benchmark_evaluates(texts, data, make_trainer, keep):
    other = SelectBest("val/f1", "0.98*teacher")
    refused("to be val/accuracy, .* got 'val/f1'", texts, data, make_trainer, Told(), other, keep())
    message = "to be train/accuracy, .* got 'val/accuracy'"
    refused(message, texts, data, make_trainer, Told(split="train"), select(), keep())


def test_refuses_a_share_without_a_teacher(texts, data, make_trainer, keep):
    alone = FineTuning(tiny_bert(layers=1, labels=2))
    message = (
        r"a teacher for at_least='0.98\*teacher' but FineTuning has none and benchmark.baseline is not set"
    )
    refused(message, texts, data, make_trainer, Told(), select(), keep(), module=alone)


def test_refuses_a_runtime_that_is_not_measured(texts, data, make_trainer, keep):
    chooser = select(minimise="benchmark/torch-bf16/cpu/latency_ms")
    message = (
        "a runtime that the benchmark measures, one of torch-fp32; add 'torch-bf16' to benchmark.runtimes"
    )
    refused(message, texts, data, make_trainer, Told(), chooser, keep())
    only = Told(runtimes=["torch-bf16"])
    refused("add 'torch-fp32' to benchmark.runtimes", texts, data, make_trainer, only, select(), keep())


def test_refuses_a_gpu_figure_without_a_gpu(texts, data, make_trainer, keep, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    chooser = select(minimise="benchmark/gpu/latency_ms")
    message = "a GPU for minimise='benchmark/gpu/latency_ms' .* minimise benchmark/cpu/latency_ms instead"
    refused(message, texts, data, make_trainer, Told(), chooser, keep())


@pytest.mark.parametrize(
    ("minimise", "near"),
    [
        ("benchmark/cpu/latency", "benchmark/cpu/latency_ms"),
        ("cpu/latency_ms", "benchmark/cpu/latency_ms"),
        ("benchmark/sizemb", "benchmark/size_mb"),
        ("benchmark/cpu/speedup", "benchmark/"),
    ],
)
def test_refuses_an_unknown_cost(minimise, near):
    with pytest.raises(
        ValueError, match=f"one of benchmark/params, .* but got '{minimise}'.*Did you mean {near}"
    ):
        select(minimise=minimise)


def test_refuses_a_malformed_floor():
    with pytest.raises(ValueError, match=r"Expected at_least to be a share .* but got '98 %'"):
        select("98 %")
