"""The lottery ticket: ladder of densities, rewinding, controls, and a fit that is killed and resumed."""

import functools
import json
import math
import shutil
from fractions import Fraction

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader

from lit_compress.callbacks import LotteryTicket
from lit_compress.callbacks.checkpoint import BestAndLast
from lit_compress.modules import AdamW, FineTuning, WarmupLinear
from lit_compress.pruning.masks import masks_of
from lit_compress.pruning.ticket_masks import FOLDER
from tests.callbacks.conftest import data_module
from tests.tiny import tiny_batch, tiny_bert

MATRICES = 12  # two blocks: query, key, value, output, in, out
STEPS = 4  # per epoch


class Batches(pl.LightningDataModule):
    """Four batches of one order, with the labels that FineTuning asks a data module for."""

    num_labels, label_names, is_regression = 3, None, False

    def train_dataloader(self):
        return DataLoader([tiny_batch(seed=seed) for seed in range(STEPS)], batch_size=None)

    def val_dataloader(self):
        return DataLoader([tiny_batch(seed=9)], batch_size=None)


class Foreign(pl.LightningModule):
    """Somebody else's module: its own optimizer, its own schedule, its own names."""

    def __init__(self, student):
        super().__init__()
        self.net = student
        self.scale = nn.Parameter(torch.ones(()))

    def training_step(self, batch, batch_idx):
        batch = {key: value for key, value in batch.items() if key != "example_id"}
        return self.net(**batch).loss * self.scale

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", self.training_step(batch, batch_idx))

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9, weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def student():
    return tiny_bert(layers=2, hidden=16, dropout=0.1)


def fine_tuning(**options):
    return FineTuning(student(), optimizer=AdamW(lr=1e-2), num_labels=3, **options)


def foreign():
    return Foreign(student())


def model_in(module):
    return getattr(module, "student", None) or module.net


class Diary(pl.Callback):
    """Copies of weights, masks and optimizer state at the start of every step, after all other callbacks."""

    def __init__(self):
        self.weights, self.keeps, self.states, self.rates, self.ends = {}, {}, {}, {}, []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        step = trainer.global_step
        self.weights[step] = {k: v.detach().clone() for k, v in trained(pl_module)}
        self.keeps[step] = {k: m.keep.clone() for k, m in masks_of(model_in(pl_module))}
        self.states[step] = len(trainer.optimizers[0].state)
        self.rates[step] = trainer.optimizers[0].param_groups[0]["lr"]

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        model = model_in(pl_module)
        self.ends.append(all(bool((original(model, k)[~m.keep] == 0).all()) for k, m in masks_of(model)))


def original(model, name):
    module, _, tensor = name.rpartition(".")
    return model.get_submodule(module).parametrizations[tensor].original


def trained(module):
    """Every parameter once: those of the model, then what the module has beside it."""
    return nn.ModuleDict({"model": model_in(module), "rest": module}).named_parameters()


def plain(name):
    return name.replace(".parametrizations.", ".").removesuffix(".original")


def make_trainer(folder, callbacks, **options):
    options = {"max_epochs": 4, "num_sanity_val_steps": 0, **options}
    return pl.Trainer(
        default_root_dir=str(folder),
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=any(isinstance(c, ModelCheckpoint) for c in callbacks),
        deterministic=True,
        callbacks=list(callbacks),
        **options,
    )


def run(folder, module=None, ticket=None, **options):
    """Fit; return module, ticket and diary."""
    pl.seed_everything(5, verbose=False)
    module = fine_tuning() if module is None else module
    ticket = LotteryTicket(rounds=3) if ticket is None else ticket
    diary = Diary()
    make_trainer(folder, [ticket, diary], **options).fit(module, Batches())
    return module, ticket, diary


def kept(diary, step):
    return sum(int(keep.sum()) for keep in diary.keeps[step].values())


def ladder(weights, rounds, rate="0.2"):
    """Counts by exact fractions: ceil of a fifth of the survivors goes in every round."""
    counts = [weights]
    for _ in range(rounds):
        counts.append(counts[-1] - math.ceil(Fraction(rate) * counts[-1]))
    return counts


