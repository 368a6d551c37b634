"""Fits with quantization-aware training: stages, resume, what is shipped, and its metric."""

import json
import warnings

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

import lit_compress
from lit_compress.callbacks import QAT, ModelFolder, Pruning
from lit_compress.callbacks.checkpoint import BestAndLast
from lit_compress.callbacks.student import deployable
from lit_compress.models import Pretrained
from lit_compress.models.rebuild import rebuild_student
from lit_compress.models.transforms import transforms_of
from lit_compress.modules import AdamW, FineTuning
from lit_compress.pruning.target import Target
from lit_compress.quantization import Scheme
from lit_compress.quantization.fake_weights import fake_weights_of
from lit_compress.quantization.inputs import input_quantizers_of
from lit_compress.quantization.packed import packed_of
from lit_compress.quantization.stage import FROZEN
from lit_compress.schedules import Progress
from tests.callbacks.conftest import data_module
from tests.callbacks.foreign import Foreign, fit
from tests.callbacks.l0_fits import l0, wide
from tests.callbacks.test_pruning_resume import same
from tests.tiny import tiny_batch, tiny_bert

KINDS = {
    "int8": {},
    "dynamic": {"ranges": "dynamic"},
    "learned": {"weights": Scheme(4), "learned_steps": True, "step_lr": 1e-2},
    "percentile": {"ranges": "percentile"},
    "mse": {"ranges": "mse"},
}


def module(student, **options):
    return FineTuning(student, optimizer=AdamW(lr=1e-2), num_labels=2, method="QAT", **options)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("killed", [1, 3, 7])
def test_killed_and_resumed_is_bit_identical(kind, killed, tmp_path):
    # Of 8 steps: while ranges are observed, while values are rounded, after ranges were fixed.
    settings = {"quantize_at": 0.25, "freeze_at": 0.75, **KINDS[kind]}
    keep = ModelCheckpoint(dirpath=tmp_path, every_n_train_steps=killed, save_top_k=-1, filename="{step}")
    whole_callback, again_callback = QAT(**settings), QAT(**settings)
    whole = fit([whole_callback, keep], tmp_path)
    again = fit([again_callback], tmp_path, resume=tmp_path / f"step={killed}.ckpt")
    assert same(whole.state_dict(), again.state_dict())
    assert same(whole_callback.state_dict(), again_callback.state_dict())
    assert all(fake.is_frozen for _, fake in fake_weights_of(again.net))


def test_stages_of_a_fit():
    model = tiny_bert(layers=1)
    callback = QAT(quantize_at=0.2, freeze_at=0.6)
    callback.apply(model)
    (_, fake), *_ = fake_weights_of(model)
    (_, quantizer), *_ = input_quantizers_of(model)
    quantizer.observer.observe(torch.ones(3))
    found = []
    for step in range(10):
        progress = Progress(step, 10, 0.0)
        callback.move(model, progress)
        found.append((fake.rounds, quantizer.is_frozen))
        assert callback.settled(progress) == (step >= 6)
    assert found == [(False, False)] * 2 + [(True, False)] * 4 + [(True, True)] * 4


def test_learned_steps_are_trained_with_their_own_rate_and_without_decay(tmp_path):
    callback = QAT(weights=Scheme(3), learned_steps=True, step_lr=1e-2, quantize_at=0.0, freeze_at=0.9)
    starts = {}
    callback.move = lambda model, progress, move=callback.move: (
        move(model, progress),
        starts
        or starts.update(
            {
                name: fake.step.detach().clone()
                for name, fake in fake_weights_of(model)
                if fake.step is not None
            }
        ),
    )
    fitted = fit([callback], tmp_path)
    assert starts
    for name, fake in fake_weights_of(fitted.net):
        if fake.step is not None:
            moved = (fake.step - starts[name]).abs()
            # Eight steps of Adam with this rate: no further, whatever the rate and the decay of the module.
            assert 0 < float(moved.max()) < 8.5e-2, name
    own = {id(p) for group in fitted.trainer.optimizers[0].param_groups for p in group["params"]}
    assert not any(id(fake.step) in own for _, fake in fake_weights_of(fitted.net))


