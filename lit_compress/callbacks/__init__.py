"""Callbacks that work on any LightningModule with a ``student``."""

from lit_compress.callbacks.benchmark import Benchmark
from lit_compress.callbacks.clustering import WeightClustering
from lit_compress.callbacks.l0 import L0Pruning
from lit_compress.callbacks.lottery import LotteryTicket
from lit_compress.callbacks.model_folder import ModelFolder
from lit_compress.callbacks.pruning import Pruning
from lit_compress.callbacks.qat import QAT
from lit_compress.callbacks.select_best import SelectBest

__all__ = [
    "QAT",
    "Benchmark",
    "L0Pruning",
    "LotteryTicket",
    "ModelFolder",
    "Pruning",
    "SelectBest",
    "WeightClustering",
]
