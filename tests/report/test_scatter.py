import pytest

from lit_compress.report.groups import group_rows
from lit_compress.report.scatter import AXES, cost_interval, scatters
from tests.report.rows import GPU, make_row, make_teacher, ratio_of


def test_whiskers_are_the_ratios_interval_at_the_models_own_time():
    # 4 ms; the ratio's interval is 10 % below to 20 % above its median.
    row = make_row(ratio__cpu_latency=ratio_of(0.5, 0.45, 0.6))
    assert cost_interval(row, AXES[0]) == pytest.approx((3.6, 4.8))
    assert cost_interval(make_teacher(), AXES[0]) == (8.0, 8.0)
    assert cost_interval(row, AXES[1]) == (70.0, 70.0)


def test_whiskers_of_a_time_that_was_compared_with_nothing_are_its_rounds():
    assert cost_interval(make_row(ratio={}), AXES[0]) == (3.9, 4.2)


def test_plots_are_those_with_figures():
    (group,) = group_rows([make_teacher(), make_row()])
    assert [scatter.axis.name for scatter in scatters(group)] == ["latency", "size", "memory"]
    (group,) = group_rows([make_teacher(gpu=GPU), make_row(gpu=GPU)])
    assert [s.axis.name for s in scatters(group)][3:] == ["gpu_latency", "gpu_memory"]
    assert scatters(group_rows([make_row()])[0]) == []


def test_front_leaves_out_what_is_beaten():
    beaten = make_row(model="beaten", run="runs/b", quality__value=0.80, cpu__latency_ms__p50=6.0, bytes=80e6)
    (group,) = group_rows([make_teacher(), make_row(), beaten])
    for scatter in scatters(group)[:2]:
        assert [scatter.rows[i]["model"] for i in scatter.front] == ["student", "teacher"]


def test_errors_are_better_when_lower():
    low = {"quality__metric": "mse", "quality__higher_is_better": False}
    rows = [make_teacher(quality__value=0.2, **low), make_row(quality__value=0.1, **low)]
    scatter = scatters(group_rows(rows)[0])[0]
    assert [scatter.rows[i]["model"] for i in scatter.front] == ["student"]
