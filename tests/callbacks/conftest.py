"""A tiny task on disk and a Trainer that leaves checkpoints."""

import random

import lightning.pytorch as pl
import pytest
from lightning.pytorch.callbacks import ModelCheckpoint

from lit_compress.data import Files, TextClassificationDataModule
from lit_compress.models.checkpoint import save_folder
from tests.benchmark.conftest import fake_workers  # noqa: F401
from tests.tiny import WORDS, tiny_bert, tiny_tokenizer


@pytest.fixture(scope="session")
def texts(tmp_path_factory):
    """Folder with train.csv and dev.csv of two classes, a tokenizer, and a teacher in teacher/model."""
    folder = tmp_path_factory.mktemp("texts")
    draw = random.Random(0)
    for name, rows in (("train", 24), ("dev", 16)):
        lines = [
            f"{' '.join(draw.choices(WORDS, k=draw.randint(2, 12)))},{draw.choice('ab')}" for _ in range(rows)
        ]
        (folder / f"{name}.csv").write_text("\n".join(["text,label", *lines]) + "\n")
    tiny_tokenizer(folder / "tokenizer")
    model = tiny_bert(layers=4, labels=2)
    save_folder(folder / "teacher" / "model", model, None, {"method": "fine-tuning"})
    return folder


def data_module(texts, **options):
    return TextClassificationDataModule(
        Files(folder=str(texts), train="train.csv", validation="dev.csv"),
        tokenizer=str(texts / "tokenizer"),
        batch_size=8,
        cache_dir=str(texts / "cache"),
        **options,
    )


@pytest.fixture
def data(texts):
    return data_module(texts)


@pytest.fixture
def make_trainer(tmp_path):
    """Return a function that makes a Trainer with two epochs of CPU training in ``tmp_path/run``."""

    def make(*callbacks, checkpoint=True, **options):
        options = {"logger": False, "max_epochs": 2, "num_sanity_val_steps": 0, **options}
        if checkpoint:
            folder = tmp_path / "run" / "checkpoints"
            keep = ModelCheckpoint(
                folder, monitor="val/accuracy", mode="max", filename="best", save_last=True
            )
            callbacks = (*callbacks, keep)
        return pl.Trainer(
            default_root_dir=tmp_path / "run",
            accelerator="cpu",
            callbacks=list(callbacks),
            enable_checkpointing=bool(checkpoint) or any(isinstance(c, ModelCheckpoint) for c in callbacks),
            enable_progress_bar=False,
            enable_model_summary=False,
            **options,
        )

    return make
