"""A fit with target.speedup: what is logged, and what the manifest and the card tell afterwards."""

import copy
import json
import shutil

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from lit_compress.callbacks import L0Pruning, ModelFolder, Pruning
from lit_compress.models import LayerSubset
from lit_compress.models.checkpoint import load
from lit_compress.models.transforms import transforms_of
from lit_compress.modules import AdamW, FineTuning
from lit_compress.pruning import achieved, latency_cache
from lit_compress.pruning.latency_cache import read_figures
from lit_compress.pruning.summary import kept_units
from lit_compress.pruning.target import Target
from lit_compress.schedules import Cubic, Linear
from tests.callbacks.l0_fits import fit

#: 1 + 2 x (0.5 + 4 + 8) = 26 ms for two layers of 4 heads and 64 neurons, every unit alike.
TABLE = {
    "curves": {
        "bert.encoder.layer.*.attention.self.head/4": {"units": [0, 4], "values": [0, 4]},
        "bert.encoder.layer.*.intermediate.neuron/64": {"units": [0, 64], "values": [0, 8]},
    },
    "layer": {"bert.encoder.layer.*": 0.5},
    "constant": 1,
    "hidden": None,
}


class Figures(pl.Callback):
    """Keeps what was logged last."""

    def on_train_batch_end(self, trainer, *_):
        self.logged = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("compress/")}


@pytest.fixture
def by_hand(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(latency_cache, "measure_figures", lambda *_: read_figures(TABLE))
    monkeypatch.setattr(achieved, "_SECONDS", 0.1)


CALLBACKS = pytest.mark.parametrize(
    "callback",
    [
        lambda target: Pruning(
            ["head", "neuron"], target=target, ramp=Cubic(begin=0.0, finish=0.5), every_n_steps=1, round_to=1
        ),
        lambda target: L0Pruning(target=target, ramp=Linear(0.0, 1.0, 0.0, 0.3), freeze_at=0.7, round_to=1),
    ],
    ids=["scores", "gates"],
)


@CALLBACKS
def test_the_table_is_met_logged_and_told_beside_what_was_measured(
    by_hand, callback, texts, data, make_trainer, tmp_path
):
    figures = Figures()
    target = Target(speedup=2.0, batch=2, length=8)
    trainer = make_trainer(callback(target), figures, ModelFolder(), checkpoint=False, log_every_n_steps=1)
    student = LayerSubset("every_other", depth=2, source=str(texts / "teacher" / "model"))
    trainer.fit(FineTuning(student, optimizer=AdamW(lr=1e-3)), data)

    assert figures.logged["compress/speedup_asked"] == 2.0
    assert figures.logged["compress/speedup_table"] == pytest.approx(2.0, abs=0.12)
    folder = tmp_path / "run" / "model"
    model = load(folder)
    assert transforms_of(model)
    kept = kept_units(model)
    heads, neurons = sum(map(sum, kept["heads"])), sum(count for count, _ in kept["neurons"])
    # What the folder holds costs half of 26 ms by the table.
    assert 26 / (2 + heads + neurons / 8) == pytest.approx(2.0, abs=0.12)

    facts = json.loads((folder / "lit_compress.json").read_text())["pruning"]
    assert facts["heads"] == [heads, 8] and facts["neurons"] == [neurons, 128]
    speedup = facts["speedup"]
    assert speedup["asked"] == 2.0 and speedup["low"] <= speedup["achieved"] <= speedup["high"]
    assert (speedup["batch"], speedup["length"]) == (2, 8)
    card = (folder / "README.md").read_text()
    line = f"| speed-up after shrinking (torch-fp32, CPU, batch 2 × 8 tokens) | {speedup['achieved']:.2f}×"
    assert line in card and "2.00× asked |" in card and f"| heads kept | {heads} of 8 |" in card


@CALLBACKS
def test_a_resumed_fit_keeps_its_table_whatever_became_of_the_cache(by_hand, callback, monkeypatch, tmp_path):
    def ended(folder, *more, resume=None):
        pl.seed_everything(1, verbose=False)
        pruning = callback(Target(speedup=2.0, batch=2, length=8))
        module = fit([pruning, *more], tmp_path / folder, steps=9, resume=resume)
        return module.state_dict(), pruning.state_dict()["latency"]

    keep = ModelCheckpoint(dirpath=tmp_path, every_n_train_steps=2, save_top_k=-1, filename="{step}")
    whole, table = ended("whole", keep)
    assert table.items() >= TABLE.items() and table["key"]["batch"] == 2
    shutil.rmtree(tmp_path / "cache")
    # Another hour, another measurement: heads cost nearly nothing.
    slower = copy.deepcopy(TABLE)
    slower["curves"]["bert.encoder.layer.*.attention.self.head/4"]["values"] = [0, 0.1]
    monkeypatch.setattr(latency_cache, "measure_figures", lambda *_: read_figures(slower))
    again, same = ended("again", resume=tmp_path / "step=2.ckpt")
    assert same == table
    assert again.keys() == whole.keys() and all(
        torch.equal(value, whole[name]) for name, value in again.items()
    )
    assert not (tmp_path / "cache").exists()
    other, _ = ended("other")
    assert any(not torch.equal(value, whole[name]) for name, value in other.items())


def test_refuses_a_speedup_out_of_reach(by_hand, texts, data, make_trainer):
    # One head and one neuron per layer cost 2 + 2 x (1 + 1/8) ms: 6.1 times faster at most.
    callback = Pruning(["head", "neuron"], target=Target(speedup=8.0), keep_at_least=1)
    trainer = make_trainer(callback, checkpoint=False)
    student = LayerSubset("every_other", depth=2, source=str(texts / "teacher" / "model"))
    with pytest.raises(ValueError, match="at most speedup=6.1"):
        trainer.fit(FineTuning(student), data)
