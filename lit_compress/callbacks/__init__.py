"""Callbacks that work on any LightningModule with a ``student``."""

from lit_compress.callbacks.benchmark import Benchmark
from lit_compress.callbacks.model_folder import ModelFolder
from lit_compress.callbacks.pruning import Pruning
from lit_compress.callbacks.select_best import SelectBest

__all__ = ["Benchmark", "ModelFolder", "Pruning", "SelectBest"]
