"""What the page says of a choice is found from the figures, not from what the search says."""

import pytest

from lit_compress.auto.goal import Goal


@pytest.fixture
def script():
    import run_auto

    return run_auto


def route(milliseconds, size, accuracy, spread=0.01):
    ratio = milliseconds / 10
    low, high = ratio * (1 - spread), ratio * (1 + spread)
    row = {
        "is_baseline": milliseconds == 10,
        "bytes": size,
        "cpu": {"latency_ms": {"p50": milliseconds, "p50_spread": [1, 2]}, "rss_mb": 100.0},
        "ratio": {"cpu_latency": {"median": ratio, "low": low, "high": high}},
    }
    return {"bytes": size, "quality": {"value": accuracy, "n": 9}, "failure": None, "row": row}


ROUTES = {
    "torch-fp32": route(10, 40e6, 0.90),
    "onnx-int8": route(3, 10e6, 0.89),
    "onnx-fp32": route(6, 40e6, 0.90),
    "litert-int8": route(2, 11e6, 0.80),
    "gone": {**route(1, 1e6, 0.9), "row": None},
}


@pytest.mark.parametrize(
    ("goal", "chosen", "words"),
    [
        (Goal(0.98), "onnx-int8", "yes"),
        (Goal(0.98), "onnx-fp32", "better is onnx-int8"),
        (Goal(0.98), "litert-int8", "does not fulfil"),
        (Goal(0.98, max_size_mb=5), None, "yes"),
        (Goal(0.98, max_size_mb=20), None, "onnx-int8 fulfil"),
        (Goal(0.8, "size"), "onnx-int8", "yes"),
        (Goal(0.8), "onnx-int8", "better is litert-int8"),
    ],
)
def test_verdict(script, goal, chosen, words):
    assert words in script.verdict(goal, ROUTES, chosen)


def test_noise_decides_nothing(script):
    near = {**ROUTES, "openvino-int8": route(2.98, 10e6, 0.90)}
    assert script.verdict(Goal(0.98), near, "onnx-int8") == "yes"


def test_the_table_says_what_was_not_measured(script):
    lines = script.table(ROUTES).splitlines()
    assert len(lines) == 2 + len(ROUTES)
    assert lines[-1].endswith("| dropped before it was measured |") and "| – | – | – |" in lines[-1]
    assert "3.33× (3.30–3.37)" in lines[3]


def test_chosen_is_read_from_the_last_paragraph(script):
    first = script.Answer(0, "onnx-int8 is the fastest of 2 of 5 routes that fulfil --quality 0.98: …")
    assert script.chosen_by(first, ROUTES) == "onnx-int8"
    own = script.Answer(0, "The original, torch-fp32, is the smallest of 1 of 5 routes that fulfil …")
    assert script.chosen_by(own, ROUTES) == "torch-fp32"
    assert script.chosen_by(script.Answer(1, "none of 5 routes fulfils"), ROUTES) is None
