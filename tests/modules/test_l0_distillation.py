"""CoFi as a recipe has it: L0Pruning in Distillation with soft targets and layer matching, killed and resumed."""

import pytest
import torch
from lightning.pytorch import Callback, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint

from lit_compress.callbacks import L0Pruning
from lit_compress.callbacks.student import deployable
from lit_compress.models import Teacher
from lit_compress.modules import Distillation
from lit_compress.objectives import LayerMatch, SoftTargets
from lit_compress.pruning.counting import WeightCount
from lit_compress.pruning.gates import gates_of
from lit_compress.pruning.target import Target
from tests.modules.build import data_module, distillation, trainer

JOINT = ["head", "neuron", "attention", "feed_forward", "hidden"]


class Told(Callback):
    """Remembers what the objective was told about the layers."""

    def __init__(self):
        self.alive = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.alive.append(list(pl_module.objectives["layers"].alive))


def run(task, folder, structures, resume=None, keep_every=None):
    seed_everything(3, verbose=False)
    objectives = {"soft": SoftTargets(0.5, temperature=2.0), "layers": LayerMatch(0.5)}
    module = distillation(task, objectives, teacher=Teacher(str(task / "teacher"), precision="fp32"))
    pruning = L0Pruning(structures, target=Target(sparsity=0.6), evaluation="expected")
    told = Told()
    callbacks = [pruning, told]
    if keep_every:
        callbacks.append(
            ModelCheckpoint(dirpath=folder, every_n_train_steps=keep_every, save_top_k=-1, filename="{step}")
        )
    fit = trainer(folder, max_epochs=2, enable_checkpointing=bool(keep_every), callbacks=callbacks)
    fit.fit(module, data_module(task), ckpt_path=resume, weights_only=True)
    return module, pruning, told


@pytest.mark.parametrize("step", [7, 19], ids=["while_gates_move", "after_they_are_decided"])
def test_resumed_is_bit_identical_and_meets_the_target(step, task, tmp_path):
    whole, pruning, told = run(task, tmp_path, JOINT, keep_every=step)
    path = tmp_path / f"step={step}.ckpt"
    again, again_pruning, _ = run(task, tmp_path, JOINT, resume=path)
    one, other = whole.state_dict(), again.state_dict()
    assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
    assert torch.equal(pruning.generator.get_state(), again_pruning.generator.get_state())
    assert len(told.alive) == 24 and all(len(alive) == 2 for alive in told.alive)
    student = whole.student
    total = WeightCount(student, []).total
    measured = 1 - WeightCount(deployable(student), []).stored / total
    assert measured == pytest.approx(pruning.figures(student)["compress/sparsity"], abs=1e-6)
    assert measured == pytest.approx(0.6, abs=0.02)
    # A checkpoint loads with no callback listed.
    loaded = Distillation.load_from_checkpoint(path, weights_only=True, **arguments(task))
    saved = torch.load(path, weights_only=True)["state_dict"]
    assert all(torch.equal(loaded.state_dict()[key], value) for key, value in saved.items())
    assert gates_of(loaded.student) is not None


def arguments(task):
    fresh = distillation(
        task,
        {"soft": SoftTargets(0.5, temperature=2.0), "layers": LayerMatch(0.5)},
        num_labels=2,
    )

    source = {"student": fresh._student_source, "teacher": fresh._teacher_spec, "num_labels": 2}
    return {**source, "objectives": dict(fresh.objectives.items())}
