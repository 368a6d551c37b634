"""Contract 8 for pruning: killed in the middle of the ramp and resumed, every structure with every score."""

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from lit_compress.pruning import Frequency, Movement, Target
from tests.callbacks.foreign import fit
from tests.callbacks.pruned import SCORES, STRUCTURES, pruning

MATRIX = [(st, sc) for st in STRUCTURES for sc in SCORES if (st, sc) != ("2:4", "soft")]
KILLED = 3  # of 8 steps: after the first decision of the ramp, before the last


def same(one, other):
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


def check(build, folder, **options):
    keep = ModelCheckpoint(dirpath=folder, every_n_train_steps=KILLED, save_top_k=-1, filename="{step}")
    whole_callback = build()
    whole = fit([whole_callback, keep], folder, **options)
    again_callback = build()
    again = fit([again_callback], folder, resume=folder / f"step={KILLED}.ckpt", **options)
    assert same(whole.state_dict(), again.state_dict())
    assert same(whole_callback.state_dict(), again_callback.state_dict())
    optimizers = [module.trainer.optimizers[0].state_dict() for module in (whole, again)]
    assert same(*optimizers)
    middle = torch.load(folder / f"step={KILLED}.ckpt", weights_only=True)
    return whole_callback, middle, whole.state_dict()


@pytest.mark.parametrize(("structure", "score"), MATRIX)
def test_killed_and_resumed_is_bit_identical(structure, score, tmp_path):
    callback, middle, state = check(lambda: pruning(structure, score), tmp_path)
    gates = [key for key in state if key.endswith((".keep", ".open"))]
    assert gates
    closed = [sum(int((at[key] == 0).sum()) for key in gates) for at in (middle["state_dict"], state)]
    # It was killed in the middle: something was closed, and more was to come, or the scores were still learned.
    assert closed[1] > 0
    assert not middle["callbacks"][callback.state_key]["frozen"]
    assert closed[0] < closed[1] or structure in ("attention", "feed_forward", "layer")


@pytest.mark.parametrize("structure", ["weight", "block", ["head", "neuron"]])
def test_the_same_with_scores_that_start_from_magnitudes(structure, tmp_path):
    def build():
        name = structure if isinstance(structure, str) else "head"
        return pruning(name, "movement", structure=structure, score=Movement(lr=0.05, start_from="magnitude"))

    callback, middle, state = check(build, tmp_path)
    kept = middle["callbacks"][callback.state_key]["kept"]
    assert kept and all(numbers.count_nonzero() for numbers in kept.values())
    closed = [key for key in state if key.endswith((".keep", ".open")) and not state[key].all()]
    assert closed and (
        {key.rpartition("/")[2] for key in closed} >= {"neuron.open"} or structure != ["head", "neuron"]
    )


@pytest.mark.parametrize("score", ["magnitude", "taylor"])
def test_the_same_with_several_structures_in_one_callback(score, tmp_path):
    _, middle, state = check(
        lambda: pruning("head", score, structure=["head", "neuron", "hidden"], target=Target(sparsity=0.5)),
        tmp_path,
    )
    before, after = middle["state_dict"], state
    gates = [key for key in state if key.endswith(".open")]
    assert {key.rpartition("/")[2] for key in gates} == {"head.open", "neuron.open", "net.gates.hidden.open"}
    assert any(not torch.equal(before[key], after[key]) for key in gates)


@pytest.mark.parametrize("score", [*SCORES, "frequency"])
def test_the_same_with_accumulated_batches(score, tmp_path):
    structure = "vocabulary" if score == "frequency" else "weight"
    if score == "frequency":
        check(lambda: pruning(structure, "random", score=Frequency()), tmp_path, accumulate=2)
    else:
        check(lambda: pruning(structure, score), tmp_path, accumulate=2)


def test_resumed_after_the_ramp_nothing_moves(tmp_path):
    keep = ModelCheckpoint(dirpath=tmp_path, every_n_train_steps=11, save_top_k=-1, filename="{step}")
    whole = fit([pruning("weight", "movement"), keep], tmp_path, steps=12)
    late = tmp_path / "step=11.ckpt"
    masks = {k: v for k, v in torch.load(late, weights_only=True)["state_dict"].items() if "keep" in k}
    again = fit([pruning("weight", "movement")], tmp_path, steps=12, resume=late)
    assert same(whole.state_dict(), again.state_dict())
    assert all(torch.equal(again.state_dict()[key], mask) for key, mask in masks.items())
