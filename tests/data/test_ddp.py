"""Two processes see the batches of one process with twice the batch size, and evaluate every row once."""

import json
import logging

import lightning.pytorch as L
import torch


class Recorder(L.LightningModule):
    def __init__(self, folder):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.folder = folder
        self.seen = {"train": [], "validation": []}

    def training_step(self, batch):
        self.seen["train"].append(batch["example_id"].tolist())
        return (self.weight * batch["labels"].float().mean()).sum()

    def validation_step(self, batch):
        self.seen["validation"].append(batch["example_id"].tolist())

    def on_fit_end(self):
        (self.folder / f"rank{self.global_rank}.json").write_text(json.dumps(self.seen))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(data, folder, **options):
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    folder.mkdir()
    options = {"max_epochs": 2, "logger": False, "enable_progress_bar": False} | options
    trainer = L.Trainer(
        accelerator="cpu",
        enable_checkpointing=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **options,
    )
    trainer.fit(Recorder(folder), datamodule=data)
    return [json.loads(path.read_text()) for path in sorted(folder.iterdir())]


def test_two_processes_equal_one(make, rows, tmp_path):
    options = {"train": rows, "validation": rows[:13], "eval_batch_size": 2}
    (one,) = fit(make(batch_size=8, **options), tmp_path / "one")
    ranks = fit(make(batch_size=4, **options), tmp_path / "two", strategy="ddp_fork", devices=2)
    assert len(one["train"]) == len(ranks[0]["train"]) == len(ranks[1]["train"]) == 14
    for number, batch in enumerate(one["train"]):
        shares = [rank["train"][number] for rank in ranks]
        together = [row for share in shares for row in share]
        if number % 7 == 6:
            # The incomplete batch of 53 rows: one row is repeated so that both processes have work.
            assert len(batch) == 5
            assert len(together) == 6
            assert set(batch) <= set(together)
        else:
            assert sorted(together) == sorted(batch)
            assert [len(share) for share in shares] == [4, 4]
    evaluated = [row for rank in ranks for batch in rank["validation"] for row in batch]
    assert sorted(evaluated) == sorted(2 * list(range(13)))
