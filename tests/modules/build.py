"""Data modules, modules and trainers over the tiny task."""

from pathlib import Path

import lightning.pytorch as pl

from lit_compress.data import Files, TextClassificationDataModule
from lit_compress.models import LayerSubset, Teacher
from lit_compress.modules import AdamW, Distillation
from lit_compress.objectives import (
    PKD,
    CosineEmbedding,
    HardLabels,
    MiniLMRelations,
    Objective,
    SoftTargets,
    TinyBERTAttention,
    TinyBERTEmbedding,
    TinyBERTHidden,
)
from lit_compress.schedules import Switch

RECIPES = {
    "soft": lambda: {"hard": HardLabels(0.5), "soft": SoftTargets(0.5, temperature=2.0)},
    "distilbert": lambda: {"soft": SoftTargets(1.0), "cosine": CosineEmbedding(1.0)},
    "pkd": lambda: {"hard": HardLabels(0.5), "pkd": PKD(10.0)},
    "tinybert": lambda: {
        "embedding": TinyBERTEmbedding(Switch(1, 1.0, 0.0)),
        "hidden": TinyBERTHidden(Switch(1, 1.0, 0.0)),
        "attention": TinyBERTAttention(Switch(1, 1.0, 0.0)),
        "prediction": SoftTargets(Switch(1, 0.0, 1.0), temperature=1.0),
    },
    "minilm": lambda: {"relations": MiniLMRelations(1.0, relation_heads=4), "hard": HardLabels(1.0)},
}


def data_module(task: Path, batch_size: int = 8, **kwargs) -> TextClassificationDataModule:
    return TextClassificationDataModule(
        Files(folder=str(task), train="train.tsv", validation="dev.tsv", test="test.tsv"),
        tokenizer=str(task / "teacher"),
        text="sentence",
        batch_size=batch_size,
        cache_dir=str(task / "tokens"),
        **kwargs,
    )


def distillation(folder: Path, objectives: dict[str, Objective], **kwargs) -> Distillation:
    kwargs.setdefault("teacher", Teacher(str(folder / "teacher"), precision="fp32"))
    kwargs.setdefault("student", LayerSubset("every_other", depth=2))
    return Distillation(objectives=objectives, optimizer=AdamW(lr=1e-3), **kwargs)


def trainer(folder: Path, **kwargs) -> pl.Trainer:
    options = {
        "max_epochs": 1,
        "accelerator": "cpu",
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "deterministic": True,
    }
    return pl.Trainer(default_root_dir=str(folder), **{**options, **kwargs})
