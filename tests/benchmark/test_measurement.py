import numpy as np
import pytest

from lit_compress.benchmark.measure import measure
from lit_compress.benchmark.measurement import Spread, figures_of, ratios_of
from lit_compress.benchmark.protocol import Candidate, Protocol
from lit_compress.benchmark.session import Series


def series(latency, throughput, peak=100, error=None):
    return Series(
        Candidate("m", "f"),
        latency=latency,
        wall_latency=latency,
        throughput=throughput,
        peak_bytes=peak,
        error=error,
    )


def test_figures_by_hand():
    figures = figures_of(series([[0.001, 0.002, 0.009], [0.003, 0.004, 0.005]], [0.5, 0.25], peak=3_000_000))
    # Medians of the rounds are 2 and 4 ms; 3 texts in 0.5 s and in 0.25 s are 6 and 12 per second.
    assert figures.p50_ms == Spread(pytest.approx(3.0), pytest.approx(2.2), pytest.approx(3.8))
    assert figures.texts_per_second.median == pytest.approx(9.0)
    assert (figures.peak_mb, figures.batch, figures.rounds) == (3.0, 3, 2)


def test_ratios_pair_the_same_text_of_the_same_round():
    baseline = series([[0.010, 0.020, 0.030], [0.020, 0.040, 0.060]], [1.0, 2.0], peak=200)
    # Half, a quarter and the whole of the baseline's times: the median text takes half.
    student = series([[0.005, 0.005, 0.030], [0.010, 0.010, 0.060]], [0.5, 0.5], peak=100)
    ratios = ratios_of(student, baseline, "cpu")
    assert ratios["cpu_latency"] == Spread(0.5, 0.5, 0.5)
    assert ratios["cpu_throughput"].median == pytest.approx(3.0)
    assert ratios["cpu_memory"] == 0.5


def test_drift_that_hits_both_cancels():
    rng = np.random.default_rng(0)
    base = rng.uniform(0.01, 0.03, (10, 8))
    drift = np.linspace(1, 3, 10)[:, None]
    slow, fast = (base * drift).tolist(), (base * drift / 2.5).tolist()
    ratio = ratios_of(series(fast, [1.0] * 10), series(slow, [2.0] * 10), "cpu")["cpu_latency"]
    assert (ratio.median, ratio.p10, ratio.p90) == pytest.approx((0.4, 0.4, 0.4))


def test_failed_models_have_no_figures_and_no_ratios():
    good, bad = series([[0.1]], [0.1]), series([[0.1]], [], error="it died")
    assert figures_of(bad) is None
    assert ratios_of(good, bad, "cpu") == ratios_of(bad, good, "cpu") == {}


def test_injected_slow_down_is_found(fake_workers, fake_folder):
    teacher = Candidate("teacher", fake_folder("teacher", size=3000, seconds=2e-3, params=30))
    student = Candidate("student", fake_folder("student", size=1500, seconds=1e-3, params=10))
    first, second = measure([student], teacher, Protocol((3, 5), rounds=5))
    assert first.is_baseline and not second.is_baseline
    assert second.ratios["cpu_latency"].median == pytest.approx(0.5)
    assert second.ratios["cpu_throughput"].median == pytest.approx(2.0)
    assert second.ratios["size"] == 0.5
    assert second.ratios["params"] == pytest.approx(1 / 3)
    assert (first.bytes, second.bytes) == (3000, 1500)
    assert first.ratios == {} and first.gpu is None
    assert first.weights != second.weights


def test_row_of_a_failed_model_says_why_and_others_are_measured(fake_workers, fake_folder):
    teacher = Candidate("teacher", fake_folder("teacher"))
    broken = Candidate("broken", fake_folder("broken", do="load", then="crash"))
    student = Candidate("student", fake_folder("student"))
    _, bad, good = measure([broken, student], teacher, Protocol((3,), rounds=3))
    assert "cpu: the worker ended with exit status 1 during 'load'" in bad.error
    assert bad.cpu is None and bad.params is None and "cpu_latency" not in bad.ratios
    assert good.error is None and good.ratios["cpu_latency"].median == pytest.approx(1)


def test_failed_baseline_leaves_figures_without_ratios(fake_workers, fake_folder):
    teacher = Candidate("teacher", "/nowhere/teacher")
    bad, good = measure([Candidate("student", fake_folder("student"))], teacher, Protocol((3,), rounds=3))
    assert bad.error and bad.bytes is None
    assert good.cpu is not None and good.ratios == {}


def test_gpu_figures_come_from_workers_of_their_own(fake_workers, fake_folder, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    teacher = Candidate("teacher", fake_folder("teacher", seconds=2e-3, peak_bytes=8_000_000))
    student = Candidate("student", fake_folder("student", seconds=1e-3, peak_bytes=2_000_000))
    _, measured = measure([student], teacher, Protocol((3,), rounds=3))
    assert measured.environment["gpu"] == "Fake GPU"
    assert measured.gpu.peak_mb == 2.0
    assert measured.ratios["gpu_latency"].median == pytest.approx(0.5)
    assert measured.ratios["gpu_memory"] == 0.25
