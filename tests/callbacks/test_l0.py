"""L0Pruning: targets, penalties, what is logged, refusals; contract 8 in a module that has never heard of it."""

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.nn.utils import parametrize

from lit_compress.callbacks import QAT, L0Pruning, WeightClustering
from lit_compress.callbacks.alive import alive_blocks
from lit_compress.callbacks.student import deployable
from lit_compress.models.low_rank import LowRankLinear
from lit_compress.modules import FineTuning
from lit_compress.objectives import Linear, Progress
from lit_compress.pruning.counting import WeightCount
from lit_compress.pruning.gates import gates_of
from lit_compress.pruning.hard_concrete_gates import multipliers_of
from lit_compress.pruning.target import Target
from tests.callbacks.conftest import data_module
from tests.callbacks.l0_fits import SETS, fit, l0, wide
from tests.callbacks.pruned import pruning
from tests.tiny import tiny_batch, tiny_bert

TOTAL = WeightCount(tiny_bert(layers=2, hidden=32), []).total


def covered(model):
    """Paths of the linear layers of the blocks on whose weights something lies."""
    return [
        path
        for path, module in model.named_modules()
        if ".layer." in path
        and isinstance(module, nn.Linear)
        and parametrize.is_parametrized(module, "weight")
    ]


def size(model):
    return sum(parameter.numel() for parameter in model.parameters())


# -- targets and penalties ---------------------------------------------------------------------------


@pytest.mark.parametrize("evaluation", ["threshold", "expected"])
@pytest.mark.parametrize("name", [name for name in SETS if name != "penalty"])
def test_the_target_is_met_and_reported_as_shrunk(name, evaluation, tmp_path):
    callback = l0(name, evaluation=evaluation, target=Target(sparsity=0.6))
    module = fit([callback], tmp_path, steps=40)
    figures = callback.figures(module.net)
    small = deployable(module.net)
    measured = 1 - WeightCount(small, []).stored / TOTAL
    assert measured == pytest.approx(figures["compress/sparsity"], abs=1e-6)
    assert size(small) == figures["compress/params"]
    # As near as the units allow: a neuron is 64 of 16384 weights, an hidden dimension beside it much more.
    assert measured == pytest.approx(0.6, abs=0.005 if name != "cofi" else 0.02)
    assert figures["compress/expected_sparsity"] == pytest.approx(
        measured, abs=1e-6
    )  # nothing is random any more
    batch = {key: value for key, value in tiny_batch().items() if key in ("input_ids", "attention_mask")}
    masked = module.net.double().eval()(**batch).logits
    assert torch.allclose(deployable(module.net)(**batch).logits, masked, atol=1e-10, rtol=0)


@pytest.mark.parametrize("sparsity", [0.2, 0.3, 0.4, 0.5])
def test_a_small_target_of_ranks_is_met_although_factors_are_merged(sparsity, tmp_path):
    # A matrix that keeps most of its ranks is shipped as one: there closing ranks removes nothing.
    callback = l0("flop", target=Target(sparsity=sparsity))
    module = fit([callback], tmp_path, steps=40)
    measured = 1 - WeightCount(deployable(module.net), []).stored / TOTAL
    assert measured == pytest.approx(sparsity, abs=0.005)
    assert callback.figures(module.net)["compress/sparsity"] == pytest.approx(measured, abs=1e-6)


@pytest.mark.parametrize(("penalty", "sparsity"), [(1e-6, 0.0), (1e4, 1.0)])
def test_a_small_penalty_keeps_all_and_a_large_one_closes_all(penalty, sparsity, tmp_path):
    callback = L0Pruning(penalty=penalty, drop=0.1)
    module = fit([callback], tmp_path, steps=80)
    assert callback.figures(module.net)["compress/sparsity"] == sparsity


def test_the_penalty_is_per_share_of_the_weights(tmp_path):
    module = wide()
    callback = L0Pruning(["neuron"], penalty=3.0)
    callback.apply(module.net)
    callback._count(module.net)
    probability = torch.cat(list(gates_of(module.net).open_probability().values())).mean()
    # Neurons are 4096 of 2 x 4096 weights per layer.
    by_hand = 3.0 * (0.5 + 0.5 * probability)
    assert callback.penalty(module.net).item() == pytest.approx(by_hand.item(), rel=1e-5)


