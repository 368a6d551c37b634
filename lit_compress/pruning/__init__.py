"""Pruning: what units are worth, what is to be removed, gates, and the physical shrink."""

from lit_compress.pruning.hard_concrete import (
    deterministic_gates,
    probability_of_one,
    probability_open,
    sample_gates,
)
from lit_compress.pruning.movement import Movement, SoftMovement
from lit_compress.pruning.scores import Fisher, Frequency, Magnitude, Random, Score, Taylor
from lit_compress.pruning.shrink import shrink
from lit_compress.pruning.target import Target

__all__ = [
    "Fisher",
    "Frequency",
    "Magnitude",
    "Movement",
    "Random",
    "Score",
    "SoftMovement",
    "Target",
    "Taylor",
    "deterministic_gates",
    "probability_of_one",
    "probability_open",
    "sample_gates",
    "shrink",
]
