"""A fit after a validation begins as if there had been none: contract 8 for fits without a checkpoint."""

import lightning.pytorch as pl
import pytest
from lightning.pytorch.callbacks import ModelCheckpoint

from lit_compress.callbacks import QAT
from lit_compress.pruning.target import Target
from lit_compress.quantization import Scheme
from tests.callbacks.foreign import Batches, Foreign, fit
from tests.callbacks.l0_fits import l0
from tests.callbacks.pruned import pruning
from tests.callbacks.test_pruning_resume import same
from tests.tiny import tiny_batch, tiny_bert

BUILDERS = {
    "gates with a target": lambda: l0("pair"),
    "gates with a penalty": lambda: l0("penalty"),
    "movement": lambda: pruning("weight", "movement"),
    "taylor": lambda: pruning("head", "taylor"),
    "learned steps": lambda: QAT(Scheme(4), ranges="none", learned_steps=True, step_lr=1e-2),
}


class Validated(Foreign):
    """A module that can be validated."""

    def __init__(self):
        super().__init__(tiny_bert(layers=2, hidden=32))

    def validation_step(self, batch, batch_idx):
        batch.pop("example_id")
        self.log("val/loss", self.net(**batch).loss)


def validate(callback, module, folder, checkpoint=None):
    trainer = pl.Trainer(
        default_root_dir=str(folder),
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        callbacks=[callback],
    )
    return trainer.validate(module, Batches([tiny_batch()]), checkpoint, verbose=False, weights_only=True)


@pytest.mark.parametrize("name", BUILDERS)
def test_a_fit_after_the_validation_of_a_checkpoint_begins_anew(name, tmp_path):
    build = BUILDERS[name]
    keep = ModelCheckpoint(dirpath=tmp_path, every_n_train_steps=3, save_top_k=-1, filename="{step}")
    fit([build(), keep], tmp_path, module=Validated())
    ends = []
    for used in (build(), build()):
        module = Validated()
        # The weights come from the checkpoint; where the fit of it stood does not, whichever callback read it.
        validate(used, module, tmp_path, tmp_path / "step=3.ckpt")
        callback = used if not ends else build()
        fit([callback], tmp_path, module=module)
        ends.append((module.state_dict(), callback.state_dict(), module.trainer.optimizers[0].state_dict()))
    assert all(map(same, *ends))


def test_after_a_fit_of_one_step_the_first_step_moves_too(tmp_path):
    callback, steps = l0("pair"), []
    fit([callback], tmp_path, steps=1)
    move = callback.move
    callback.move = lambda model, progress: (steps.append(progress.step), move(model, progress))
    fit([callback], tmp_path, steps=3)
    assert steps == [0, 1, 2]


def test_a_validation_alone_measures_no_speed(tmp_path):
    [found] = validate(l0("pair", target=Target(speedup=2.0)), Validated(), tmp_path)
    assert "val/loss" in found and "compress/sparsity" in found
    assert not [name for name in found if "speedup" in name]
