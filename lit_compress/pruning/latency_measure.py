"""Measuring a table of latencies: copies of the model with units cut out, timed in turns."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from rich.progress import track
from torch import nn
from transformers import PreTrainedModel

from lit_compress.benchmark.devices import open_device
from lit_compress.benchmark.protocol import BASELINE_RUNTIME
from lit_compress.benchmark.runtimes import runtime
from lit_compress.pruning.bake import bake
from lit_compress.pruning.gates import Gate
from lit_compress.pruning.latency_figures import Figures, figures_of
from lit_compress.pruning.latency_runtime import forward_pass
from lit_compress.pruning.latency_setting import Setting
from lit_compress.pruning.latency_sizes import Size, Sizes
from lit_compress.pruning.sample_inputs import make_inputs
from lit_compress.pruning.timing import quiet, time_in_turns
from lit_compress.quantization.unround import unround

# A pass that takes longer than this is not bound by reading weights, and copies need not have all blocks.
_LONG_PASS = 0.2


def measure_figures(model: PreTrainedModel, varied: bool, setting: Setting) -> Figures:
    """Measure a model part by part.

    Copies are cut as the shrink does it, exported where the runtime needs that, and run in turns, in another random
    order each round, and the median of the rounds counts; with one thread in processor time, as in the benchmark.

    Args:
        model: The model; not changed.
        varied: Whether to vary the hidden size too.
        setting: What to measure with.
    """
    base = plain_copy(model).to(torch.device(setting.device))  # type: ignore[arg-type]
    inputs = make_inputs(base, setting.batch, setting.length)
    name, threads = setting.runtime, setting.threads
    with quiet(threads):
        clock = open_device(setting.device, threads)
        run = forward_pass(base, inputs, name, threads)
        run()
        whole = Sizes(base, runtime(name).narrow_end)
        tried = whole.shallow() if clock.time(run).seconds > _LONG_PASS else whole
        calls: dict[Size | None, Callable[[], Any]] = {None: run}
        title, is_eager = f"Making models of every size for {name}", name == BASELINE_RUNTIME
        for size in track(
            tried.to_measure(varied, few=not is_eager), title, transient=True, disable=is_eager
        ):
            calls[size] = forward_pass(tried.cut(size), inputs, name, threads)
        times = time_in_turns(calls, lambda call: clock.time(call).seconds, "Measuring latencies")
    ms = {size: 1000.0 * float(np.median(values)) for size, values in times.items()}
    whole_ms = ms.pop(None)
    return figures_of(whole, whole_ms, tried, ms, varied)


def plain_copy(model: nn.Module) -> PreTrainedModel:
    """Return a copy in eval mode without gates, masks and rounding, at full size, with the fast attention kernel."""
    for module in model.modules():
        if isinstance(module, Gate):
            module.drawn = None  # of a forward pass that is over; its graph cannot be copied
    plain: Any = copy.deepcopy(model).eval()
    bake(unround(plain))
    try:
        plain.set_attn_implementation("sdpa")
    except (ValueError, ImportError):
        plain.set_attn_implementation("eager")
    return plain
