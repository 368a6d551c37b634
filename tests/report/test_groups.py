import pytest

from lit_compress.report.groups import differences, group_rows
from tests.report.rows import make_failed, make_row, make_teacher


@pytest.mark.parametrize(
    "other",
    [
        {"environment__cpu": "Slow CPU"},
        {"environment__cores": 64},
        {"environment__torch": "2.14.0"},
        {"environment__gpu": "H100"},
        {"environment__cpu_flags": ["avx2"]},
        {"environment__onnxruntime": "1.28.0"},
        {"protocol__clock": "wall time"},
        {"protocol__batches": [4]},
        {"protocol__data": "other texts"},
        {"protocol__lengths": [500, 900]},
        {"quality__split": "test"},
        {"quality__metric": "f1"},
        {"quality__n": 40},
    ],
)
def test_rows_measured_differently_never_meet(other):
    rows = [make_row(model="a"), make_row(model="b"), make_row(model="c", **other)]
    groups = group_rows(rows)
    assert [[row["model"] for row in group.rows] for group in groups] == [["a", "b"], ["c"]]
    (name,) = other
    assert differences(groups) == [name.split("__")[-1] if "quality" not in name else f"quality {name[9:]}"]


def test_teacher_first_then_by_quality():
    rows = [make_row(model="a", quality__value=0.7), make_row(model="b", quality__value=0.8), make_teacher()]
    (group,) = group_rows(rows)
    assert [row["model"] for row in group.rows] == ["teacher", "b", "a"]


def test_errors_are_better_when_lower():
    quality = {"quality__metric": "mse", "quality__higher_is_better": False}
    rows = [
        make_row(model="a", quality__value=0.7, **quality),
        make_row(model="b", quality__value=0.2, **quality),
    ]
    assert [row["model"] for row in group_rows(rows)[0].rows] == ["b", "a"]


def test_latest_row_of_a_model_counts():
    rows = [make_row(time="2026-02", quality__value=0.9), make_row(time="2026-01", quality__value=0.1)]
    (group,) = group_rows(rows)
    assert [row["quality"]["value"] for row in group.rows] == [0.9]


def test_times_of_two_sessions_come_onto_the_scale_of_their_baseline():
    # The machine was half as fast in the second session: both models took twice as long.
    rows = [
        make_teacher(session="s1", time="1", cpu__latency_ms__p50=8.0),
        make_row(session="s1", time="1", run="runs/a", model="a", cpu__latency_ms__p50=4.0),
        make_teacher(session="s2", time="2", cpu__latency_ms__p50=16.0),
        make_row(session="s2", time="2", run="runs/b", model="b", cpu__latency_ms__p50=8.0),
    ]
    (group,) = group_rows(rows)
    figures = {row["model"]: row["cpu"] for row in group.rows}
    assert {name: cpu["latency_ms"]["p50"] for name, cpu in figures.items()} == {
        "teacher": 12.0,
        "a": 6.0,
        "b": 6.0,
    }
    assert figures["a"]["latency_ms"]["p50_spread"] == pytest.approx([3.9 * 1.5, 4.2 * 1.5])
    assert figures["a"]["throughput"]["32"]["texts_per_second"] == pytest.approx(200 / 1.5)
    assert figures["b"]["throughput"]["32"]["texts_per_second"] == pytest.approx(200 / 0.75)
    assert figures["a"]["fixed"]["128"]["latency_ms"] == {
        "p50": 13.5,
        "p50_spread": pytest.approx([13.35, 13.95]),
    }
    assert "times of 2 sessions put on the baseline's scale" in group.title
    assert rows[1]["cpu"]["latency_ms"]["p50"] == 4.0


def test_single_session_keeps_its_times():
    (group,) = group_rows([make_teacher(), make_row()])
    assert [row["cpu"]["latency_ms"]["p50"] for row in group.rows] == [8.0, 4.0]
    assert "sessions" not in group.title


def test_teachers_own_run_is_the_same_model_as_the_baseline():
    own = make_row(model="my teacher run", weights="tttt", ratio={}, session="s0", quality__value=0.88)
    (group,) = group_rows([own, make_teacher(), make_row()])
    assert [row["model"] for row in group.rows] == ["teacher", "student"]


def test_copy_of_the_teacher_that_was_compared_with_it_stays():
    (group,) = group_rows([make_teacher(), make_row(model="twin", weights="tttt")])
    assert [row["model"] for row in group.rows] == ["teacher", "twin"]


def test_failed_rows_stay_in_the_table_of_their_session():
    other = [make_teacher(session="s2", quality__n=40), make_row(session="s2", quality__n=40)]
    groups = group_rows([make_teacher(), make_row(), make_failed(quality=None), *other])
    assert [row["model"] for row in groups[0].rows] == ["teacher", "student", "broken"]


def test_runtimes_and_threads_of_a_model_stand_side_by_side():
    rows = [
        make_row(runtime="onnx-int8", quality__value=0.80),
        make_row(model="other", runtime="onnx-int8", quality__value=0.85),
        make_row(protocol__threads=2),
        make_row(),
        make_teacher(runtime="onnx-int8", is_baseline=False, ratio__size=0.5),
        make_teacher(),
    ]
    (group,) = group_rows(rows)
    assert [(row["model"], row["runtime"], row["protocol"]["threads"]) for row in group.rows] == [
        ("teacher", "torch-fp32", 1),
        ("teacher", "onnx-int8", 1),
        ("student", "torch-fp32", 1),
        ("student", "torch-fp32", 2),
        ("student", "onnx-int8", 1),
        ("other", "onnx-int8", 1),
    ]


def test_one_factor_for_all_rows_of_a_session():
    rows = [
        make_teacher(session="s1", time="1", cpu__latency_ms__p50=8.0),
        make_teacher(session="s2", time="2", cpu__latency_ms__p50=16.0),
        make_row(session="s2", time="2", runtime="onnx-int8", cpu__latency_ms__p50=3.0),
        make_row(session="s2", time="2", protocol__threads=2, cpu__latency_ms__p50=5.0),
    ]
    (group,) = group_rows(rows)
    assert [row["cpu"]["latency_ms"]["p50"] for row in group.rows] == [12.0, 3.75, 2.25]


def test_title_names_runtime_and_threads_only_where_all_rows_share_them():
    assert "torch-fp32, 1 thread, cpu time" in group_rows([make_row()])[0].title
    mixed = group_rows([make_row(), make_row(runtime="onnx-int8", protocol__threads=2)])[0].title
    assert "1 and 2 threads, cpu time" in mixed and "onnxruntime 1.27.0" in mixed and "fp32" not in mixed