def test_the_folder_computes_what_the_best_checkpoint_does(data, texts, make_trainer, tmp_path):
    trainer = make_trainer(QAT(quantize_at=0.2, freeze_at=0.5), ModelFolder())
    trainer.fit(module(tiny_bert(labels=2, dropout=0.1)), data)
    best = trainer.checkpoint_callback.best_model_path
    folder = tmp_path / "run" / "model"
    loaded = lit_compress.load(folder)
    assert len(list(packed_of(loaded))) > 20
    data.setup("validate")
    rows = next(iter(data.val_dataloader()))
    rows = {name: rows[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        assert torch.equal(loaded(**rows).logits, rebuild_student(best)(**rows).logits)
    # Contract 5: the logged metric is that of the folder.
    logged = float(trainer.checkpoint_callback.best_model_score)
    assert json.loads((folder / "lit_compress.json").read_text())["metrics"]["val/accuracy"] == logged
    again = module(Pretrained(str(folder)))
    found = make_trainer(checkpoint=False).validate(again, data_module(texts), verbose=False)
    assert found[0]["val/accuracy"] == pytest.approx(logged)


class StopAfter(pl.Callback):
    """End the fit after an epoch, as early stopping and max_time do."""

    def __init__(self, epoch):
        self.epoch = epoch

    def on_train_epoch_end(self, trainer, pl_module):
        trainer.should_stop = trainer.current_epoch >= self.epoch


@pytest.mark.parametrize("epoch", [1, 3])
def test_a_fit_that_ends_before_ranges_are_frozen_says_so(epoch, data, make_trainer, tmp_path):
    keep = BestAndLast(tmp_path / "checkpoints", monitor="val/accuracy", mode="max", save_last=True)
    callbacks = (QAT(quantize_at=0.1, freeze_at=0.6), StopAfter(epoch), ModelFolder(), keep)
    trainer = make_trainer(*callbacks, checkpoint=False, max_epochs=4)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.fit(module(tiny_bert(layers=1, labels=2)), data)
    said = [str(one.message) for one in caught if "ended early" in str(one.message)]
    assert len(said) == (epoch == 1)
    assert all("ranges had not been frozen (freeze_at) by QAT" in text for text in said)
    assert len(list(packed_of(lit_compress.load(tmp_path / "run" / "model")))) > 5


@pytest.mark.parametrize("first", ["pruning", "rounding"])
def test_with_pruning_in_either_order(first, tmp_path):
    callbacks = [
        Pruning("weight", target=Target(sparsity=0.5), every_n_steps=1),
        QAT(weights=Scheme(4), quantize_at=0.2, freeze_at=0.8),
    ]
    fitted = fit(
        callbacks if first == "pruning" else callbacks[::-1], tmp_path, module=Foreign(tiny_bert(layers=2))
    )
    small = deployable(fitted.net)
    weights = [value.whole_numbers() for name, value in packed_of(small) if ".layer." in name]
    zeros = sum(int((weight == 0).sum()) for weight in weights) / sum(weight.numel() for weight in weights)
    # Half of the weights were removed; more are rounded to zero.
    assert 0.5 <= zeros < 0.9


def test_both_orders_end_in_the_same_model(tmp_path):
    states = []
    for order in (1, -1):
        callbacks = [
            Pruning("weight", target=Target(sparsity=0.5), every_n_steps=1),
            QAT(quantize_at=0.2, freeze_at=0.8),
        ][::order]
        states.append(fit(callbacks, tmp_path).state_dict())
    assert same(*states)


def test_a_fit_that_was_stopped_before_rounding_is_refused(data, make_trainer):
    class Stop(pl.Callback):
        def on_train_batch_end(self, trainer, *_):
            trainer.should_stop = True

    trainer = make_trainer(QAT(quantize_at=0.9, freeze_at=0.95), ModelFolder(), Stop(), checkpoint=False)
    with pytest.raises(ValueError, match="is not rounded yet"):
        trainer.fit(module(tiny_bert(labels=2)), data)


@pytest.mark.parametrize("steps", [1, 2])
def test_the_shortest_fit_ends_with_fixed_ranges(steps, data, make_trainer, tmp_path):
    trainer = make_trainer(
        QAT(quantize_at=0.9, freeze_at=0.95), ModelFolder(), max_epochs=-1, max_steps=steps
    )
    trainer.fit(module(tiny_bert(labels=2)), data)
    assert list(packed_of(lit_compress.load(tmp_path / "run" / "model")))


def test_a_fit_in_bfloat16_observes_and_rounds_in_float32(tmp_path):
    fitted = fit([QAT(quantize_at=0.2, freeze_at=0.8)], tmp_path, precision="bf16-mixed")
    full = fit([QAT(quantize_at=0.2, freeze_at=0.8)], tmp_path)
    for (name, half), (_, exact) in zip(
        input_quantizers_of(fitted.net), input_quantizers_of(full.net), strict=True
    ):
        assert half.observer.low.dtype == torch.float32
        assert float(half.observer.high) == pytest.approx(float(exact.observer.high), rel=0.1, abs=0.05), name
    assert list(packed_of(deployable(fitted.net)))


def test_a_projection_that_never_ran_is_named():
    model = tiny_bert(layers=1)
    model.spare = torch.nn.Linear(4, 4)
    QAT().apply(model)
    for _, step in [*fake_weights_of(model), *input_quantizers_of(model)]:
        step.set_stage(FROZEN)
        if hasattr(step, "observer") and step is not model.spare.input_quantizer:
            step.observer.observe(torch.ones(2))
    with pytest.raises(ValueError, match="Expected spare to have read finite values in training"):
        deployable(model)


@pytest.mark.parametrize("first", ["gates", "rounding"])
@pytest.mark.parametrize("gates", ["pair", "cofi"])
def test_gates_and_rounding_in_one_fit(gates, first, tmp_path):
    """What is shipped computes what the fit ended with; where it is killed it goes on, bit by bit."""

    def callbacks():
        found = [
            l0(gates, freeze_at=0.4, gate_lr=0.5),
            QAT(weights=Scheme(4), learned_steps=True, quantize_at=0.5, freeze_at=0.8),
        ]
        return found if first == "gates" else found[::-1]

    keep = ModelCheckpoint(dirpath=tmp_path, every_n_train_steps=3, save_top_k=-1, filename="{step}")
    whole = fit([*callbacks(), keep], tmp_path, module=wide())
    again = fit(callbacks(), tmp_path, module=wide(), resume=tmp_path / "step=6.ckpt")
    assert same(whole.state_dict(), again.state_dict())
    small = deployable(whole.net)
    assert {entry[0] for entry in transforms_of(small)} == {"shape", "input_quantizers", "packed_weights"}
    batch = {key: value for key, value in tiny_batch(seed=0).items() if key not in ("labels", "example_id")}
    whole.net.eval()
    with torch.no_grad():
        assert torch.allclose(small(**batch).logits, whole.net(**batch).logits, atol=1e-4)


def test_refuses_groups_of_weights_beside_gates(tmp_path):
    grouped = QAT(weights=Scheme(4, per="group", group_size=8))
    with pytest.raises(ValueError, match="groups would be torn apart; prune in a first fit"):
        fit([grouped, l0("pair")], tmp_path, module=wide())
