"""The page about models trained with rounding: verdicts by hand; nothing is timed."""

import pytest

pytest.importorskip("onnxruntime")
TRAINED = "trained with rounding, onnx-int8"


@pytest.mark.parametrize(("milliseconds", "verdict"), [(7.9, "met"), (8.1, "missed")])
def test_the_best_runtime_is_judged_by_the_target(milliseconds, verdict):
    from bench_quantized import table

    times = {
        "eager PyTorch": [0.040] * 3,
        "original, onnx-int8": [0.001] * 3,
        TRAINED: [milliseconds / 1000] * 3,
    }
    times["trained with rounding, openvino-int8"] = [0.010] * 3
    text = table(times, dict.fromkeys(times, 2_300_000), dict.fromkeys(times, 0.875), 5.0)
    assert text.splitlines()[2].startswith("| eager PyTorch | 2.3 | 40.00 (40.00–40.00) | 1.00× ")
    assert f"5× for what was trained with rounding, in its best runtime: **{verdict}**, {TRAINED}." in text
    assert "87.5" in text and "Target" not in table(
        times, dict.fromkeys(times, 1), dict.fromkeys(times, 1.0), None
    )


def test_sizes_are_batches_times_lengths():
    from bench_files import sizes_of

    assert sizes_of("1x64,32x128") == [(1, 64), (32, 128)]