def test_the_start_is_the_whole_model():
    module = wide()
    callback = l0("cofi", drop=1e-6)
    callback.apply(module.net)
    figures = callback.figures(module.net)
    assert figures["compress/sparsity"] == 0.0
    assert figures["compress/params"] == size(tiny_bert(layers=2, hidden=32))
    # log_alpha is at its limit, where a gate is open with probability 0.998; the joint size has up to three factors.
    assert 0.0 < figures["compress/expected_sparsity"] < 0.01


def test_the_target_grows_along_the_ramp_and_the_multipliers_ascend(tmp_path):
    class Watch(pl.Callback):
        rows = []

        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            row = dict(trainer.callback_metrics)
            Watch.rows.append({key: float(value) for key, value in row.items()} | l0_.figures(pl_module.net))

    l0_ = l0("pair", ramp=Linear(0.0, 1.0, 0.0, 0.5), freeze_at=0.75)
    module = fit([l0_, Watch()], tmp_path, steps=20, log_every_n_steps=1)
    asked = [row["compress/target_sparsity"] for row in Watch.rows]
    assert asked == pytest.approx([min(1.0, step / 10) * 0.5 for step in range(20)])
    seconds = [row["compress/lambda_2"] for row in Watch.rows]
    assert seconds[0] == 0.0 and seconds[14] > 0.1
    assert len(set(seconds[15:])) == 1  # decided: nothing is learned any more
    firsts = [row["compress/lambda_1"] for row in Watch.rows]
    assert firsts[0] == 0.0 and firsts[14] < 0.0
    logged = {key for key in Watch.rows[-1] if key.startswith(("compress/", "train/"))}
    names = (
        "sparsity",
        "params",
        "expected_sparsity",
        "expected_params",
        "target_sparsity",
        "lambda_1",
        "lambda_2",
    )
    assert logged == {"train/sparsity_penalty", *(f"compress/{name}" for name in names)}
    # Gates move until they are decided, and not after.
    assert all((gate.settled >= 0).all() for _, gate in gates_of(module.net).pairs())


def test_settled_says_when_a_checkpoint_may_be_the_best():
    callback = l0("pair", freeze_at=0.5)
    assert not callback.settled(Progress(4, 10, 0.4))
    assert callback.settled(Progress(5, 10, 0.5))
    assert l0("pair", freeze_at=None).settled(Progress(0, 10, 0.0))


def test_without_freezing_the_gates_stay_random(tmp_path):
    module = fit([l0("pair", freeze_at=None)], tmp_path, steps=8)
    assert all((gate.settled < 0).all() for _, gate in gates_of(module.net).pairs())


def test_gates_are_trained_by_the_callback_alone(tmp_path):
    callback = l0("cofi", gate_lr=0.05, multiplier_lr=0.02)
    module = fit([callback], tmp_path, steps=4, gradient_clip_val=1e-6)
    own = {id(p) for p in gates_of(module.net).parameters()}
    assert not own & {id(p) for group in module.trainer.optimizers[0].param_groups for p in group["params"]}
    gates, multipliers = callback.optimizer.param_groups
    assert (gates["lr"], gates["weight_decay"], gates["maximize"]) == (0.05, 0.0, False)
    assert (multipliers["lr"], multipliers["weight_decay"], multipliers["maximize"]) == (0.02, 0.0, True)
    # Adam's steps are about as long as the rate: the clipping of the model's gradients is not felt.
    assert multipliers_of(module.net, "l0").lambda_2.item() > 0.02


def test_the_layers_that_are_left_are_told():
    module = wide()
    l0("cofi").apply(module.net)
    assert alive_blocks(module.net) == [True, True]
    with torch.no_grad():
        gates_of(module.net)["bert/encoder/layer/0/attention/self/attention"].log_alpha.fill_(-4.0)
    assert alive_blocks(module.net) == [False, True]
    with torch.no_grad():
        gates_of(module.net)["bert/encoder/layer/1/attention/self/head"].log_alpha.fill_(-4.0)
        gates_of(module.net)["bert/encoder/layer/1/intermediate/feed_forward"].log_alpha.fill_(-4.0)
    assert alive_blocks(module.net) == [False, False]
    assert alive_blocks(deployable(module.net)) == [False, False]


# -- contract 8 --------------------------------------------------------------------------------------


def same(one, other):
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


