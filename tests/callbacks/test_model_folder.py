"""The model folder that every fit ends in."""

import json
import subprocess
import sys

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from transformers import BertForSequenceClassification

from lit_compress.callbacks import Benchmark, ModelFolder
from lit_compress.callbacks.model_folder import sample_lengths
from lit_compress.models import LayerSubset, Teacher
from lit_compress.modules import AdamW, Distillation
from lit_compress.objectives import HardLabels, SoftTargets

LOAD = """
import sys, torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer
model = AutoModelForSequenceClassification.from_pretrained(sys.argv[1]).eval()
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
inputs = tokenizer(["the good film", "a bad plot of it"], padding=True, return_tensors="pt")
assert not [name for name in sys.modules if name.startswith(("lit_compress", "lightning"))]
torch.save({"inputs": dict(inputs), "logits": model(**inputs).logits.detach()}, sys.argv[2])
"""


def module(texts):
    return Distillation(
        student=LayerSubset("every_other", depth=2),
        teacher=Teacher(str(texts / "teacher" / "model"), precision="fp32"),
        objectives={"hard": HardLabels(0.5), "soft": SoftTargets(0.5)},
        optimizer=AdamW(lr=1e-2),
        method="soft targets",
        recipe="distil/soft_targets",
    )


@pytest.fixture
def fitted(texts, data, make_trainer):
    trainer = make_trainer(ModelFolder())
    fitted = module(texts)
    trainer.fit(fitted, data)
    return trainer, fitted


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_stock_transformers_loads_the_best_checkpoint_in_a_fresh_process(fitted, tmp_path):
    trainer, _ = fitted
    folder, out = tmp_path / "run" / "model", tmp_path / "logits.pt"
    subprocess.run([sys.executable, "-c", LOAD, str(folder), str(out)], check=True, cwd=tmp_path, timeout=120)
    found = torch.load(out, weights_only=True)
    state = torch.load(trainer.checkpoint_callback.best_model_path, weights_only=True)["state_dict"]
    config = BertForSequenceClassification.config_class.from_pretrained(folder)
    model = BertForSequenceClassification(config).eval()
    weights = {k.removeprefix("student."): v for k, v in state.items() if k.startswith("student.")}
    model.load_state_dict(weights)
    torch.testing.assert_close(found["logits"], model(**found["inputs"]).logits, rtol=0, atol=1e-6)
    assert not torch.allclose(found["logits"][0], found["logits"][1])


def test_the_best_and_not_the_last_weights_are_kept(texts, data, make_trainer, tmp_path):
    class Spoil(pl.Callback):
        def on_train_end(self, trainer, pl_module):
            with torch.no_grad():
                pl_module.student.classifier.bias.fill_(100.0)

    trainer = make_trainer(Spoil(), ModelFolder(folder=str(tmp_path / "elsewhere")))
    trainer.fit(module(texts), data)
    kept = BertForSequenceClassification.from_pretrained(tmp_path / "elsewhere")
    assert kept.classifier.bias.abs().max() < 10
    assert not (tmp_path / "run" / "model").exists()


def test_without_checkpoints_the_final_weights_are_kept(texts, data, make_trainer, tmp_path):
    fitted = module(texts)
    make_trainer(ModelFolder(), checkpoint=False).fit(fitted, data)
    kept = BertForSequenceClassification.from_pretrained(tmp_path / "run" / "model")
    assert all(torch.equal(kept.state_dict()[k], v) for k, v in fitted.student.state_dict().items())
    assert fitted.student.training  # what is saved is a copy


def test_manifest_and_card_tell_the_run(fitted, texts, tmp_path):
    trainer, _ = fitted
    folder = tmp_path / "run" / "model"
    manifest = json.loads((folder / "lit_compress.json").read_text())
    teacher = str(texts / "teacher" / "model")
    expected = {
        "method": "soft targets",
        "recipe": "distil/soft_targets",
        "teacher": teacher,
        "task": "Classification",
        "epochs": 2,
        "steps": 6,
        "label_names": ["a", "b"],
        "transforms": [],
        "result": None,
    }
    assert {key: manifest[key] for key in expected} == expected
    score = float(trainer.checkpoint_callback.best_model_score)
    assert manifest["metrics"] == {"val/accuracy": pytest.approx(score)}
    lines = (texts / "train.csv").read_text().splitlines()[1:]
    words = sorted(len(line.split(",")[0].split()) + 2 for line in lines)  # every word is one token
    assert manifest["input_lengths"] == words
    card = (folder / "README.md").read_text()
    assert card.startswith("---\n")
    assert all(fact in card for fact in ("soft targets", "distil/soft_targets", f"{score:.4g}"[:5]))
    assert {"model.safetensors", "config.json", "tokenizer.json"} <= contents(folder).keys()


def test_an_existing_folder_survives_a_failing_write(
    fitted, texts, data, make_trainer, tmp_path, monkeypatch
):
    folder = tmp_path / "run" / "model"
    before = contents(folder)

    def fail(self, path, **kwargs):
        path.mkdir(parents=True, exist_ok=True)
        (path / "model.safetensors").write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(BertForSequenceClassification, "save_pretrained", fail)
    with pytest.raises(OSError, match="No space left"):
        make_trainer(ModelFolder()).fit(module(texts), data)
    assert contents(folder) == before
    assert [path.name for path in (tmp_path / "run").iterdir() if "model" in path.name] == ["model"]


def test_writes_nothing_where_disabled_or_in_a_fast_run(texts, data, make_trainer, tmp_path):
    make_trainer(ModelFolder(enabled=False)).fit(module(texts), data)
    make_trainer(ModelFolder(), checkpoint=False, fast_dev_run=True).fit(module(texts), data)
    assert not (tmp_path / "run" / "model").exists()


def test_moves_behind_the_benchmark_without_skipping_a_setup(texts, data, make_trainer):
    called = []

    class Between(pl.Callback):
        def setup(self, trainer, pl_module, stage):
            called.append(stage)

    folder, benchmark = ModelFolder(), Benchmark(at_end=False)
    trainer = make_trainer(folder, Between(), benchmark, max_steps=1)
    trainer.fit(module(texts), data)
    assert called == ["fit"]
    assert trainer.callbacks.index(folder) > trainer.callbacks.index(benchmark)


def test_lengths_are_sampled_at_even_quantiles():
    assert sample_lengths(np.array([5, 3, 9])) == [3, 5, 9]
    many = sample_lengths(np.arange(1, 1001)[::-1].copy())
    assert len(many) == 200
    assert (many[0], many[-1]) == (1, 1000)
    assert many == sorted(many)


class Plain(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.student = torch.nn.Linear(2, 2)

    def training_step(self, batch, batch_idx):
        raise AssertionError("a step was taken before the refusal")

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_refuses_a_student_that_is_not_of_transformers(make_trainer):
    loader = torch.utils.data.DataLoader(torch.zeros(4, 2))
    with pytest.raises(ValueError, match="Plain has Linear; leave the ModelFolder callback out"):
        make_trainer(ModelFolder(), checkpoint=False).fit(Plain(), loader)


def test_refuses_an_occupied_place_before_training(texts, data, make_trainer, tmp_path):
    (tmp_path / "run" / "model").mkdir(parents=True)
    (tmp_path / "run" / "model" / "thesis.txt").write_text("precious")
    fitted = module(texts)
    with pytest.raises(ValueError, match="something else is there"):
        make_trainer(ModelFolder()).fit(fitted, data)
    assert fitted.global_step == 0
    assert (tmp_path / "run" / "model" / "thesis.txt").read_text() == "precious"
