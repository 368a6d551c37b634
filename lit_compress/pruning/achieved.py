"""The speed-up that a shrunk model has, measured beside the one that was asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from lit_compress.benchmark.devices import open_device
from lit_compress.benchmark.intervals import Ratio
from lit_compress.pruning.latency_measure import plain_copy
from lit_compress.pruning.latency_runtime import forward_pass
from lit_compress.pruning.sample_inputs import make_inputs
from lit_compress.pruning.target import Target
from lit_compress.pruning.timing import quiet, time_in_turns

_SECONDS = 10.0


def achieved_speedup(full: nn.Module, small: PreTrainedModel, target: Target) -> dict[str, Any]:
    """Measure how many times faster a shrunk model is than the full one, at the batch and length of a target.

    Both take turns in this process, with one thread in processor time, as in the latency table.

    Args:
        full: The model before it was shrunk, with or without gates; not changed.
        small: The shrunk model; not changed.
        target: A target of speed-up.

    Returns:
        ``asked``; ``achieved``, the median ratio of a round; ``low`` and ``high``, its 95 % interval; ``device``,
        ``batch``, ``length`` and ``runtime``.
    """
    device = torch.device(target.device)
    models: dict[str, Any] = {"full": plain_copy(full), "small": plain_copy(small)}
    calls = {}
    for name, model in models.items():
        model.to(device)
        inputs = make_inputs(model, target.batch, target.length)
        calls[name] = forward_pass(model, inputs, target.runtime, threads=1)
    with quiet(1):
        clock = open_device(target.device, 1)
        times = time_in_turns(
            calls, lambda call: clock.time(call).seconds, "Measuring the speed-up", _SECONDS
        )
    rounds = np.array(times["full"]) / np.array(times["small"])
    found = Ratio.of(rounds, less_is_faster=False, seed=0)
    return {
        "asked": target.speedup,
        "achieved": round(found.median, 3),
        "low": round(found.low, 3),
        "high": round(found.high, 3),
        "device": target.device,
        "batch": target.batch,
        "length": target.length,
        "runtime": target.runtime,
    }