@pytest.mark.parametrize(
    ("kill", "accumulate"),
    [(3, 1), (3, 2), (7, 1)],
    ids=["while_gates_move", "between_accumulated_batches", "after_they_are_decided"],
)
@pytest.mark.parametrize("name", SETS)
def test_killed_and_resumed_is_bit_identical(name, accumulate, kill, tmp_path):
    keep = ModelCheckpoint(dirpath=tmp_path, every_n_train_steps=kill, save_top_k=-1, filename="{step}")
    first, second = l0(name), l0(name)
    whole = fit([first, keep], tmp_path, steps=9, accumulate=accumulate)
    torch.rand(5)  # nobody restores the global random state of a foreign module
    again = fit([second], tmp_path, steps=9, accumulate=accumulate, resume=tmp_path / f"step={kill}.ckpt")
    assert same(whole.state_dict(), again.state_dict())
    assert same(first.state_dict(), second.state_dict())
    optimizers = [module.trainer.optimizers[0].state_dict() for module in (whole, again)]
    assert same(*optimizers)
    middle = torch.load(tmp_path / f"step={kill}.ckpt", weights_only=True)["state_dict"]
    moved = [key for key in middle if key.endswith("log_alpha")]
    assert moved and any(not torch.equal(middle[key], whole.state_dict()[key]) for key in moved) == (
        kill == 3
    )


def test_the_generator_follows_the_global_seed(tmp_path):
    def states(seed):
        pl.seed_everything(seed, verbose=False)
        return fit([l0("penalty")], tmp_path, steps=3).state_dict()

    first = states(1)
    assert same(first, states(1))
    assert not same(first, states(2))


def test_a_second_fit_only_recovers(tmp_path):
    callback = l0("pair")
    module = fit([callback], tmp_path, steps=8)
    before = gates_of(module.net).decided()
    fit([callback], tmp_path, steps=8, module=module)
    assert same(before, gates_of(module.net).decided())


# -- contracts 2 and 5 -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SETS)
def test_a_checkpoint_loads_without_the_callback(name, texts, make_trainer, tmp_path):
    module = FineTuning(tiny_bert(layers=2, hidden=32, labels=2), num_labels=2)
    trainer = make_trainer(l0(name), checkpoint=False)
    trainer.fit(module, data_module(texts))
    logged = trainer.callback_metrics
    path = tmp_path / "end.ckpt"
    trainer.save_checkpoint(path)
    fresh = {"student": tiny_bert(layers=2, hidden=32, labels=2, seed=9), "num_labels": 2}
    again = FineTuning.load_from_checkpoint(path, weights_only=True, **fresh)
    assert same(module.student.state_dict(), again.student.state_dict())
    plain = pl.Trainer(logger=False, accelerator="cpu", enable_progress_bar=False, enable_checkpointing=False)
    [found] = plain.validate(again, data_module(texts), verbose=False)
    # Contract 5: the metric of the checkpoint is the metric that was logged.
    assert found["val/accuracy"] == float(logged["val/accuracy"])
    assert logged["compress/sparsity"] > 0 or name == "penalty"  # which is slow
    count = WeightCount(deployable(again.student), []).stored
    assert float(logged["compress/sparsity"]) == pytest.approx(1 - count / TOTAL, abs=1e-6)


# -- bad input ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"target": Target(sparsity=0.5), "penalty": 1.0}])
def test_refuses_both_or_neither_of_target_and_penalty(options):
    with pytest.raises(ValueError, match="a target or a penalty"):
        L0Pruning(**options)


@pytest.mark.parametrize("structures", [["weight"], [], ["head", "head"], ["layer"], ["vocabulary"]])
def test_refuses_structures_without_gates(structures):
    with pytest.raises(ValueError, match="structures to be some of head, neuron"):
        L0Pruning(structures, penalty=1.0)


