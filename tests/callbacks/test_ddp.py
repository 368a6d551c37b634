"""What callbacks learn with two gloo processes is what they learn with one on the same global batch."""

import pytest
import torch

from tests.callbacks.ddp_worker import METHODS, fit
from tests.runs import write_task
from tests.tiny import tiny_bert, tiny_tokenizer
from tests.workers import run_worker

#: How the names of what is learned end, and of what is decided by it.
LEARNED = {
    "learned steps": (".step",),
    "centroids": (".centroids",),
    "movement": (".keep", ".open"),
    "gates": (".log_alpha", ".lambda_1", ".lambda_2"),
}
DECIDED = (".keep", ".open", ".settled")


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    """Texts, and a model in plain/ without dropout: the processes draw their own masks."""
    folder = write_task(tmp_path_factory.mktemp("task"))
    tiny_bert(layers=2, labels=2, dropout=0.0).save_pretrained(folder / "plain")
    tiny_tokenizer(folder / "plain")
    return folder


@pytest.fixture(scope="module")
def two_processes(task, tmp_path_factory):
    """The folder of what two processes end with, started once for all methods: imports take longer than the fits."""
    out = tmp_path_factory.mktemp("two")
    run_worker("tests.callbacks.ddp_worker", task, out)
    return out


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_two_processes_learn_what_one_does(method, task, two_processes, tmp_path):
    fit(task, method, 1, tmp_path)
    one = torch.load(tmp_path / method / "0.pt", weights_only=True)
    first, second = (torch.load(two_processes / method / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    learned = [name for name in one if name.endswith(LEARNED[method])]
    assert len(learned) >= 11 and one.keys() == first.keys() == second.keys()
    for name in one:
        assert torch.equal(first[name], second[name]), name
    for name in learned:
        # A key bias has no gradient but rounding noise, which Adam scales up; steps and centroids do not see it.
        torch.testing.assert_close(
            first[name], one[name], rtol=0, atol=1e-4, msg=lambda m, k=name: f"{k}: {m}"
        )
    decided = [name for name in one if name.endswith(DECIDED)]
    for name in decided:
        assert torch.equal(first[name] == 0, one[name] == 0), name
    closed = [bool((one[name] == 0).any() and (one[name] != 0).any()) for name in decided]
    assert any(closed) or method not in ("movement", "gates")
