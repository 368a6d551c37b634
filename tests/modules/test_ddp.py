"""Two gloo processes equal one process on the same global batch."""

import pytest
import torch

from tests.modules.ddp_worker import fit
from tests.tiny import tiny_bert
from tests.workers import run_worker

NAMES = ["pkd", "tinybert"]


@pytest.fixture(scope="module")
def two_processes(task, tmp_path_factory):
    """The folder of what two processes end with, started once for all: imports take longer than the fits.

    Without dropout: the processes draw their own masks. TinyBERT's first stage leaves the head unused, which DDP would
    report if the loss did not reach it.
    """
    out = tmp_path_factory.mktemp("two")
    tiny_bert(layers=4, labels=2, dropout=0.0).save_pretrained(out / "teacher")
    run_worker("tests.modules.ddp_worker", task, out / "teacher", out, *NAMES)
    return out


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_two_processes_equal_one(name, task, two_processes, tmp_path):
    fit(task, two_processes / "teacher", name, 1, tmp_path)
    one, two = (torch.load(place / f"{name}.pt", weights_only=True) for place in (tmp_path, two_processes))
    assert one.keys() == two.keys()
    # The softmax does not see a key bias: its gradient is rounding noise, which Adam scales up to full steps.
    for key, value in ((k, v) for k, v in one.items() if not k.endswith("key.bias")):
        torch.testing.assert_close(two[key], value, rtol=0, atol=1e-5, msg=lambda m, k=key: f"{k}: {m}")
