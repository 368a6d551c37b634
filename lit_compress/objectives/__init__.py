"""Terms of a distillation loss, each as a module for recipes and as a pure function for own loops."""

from lit_compress.objectives.base import Objective
from lit_compress.objectives.hard_labels import HardLabels, hard_labels
from lit_compress.objectives.schedule import Cosine, Linear, Progress, Schedule, Switch
from lit_compress.objectives.soft_targets import SoftTargets, soft_targets
from lit_compress.objectives.tinybert_hidden import TinyBERTHidden, hidden_mse

__all__ = [
    "Cosine",
    "HardLabels",
    "Linear",
    "Objective",
    "Progress",
    "Schedule",
    "SoftTargets",
    "Switch",
    "TinyBERTHidden",
    "hard_labels",
    "hidden_mse",
    "soft_targets",
]