@pytest.mark.parametrize("make", [fine_tuning, foreign])
@pytest.mark.parametrize("control", ["none", "random", "reinit"])
def test_the_ladder_is_exact(make, control, tmp_path):
    ticket = LotteryTicket(rounds=3)
    if control != "none":
        run(tmp_path / "ticket", make(), ticket)
        ticket = LotteryTicket(rounds=3, control=control, ticket=str(tmp_path / "ticket"))
    _, _, diary = run(tmp_path / "run", make(), ticket)
    total = sum(keep.numel() for keep in diary.keeps[0].values())
    assert len(diary.keeps[0]) == MATRICES
    assert [kept(diary, step) for step in range(0, 16, 4)] == ladder(total, 3)
    assert [round(count / total, 2) for count in ladder(total, 3)] == [1.0, 0.8, 0.64, 0.51]
    for step in range(16):  # masks move only at the beginning of a part
        assert all(torch.equal(diary.keeps[step][k], diary.keeps[step // 4 * 4][k]) for k in diary.keeps[0])


@pytest.mark.parametrize("make", [fine_tuning, foreign])
@pytest.mark.parametrize("rewind_to", [0, 3])
def test_survivors_are_rewound_bit_for_bit_and_the_rest_is_zero(make, rewind_to, tmp_path):
    _, _, diary = run(tmp_path, make(), LotteryTicket(rounds=3, rewind_to=rewind_to))
    masked = {"model." + name: keep for name, keep in diary.keeps[0].items()}
    for step in (4, 8, 12):
        for name, weight in diary.weights[step].items():
            saved = diary.weights[rewind_to][name]
            if plain(name) in masked:
                keep = diary.keeps[step][plain(name).removeprefix("model.")]
                assert torch.equal(weight[keep], saved[keep])
                assert not weight[~keep].any()
            else:
                assert torch.equal(weight, saved), name
    moved = [k for k in diary.weights[0] if not torch.equal(diary.weights[7][k], diary.weights[4][k])]
    assert len(moved) > MATRICES  # it did train in between
    assert all(diary.ends)


def test_the_smallest_survivors_over_all_matrices_are_pruned(tmp_path):
    """The mask of each round, from the weights that the round before ended with, sorted by hand."""
    ends = {}

    class End(pl.Callback):
        def on_validation_end(self, trainer, pl_module):
            model = pl_module.student
            ends[trainer.global_step] = {k: original(model, k).detach().clone() for k, _ in masks_of(model)}

    pl.seed_everything(5, verbose=False)
    diary = Diary()
    make_trainer(tmp_path, [LotteryTicket(rounds=3), diary, End()]).fit(fine_tuning(), Batches())
    for step in (4, 8, 12):
        before, after = diary.keeps[step - 1], diary.keeps[step]
        alive = torch.cat([ends[step][k][before[k]].abs() for k in before])
        gone = torch.cat([ends[step][k][before[k] & ~after[k]].abs() for k in before])
        left = torch.cat([ends[step][k][after[k]].abs() for k in before])
        assert len(gone) == math.ceil(len(alive) / 5)
        assert gone.max() <= left.min()
        assert not any((after[k] & ~before[k]).any() for k in before)


@pytest.mark.parametrize("make", [fine_tuning, foreign])
def test_optimizer_and_learning_rate_begin_anew(make, tmp_path):
    _, _, diary = run(tmp_path, make())
    parameters = len(diary.weights[0])
    assert [diary.states[step] for step in range(16)] == [0, *[parameters] * 3] * 4
    rates = [diary.rates[step] for step in range(16)]
    assert rates == pytest.approx(rates[:4] * 4, rel=1e-12)
    assert len(set(rates[:4])) == 4


def test_our_schedule_restarts_with_the_parts(tmp_path):
    module, _, _ = run(tmp_path, fine_tuning(schedule=WarmupLinear(warmup=0.5)))
    assert module.schedule.restart_at == [0.25, 0.5, 0.75]


def test_restarts_that_are_written_out_are_taken(tmp_path):
    module, _, _ = run(
        tmp_path,
        fine_tuning(schedule=WarmupLinear(restart_at=[0.333, 0.667])),
        LotteryTicket(rounds=2),
        max_epochs=3,
    )
    assert module.schedule.restart_at == [1 / 3, 2 / 3]


def test_parts_may_be_counted_in_steps(tmp_path):
    _, _, diary = run(tmp_path, ticket=LotteryTicket(rounds=2), max_epochs=-1, max_steps=6)
    total = kept(diary, 0)
    assert [kept(diary, step) for step in range(6)] == [n for n in ladder(total, 2) for _ in range(2)]


def test_accumulated_gradients_count_as_one_step(tmp_path):
    _, _, diary = run(tmp_path, ticket=LotteryTicket(rounds=3), accumulate_grad_batches=2)
    assert [kept(diary, step) for step in range(8)] == [
        n for n in ladder(kept(diary, 0), 3) for _ in range(2)
    ]


# -- controls --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """The folder of a finished ticket of three rounds, and its diary."""
    folder = tmp_path_factory.mktemp("ticket")
    return folder, run(folder, ticket=LotteryTicket(rounds=3))[2]


def control_of(found, kind, **options):
    return LotteryTicket(**{"rounds": 3, "control": kind, "ticket": str(found[0]), **options})


def test_random_control_keeps_the_counts_of_every_matrix_in_every_round(found, tmp_path):
    _, _, control = run(tmp_path, ticket=control_of(found, "random"))
    for step in (4, 8, 12):
        ticket = found[1].keeps[step]
        counts = {name: int(keep.sum()) for name, keep in ticket.items()}
        assert len(set(counts.values())) > 3  # no matrix is cut by the same share as the next one
        assert counts == {name: int(keep.sum()) for name, keep in control.keeps[step].items()}
        for name, keep in ticket.items():
            other = control.keeps[step][name]
            # By chance a share of density² of the places is kept in both.
            expected = (counts[name] / keep.numel()) ** 2
            assert abs(float((keep & other).float().mean()) - expected) < 0.12


def test_random_control_is_drawn_by_its_own_seed(found, tmp_path):
    runs = [
        run(tmp_path / str(i), ticket=control_of(found, "random", rounds=1, seed=seed), max_epochs=2)[2]
        for i, seed in enumerate((0, 0, 1))
    ]
    same, other = (all(torch.equal(runs[0].keeps[4][k], r.keeps[4][k]) for k in r.keeps[4]) for r in runs[1:])
    assert same
    assert not other


def test_reinit_control_has_the_masks_of_the_ticket_and_new_weights(found, tmp_path):
    module, _, control = run(tmp_path, ticket=control_of(found, "reinit"))
    for step in (4, 8, 12):
        ticket = found[1].keeps[step]
        assert all(torch.equal(ticket[name], control.keeps[step][name]) for name in ticket)
    spread = module.student.config.initializer_range
    for name, keep in control.keeps[4].items():
        begun, drawn = (d[f"model.{original_name(name)}"] for d in (control.weights[0], control.weights[4]))
        again = control.weights[8][f"model.{original_name(name)}"]
        assert not (begun[keep] == drawn[keep]).any()
        assert not (again[keep & control.keeps[8][name]] == drawn[keep & control.keeps[8][name]]).any()
        assert float(drawn[keep].std()) == pytest.approx(spread, rel=0.25)


def test_a_killed_ticket_has_the_masks_of_the_rounds_that_it_began(found, tmp_path):
    every = ModelCheckpoint(tmp_path, every_n_train_steps=1, save_top_k=-1, filename="{step}")
    pl.seed_everything(5, verbose=False)
    trainer = make_trainer(tmp_path, [LotteryTicket(rounds=3), every, Kill(9)])
    with pytest.raises(SystemError, match="killed"):
        trainer.fit(fine_tuning(), Batches())
    made = {path.name: path.read_bytes() for path in (found[0] / FOLDER).iterdir()}
    assert sorted(made) == [f"round_{number}.safetensors" for number in (1, 2, 3)]
    assert {path.name: path.read_bytes() for path in (tmp_path / FOLDER).iterdir()} == {
        name: made[name] for name in sorted(made)[:2]
    }
    with pytest.raises(ValueError, match=r"masks of round 3 of a lottery ticket .*control: none to its end"):
        run(tmp_path / "control", ticket=control_of((tmp_path,), "random"))


def test_refuses_a_ticket_of_other_settings(found, tmp_path):
    with pytest.raises(
        ValueError, match=r"in round 1, as with rate=0.1, but .* give the control the settings"
    ):
        run(tmp_path, ticket=control_of(found, "random", rate=0.1))
    with pytest.raises(
        ValueError, match=r"13 matrices that are pruned here .* got others \(classifier.weight"
    ):
        run(tmp_path, ticket=control_of(found, "random", include=["classifier"]))
    shutil.copytree(found[0], tmp_path / "damaged")
    path = tmp_path / "damaged" / FOLDER / "round_2.safetensors"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ValueError, match=r"round 2 .* cannot be read \(SafetensorError\)"):
        run(tmp_path, ticket=control_of((tmp_path / "damaged",), "reinit"))


@pytest.mark.parametrize(("control", "ticket"), [("random", None), ("reinit", None), ("none", "runs/x")])
def test_refuses_a_control_without_its_ticket(control, ticket):
    with pytest.raises(ValueError, match="fit the ticket first, then its controls"):
        LotteryTicket(control=control, ticket=ticket)


def original_name(name):
    module, _, tensor = name.rpartition(".")
    return f"{module}.parametrizations.{tensor}.original"


# -- the table, the best checkpoint ----------------------------------------------------------------


def test_the_table_has_a_line_per_round(found, tmp_path):
    run(tmp_path, ticket=control_of(found, "random"))
    rows = [json.loads(line) for line in (tmp_path / "lottery.jsonl").read_text().splitlines()]
    total = rows[0]["weights"]
    assert [row["round"] for row in rows] == [0, 1, 2, 3]
    assert [row["kept"] for row in rows] == ladder(total, 3)
    assert [row["density"] for row in rows] == [n / total for n in ladder(total, 3)]
    assert [row["step"] for row in rows] == [4, 8, 12, 16]
    assert all(0.0 <= row["metrics"]["val/accuracy"] <= 1.0 for row in rows)
    assert {row["control"] for row in rows} == {"random"}


def test_metrics_of_the_table_are_those_of_the_round(tmp_path):
    """Each part of two epochs leaves the metric of its second."""
    logged = {}

    class Log(pl.Callback):
        def on_validation_end(self, trainer, pl_module):
            logged[trainer.global_step] = float(trainer.callback_metrics["val/loss"])

    make_trainer(tmp_path, [LotteryTicket(rounds=1), Log()]).fit(foreign(), Batches())
    rows = [json.loads(line) for line in (tmp_path / "lottery.jsonl").read_text().splitlines()]
    assert sorted(logged) == [4, 8, 12, 16]
    assert [row["metrics"]["val/loss"] for row in rows] == [logged[8], logged[16]]


def test_figures_are_logged(tmp_path):
    module, ticket, _ = run(tmp_path)
    total = sum(mask.keep.numel() for _, mask in masks_of(module.student))
    expected = 1 - ladder(total, 3)[-1] / total
    assert ticket.figures(module.student) == {"compress/sparsity": expected, "compress/round": 3.0}


def test_the_best_checkpoint_is_of_the_last_round(tmp_path):
    keep = BestAndLast(tmp_path, filename="best", monitor="val/accuracy", mode="max", save_last=True)
    make_trainer(tmp_path, [LotteryTicket(rounds=1), keep]).fit(fine_tuning(), Batches())
    state = torch.load(tmp_path / "best.ckpt", weights_only=True)
    assert state["callbacks"]["LotteryTicket"]["round"] == 1
    assert state["global_step"] in (12, 16)


# -- checkpoints -----------------------------------------------------------------------------------


class Kill(pl.Callback):
    def __init__(self, step):
        self.step = step

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == self.step:
            raise SystemError("killed")


class SameBatch(Batches):
    """An ordinary loader starts its epoch again when a fit resumes: it matters less where all batches are equal."""

    def train_dataloader(self):
        return DataLoader([tiny_batch(seed=0)] * STEPS, batch_size=None)


class ForeignWithoutDropout(Foreign):
    """A module that does not save the states of random numbers can go on exactly only if it draws none."""

    def __init__(self):
        super().__init__(student())
        for module in self.net.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0


def killable(folder, texts, found, ours, control, rewind_to, kill=None, resume=None):
    """Parts of two epochs with three steps for our module, of one epoch with four for the foreign one."""
    pl.seed_everything(3, verbose=False)
    options = {"rounds": 2, "rewind_to": rewind_to}
    ticket = LotteryTicket(**options) if control == "none" else control_of(found, control, **options)
    # Written at every step, and last.ckpt after the validation at the end of an epoch.
    every = ModelCheckpoint(folder, every_n_train_steps=1, save_top_k=-1, filename="{step}")
    last = BestAndLast(folder, monitor="val/loss" if not ours else "val/mcc", filename="best", save_last=True)
    callbacks = [every, last, ticket, *([Kill(kill)] if kill is not None else [])]
    fit = make_trainer(folder, callbacks, max_epochs=6 if ours else 3)
    if ours:
        module = FineTuning(tiny_bert(layers=2, hidden=16, labels=2, dropout=0.1), optimizer=AdamW(lr=1e-2))
    else:
        module = ForeignWithoutDropout()
    data = data_module(texts) if ours else SameBatch()
    if kill is None:
        fit.fit(module, data, ckpt_path=resume, weights_only=True)
        return module.state_dict(), fit.optimizers[0].state_dict(), (folder / "lottery.jsonl").read_text()
    with pytest.raises(SystemError, match="killed"):
        fit.fit(module, data)
    return None


@pytest.fixture(scope="module")
def whole_runs(texts, found, tmp_path_factory):
    """The run that nobody killed, once for all kills."""
    return functools.cache(
        lambda *setting: killable(tmp_path_factory.mktemp("whole"), texts, found, *setting)
    )


@pytest.mark.parametrize(
    ("ours", "control", "rewind_to", "kill"),
    [
        *[(True, "none", 4, kill) for kill in (2, 5, 8, 12, 16)],
        *[(True, "random", 0, kill) for kill in (6, 10)],
        *[(True, "reinit", 0, kill) for kill in (6, 16)],
        *[(False, "none", 1, kill) for kill in (1, 4, 6, 11)],
        (False, "random", 0, 6),
        (False, "reinit", 0, 10),
    ],
)
def test_killed_and_resumed_is_bit_identical(
    ours, control, rewind_to, kill, whole_runs, texts, found, tmp_path
):
    """Inside every part, and exactly between two."""
    whole, optimizer, table = whole_runs(ours, control, rewind_to)
    killable(tmp_path / "killed", texts, found, ours, control, rewind_to, kill=kill)
    at_end = kill % (3 if ours else 4) == 0
    shutil.copy(tmp_path / "killed" / ("last.ckpt" if at_end else f"step={kill}.ckpt"), tmp_path / "on.ckpt")
    again, resumed, other = killable(
        tmp_path / "again", texts, found, ours, control, rewind_to, resume=tmp_path / "on.ckpt"
    )
    assert whole.keys() == again.keys()
    assert all(torch.equal(whole[key], again[key]) for key in whole)
    assert table == other
    assert len(table.splitlines()) == 3
    assert optimizer["state"].keys() == resumed["state"].keys()
    for key, state in optimizer["state"].items():
        assert all(torch.equal(value, resumed["state"][key][field]) for field, value in state.items())


def test_a_checkpoint_loads_without_the_callback_and_holds_zeros(tmp_path):
    keep = BestAndLast(tmp_path, filename="best", monitor="val/accuracy", mode="max", save_last=True)
    module = fine_tuning()
    make_trainer(tmp_path, [LotteryTicket(rounds=3), keep]).fit(module, Batches())
    again = FineTuning.load_from_checkpoint(
        tmp_path / "last.ckpt", student=student(), num_labels=3, weights_only=True
    )
    masks = dict(masks_of(again.student))
    total = sum(mask.keep.numel() for mask in masks.values())
    assert sum(int(mask.keep.sum()) for mask in masks.values()) == ladder(total, 3)[-1]
    assert all(not original(again.student, name)[~mask.keep].any() for name, mask in masks.items())
    batch = {k: v for k, v in tiny_batch(seed=4).items() if k not in ("labels", "example_id")}
    with torch.no_grad():
        assert torch.equal(again.student.eval()(**batch).logits, module.student.eval()(**batch).logits)


def test_an_interrupted_fit_leaves_a_checkpoint_to_go_on_from(texts, tmp_path):
    """Ctrl-C in the middle of round 1: Lightning turns it into an exit, and last.ckpt is of that step."""

    class Interrupt(pl.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if trainer.global_step == 8:
                raise KeyboardInterrupt

    def fit(folder, *callbacks, resume=None):
        pl.seed_everything(3, verbose=False)
        last = BestAndLast(folder, filename="best", monitor="val/mcc", save_last=True, save_on_exception=True)
        module = FineTuning(tiny_bert(layers=2, hidden=16, labels=2, dropout=0.1), optimizer=AdamW(lr=1e-2))
        trainer = make_trainer(folder, [LotteryTicket(rounds=2), last, *callbacks], max_epochs=6)
        trainer.fit(module, data_module(texts), ckpt_path=resume, weights_only=True)
        return module.state_dict()

    whole = fit(tmp_path / "whole")
    with pytest.raises(SystemExit):
        fit(tmp_path / "stopped", Interrupt())
    kept = tmp_path / "stopped" / "last.ckpt"
    checkpoint = torch.load(kept, weights_only=True)
    assert checkpoint["global_step"] == 8
    assert checkpoint["callbacks"]["LotteryTicket"]["round"] == 1
    again = fit(tmp_path / "again", resume=kept)
    assert all(torch.equal(whole[key], again[key]) for key in whole)


def test_a_second_fit_begins_at_its_own_round_zero(tmp_path):
    ticket = LotteryTicket(rounds=1)
    module, _, first = run(tmp_path / "a", ticket=ticket, max_epochs=2)
    _, _, second = run(tmp_path / "b", module, ticket, max_epochs=2)
    total = kept(first, 0)
    assert [kept(second, 0), kept(second, 4)] == ladder(total, 2)[1:]
    name = next(k for k in second.weights[0] if "classifier" in k)
    assert torch.equal(second.weights[4][name], second.weights[0][name])
    assert not torch.equal(first.weights[0][name], second.weights[0][name])


# -- what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rounds": 0}, "rounds >= 1"),
        ({"rate": 0.0}, "rate between 0 and 1"),
        ({"rate": 1.0}, "rate between 0 and 1"),
        ({"rewind_to": -1}, "rewind_to >= 0"),
        ({"control": "shuffle"}, "none, random, reinit but got 'shuffle'"),
    ],
)
def test_refuses_settings_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        LotteryTicket(**options)


@pytest.mark.parametrize(
    ("ticket", "trainer", "message"),
    [
        ({"rounds": 2}, {"max_epochs": 4}, "multiple of 3.*but got 4; set it to 6"),
        ({"rounds": 2}, {"max_epochs": -1, "max_steps": 8}, "multiple of 3.*set trainer.max_steps to 6"),
        ({"rounds": 3, "rewind_to": 4}, {}, "step of the first part, which has 4, but got 4"),
        (
            {"rounds": 1},
            {"max_epochs": 6, "check_val_every_n_epoch": 2},
            "check_val_every_n_epoch=2; set it to 1",
        ),
        ({"rounds": 3, "include": ["no_such"]}, {}, "'no_such' is in no name"),
    ],
)
def test_refuses_a_fit_that_cannot_be_cut(ticket, trainer, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        run(tmp_path, ticket=LotteryTicket(**ticket), **trainer)


def test_refuses_other_restarts(tmp_path):
    with pytest.raises(
        ValueError, match=r"restart_at is \[0.5\]; leave it out, or set it to \[0.25, 0.5, 0.75\]"
    ):
        run(tmp_path, fine_tuning(schedule=WarmupLinear(restart_at=[0.5])))


def test_refuses_early_stopping(tmp_path):
    with pytest.raises(ValueError, match="EarlyStopping"):
        make_trainer(tmp_path, [LotteryTicket(rounds=3), EarlyStopping("val/loss")]).fit(foreign(), Batches())


def test_include_adds_the_head_of_the_task(tmp_path):
    _, _, diary = run(tmp_path, ticket=LotteryTicket(rounds=3, include=["classifier"]))
    assert len(diary.keeps[0]) == MATRICES + 1
    assert "classifier.weight" in diary.keeps[0]
