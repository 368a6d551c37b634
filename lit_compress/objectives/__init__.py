"""Terms of a distillation loss, each as a module for recipes and as a pure function for own loops."""

from lit_compress.objectives.base import Objective
from lit_compress.objectives.cosine_embedding import CosineEmbedding, cosine_embedding
from lit_compress.objectives.hard_labels import HardLabels, hard_labels
from lit_compress.objectives.hidden import hidden_mse
from lit_compress.objectives.layer_match import LayerMatch, match_layers
from lit_compress.objectives.logit_mse import LogitMSE, logit_mse
from lit_compress.objectives.minilm import MiniLM, MiniLMRelations
from lit_compress.objectives.pkd import PKD, patient_distance
from lit_compress.objectives.relations import distribution_kl, relation_kl
from lit_compress.objectives.soft_targets import SoftTargets, soft_targets
from lit_compress.objectives.tinybert_attention import TinyBERTAttention, attention_mse
from lit_compress.objectives.tinybert_hidden import TinyBERTEmbedding, TinyBERTHidden
from lit_compress.schedules import Cosine, Cubic, Linear, Progress, Schedule, Staircase, Switch

__all__ = [
    "PKD",
    "Cosine",
    "CosineEmbedding",
    "Cubic",
    "HardLabels",
    "LayerMatch",
    "Linear",
    "LogitMSE",
    "MiniLM",
    "MiniLMRelations",
    "Objective",
    "Progress",
    "Schedule",
    "SoftTargets",
    "Staircase",
    "Switch",
    "TinyBERTAttention",
    "TinyBERTEmbedding",
    "TinyBERTHidden",
    "attention_mse",
    "cosine_embedding",
    "distribution_kl",
    "hard_labels",
    "hidden_mse",
    "logit_mse",
    "match_layers",
    "patient_distance",
    "relation_kl",
    "soft_targets",
]
