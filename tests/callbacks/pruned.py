"""Settings of Pruning for every structure and score."""

from __future__ import annotations

from lit_compress.callbacks import Pruning
from lit_compress.pruning import Fisher, Magnitude, Movement, Random, SoftMovement, Target, Taylor

#: structure → (settings, reachable sparsity)
STRUCTURES = {
    "weight": ({}, 0.8),
    "block": ({"block": [4, 2]}, 0.75),
    "2:4": ({}, 0.5),
    "head": ({}, 0.2),
    "neuron": ({"scope": "local"}, 0.3),
    "attention": ({}, 0.2),
    "feed_forward": ({}, 0.2),
    "layer": ({}, 0.5),
    "hidden": ({}, 0.4),
    "vocabulary": ({}, 0.5),
}
SCORES = {
    "magnitude": Magnitude,
    "taylor": Taylor,
    "fisher": Fisher,
    "random": Random,
    "movement": Movement,
    "soft": lambda: SoftMovement(threshold=0.4, penalty=100.0, lr=0.1),
}


def pruning(structure: str = "weight", score: str = "magnitude", /, **changes) -> Pruning:
    settings, sparsity = STRUCTURES[structure]
    target = None if score == "soft" else Target(sparsity=sparsity)
    options = {"structure": structure, "score": SCORES[score](), "target": target, "every_n_steps": 2}
    return Pruning(**{**options, **settings, **changes})
