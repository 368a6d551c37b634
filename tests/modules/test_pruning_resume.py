"""Contract 8 for pruning in a distillation with dropout: killed in the middle of the ramp and resumed."""

import pytest
import torch
from lightning.pytorch import seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint

from lit_compress.models import Teacher
from tests.callbacks.pruned import pruning
from tests.modules.build import RECIPES, data_module, distillation, trainer

KILLED = 7  # of 12 steps


@pytest.mark.parametrize(
    ("structure", "score"),
    [("weight", "movement"), ("block", "soft"), ("neuron", "taylor"), ("head", "fisher")],
)
def test_killed_and_resumed_is_bit_identical(structure, score, task, tmp_path):
    states = []
    for resume in (None, tmp_path / f"step={KILLED}.ckpt"):
        seed_everything(3 if resume is None else 4, verbose=False)
        teacher = Teacher(str(task / "teacher"), precision="fp32")
        module = distillation(task, RECIPES["soft"](), teacher=teacher)
        keep = ModelCheckpoint(dirpath=tmp_path, every_n_train_steps=KILLED, save_top_k=-1, filename="{step}")
        callbacks = [pruning(structure, score), *([keep] if resume is None else [])]
        fit = trainer(tmp_path, enable_checkpointing=resume is None, callbacks=callbacks)
        fit.fit(module, data_module(task), ckpt_path=resume, weights_only=True)
        states.append(module.state_dict())
    whole, again = states
    assert whole.keys() == again.keys()
    assert all(torch.equal(whole[key], again[key]) for key in whole)
    assert sum(int((v == 0).sum()) for key, v in whole.items() if key.endswith((".keep", ".open"))) > 0
