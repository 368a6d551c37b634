"""Two gloo processes equal one process on the same global batch."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.tiny import tiny_bert


def _fit(task, teacher, name, processes, out):
    command = [
        sys.executable,
        "-m",
        "tests.modules.ddp_worker",
        *map(str, (task, teacher, name, processes, out)),
    ]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    root = Path(__file__).parents[2]
    done = subprocess.run(
        command, cwd=root, env=env, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return torch.load(out, weights_only=True)


@pytest.mark.parametrize("name", ["pkd", "tinybert"])
def test_two_processes_equal_one(name, task, tmp_path):
    # Without dropout: the processes draw their own masks. TinyBERT's first stage leaves the head unused,
    # which DDP would report if the loss did not reach it.
    tiny_bert(layers=4, labels=2, dropout=0.0).save_pretrained(tmp_path / "teacher")
    one = _fit(task, tmp_path / "teacher", name, 1, tmp_path / "one" / "x.pt")
    two = _fit(task, tmp_path / "teacher", name, 2, tmp_path / "two" / "x.pt")
    assert one.keys() == two.keys()
    # The softmax does not see a key bias: its gradient is rounding noise, which Adam scales up to full steps.
    for key, value in ((k, v) for k, v in one.items() if not k.endswith("key.bias")):
        torch.testing.assert_close(two[key], value, rtol=0, atol=1e-5, msg=lambda m, k=key: f"{k}: {m}")
