"""Pruning in fits: what is closed when, what the figures say, what a checkpoint keeps, what is refused."""

import copy

import lightning.pytorch as pl
import pytest
import torch
from transformers import AutoModelForSequenceClassification

from lit_compress.callbacks import Pruning
from lit_compress.callbacks.student import deployable
from lit_compress.models.anatomy import dissect
from lit_compress.models.checkpoint import save_folder
from lit_compress.modules import AdamW, Distillation, FineTuning
from lit_compress.objectives import HardLabels, SoftTargets
from lit_compress.pruning import Magnitude, Movement, Target
from lit_compress.pruning.counting import encoder_matrices, named_tensor
from lit_compress.pruning.gates import gates_of
from lit_compress.pruning.masks import apply_weight_masks, masks_of, original
from lit_compress.pruning.shrink import shrink
from lit_compress.schedules import Cubic, Linear, Progress, Staircase, Switch
from tests.callbacks.foreign import Foreign, fit
from tests.callbacks.pruned import STRUCTURES, pruning
from tests.tiny import tiny_batch, tiny_bert

QUERY = "bert.encoder.layer.0.attention.self.query"


class Watch(pl.Callback):
    """Notes masks and figures at the end of every step."""

    def __init__(self, callback):
        self.callback = callback
        self.closed, self.figures, self.masks = [], [], []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        model = getattr(pl_module, "net", None) or pl_module.student
        keeps = [mask.keep.clone() for _, mask in masks_of(model)]
        self.masks.append(keeps)
        self.closed.append(sum(int((~keep).sum()) for keep in keeps))
        self.figures.append(self.callback.figures(model))


def inputs(seed=0):
    batch = tiny_batch(seed=seed)
    batch.pop("example_id")
    return batch


def encoder(model):
    return [named_tensor(model, name).detach() for name in encoder_matrices(model, dissect(model))]


def zeros(model):
    return sum(int((tensor == 0).sum()) for tensor in encoder(model))


def total(model):
    return sum(tensor.numel() for tensor in encoder(model))


# -- the ramp ----------------------------------------------------------------------------------------


def test_golden_check_10_cubic_values():
    """A target of 0.9 is at .244, .520, .788 and .886 after 10, 25, 50 and 75 % of the ramp."""
    ramp = Cubic()
    at = [0.9 * ramp.value(Progress(step=step, total_steps=100, epoch=0)) for step in (10, 25, 50, 75)]
    assert at == pytest.approx([0.244, 0.520, 0.788, 0.886], abs=6e-4)


def test_weights_follow_the_ramp_exactly_and_stop_at_its_end(tmp_path):
    callback = pruning(
        target=Target(sparsity=0.9), ramp=Cubic(begin=0.2, finish=0.7), every_n_steps=3, score=Magnitude()
    )
    watch = Watch(callback)
    module = fit([callback, watch], tmp_path, steps=20)
    count, expected = total(module.net), []
    for step in range(20):
        if (step % 3 == 0 and step < 14) or step == 14:  # 14 of 20 is the end, although no multiple of 3
            share = 1 - (1 - min(1, max(0, (step / 20 - 0.2) / 0.5))) ** 3
            expected.append(round(0.9 * share * count))
        else:
            expected.append(expected[-1])
    assert watch.closed == expected
    assert watch.closed[-1] == round(0.9 * count) == zeros(module.net)
    assert all(torch.equal(a, b) for a, b in zip(watch.masks[14], watch.masks[-1], strict=True))
    assert [figures["compress/sparsity"] for figures in watch.figures] == pytest.approx(
        [closed / count for closed in expected]
    )
    assert watch.figures[-1]["compress/target_sparsity"] == pytest.approx(0.9)


@pytest.mark.parametrize(
    ("ramp", "expected"),
    [
        (Staircase(1, begin=0.5), [0.0, 0.0, 0.0, 0.0, 0.8, 0.8, 0.8, 0.8]),
        (Staircase(2, begin=0.25, finish=0.75), [0.0, 0.0, 0.4, 0.4, 0.4, 0.4, 0.8, 0.8]),
        (Linear(0.0, 1.0, 0.0, 0.5), [0.0, 0.2, 0.4, 0.6, 0.8, 0.8, 0.8, 0.8]),
        (Linear(0.0, 1.0), [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8]),  # the last step takes the rest
    ],
)
def test_other_ramps(ramp, expected, tmp_path):
    callback = pruning(ramp=ramp, every_n_steps=1)
    watch = Watch(callback)
    fit([callback, watch], tmp_path)
    assert [figures["compress/sparsity"] for figures in watch.figures] == pytest.approx(expected, abs=1e-3)