def test_refuses_rank_with_others_and_with_a_speedup():
    with pytest.raises(ValueError, match="rank alone"):
        L0Pruning(["rank", "head"], penalty=1.0)
    with pytest.raises(ValueError, match=r"target\.sparsity for structure rank"):
        L0Pruning(["rank"], target=Target(speedup=2.0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"penalty": -1.0}, "penalty > 0"),
        ({"penalty": 1.0, "freeze_at": 1.0}, "freeze_at between 0 and 1"),
        ({"penalty": 1.0, "drop": 0.0}, "drop between 0 and 1"),
        ({"penalty": 1.0, "evaluation": "best"}, "threshold, expected"),
        ({"penalty": 1.0, "structures": ["rank"], "low_rank": "tiny"}, "full, equal"),
        ({"penalty": 1.0, "beta": 0.0}, "beta > 0"),
        ({"penalty": 1.0, "gate_lr": 0.0}, "gate_lr > 0"),
    ],
)
def test_refuses_settings_at_once(options, message):
    with pytest.raises(ValueError, match=message):
        L0Pruning(**options)


@pytest.mark.parametrize(("structures", "most"), [(["head"], "0.500"), (["neuron"], "0.500")])
def test_refuses_a_target_beyond_what_the_structures_remove(structures, most, tmp_path):
    with pytest.raises(
        ValueError, match=rf"closing all of {structures[0]} reaches, which is {most}, .*sparsity=0\.7"
    ):
        fit([L0Pruning(structures, target=Target(sparsity=0.7))], tmp_path)


def test_refuses_a_family_without_an_adapter(tmp_path):
    module = wide()
    module.net.config.model_type = "unheard-of"
    with pytest.raises(ValueError, match="one of the families"):
        fit([l0("pair")], tmp_path, module=module)


def test_two_sets_in_one_recipe(tmp_path):
    pair = [L0Pruning(["head"], penalty=0.1, part="a"), L0Pruning(["neuron"], penalty=0.1, part="b")]
    module = fit(pair, tmp_path, steps=3)
    assert pair[0].state_key != pair[1].state_key
    assert {group.structure for group in gates_of(module.net).groups} == {"head", "neuron"}


@pytest.mark.parametrize(
    "other",
    [
        lambda: pruning("weight", target=Target(sparsity=0.3)),
        lambda: pruning("head", target=Target(sparsity=0.1)),
        lambda: L0Pruning(["head"], penalty=1.0, part="heads", drop=0.4),
    ],
    ids=["weights", "heads by score", "heads by gates"],
)
def test_flop_with_others_in_either_order(other, tmp_path):
    batch = {key: value for key, value in tiny_batch().items() if key in ("input_ids", "attention_mask")}
    ends = []
    for order in (1, -1):
        pair = [other(), l0("flop", low_rank="equal", target=Target(sparsity=0.4))][::order]
        # In float64: Adam makes large steps of the rounding noise that another order of products is.
        module = fit(pair, tmp_path, steps=12, module=wide().double())
        # What the other one closes or rounds lies on the factors, and is there at the end.
        assert all(name.split(".")[-1] in ("reduce", "expand") for name in covered(module.net))
        net = module.net.eval()
        figures = [callback.figures(net)["compress/sparsity"] for callback in pair[::order]]
        small = deployable(net)
        assert torch.allclose(small(**batch).logits, net(**batch).logits, atol=1e-10, rtol=0)
        ends.append((small(**batch).logits, figures, size(small)))
    assert torch.allclose(ends[0][0], ends[1][0], atol=1e-9, rtol=0)
    assert ends[0][1:] == ends[1][1:]


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize(
    ("other", "message"), [(QAT, "but got rank, whose factors"), (WeightClustering, "prune in a first fit")]
)
def test_refuses_rank_beside_rounding_in_either_order(other, message, order, tmp_path):
    with pytest.raises(ValueError, match=message):
        fit([other(), l0("flop")][::order], tmp_path)


def test_flop_starts_as_the_model_and_keeps_layers_factorised(tmp_path):
    batch = {key: value for key, value in tiny_batch().items() if key in ("input_ids", "attention_mask")}
    module = wide()
    expected = module.net.eval()(**batch).logits
    callback = l0("flop", drop=1e-9, evaluation="threshold")
    callback.apply(module.net)
    # Full rank and open gates compute what the model did; it has more weights, which counts as negative sparsity.
    assert torch.allclose(module.net(**batch).logits, expected, atol=1e-3)
    assert callback.figures(module.net)["compress/expected_sparsity"] < -0.5
    assert callback.figures(module.net)["compress/sparsity"] == 0.0
    factors = [m for m in module.net.modules() if isinstance(m, LowRankLinear)]
    assert len(factors) == 12 and all(isinstance(m.reduce, nn.Linear) for m in factors)
