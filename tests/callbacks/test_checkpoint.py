"""Which checkpoint of a fit counts as the best one."""

from pathlib import Path

import lightning.pytorch as pl
import torch
from torch import nn
from torch.utils.data import DataLoader
from transformers import BertConfig, BertModel

from lit_compress.callbacks.checkpoint import BestAndLast
from lit_compress.callbacks.transform import TransformCallback
from lit_compress.schedules import Progress


class _Falls(pl.LightningModule):
    """A module whose metric falls with every epoch, as that of a model does from which parts are taken."""

    def __init__(self) -> None:
        super().__init__()
        sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
        self.student = BertModel(BertConfig(vocab_size=10, **sizes))

    def training_step(self, batch, batch_idx):
        return self.student(input_ids=batch).last_hidden_state.square().mean()

    def validation_step(self, batch, batch_idx):
        self.log("val/accuracy", 1.0 - 0.1 * self.current_epoch)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


class _Settles(TransformCallback):
    """Reaches its aim at the start of a given step."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.step = step

    @property
    def state_key(self) -> str:
        return f"settles at {self.step}"

    def apply(self, model: nn.Module) -> None:
        """Change nothing."""

    def settled(self, progress: Progress) -> bool:
        return progress.step >= self.step


def _fit(folder: Path, callbacks: list[pl.Callback]) -> BestAndLast:
    keep = BestAndLast(
        folder,
        filename="{epoch}",
        monitor="val/accuracy",
        mode="max",
        save_last=True,
        auto_insert_metric_name=False,
    )
    data = DataLoader(torch.randint(0, 10, (4, 3)), batch_size=2)
    trainer = pl.Trainer(
        max_epochs=4,
        accelerator="cpu",
        callbacks=[*callbacks, keep],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(_Falls(), data, data)
    return keep


def test_without_a_moving_structure_the_best_metric_counts(tmp_path):
    assert Path(_fit(tmp_path, []).best_model_path).name == "0.ckpt"


def test_the_best_checkpoint_is_of_the_final_size(tmp_path):
    # Two steps an epoch: step 4 begins epoch 2, so epochs 0 and 1 ended before the aim was reached.
    assert Path(_fit(tmp_path, [_Settles(4)]).best_model_path).name == "2.ckpt"


def test_the_last_step_of_an_epoch_counts(tmp_path):
    assert Path(_fit(tmp_path, [_Settles(3)]).best_model_path).name == "1.ckpt"


def test_every_callback_has_to_have_reached_its_aim(tmp_path):
    assert Path(_fit(tmp_path, [_Settles(6), _Settles(0)]).best_model_path).name == "3.ckpt"


def test_the_last_checkpoint_is_written_while_nothing_has_settled(tmp_path):
    keep = _fit(tmp_path, [_Settles(100)])
    assert keep.best_model_path == ""
    assert torch.load(keep.last_model_path, weights_only=True)["epoch"] == 3
