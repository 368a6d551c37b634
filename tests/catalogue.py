"""Every public part with settings: the table that the contracts are tested over."""

import lightning.pytorch as pl

from lit_compress.data import TextSource
from lit_compress.models import StudentFactory, Teacher
from lit_compress.modules import CompressionModule
from lit_compress.modules.optim import LRSchedule, OptimizerFactory
from lit_compress.modules.tasks import Task
from lit_compress.objectives import Objective, Schedule
from lit_compress.pruning import Score

_STUDENT = {"class_path": "LayerSubset", "init_args": {"layers": "uniform", "depth": 2, "source": "models/x"}}
_RAMP = {"start": 4.0, "end": 1.0, "begin": 0.25, "finish": 0.75}

#: name → (the base that a recipe asks for, arguments that differ from the defaults)
PARTS: dict[str, tuple[type, dict]] = {
    # objectives
    "HardLabels": (Objective, {"weight": 0.25}),
    "SoftTargets": (
        Objective,
        {"weight": 0.5, "temperature": {"class_path": "Cosine", "init_args": _RAMP}, "kind": "cross_entropy"},
    ),
    "LogitMSE": (Objective, {"weight": 2.0, "preset": "paper"}),
    "CosineEmbedding": (Objective, {"weight": 2.0, "reduction": "token"}),
    "PKD": (Objective, {"weight": 100.0, "layer_map": [[0, 1], [1, 3]], "normalize": False, "tokens": "all"}),
    "TinyBERTEmbedding": (Objective, {"weight": 2.0, "projection": "none"}),
    "TinyBERTHidden": (Objective, {"weight": 2.0, "layer_map": "last", "projection": "separate"}),
    "TinyBERTAttention": (Objective, {"weight": 2.0, "layer_map": [[0, 1]], "reduction": "token"}),
    "MiniLM": (Objective, {"weight": 2.0, "teacher_layer": 2, "reduction": "token"}),
    "MiniLMRelations": (
        Objective,
        {"weight": 2.0, "relation_heads": 4, "teacher_layer": 2, "relations": ["queries", "values"]},
    ),
    "LayerMatch": (Objective, {"weight": 0.9, "teacher_layers": [1, 3], "reduction": "token"}),
    # their schedules
    "Linear": (Schedule, _RAMP),
    "Cosine": (Schedule, _RAMP),
    "Cubic": (Schedule, {"begin": 0.25, "finish": 0.75}),
    "Staircase": (Schedule, {"steps": 3, "begin": 0.25, "finish": 0.75}),
    "Switch": (Schedule, {"epoch": 2, "before": 1.0, "after": 0.0}),
    # models
    "LayerSubset": (StudentFactory, {"layers": [0, 2, 4], "depth": 3, "source": "models/x"}),
    "FromConfig": (StudentFactory, {"source": "models/x", "num_hidden_layers": 2, "hidden_size": 64}),
    "Pretrained": (StudentFactory, {"name": "models/x"}),
    "Teacher": (
        Teacher,
        {"model": "models/x", "cache": "cache", "precision": "fp32", "cache_dtype": "float32"},
    ),
    # optimizers, learning rates, tasks
    "AdamW": (OptimizerFactory, {"lr": 0.001, "weight_decay": 0.0, "betas": [0.8, 0.9], "eps": 1e-6}),
    "AdamW8bit": (
        OptimizerFactory,
        {"lr": 0.001, "weight_decay": 0.0, "betas": [0.8, 0.9], "eps": 1e-6, "min_size": 64, "paged": True},
    ),
    "Lion8bit": (OptimizerFactory, {"lr": 0.001, "weight_decay": 0.0, "betas": [0.8, 0.9], "min_size": 64}),
    "WarmupLinear": (LRSchedule, {"warmup": 0.2, "restart_at": [0.5]}),
    "WarmupCosine": (LRSchedule, {"warmup": 0.2, "restart_at": [0.5]}),
    "WarmupConstant": (LRSchedule, {"warmup": 0.2, "restart_at": [0.5]}),
    "Classification": (Task, {"monitor": "f1"}),
    "Regression": (Task, {"monitor": "pearson"}),
    # data
    "Files": (
        TextSource,
        {"train": "a.tsv", "validation": "b.tsv", "test": "c.tsv", "folder": "x", "quotes": True},
    ),
    "Hub": (TextSource, {"name": "glue", "config": "sst2", "test": "test", "revision": "abc"}),
    "Docstrings": (TextSource, {"packages": ["rich", "yaml"], "max_per_package": 100, "seed": 1}),
    "TextClassificationDataModule": (
        pl.LightningDataModule,
        {
            "source": {"class_path": "Files", "init_args": {"train": "a.tsv"}},
            "tokenizer": "models/x",
            "text": ["first", "second"],
            "labels": ["no", "yes"],
            "max_length": 64,
            "padding": "max_length",
            "augment": {"copies": 2, "mask": 0.2, "replace": 0.0, "ngram": 0.5, "seed": 3},
        },
    ),
    # callbacks
    "Benchmark": (pl.Callback, {"every_n_epochs": 2, "at_end": False, "rounds": 3, "max_seconds": 5.0}),
    "L0Pruning": (
        pl.Callback,
        {
            "structures": ["head", "neuron", "hidden"],
            "target": {"sparsity": 0.9},
            "ramp": {"class_path": "Linear", "init_args": _RAMP},
            "freeze_at": 0.5,
            "gate_lr": 0.01,
            "multiplier_lr": 0.2,
            "drop": 0.1,
            "beta": 1.0,
            "evaluation": "expected",
            "low_rank": "equal",
            "part": "x",
            "round_to": 32,
        },
    ),
    "LotteryTicket": (
        pl.Callback,
        {
            "rounds": 3,
            "rate": 0.5,
            "rewind_to": 10,
            "control": "random",
            "ticket": "runs/ticket",
            "include": ["classifier"],
            "seed": 1,
        },
    ),
    "ModelFolder": (pl.Callback, {"folder": "x", "enabled": False}),
    "Pruning": (
        pl.Callback,
        {
            "structure": "block",
            "score": {"class_path": "Movement", "init_args": {"lr": 0.02}},
            "target": {"sparsity": 0.9},
            "ramp": {"class_path": "Cubic", "init_args": {"begin": 0.2, "finish": 0.5}},
            "scope": "local",
            "block": [32, 16],
            "include": ["word_embeddings"],
            "exclude": ["layer.0."],
            "every_n_steps": 5,
        },
    ),
    "QAT": (
        pl.Callback,
        {
            "weights": {"bits": 4, "per": "group", "group_size": 32},
            "activations": {"bits": 6, "symmetric": False, "per": "tensor"},
            "embeddings": {"bits": 4},
            "ranges": "percentile",
            "learned_steps": True,
            "step_lr": 1e-3,
            "quantize_at": 0.2,
            "freeze_at": 0.5,
            "include": ["encoder"],
            "exclude": ["classifier"],
        },
    ),
    "SelectBest": (
        pl.Callback,
        {"quality": "val/mcc", "at_least": "0.98*teacher", "minimise": "benchmark/size_mb"},
    ),
    "WeightClustering": (
        pl.Callback,
        {
            "clusters": 8,
            "embedding_clusters": 32,
            "rows": 16,
            "embedding_rows": 64,
            "init": "density",
            "keep_zeros": True,
            "centroid_bits": 8,
            "entropy": True,
            "centroid_lr": 1e-3,
            "cluster_at": 0.3,
            "include": ["attention"],
            "exclude": ["classifier"],
        },
    ),
    # scores of pruning
    "Magnitude": (Score, {}),
    "Random": (Score, {"seed": 1}),
    "Taylor": (Score, {"decay": 1.0}),
    "Fisher": (Score, {"decay": 0.5}),
    "Frequency": (Score, {}),
    "Movement": (Score, {"lr": 0.1}),
    "SoftMovement": (Score, {"threshold": 0.2, "penalty": 400.0, "keep": 0.01, "lr": 0.1}),
    # modules
    "FineTuning": (CompressionModule, {"student": _STUDENT, "num_labels": 2, "method": "x"}),
    "Distillation": (
        CompressionModule,
        {
            "student": _STUDENT,
            "teacher": {"class_path": "Teacher", "init_args": {"model": "models/x"}},
            "objectives": {"soft": {"class_path": "SoftTargets", "init_args": {"weight": 0.5}}},
            "task": {"class_path": "Classification", "init_args": {"monitor": "mcc"}},
            "optimizer": {"class_path": "AdamW", "init_args": {"lr": 0.001}},
            "schedule": {"class_path": "WarmupCosine", "init_args": {"warmup": 0.2}},
            "projection_lr": 0.01,
            "num_labels": 2,
            "label_names": ["no", "yes"],
        },
    ),
}

#: Public classes that a recipe never names: bases, groups of arguments, and what the library makes while it runs.
NOT_IN_RECIPES = {
    "Architecture",
    "Augmentation",
    "CachedTeacher",
    "CompressionModule",
    "LiveTeacher",
    "Objective",
    "Progress",
    "Schedule",
    "Score",
    "StudentFactory",
    "Target",
    "TextSource",
}
