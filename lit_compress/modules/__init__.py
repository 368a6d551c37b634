"""LightningModules, their tasks, optimizers and schedules."""

from lit_compress.modules.base import CompressionModule
from lit_compress.modules.distillation import Distillation
from lit_compress.modules.finetune import FineTuning
from lit_compress.modules.optim import AdamW, WarmupConstant, WarmupCosine, WarmupLinear
from lit_compress.modules.optim_8bit import AdamW8bit, Lion8bit
from lit_compress.modules.tasks import Classification, Regression

__all__ = [
    "AdamW",
    "AdamW8bit",
    "Classification",
    "CompressionModule",
    "Distillation",
    "FineTuning",
    "Lion8bit",
    "Regression",
    "WarmupConstant",
    "WarmupCosine",
    "WarmupLinear",
]
