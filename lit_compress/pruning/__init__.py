"""Pruning: so far the distribution of the gates that later structures are switched with."""

from lit_compress.pruning.hard_concrete import (
    deterministic_gates,
    probability_of_one,
    probability_open,
    sample_gates,
)

__all__ = ["deterministic_gates", "probability_of_one", "probability_open", "sample_gates"]
