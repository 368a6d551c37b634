"""What the tables of the experiments share: figures of a finished run, and how figures are written."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

Ratio = dict[str, Any]


def times_faster(latency: Ratio) -> str:
    """Write a ratio of latencies, the smaller the better, as a speed-up."""
    return f"{1 / latency['median']:.2f}× ({1 / latency['high']:.2f}–{1 / latency['low']:.2f})"


def times(throughput: Ratio) -> str:
    """Write a ratio of throughputs, the larger the better."""
    return f"{throughput['median']:.2f}× ({throughput['low']:.2f}–{throughput['high']:.2f})"


def spread(values: list[float]) -> str:
    """Mean and standard deviation in percent; one value stands alone."""
    mean = f"{100 * statistics.fmean(values):.1f}"
    return f"{mean} ± {100 * statistics.stdev(values):.1f}" if len(values) > 1 else mean


def quality_of(run: Path) -> dict[str, Any]:
    """Return accuracy on ``dev`` and ``test``, and the model folder, of a finished run."""
    model, untrained = run / "model", run / "val_metrics.json"
    facts = json.loads((untrained if untrained.is_file() else model / "lit_compress.json").read_text())
    return {
        "dev": facts.get("metrics", facts)["val/accuracy"],
        "test": json.loads((run / "test_metrics.json").read_text())["test/accuracy"],
        "folder": model,
    }
