"""Callbacks that work on any LightningModule with a ``student``."""

from lit_compress.callbacks.benchmark import Benchmark
from lit_compress.callbacks.model_folder import ModelFolder

__all__ = ["Benchmark", "ModelFolder"]
