import pytest

from lit_compress.benchmark.metrics import checkpoint_metrics, log_rows
from tests.report.rows import make_row, make_teacher


def test_metrics_of_a_row():
    metrics = checkpoint_metrics([make_teacher(), make_row()], "best.ckpt")
    assert metrics["benchmark/cpu/latency_ms"] == 4.0
    assert metrics["benchmark/cpu/throughput_32"] == 200.0
    assert metrics["benchmark/cpu/peak_mb"] == 150.0
    assert metrics["benchmark/cpu/speedup"] == 2.0
    assert metrics["benchmark/size_mb"] == pytest.approx(70.0)
    assert metrics["benchmark/params"] == 17_000_000
    assert not [name for name in metrics if "gpu" in name]


def test_other_runtimes_and_thread_counts_have_keys_of_their_own():
    rows = [
        make_teacher(),
        make_row(),
        make_row(runtime="onnx-int8", cpu__latency_ms__p50=1.0),
        make_row(protocol__threads=2, cpu__latency_ms__p50=3.0),
        make_row(runtime="onnx-int8", protocol__threads=2, cpu__latency_ms__p50=0.5),
        make_row(checkpoint="other.ckpt", cpu__latency_ms__p50=9.0),
    ]
    latencies = {
        name: value
        for name, value in checkpoint_metrics(rows, "best.ckpt").items()
        if name.endswith("latency_ms")
    }
    assert latencies == {
        "benchmark/cpu/latency_ms": 4.0,
        "benchmark/onnx-int8/cpu/latency_ms": 1.0,
        "benchmark/2-threads/cpu/latency_ms": 3.0,
        "benchmark/onnx-int8/2-threads/cpu/latency_ms": 0.5,
    }


class Logger:
    def __init__(self):
        self.metrics, self.tables = {}, {}

    def log_metrics(self, metrics, step):
        self.metrics |= {name: (value, step) for name, value in metrics.items()}


class TableLogger(Logger):
    def log_table(self, key, columns, data):
        self.tables[key] = [dict(zip(columns, row, strict=True)) for row in data]


def test_every_logger_gets_figures_and_some_the_table():
    plain, rich = Logger(), TableLogger()
    log_rows([plain, rich], [make_teacher(), make_row()], step=70, seconds=12.5)
    assert plain.metrics == rich.metrics
    assert plain.metrics["benchmark/cpu/latency_ms"] == (4.0, 70)
    assert plain.metrics["benchmark/seconds"] == (12.5, 70)
    teacher, student = rich.tables["benchmark/table"]
    assert (teacher["cpu_ms"], student["cpu_ms"], student["gpu_ms"]) == (8.0, 4.0, None)
