"""A real Trainer, killed at many places and resumed, sees every batch exactly once and in the same order."""

import logging
import warnings

import lightning.pytorch as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

BATCHES = 7  # 53 rows in batches of 8


@pytest.fixture(autouse=True)
def quiet():
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class Recorder(L.LightningModule):
    """Writes down (epoch, batch number, rows); its weight depends on the order of the batches."""

    def __init__(self, fail_at=None):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))
        self.fail_at = fail_at
        self.seen = []

    def training_step(self, batch, number):
        if self.fail_at == (self.current_epoch, number):
            raise InterruptedError
        ids = batch["example_id"]
        self.seen.append((self.current_epoch, number, tuple(ids.tolist())))
        return ((self.weight - ids.float().mean() / 50) ** 2).sum()

    def validation_step(self, batch, number):
        self.log("loss", self.weight.sum())

    def test_step(self, batch, number):
        self.log("loss", self.weight.sum())

    def predict_step(self, batch):
        return batch["example_id"]

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def trainer(*callbacks, **options):
    options = {"max_epochs": 3} | options
    return L.Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        enable_checkpointing=bool(callbacks),
        callbacks=list(callbacks),
        **options,
    )


SETTINGS = [
    {},
    {"val_check_interval": 0.3},
    {"max_epochs": -1, "max_steps": 17},
    {"limit_train_batches": 5},
    {"accumulate_grad_batches": 2},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("save", ["every step", "epoch end", "validation end"])
def test_resumes_exactly(make, rows, tmp_path, settings, save):
    when = {"every_n_epochs": 1, "save_on_train_epoch_end": save == "epoch end"}
    if save == "every step":
        when = {"every_n_train_steps": 1}
    saver = ModelCheckpoint(tmp_path / "saved", save_top_k=-1, filename="{epoch}-{step}", **when)
    data = make(train=rows, validation=rows[:5], batch_size=8)
    whole = Recorder()
    trainer(saver, **settings).fit(whole, datamodule=data)
    assert len({entry[2] for entry in whole.seen}) == len(whole.seen)
    files = sorted((tmp_path / "saved").iterdir())
    assert len(files) >= 2
    for file in files:
        loops = torch.load(file, weights_only=False)["loops"]["fit_loop"]
        done = loops["epoch_loop.batch_progress"]["total"]["processed"]
        rest = Recorder()
        resumed = make(train=rows, validation=rows[:5], batch_size=8)
        trainer(**settings).fit(rest, datamodule=resumed, ckpt_path=file)
        assert rest.seen == whole.seen[done:], file.name
        assert torch.equal(rest.weight, whole.weight), file.name


@pytest.mark.parametrize("place", [(0, 3), (1, 0), (2, 6)])
def test_a_step_that_fails_is_repeated(make, rows, tmp_path, place):
    whole, failing, rest = Recorder(), Recorder(fail_at=place), Recorder()
    data = make(train=rows, batch_size=8)
    trainer().fit(whole, datamodule=data)
    saver = ModelCheckpoint(tmp_path / "saved", save_top_k=0, save_on_exception=True)
    with pytest.raises(InterruptedError):
        trainer(saver).fit(failing, datamodule=data)
    (file,) = (tmp_path / "saved").iterdir()
    trainer().fit(rest, datamodule=data, ckpt_path=file)
    assert failing.seen + rest.seen == whole.seen
    assert torch.equal(rest.weight, whole.weight)


def test_epochs_differ_and_are_the_same_in_the_next_run(make, rows):
    runs = [Recorder(), Recorder()]
    for run in runs:
        trainer(max_epochs=2).fit(run, datamodule=make(train=rows, batch_size=8))
    assert runs[0].seen == runs[1].seen
    epochs = [[entry[2] for entry in runs[0].seen if entry[0] == epoch] for epoch in (0, 1)]
    assert len(epochs[0]) == len(epochs[1]) == BATCHES
    assert epochs[0] != epochs[1]


def test_state_of_a_plain_loop(make, rows):
    data = make(train=rows, batch_size=8)
    loader, again = data.train_dataloader(), data.train_dataloader()
    whole = [batch["example_id"].tolist() for batch in loader]
    batches = iter(loader)
    for _ in range(3):
        next(batches)
    state = loader.state_dict()
    again.load_state_dict(state)
    assert again.state_dict() == state
    assert [batch["example_id"].tolist() for batch in again] == whole[3:]
    # The next pass is a whole one again.
    assert [batch["example_id"].tolist() for batch in again] == whole


def test_skipped_batches_are_not_read(make, rows):
    loader = make(train=rows, batch_size=8).train_dataloader()
    asked = []
    get = loader.dataset.__class__.__getitem__
    loader.dataset.__class__ = type(
        "Counting",
        (type(loader.dataset),),
        {"__getitem__": lambda self, row: asked.append(row) or get(self, row)},
    )
    loader.load_state_dict({**loader.state_dict(), "batches": 5})
    assert len(list(loader)) == 2
    assert len(asked) == 13


def test_overfit_batches_and_all_stages_run(make, rows):
    data = make(train=rows, validation=rows, test=rows, batch_size=8)
    module = Recorder()
    trainer(max_epochs=2, overfit_batches=2).fit(module, datamodule=data)
    assert len({entry[2] for entry in module.seen}) == 2
    assert "loss" in trainer().validate(module, datamodule=data, verbose=False)[0]
    assert "loss" in trainer().test(module, datamodule=data, verbose=False)[0]
    predicted = trainer().predict(module, datamodule=data)
    assert torch.cat(predicted).tolist() == list(range(53))


def test_a_fit_without_validation_split_runs(make, rows):
    module = Recorder()
    trainer(max_epochs=1).fit(module, datamodule=make(train=rows, batch_size=8))
    assert len(module.seen) == BATCHES


def test_refuses_to_validate_without_validation_split(make, rows):
    with pytest.raises(ValueError, match=r"Expected a validation split .* set source.validation, or data"):
        trainer().validate(Recorder(), datamodule=make(train=rows), verbose=False)


@pytest.mark.parametrize("change", [{"batch_size": 4}, {"seed": 1}, {"bucket_pool": 0}, {"limit_train": 50}])
def test_refuses_to_resume_in_another_order(make, rows, tmp_path, change):
    saver = ModelCheckpoint(tmp_path / "saved", every_n_train_steps=3, save_top_k=-1)
    trainer(saver, max_epochs=1).fit(Recorder(), datamodule=make(train=rows, batch_size=8))
    file = min((tmp_path / "saved").iterdir())
    data = make(train=rows, **({"batch_size": 8} | change))
    with pytest.raises(
        ValueError, match="continue epoch 0 after batch 3 in the order of the checkpoint"
    ) as error:
        trainer().fit(Recorder(), datamodule=data, ckpt_path=file)
    assert "restore these settings" in str(error.value)
