"""The points of the scatter plots, and what W&B is given."""

import pytest

from lit_compress.dashboard.charts import log_scatters, scatter_data
from tests.dashboard.test_workspace import GPU, TEACHER, row


def test_points_of_each_cost_that_two_rows_have():
    plots = scatter_data([TEACHER, row(bytes=500_000), row(quality=None, bytes=1)])
    assert list(plots) == ["latency", "size", "memory"]
    columns, points = plots["size"]
    assert columns == ["model", "runtime", "Size on disk, MB", "f1"]
    assert points == [
        ["teacher (3×384)", "torch-fp32", 1.0, 0.9],
        ["a (3×384)", "torch-fp32", pytest.approx(0.5), 0.9],
    ]


def test_vram_and_gpu_latency_where_there_was_a_gpu():
    both = scatter_data([row(gpu=GPU), {**TEACHER, "gpu": GPU}])
    assert {"gpu_latency", "gpu_memory"} < both.keys()
    assert "gpu_memory" not in scatter_data([row(gpu=GPU), TEACHER])


def test_one_chart_per_plot_is_logged_and_none_for_a_single_row():
    class Logger:
        calls = []

        def log_metrics(self, metrics, step):
            self.calls.append((metrics, step))

    log_scatters(Logger(), [row()], 3)
    assert Logger.calls == []
    log_scatters(Logger(), [TEACHER, row()], 3)
    ((charts, step),) = Logger.calls
    assert step == 3
    assert list(charts) == [f"benchmark/quality_by_{name}" for name in ("latency", "size", "memory")]
    table = charts["benchmark/quality_by_size"].table
    assert table.columns == ["model", "runtime", "Size on disk, MB", "f1"]
    assert [line[2] for line in table.data] == [1.0, 1.0]
