"""What came of a wish: by the weights of the models, the last row of each, and never another model's."""

import pytest

from lit_compress.compress.outcome import judge, show
from lit_compress.compress.wish import Wish

SMALL, ORIGINAL = "small weights", "original weights"


def row(weights, runtime, quality, ratio=None, kept=None, size=2_000_000, model="student", error=None):
    """One row; every model is called ``student``, as a folder of this library is."""
    ratios = (
        {} if ratio is None else {"cpu_latency": {"median": ratio, "low": 0.9 * ratio, "high": 1.1 * ratio}}
    )
    return {
        "model": model,
        "weights": weights,
        "runtime": runtime,
        "is_baseline": ratio is None,
        "bytes": size,
        "cpu": {"latency_ms": {"p50": 10.0 * (ratio or 1.0)}},
        "quality": {"value": quality, "metric": "accuracy"},
        "ratio": {**ratios, **({} if kept is None else {"quality": kept})},
        **({} if error is None else {"error": error}),
    }


ROWS = [
    row(ORIGINAL, "torch-fp32", 0.90),
    row(ORIGINAL, "onnx-int8", 0.89, 0.25, kept=0.989, size=9_000_000),
    row(SMALL, "torch-fp32", 0.82, 0.50, kept=0.911),
    row(SMALL, "onnx-int8", 0.81, 0.05, kept=0.900),
    row(SMALL, "openvino-int8", 0.80, 0.10, kept=0.889),
]


def test_a_model_of_the_original_s_name_is_not_taken_for_it():
    outcome = judge(Wish(0.99, speedup=4), ROWS, SMALL, ORIGINAL, 500_000)
    assert not outcome.is_met and outcome.row is ROWS[3] and outcome.bytes == 2_500_000
    told = outcome.to_dict()
    assert told["quality_kept"] == 0.9 and told["met"] is False and told["speedup"] == pytest.approx(20)
    assert outcome.same_runtime == pytest.approx((5.0, 5.0 * 0.9 / 1.1, 5.0 * 1.1 / 0.9))
    assert outcome.steps == [
        ("the original", 0.90),
        ("the original in onnx-int8", 0.89),
        ("the small model, rounded, in PyTorch", 0.82),
        ("the small model in onnx-int8", 0.81),
    ]


def test_the_runtime_that_comes_nearest_is_chosen_and_the_fastest_of_those_that_fulfil_all():
    # OpenVINO misses the speed; ONNX Runtime misses nothing.
    assert judge(Wish(0.85, speedup=15), ROWS, SMALL, ORIGINAL, 0).row["runtime"] == "onnx-int8"
    both = judge(Wish(0.85, speedup=5), ROWS, SMALL, ORIGINAL, 0)
    assert both.is_met and both.row["runtime"] == "onnx-int8"
    wide = [*ROWS[:4], row(SMALL, "openvino-int8", 0.90, 0.10, kept=1.0)]
    # A tenth too slow is nearer than a ninth of the quality too few.
    assert judge(Wish(1.0, speedup=10.5), wide, SMALL, ORIGINAL, 0).row["runtime"] == "openvino-int8"


def test_of_two_rows_of_one_model_the_last_one_counts():
    slower = row(SMALL, "onnx-int8", 0.81, 0.08, kept=0.900)
    assert judge(Wish(0.85, speedup=5), [*ROWS, slower], SMALL, ORIGINAL, 0).row is slower


def test_a_miss_is_told_with_its_share(capsys):
    outcome = judge(Wish(0.99, speedup=40, size_mb=5), ROWS, SMALL, ORIGINAL, 0)
    assert [one.what for one in outcome.achieved if not one.is_met] == ["quality", "speed-up"]
    show(outcome, "accuracy")
    said = capsys.readouterr().out
    assert "missed by 50.0 %" in said and "missed by 9.1 %" in said and "met" in said
    assert "Against the original in the same runtime: 5.00× as fast" in said
    assert "accuracy of the original in onnx-int8: 0.8900  (-0.0100)" in said


def test_a_model_that_ran_nowhere_is_refused_with_the_reasons():
    rows = [ROWS[0], row(SMALL, "onnx-int8", None, 0.05, error="an operator is missing")]
    with pytest.raises(ValueError, match="in a runtime of integers but onnx-int8: an operator is missing"):
        judge(Wish(0.9, speedup=2), rows, SMALL, ORIGINAL, 0)
    with pytest.raises(ValueError, match="there is no row"):
        judge(Wish(0.9, speedup=2), ROWS[:2], SMALL, ORIGINAL, 0)
