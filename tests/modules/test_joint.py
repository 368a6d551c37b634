"""Distillation, gates and rounding in one fit: the order of the callbacks does not count, nor where it is killed."""

import pytest
import torch
from lightning.pytorch import seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint

import lit_compress
from lit_compress.callbacks import QAT, L0Pruning, ModelFolder
from lit_compress.callbacks.student import deployable
from lit_compress.models import Pretrained
from lit_compress.models.transforms import transforms_of
from lit_compress.modules import AdamW, FineTuning
from lit_compress.objectives import LayerMatch, SoftTargets
from lit_compress.pruning.target import Target
from lit_compress.quantization import Scheme
from lit_compress.quantization.stage import FROZEN, OBSERVE, ROUND
from tests.callbacks.test_pruning_resume import same
from tests.modules.build import data_module, distillation, trainer
from tests.runs import phase
from tests.tiny import tiny_batch

STEPS = 12  # 6 batches per epoch, 2 epochs
#: The last checkpoint of every phase: whether the gates are decided, and the stage of what rounds.
PHASES = {5: (False, OBSERVE), 7: (True, OBSERVE), 10: (True, ROUND), 11: (True, FROZEN)}
ORDERS = pytest.mark.parametrize("order", [1, -1], ids=["rounding_last", "rounding_first"])


def gates():
    return L0Pruning(
        ["head", "neuron"], target=Target(sparsity=0.5), evaluation="expected", freeze_at=0.4, gate_lr=0.5
    )


def rounding():
    return QAT(weights=Scheme(4), learned_steps=True, step_lr=1e-3, quantize_at=0.55, freeze_at=0.8)


def distilled(task):
    objectives = {"soft": SoftTargets(0.5, temperature=2.0), "layers": LayerMatch(0.5)}
    return distillation(task, objectives, student=Pretrained(str(task / "teacher")))


def fine_tuned(task):
    return FineTuning(Pretrained(str(task / "teacher")), optimizer=AdamW(lr=1e-3))


def run(task, folder, callbacks, resume=None, keep=(), module=distilled):
    seed_everything(3, verbose=False)
    module = module(task)
    kept = [Keep(folder, step) for step in keep]
    fit = trainer(folder, max_epochs=2, enable_checkpointing=bool(kept), callbacks=[*callbacks, *kept])
    fit.fit(module, data_module(task, batch_size=16), ckpt_path=resume, weights_only=True)
    assert fit.global_step == STEPS
    return module


class Keep(ModelCheckpoint):
    """Keeps the checkpoint of one step."""

    def __init__(self, folder, step):
        super().__init__(dirpath=folder, every_n_train_steps=step, save_top_k=-1, filename="{step}")


def states(module):
    """Return all that a fit ends with: weights, gates, steps and ranges; optimizers; what callbacks remember."""
    fit = module.trainer
    own = {c.state_key: c.state_dict() for c in fit.callbacks if isinstance(c, L0Pruning | QAT)}
    return {"weights": module.state_dict(), "optimizer": fit.optimizers[0].state_dict(), "callbacks": own}


@pytest.fixture(scope="module")
def whole(task, tmp_path_factory):
    """A fit that was never killed, and the folder of its checkpoints."""
    folder = tmp_path_factory.mktemp("whole")
    return run(task, folder, [gates(), rounding()], keep=PHASES), folder


def test_both_orders_end_in_the_same_model(whole, task, tmp_path):
    assert same(states(whole[0]), states(run(task, tmp_path, [rounding(), gates()])))


@ORDERS
@pytest.mark.parametrize("killed", PHASES)
def test_killed_in_any_phase_it_goes_on_bit_by_bit(killed, order, whole, task, tmp_path):
    path = whole[1] / f"step={killed}.ckpt"
    assert phase(path) == PHASES[killed]
    # The checkpoint is that of the first order: the other one goes on from it as well.
    again = run(task, tmp_path, [gates(), rounding()][::order], resume=path)
    assert same(states(whole[0]), states(again))


def test_what_is_shipped_computes_what_the_fit_ended_with(whole):
    student = whole[0].student.eval()
    small = deployable(student)
    assert {entry[0] for entry in transforms_of(small)} == {"shape", "input_quantizers", "packed_weights"}
    rows = {key: value for key, value in tiny_batch(seed=0).items() if key not in ("labels", "example_id")}
    with torch.no_grad():
        assert torch.allclose(small(**rows).logits, student(**rows).logits, atol=1e-4)


def test_without_a_teacher_both_orders_end_in_the_same_model_too(task, tmp_path):
    one, other = (run(task, tmp_path, [gates(), rounding()][::order], module=fine_tuned) for order in (1, -1))
    assert same(states(one), states(other))


def test_killed_while_rounding_alone_learns_from_a_teacher_it_goes_on_bit_by_bit(task, tmp_path):
    one = run(task, tmp_path, [rounding()], keep=[7, 10, 11])
    for killed in (7, 10, 11):
        again = run(task, tmp_path, [rounding()], resume=tmp_path / f"step={killed}.ckpt")
        assert same(states(one), states(again)), killed


def test_the_folder_is_the_same_before_and_behind_the_rounding(task, tmp_path):
    for name, order in (("before", 1), ("behind", -1)):
        run(task, tmp_path, [ModelFolder(str(tmp_path / name)), gates(), rounding()][::order])
    one, other = (lit_compress.load(tmp_path / name).state_dict() for name in ("before", "behind"))
    assert same(one, other)
