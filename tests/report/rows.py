"""Rows of results, as the benchmark writes them."""

import json

LATENCY = {
    "p50": 4.0,
    "p90": 6.0,
    "p99": 9.0,
    "p50_spread": [3.9, 4.2],
    "p90_spread": [5.8, 6.2],
    "wall_p50": 4.4,
}
THROUGHPUT = {
    "8": {"texts_per_second": 180.0, "spread": [170.0, 190.0]},
    "32": {"texts_per_second": 200.0, "spread": [190.0, 210.0]},
}
CPU = {
    "latency_ms": LATENCY,
    "throughput": THROUGHPUT,
    "fixed": {
        "32": {"latency_ms": {"p50": 3.0, "p50_spread": [2.9, 3.1]}, "throughput": THROUGHPUT},
        "128": {"latency_ms": {"p50": 9.0, "p50_spread": [8.9, 9.3]}, "throughput": {}},
    },
    "rss_mb": 150.0,
    "rss_growth_mb": 3.0,
    "energy_j_per_text": None,
    "rounds": 10,
    "warmup_rounds": 2,
}
GPU = {
    **{key: value for key, value in CPU.items() if not key.startswith("rss")},
    "latency_ms": LATENCY | {"p50": 1.5, "p90": 2.0, "p50_spread": [1.4, 1.6], "p90_spread": [1.9, 2.1]},
    "vram_mb": 321.0,
    "vram_reserved_mb": 400.0,
}
ROW = {
    "schema": 2,
    "time": "2026-11-20T10:00:00+00:00",
    "run": "runs/student",
    "recipe": "distil/soft_targets",
    "model": "student",
    "method": "soft targets",
    "seed": 0,
    "role": "student",
    "is_baseline": False,
    "checkpoint": "best.ckpt",
    "weights": "aaaa",
    "runtime": "torch-fp32",
    "shape": {"family": "bert", "layers": 3, "hidden": 384, "vocab": 30522},
    "params": 17_000_000,
    "nonzero_params": 17_000_000,
    "macs": {"length": 128, "count": 1_400_000_000},
    "bytes": 70_000_000,
    "cpu": CPU,
    "gpu": None,
    "quality": {
        "metric": "accuracy",
        "split": "validation",
        "value": 0.86,
        "n": 872,
        "higher_is_better": True,
    },
    "ratio": {
        "cpu_latency": {"median": 0.5, "low": 0.4, "high": 0.8, "verdict": "faster"},
        "cpu_throughput_8": {"median": 1.9, "low": 1.8, "high": 2.0, "verdict": "faster"},
        "cpu_throughput_32": {"median": 2.0, "low": 1.9, "high": 2.1, "verdict": "faster"},
        "cpu_latency_128": {"median": 0.55, "low": 0.5, "high": 0.6, "verdict": "faster"},
        "cpu_memory": 0.8,
        "size": 0.75,
        "params": 0.7,
        "quality": 0.98,
    },
    "warnings": [],
    "seconds": 12.5,
    "session": "s1",
    "environment": {
        "cpu": "Fast CPU",
        "cpu_flags": ["avx2", "avx512f"],
        "governor": "performance",
        "cores": 2,
        "memory_gb": 16.0,
        "gpu": None,
        "os": "Linux 6.1",
        "python": "3.11.7",
        "torch": "2.13.0",
        "transformers": "5.23.0",
        "onnxruntime": "1.27.0",
        "lit_compress": "0.2.0",
        "load_before": 0.1,
        "load_after": 0.3,
    },
    "protocol": {
        "lengths": [5, 9],
        "batches": [8, 32],
        "fixed_lengths": [32, 128],
        "fixed_batches": [],
        "threads": 1,
        "clock": "cpu time",
        "rounds": 10,
        "warmup": 2,
        "max_seconds": 30.0,
        "seed": 0,
        "data": "validation texts of sst2",
    },
}


def _copy(value):
    """Return a copy without parts that are shared, as it comes out of a file."""
    return json.loads(json.dumps(value))


def make_row(**changes):
    """Return a row; ``cpu__latency_ms__p50=1`` sets a nested value."""
    row = _copy(ROW)
    for path, value in changes.items():
        *parents, last = path.split("__")
        place = row
        for parent in parents:
            place = place[parent]
        place[last] = _copy(value)
    return row


def make_teacher(**changes):
    """Return the baseline's row of the same session."""
    teacher = {"model": "teacher", "role": "teacher", "is_baseline": True, "method": "fine-tuning"}
    teacher |= {"weights": "tttt", "ratio": {}, "shape__layers": 6, "checkpoint": None}
    teacher |= {"bytes": 91_000_000, "cpu__latency_ms__p50": 8.0, "quality__value": 0.88}
    teacher["cpu__latency_ms__p50_spread"] = [7.8, 8.4]
    return make_row(**(teacher | changes))


def ratio_of(median, low=None, high=None):
    """Return a ratio of latencies with its verdict."""
    low, high = (low or median * 0.97), (high or median * 1.03)
    verdict = "faster" if high < 1 else "slower" if low > 1 else "no difference"
    return {"median": median, "low": low, "high": high, "verdict": verdict}


def make_failed(**changes):
    """Return the row of a model that could not be measured."""
    figures = {"cpu": None, "params": None, "nonzero_params": None, "macs": None, "bytes": None}
    return make_row(**(figures | {"ratio": {}, "error": "cpu: it died", "model": "broken"} | changes))