def test_weights_may_come_back_before_the_end_and_never_after(tmp_path):
    callback = pruning(ramp=Staircase(2, begin=0.25, finish=0.75), target=Target(sparsity=0.6))
    watch, swap = Watch(callback), Swap()
    fit([swap, callback, watch], tmp_path)
    first, last = watch.masks[2][0], watch.masks[-1][0]
    assert (last & ~first).any()
    assert all(torch.equal(watch.masks[6][i], watch.masks[7][i]) for i in range(len(watch.masks[0])))


class Swap(pl.Callback):
    """Turns small weights into large ones, behind the back of the optimizer."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if batch_idx in (5, 7):
            weight = original(pl_module.net.get_submodule(QUERY), "weight")
            weight.data = 1.0 / weight.data.clamp(min=1e-3)


@pytest.mark.parametrize("structure", ["weight", "block", "2:4", "head", "hidden", "layer"])
@pytest.mark.parametrize("score", ["movement", "taylor"])
def test_figures_are_those_of_the_model(structure, score, tmp_path):
    callback = pruning(structure, score)
    module = fit([callback], tmp_path)
    figures = callback.figures(module.net)
    small, full = shrink(module.net), tiny_bert(layers=2, hidden=16)
    left = sum(int(t.count_nonzero()) for t in encoder(small))
    if structure in ("weight", "block", "2:4"):
        assert figures["compress/sparsity"] == pytest.approx(zeros(module.net) / total(full))
        masked = sum(int((~mask.expanded()).sum()) for _, mask in masks_of(module.net))
        assert figures["compress/params"] == full.num_parameters() - masked - closed_biases(module.net)
    else:
        assert figures["compress/sparsity"] == pytest.approx(1 - left / total(full))
        assert figures["compress/params"] == small.num_parameters()
        assert figures["compress/sparsity"] >= callback.target.sparsity - 1e-6


def closed_biases(model):
    names = [name for name, _ in masks_of(model)]
    modules = [model.get_submodule(name.removesuffix(".weight")) for name in names]
    return sum(int((module.bias == 0).sum()) for module in modules)


# -- what is chosen ----------------------------------------------------------------------------------


def test_magnitude_global_and_local_on_a_constructed_case(tmp_path):
    """One matrix has tiny weights: globally they all go, locally half of every matrix goes."""
    for scope in ("global", "local"):
        module = Foreign()
        with torch.no_grad():
            module.net.get_submodule(QUERY).weight.mul_(1e-6)
        options = {"ramp": Staircase(1, begin=0.5), "target": Target(sparsity=0.5), "scope": scope}
        fit([pruning(**options)], tmp_path, module=Frozen(module.net))
        for name, mask in masks_of(module.net):
            size, closed = mask.keep.numel(), int((~mask.keep).sum())
            if scope == "local":
                assert closed == size // 2
            elif QUERY in name:
                assert closed == size
        weights = {name: original(*at(module.net, name)).abs() for name, _ in masks_of(module.net)}
        if scope == "global":
            kept = torch.cat([weights[name][mask.keep] for name, mask in masks_of(module.net)])
            gone = torch.cat([weights[name][~mask.keep] for name, mask in masks_of(module.net)])
            assert gone.max() <= kept.min()
        else:
            for name, mask in masks_of(module.net):
                assert weights[name][~mask.keep].max() <= weights[name][mask.keep].min()


def at(model, name):
    path, _, tensor = name.rpartition(".")
    return model.get_submodule(path), tensor


class Frozen(Foreign):
    """The weights stay as they are."""

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


@pytest.mark.parametrize("structure", ["2:4", "1:4", "4:8"])
@pytest.mark.parametrize("score", ["magnitude", "movement"])
def test_exactly_n_of_m_inputs_are_kept(structure, score, tmp_path):
    kept, of = map(int, structure.split(":"))
    callback = pruning("2:4", score, structure=structure, target=Target(sparsity=1 - kept / of))
    module = fit([callback], tmp_path)
    names = [name for name, _ in masks_of(module.net)]
    assert len(names) == 12
    for name, mask in masks_of(module.net):
        counts = mask.keep.view(mask.keep.shape[0], -1, of).sum(-1)
        assert (counts == kept).all(), name
        if score == "magnitude":
            weight = original(*at(module.net, name)).abs().view(-1, of)
            # The last decision was taken two steps before the end: most orders are still the same.
            same = (weight.topk(kept).indices.sort().values == _open(mask, of, kept)).all(1)
            assert same.float().mean() > 0.8
    zero = torch.cat([tensor.flatten() for tensor in encoder(module.net)]) == 0
    assert zero.float().mean() == pytest.approx(1 - kept / of)


def _open(mask, of, kept):
    return mask.keep.view(-1, of).nonzero()[:, 1].view(-1, kept)


def test_blocks_by_hand(tmp_path):
    module = Frozen()
    callback = pruning("block", include=None, exclude=["intermediate", "output", "key", "value"])
    fit([callback], tmp_path, module=module)
    names = [name for name, _ in masks_of(module.net)]
    assert names == [f"bert.encoder.layer.{i}.attention.self.query.weight" for i in (0, 1)]
    energies = []
    for name in names:
        weight = original(*at(module.net, name)).detach()
        energies += [
            (weight[r : r + 4, c : c + 2].square().sum().item(), name, r // 4, c // 2)
            for r in range(0, 16, 4)
            for c in range(0, 16, 2)
        ]
    gone = sorted(energies)[: round(0.75 * len(energies))]
    expected = {(name, row, column) for _, name, row, column in gone}
    found = {
        (name, int(row), int(column))
        for name, mask in masks_of(module.net)
        for row, column in (~mask.keep).nonzero()
    }
    assert found == expected


def test_heads_with_the_smallest_scores_go_to_within_one(tmp_path):
    callback = Pruning(["head", "neuron"], Magnitude(), Target(sparsity=0.5), every_n_steps=2)
    module = fit([callback], tmp_path)
    gone = callback.figures(module.net)["compress/sparsity"]
    head = 4 * 4 * 16 / total(module.net)  # the largest unit: four matrices, four rows of 16
    assert 0.5 <= gone < 0.5 + head
    gates = gates_of(module.net)
    assert all(bool(gate.decided().any()) for _, gate in gates.pairs())


def test_excluded_groups_stay_whole(tmp_path):
    callback = pruning("neuron", exclude=["layer.0."], target=Target(sparsity=0.15))
    module = fit([callback], tmp_path)
    closed = {group.layer: int((gate.decided() == 0).sum()) for group, gate in gates_of(module.net).pairs()}
    assert closed[0] == 0
    assert closed[1] > 0


def test_more_matrices_may_be_named(tmp_path):
    callback = pruning(include=["word_embeddings"], target=Target(sparsity=0.5))
    module = fit([callback], tmp_path)
    masks = dict(masks_of(module.net))
    assert len(masks) == 13
    closed = sum(int((~mask.keep).sum()) for mask in masks.values())
    assert closed == round(0.5 * sum(mask.keep.numel() for mask in masks.values()))
    assert not masks["bert.embeddings.word_embeddings.weight"].keep.all()


def test_special_tokens_stay(tmp_path):
    module = Frozen()
    with torch.no_grad():
        module.net.bert.embeddings.word_embeddings.weight[0] = 1e-6  # the pad token, else first to go
    callback = pruning("vocabulary")
    fit([callback], tmp_path, module=module)
    gate = gates_of(module.net).decided()["vocabulary"]
    assert gate[0] == 1.0
    assert int((gate == 0).sum()) == 50


def test_the_density_of_movement_is_that_of_the_target(tmp_path):
    for scope in ("global", "local"):
        module = fit([pruning("weight", "movement", scope=scope, target=Target(sparsity=0.9))], tmp_path)
        for _, mask in masks_of(module.net):
            if scope == "local":
                assert abs(int(mask.keep.sum()) - 0.1 * mask.keep.numel()) <= 1
        kept = sum(int(mask.keep.sum()) for _, mask in masks_of(module.net))
        assert abs(kept - 0.1 * total(module.net)) <= (1 if scope == "global" else 12)


def test_scores_follow_the_schedule_and_are_in_no_other_optimizer(tmp_path):
    class Scheduled(Foreign):
        def configure_optimizers(self):
            optimizer = super().configure_optimizers()
            schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    rates = []

    class Rates(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if callback.optimizer is not None:
                rates.append(callback.optimizer.param_groups[0]["lr"])

    callback = pruning("weight", "movement", score=Movement(lr=0.5), ramp=Staircase(1, begin=0.5))
    module = fit([callback, Rates()], tmp_path, module=Scheduled())
    assert rates == pytest.approx([0.5, 0.25, 0.125, 0.0625])
    trained = sum(len(group["params"]) for group in module.trainer.optimizers[0].param_groups)
    assert trained == len(list(module.net.parameters())) == len(list(tiny_bert(layers=2).parameters()))


def test_clipping_does_not_touch_the_scores(tmp_path):
    kept = []

    class Kept(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if batch_idx == 2:
                kept.append({name: n.detach().clone() for name, n in callback.state_dict()["kept"].items()})

    for score in ("taylor", "movement"):
        for clip in (None, 1e-4):
            callback = pruning("weight", score, ramp=Staircase(1, begin=0.9))
            fit([callback, Kept()], tmp_path, module=Frozen(), steps=5, gradient_clip_val=clip)
        free, clipped = kept[-2:]
        assert len(free) == 12
        assert all(torch.equal(free[name], clipped[name]) and free[name].any() for name in free)


# -- shipping, checkpoints, metrics ------------------------------------------------------------------


@pytest.mark.parametrize("structure", STRUCTURES)
def test_what_is_shipped_computes_what_was_validated(structure, tmp_path):
    module = fit([pruning(structure, "taylor")], tmp_path)
    model = module.net.double().eval()
    expected = model(**inputs()).logits
    shipped = deployable(model)
    ids = inputs()
    assert torch.allclose(shipped(**ids).logits, expected, atol=1e-10)
    assert not [key for key in shipped.state_dict() if "parametrizations" in key or "gates" in key]
    if structure in ("weight", "2:4", "vocabulary"):
        assert shipped.state_dict().keys() == tiny_bert(layers=2, hidden=16).state_dict().keys()
        assert encoder(shipped)[0].shape == (16, 16)
    elif structure != "block":  # of which not every decision empties a row
        assert shipped.num_parameters() < tiny_bert(layers=2, hidden=16).num_parameters()


def test_rows_and_heads_without_a_block_are_cut_out_of_what_is_shipped():
    """Eight of 32 neurons and one of four heads have no block left: their rows, biases and columns go."""
    model = tiny_bert(layers=2, hidden=16).double().eval()
    names = encoder_matrices(model, dissect(model))
    apply_weight_masks(model, names, (4, 4))
    with torch.no_grad():
        for name, mask in masks_of(model):
            if name.endswith("0.intermediate.dense.weight"):
                mask.keep[:2] = False
            if name.endswith("1.attention.output.dense.weight"):
                mask.keep[:, 2] = False
            if name.endswith("1.attention.self.query.weight"):
                mask.keep[0, :3] = False
    expected = model(**inputs()).logits
    shipped = deployable(model)
    assert torch.allclose(shipped(**inputs()).logits, expected, atol=1e-10)
    blocks = shipped.bert.encoder.layer
    assert [block.intermediate.dense.out_features for block in blocks] == [24, 32]
    assert [block.attention.self.query.out_features for block in blocks] == [16, 12]
    gone = 8 * (16 + 1 + 16) + 3 * 4 * (16 + 1) + 4 * 16
    assert shipped.num_parameters() == tiny_bert(layers=2, hidden=16).num_parameters() - gone
    assert shipped.state_dict().keys() == shrink(model).state_dict().keys()


@pytest.mark.parametrize("block", [(1, 1), (4, 4)])
def test_zeros_that_empty_nothing_leave_a_model_that_stock_transformers_loads(block, tmp_path):
    model = tiny_bert(layers=2, hidden=16).eval()
    apply_weight_masks(model, encoder_matrices(model, dissect(model)), block)
    with torch.no_grad():
        for _, mask in masks_of(model):
            mask.keep[0, 0] = False
        expected = model(**inputs()).logits
        save_folder(tmp_path, deployable(model), None, {})
        stock = AutoModelForSequenceClassification.from_pretrained(tmp_path)
        assert torch.equal(stock(**inputs()).logits, expected)


@pytest.mark.parametrize(
    ("structure", "score"), [("weight", "movement"), ("block", "soft"), ("neuron", "taylor")]
)
def test_contract_5_and_a_checkpoint_loads_with_no_callback(structure, score, tmp_path):
    batches = [tiny_batch(seed=seed) for seed in range(8)]
    student = tiny_bert(layers=2, hidden=16)
    module = FineTuning(student=copy.deepcopy(student), optimizer=AdamW(lr=1e-2), num_labels=3)
    keep = pl.callbacks.ModelCheckpoint(dirpath=tmp_path, filename="{step}", save_top_k=-1, monitor=None)
    trainer = pl.Trainer(
        max_epochs=3,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[keep, pruning(structure, score), Metrics()],
        default_root_dir=str(tmp_path),
    )
    trainer.fit(module, loader(batches), loader([tiny_batch(seed=99, lengths=[5] * 40)]))
    logged = trainer.callbacks[[type(c) for c in trainer.callbacks].index(Metrics)].logged
    assert len(logged) == 3
    for step, (metric, logits) in logged.items():
        path = tmp_path / f"step={step}.ckpt"
        again = FineTuning.load_from_checkpoint(path, weights_only=True, student=copy.deepcopy(student))
        again.eval()
        with torch.no_grad():
            assert torch.equal(again(tiny_batch(seed=99, lengths=[5] * 40)), logits)
        evaluator = pl.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False)
        found = evaluator.validate(again, loader([tiny_batch(seed=99, lengths=[5] * 40)]), verbose=False)
        assert found[0]["val/accuracy"] == metric


class Metrics(pl.Callback):
    """Notes the logged metric and the logits of every validation."""

    def __init__(self):
        self.logged = {}

    def on_validation_end(self, trainer, pl_module):
        if not trainer.sanity_checking:
            with torch.no_grad():
                logits = pl_module(tiny_batch(seed=99, lengths=[5] * 40))
            self.logged[trainer.global_step] = (float(trainer.callback_metrics["val/accuracy"]), logits)


def loader(batches):
    return torch.utils.data.DataLoader(batches, batch_size=None)


# -- together with other things ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second"), [("head", "neuron"), ("weight", "head"), ("hidden", "2:4"), ("layer", "block")]
)
def test_two_prunings_in_both_orders(first, second, tmp_path):
    results = []
    for order in ((first, second), (second, first)):
        callbacks = [pruning(name, "taylor" if name == first else "magnitude") for name in order]
        module = fit(callbacks, tmp_path, module=Foreign(tiny_bert(layers=2, hidden=16)))
        assert len({callback.state_key for callback in callbacks}) == 2
        module.net.eval()
        results.append((module.net(**inputs()).logits, callbacks[0].figures(module.net)["compress/sparsity"]))
        small = deployable(copy.deepcopy(module.net).double())
        assert torch.allclose(small(**inputs()).logits, module.net.double()(**inputs()).logits, atol=1e-10)
    assert torch.allclose(results[0][0], results[1][0], atol=1e-4)
    assert results[0][1] == pytest.approx(results[1][1])


def test_the_teacher_is_left_alone(tmp_path):
    teacher = tiny_bert(layers=2, hidden=16, seed=5)
    before = copy.deepcopy(teacher.state_dict())
    module = Distillation(
        student=tiny_bert(layers=2, hidden=16),
        teacher=teacher,
        objectives={"soft": SoftTargets(0.5), "hard": HardLabels(0.5)},
        optimizer=AdamW(lr=1e-2),
        num_labels=3,
    )
    fit([pruning("weight", "movement"), pruning("head", "taylor")], tmp_path, module=module)
    assert zeros(module.student) > 0
    assert gates_of(teacher) is None
    after = teacher.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert not any(parameter.requires_grad for parameter in teacher.parameters())


def test_evaluation_alone_needs_no_target(tmp_path):
    """In other stages only the structure is applied."""
    module = Foreign()
    module.validation_step = lambda batch, batch_idx: None
    trainer = pl.Trainer(accelerator="cpu", logger=False, callbacks=[pruning()], enable_progress_bar=False)
    trainer.validate(module, loader([tiny_batch()]), verbose=False)
    assert len(list(masks_of(module.net))) == 12


# -- refused -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"structure": "weights"}, "Expected structure to be weight, block"),
        ({"structure": "4:2"}, "n kept of m"),
        ({"structure": []}, "Expected structure to be"),
        ({"structure": ["weight", "head"]}, "Expected structure to be"),
        ({"structure": "block"}, "Expected structure to be"),
        ({"structure": "block", "block": [0, 4]}, "sizes of at least 1"),
        ({"structure": "weight", "block": [4, 4]}, "structure=block"),
        ({"structure": "weight", "scope": "layer"}, "global or local"),
        ({"structure": "weight", "keep_at_least": 2}, "no keep_at_least"),
        ({"structure": "head", "include": ["classifier"]}, "no include for head"),
        ({"structure": "head", "keep_at_least": -1}, "keep_at_least >= 0"),
        ({"structure": ["head", "vocabulary"]}, "vocabulary alone"),
        ({"structure": "weight", "every_n_steps": 0}, "every_n_steps >= 1"),
        ({"structure": "weight", "target": None}, "Expected a target for Magnitude"),
    ],
)
def test_refuses_settings_that_do_not_fit(settings, message):
    with pytest.raises(ValueError, match=message):
        Pruning(**{"target": Target(sparsity=0.5), **settings})


def test_refuses_a_target_for_a_soft_threshold():
    with pytest.raises(ValueError, match="no target for SoftMovement"):
        pruning("weight", "soft", target=Target(sparsity=0.5))
    with pytest.raises(ValueError, match="take Movement"):
        pruning("2:4", "soft")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"exclude": ["layer"]}, "leaves none of 12"),
        ({"exclude": ["no_such_part"]}, "exclude to match"),
        ({"include": ["no_such_part"]}, "include to match"),
        ({"target": Target(speedup=2.0)}, "target.sparsity, because zeros make no model faster"),
        ({"target": Target(sparsity=0.99999)}, "sparsity of at most 0.99975"),
        ({"structure": "2:4", "target": Target(sparsity=0.6)}, "target.sparsity=0.5 for 2:4"),
        ({"structure": "2:6", "target": Target(sparsity=2 / 3)}, "multiple of 6"),
        ({"structure": "block", "block": [5, 5]}, "blocks that fill a matrix"),
        ({"structure": "head", "target": Target(sparsity=0.5)}, "at most sparsity=0.375"),
        ({"structure": "layer", "target": Target(sparsity=0.6)}, "at most sparsity=0.5"),
        ({"ramp": Linear(0.0, 0.9)}, "Linear is at 0.9000"),
        ({"ramp": Switch(3, 0.0, 1.0)}, "Switch is at 0.0000"),
    ],
)
def test_refuses_what_cannot_be_reached(settings, message, tmp_path):
    options = {"structure": "weight", "target": Target(sparsity=0.5), **settings}
    with pytest.raises(ValueError, match=message):
        fit([Pruning(**options)], tmp_path)


def test_refuses_a_target_below_what_is_pruned_already(tmp_path):
    module = fit([pruning(target=Target(sparsity=0.6))], tmp_path)
    for model in (deployable(module.net).train(), module.net):
        with pytest.raises(ValueError, match=r"pruned already, 0\.6"):
            fit([pruning(target=Target(sparsity=0.5))], tmp_path, module=Foreign(model))


def test_a_second_fit_goes_on_from_the_masks_of_the_first(tmp_path):
    module = fit([pruning(target=Target(sparsity=0.5))], tmp_path)
    callback = pruning(target=Target(sparsity=0.8), every_n_steps=1)
    watch = Watch(callback)
    fit([callback, watch], tmp_path, module=Foreign(module.net))
    assert min(watch.closed) == round(0.5 * total(module.net))
    assert watch.closed == sorted(watch.closed)
    assert watch.closed[-1] == round(0.8 * total(module.net))


def test_refuses_to_score_before_there_is_a_gradient(tmp_path):
    for score in ("taylor", "movement"):
        with pytest.raises(ValueError, match="begin later"):
            fit([pruning("weight", score, ramp=Staircase(1))], tmp_path)


def test_refuses_the_same_units_twice(tmp_path):
    with pytest.raises(ValueError, match="already"):
        fit([pruning("head"), Pruning(["head", "neuron"], target=Target(sparsity=0.3))], tmp_path)
