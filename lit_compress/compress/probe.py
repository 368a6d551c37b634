"""What the runtimes make of models of several sizes: measured before anything is trained."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from lit_compress.benchmark.measure import measure
from lit_compress.benchmark.protocol import Candidate, Protocol
from lit_compress.benchmark.results import to_row
from lit_compress.compress.shapes import Shapes
from lit_compress.compress.wish import speedup_of
from lit_compress.export.parity import only_timed
from lit_compress.models.architecture import block_list
from lit_compress.models.checkpoint import save_folder
from lit_compress.pruning.latency_runtime import to_integers
from lit_compress.pruning.sample_inputs import make_inputs

#: Speed-ups of the structure, by the table of latencies, at which models are tried.
GRID = (1.0, 2.0, 4.0, 8.0, 16.0)
# The last model that is tried is a little larger than the one that nothing is left of.
_NEARLY = 0.95


@dataclass(frozen=True)
class Probe:
    """One model in one runtime.

    Args:
        structural: How many times faster its structure is than that of all its blocks, by the table of latencies.
        runtime: Its runtime.
        speedup: How many times faster it is than the original in eager float32, as measured.
        low: Lower end of the 95 % interval of ``speedup``.
        high: Upper end.
        bytes: Size of the file that the runtime loads, at 8 bits.
        weights: Weights of all projections.
        blocks: Blocks of the model that was cut.
    """

    structural: float
    runtime: str
    speedup: float
    low: float
    high: float
    bytes: int
    weights: int
    blocks: int


@dataclass(frozen=True)
class Probes:
    """What was measured in one session.

    Args:
        original_ms: Milliseconds of the original in eager float32 for the median text.
        found: Every model in every runtime that could express it.
        failed: What went wrong, by runtime.
    """

    original_ms: float
    found: list[Probe]
    failed: dict[str, str]


def probe(
    original: Candidate,
    model: PreTrainedModel,
    tokenizer: Any,
    routes: Sequence[str],
    protocol: Protocol,
    tell: Callable[[str, float], None],
) -> Probes:
    """Cut the model to several sizes, round it to 8 bits, and measure it in runtimes beside the original.

    Args:
        original: What the wish refers to.
        model: What the fit begins with.
        tokenizer: Its tokenizer, to be shipped with it.
        routes: Runtimes that compute with integers.
        protocol: How to measure.
        tell: Told what is done, and which share of it.

    Raises:
        ValueError: No runtime could be measured; the message says why.
    """
    tell("measuring the parts of the model", 0.0)
    shapes = Shapes(model, protocol.lengths[len(protocol.lengths) // 2], protocol.threads)
    most = shapes.most
    sizes = [size for size in GRID if size < _NEARLY * most] + [_NEARLY * most]
    with tempfile.TemporaryDirectory(prefix="lit-compress-") as root:
        candidates: list[Candidate] = []
        structural: dict[str, tuple[float, int]] = {}
        for number, size in enumerate(sizes):
            tell(f"a model whose structure is {size:.3g} times faster", 0.1 * number / len(sizes))
            small = shapes.at(size)
            weights = sum(
                module.weight.numel() for module in small.modules() if isinstance(module, (nn.Linear, Conv1D))
            )
            to_integers(small, make_inputs(small, batch=4, length=16))
            folder = save_folder(Path(root) / f"{size:.3g}", small, tokenizer, {})
            for route in routes:
                candidate = Candidate(f"{size:.3g}", str(folder), "probe", route)
                candidates.append(candidate)
                structural[candidate.label] = size, weights
        with only_timed():
            measured = measure(
                candidates, original, protocol, progress=lambda text, done: tell(text, 0.1 + 0.9 * done)
            )
    rows = [to_row(one, "probe") for one in measured]
    failed = {row["runtime"]: str(row["error"]) for row in rows if row.get("error")}
    if rows[0].get("error") or len(failed) == len(set(routes)):
        raise ValueError(
            f"Expected models of several sizes to be measured in {', '.join(routes)} but none could be: "
            f"{rows[0].get('error') or next(iter(failed.values()))}"
        )
    found, depth = [], len(block_list(model))
    for candidate, row in zip(candidates, rows[1:], strict=True):
        if not row.get("error"):
            ratio = row["ratio"]["cpu_latency"]
            ends = 1 / ratio["high"], 1 / ratio["low"]
            size, weights = structural[candidate.label]
            found.append(Probe(size, candidate.runtime, speedup_of(row), *ends, row["bytes"], weights, depth))
    return Probes(rows[0]["cpu"]["latency_ms"]["p50"], found, failed)
