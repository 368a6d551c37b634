"""Golden check 21: a run with a cached teacher is the run with the live teacher, under shuffling."""

import pytest
import torch
from lightning.pytorch import Callback, seed_everything

from lit_compress.models import CachedTeacher, LiveTeacher, Teacher
from tests.modules.build import RECIPES, data_module, distillation, trainer

ROWS = 96


class Losses(Callback):
    def __init__(self):
        self.values, self.order = [], []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.values.append(outputs["loss"].item())
        self.order.extend(batch["example_id"].tolist())


def run(task, folder, name, cache):
    seed_everything(3, verbose=False)
    teacher = Teacher(str(task / "teacher"), cache=cache, precision="fp32", cache_dtype="float32")
    module, losses = distillation(task, RECIPES[name](), teacher=teacher), Losses()
    trainer(folder, max_epochs=2, callbacks=[losses]).fit(module, data_module(task))
    assert type(module._teacher) is (CachedTeacher if cache else LiveTeacher)
    return losses, module.student.state_dict()


@pytest.mark.parametrize("name", ["soft", "pkd", "tinybert", "minilm"])
def test_cached_equals_live(name, task, tmp_path):
    live, weights = run(task, tmp_path / "live", name, None)
    cached, cached_weights = run(task, tmp_path / "cached", name, str(tmp_path / "cache"))
    # shuffled, and differently in each epoch
    assert cached.order == live.order and live.order[:ROWS] != live.order[ROWS:]
    assert live.order[:ROWS] != sorted(live.order[:ROWS]) == sorted(live.order[ROWS:])
    torch.testing.assert_close(cached.values, live.values, atol=1e-6, rtol=1e-6)
    for key, value in weights.items():
        # The softmax does not see the bias of the keys: its gradient is rounding noise, which Adam scales up.
        if not key.endswith("key.bias"):
            torch.testing.assert_close(cached_weights[key], value, atol=1e-6, rtol=1e-6)
