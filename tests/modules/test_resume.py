"""Contract 8: killed at any step and resumed, a run ends bit-identical to one that was never killed."""

import random
import shutil

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint

from lit_compress.models import Teacher
from lit_compress.modules.random_state import capture_random_state, restore_random_state
from tests.modules.build import RECIPES, data_module, distillation, trainer

STEPS = 24  # 12 batches per epoch, 2 epochs


class Kill(Callback):
    def __init__(self, step):
        self.step = step

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == self.step:
            raise SystemError("killed")


def run(task, folder, name, kill=None, resume=None, cache=None):
    seed_everything(3, verbose=False)
    module = distillation(
        task, RECIPES[name](), teacher=Teacher(str(task / "teacher"), cache=cache, precision="fp32")
    )
    keep = ModelCheckpoint(dirpath=folder, every_n_train_steps=1, save_top_k=-1, filename="{step}")
    callbacks = [keep, *([Kill(kill)] if kill is not None else [])]
    fit = trainer(folder, max_epochs=2, enable_checkpointing=True, callbacks=callbacks)
    if kill is None:
        fit.fit(module, data_module(task), ckpt_path=resume, weights_only=True)
        return module.state_dict(), fit.optimizers[0].state_dict()
    with pytest.raises(SystemError, match="killed"):
        fit.fit(module, data_module(task))
    return None


@pytest.mark.parametrize(
    ("name", "cached"), [("soft", False), ("soft", True), ("tinybert", False), ("tinybert", True)]
)
def test_killed_and_resumed_is_bit_identical(name, cached, task, tmp_path):
    cache = str(tmp_path / "cache") if cached else None
    whole, optimizer = run(task, tmp_path / "whole", name, cache=cache)
    kill = random.Random(f"{name}{cached}").randrange(2, STEPS)
    run(task, tmp_path / "killed", name, kill=kill, cache=cache)
    last = tmp_path / "killed" / f"step={kill}.ckpt"
    shutil.copy(last, tmp_path / "last.ckpt")
    again, optimizer_again = run(task, tmp_path / "again", name, resume=tmp_path / "last.ckpt", cache=cache)
    assert whole.keys() == again.keys()
    assert all(torch.equal(whole[key], again[key]) for key in whole)
    for key, state in optimizer["state"].items():
        for field, value in state.items():
            assert torch.equal(value, optimizer_again["state"][key][field])


def test_resumed_at_an_epoch_boundary_is_bit_identical(task, tmp_path):
    whole, _ = run(task, tmp_path / "whole", "soft")
    run(task, tmp_path / "killed", "soft", kill=12)
    again, _ = run(task, tmp_path / "again", "soft", resume=tmp_path / "killed" / "step=12.ckpt")
    assert all(torch.equal(whole[key], again[key]) for key in whole)


def test_random_states_round_trip_through_a_safe_file(tmp_path):
    state = capture_random_state()
    torch.save(state, tmp_path / "state.pt")
    first = (torch.rand(3), np.random.rand(3), random.random())
    restore_random_state(torch.load(tmp_path / "state.pt", weights_only=True))
    second = (torch.rand(3), np.random.rand(3), random.random())
    assert torch.equal(first[0], second[0])
    assert np.array_equal(first[1], second[1])
    assert first[2] == second[2]
