import numpy as np
import pytest

from lit_compress.benchmark import measure as module
from lit_compress.benchmark.artefacts import PrepareError
from lit_compress.benchmark.intervals import Spread
from lit_compress.benchmark.measure import measure
from lit_compress.benchmark.measurement import figures_of, ratios_of
from lit_compress.benchmark.protocol import Candidate, Protocol
from lit_compress.benchmark.series import Series

from .conftest import fake_prepare

PROTOCOL = Protocol((3, 5), batches=(4,), fixed_lengths=(), rounds=5, min_rounds=1)


def series(latency, throughput, peak=100, error=None, **figures):
    times = {"latency": latency, "throughput 4": [[seconds] for seconds in throughput]}
    memory = [10_000_000, 60_000_000]
    return Series(
        Candidate("m", "f"),
        times=times,
        wall_times=times,
        **{"joules": [None] * len(latency), "memory": memory, "peak_bytes": peak, "error": error, **figures},
    )


def test_figures_by_hand():
    raw = series([[0.001, 0.002, 0.009], [0.003, 0.004, 0.005]], [0.5, 0.25], peak=3_000_000)
    figures = figures_of(raw, PROTOCOL)
    # Medians of the rounds are 2 and 4 ms; 4 texts in 0.5 s and in 0.25 s are 8 and 16 per second.
    assert figures.p50_ms == Spread(pytest.approx(3.0), pytest.approx(2.2), pytest.approx(3.8))
    assert figures.throughput[4].median == pytest.approx(12.0)
    # The 99th percentile lies 0.98 of the way from the second to the third of three texts.
    assert figures.p99_ms.p90 == pytest.approx(4.98 + 0.9 * (8.86 - 4.98))
    assert (figures.peak_mb, figures.growth_mb, figures.rounds) == (3.0, 50.0, 2)
    assert figures.energy_j_per_text is None and figures.reserved_mb is None


def test_fixed_lengths_and_energy_by_hand():
    raw = series([[0.001, 0.003]] * 3, [1.0] * 3, joules=[4.0, 6.0, 8.0], reserved_bytes=5_000_000)
    raw.times |= {"latency 64": [[0.010], [0.012], [0.014]], "throughput 2x64": [[0.04], [0.05], [0.08]]}
    protocol = Protocol((3, 5), batches=(4,), fixed_lengths=(64, 512), fixed_batches=(2,))
    figures = figures_of(raw, protocol)
    assert set(figures.fixed) == {64}
    assert figures.fixed[64].p50_ms.median == pytest.approx(12)
    assert figures.fixed[64].throughput[2].median == pytest.approx(40)
    assert figures.energy_j_per_text == 3.0
    assert figures.reserved_mb == 5.0


def test_ratios_pair_the_same_text_of_the_same_round():
    baseline = series([[0.010, 0.020, 0.030], [0.020, 0.040, 0.060]], [1.0, 2.0], peak=200)
    # Half, a quarter and the whole of the baseline's times: the median text takes half.
    student = series([[0.005, 0.005, 0.030], [0.010, 0.010, 0.060]], [0.5, 1.0], peak=100)
    ratios = ratios_of(student, baseline, "cpu", PROTOCOL)
    assert set(ratios) == {"cpu_latency", "cpu_throughput_4", "cpu_memory"}
    assert ratios["cpu_latency"].median == pytest.approx(0.5)
    assert ratios["cpu_throughput_4"].median == pytest.approx(2.0)
    assert ratios["cpu_latency"].verdict == ratios["cpu_throughput_4"].verdict == "faster"
    assert ratios["cpu_memory"] == 0.5


def test_drift_that_hits_both_cancels():
    rng = np.random.default_rng(0)
    base = rng.uniform(0.01, 0.03, (10, 8))
    drift = np.linspace(1, 3, 10)[:, None]
    slow, fast = (base * drift).tolist(), (base * drift / 2.5).tolist()
    ratio = ratios_of(series(fast, [1.0] * 10), series(slow, [2.0] * 10), "cpu", PROTOCOL)["cpu_latency"]
    # Only what is added for the processes is left of the interval.
    assert (ratio.low, ratio.median, ratio.high) == pytest.approx((0.4 / 1.03, 0.4, 0.4 * 1.03))


def test_failed_models_have_no_figures_and_no_ratios():
    good, bad = series([[0.1]], [0.1]), series([[0.1]], [], error="it died")
    assert figures_of(bad, PROTOCOL) is None
    assert ratios_of(good, bad, "cpu", PROTOCOL) == ratios_of(bad, good, "cpu", PROTOCOL) == {}


# -- whole sessions with fake workers -----------------------------------------------------------------


def test_injected_slow_down_is_found(fake_workers, fake_folder):
    teacher = Candidate("teacher", fake_folder("teacher", size=3000, seconds=1e-3, params=30, noise=0.05))
    student = Candidate("student", fake_folder("student", size=1500, seconds=2e-3, params=10, noise=0.05))
    first, second = measure([student], teacher, Protocol((3, 5) * 16, rounds=6))
    assert first.is_baseline and not second.is_baseline
    slow = second.ratios["cpu_latency"]
    assert slow.median == pytest.approx(2, rel=0.1) and slow.verdict == "slower"
    assert second.ratios["cpu_throughput_32"].median == pytest.approx(0.5, rel=0.15)
    assert second.ratios["cpu_throughput_32"].verdict == "slower"
    assert second.ratios["cpu_latency_128"].median == pytest.approx(2, rel=0.15)
    assert second.ratios["size"] == 0.5
    assert second.ratios["params"] == pytest.approx(1 / 3)
    assert (first.artefact.bytes, second.artefact.bytes) == (3000, 1500)
    assert first.ratios == {} and first.gpu is None
    assert first.weights != second.weights


def test_model_beside_itself_makes_no_difference(fake_workers, fake_folder):
    folder = fake_folder("teacher", noise=0.05)
    base, same = measure([Candidate("again", folder)], Candidate("teacher", folder), Protocol((3, 5) * 16))
    verdicts = {ratio.verdict for ratio in same.ratios.values() if hasattr(ratio, "verdict")}
    assert verdicts == {"no difference"}
    assert base.is_teacher and same.is_teacher and not same.is_baseline


def test_model_in_two_runtimes(fake_workers, fake_folder):
    # The fake worker is twice as fast in bf16.
    folder = fake_folder("teacher")
    _, measured = measure(
        [Candidate("teacher", folder, runtime="torch-bf16")], Candidate("teacher", folder), PROTOCOL
    )
    assert measured.ratios["cpu_latency"].median == pytest.approx(0.5)
    assert measured.is_teacher and not measured.is_baseline


def test_row_of_a_failed_model_says_why_and_others_are_measured(fake_workers, fake_folder):
    teacher = Candidate("teacher", fake_folder("teacher"))
    broken = Candidate("broken", fake_folder("broken", do="latency", then="crash"))
    student = Candidate("student", fake_folder("student"))
    _, bad, good = measure([broken, student], teacher, PROTOCOL)
    assert "cpu: the worker ended with exit status 1 during 'latency'" in bad.error
    assert bad.cpu is None and "cpu_latency" not in bad.ratios
    assert good.error is None and good.ratios["cpu_latency"].median == pytest.approx(1)


def test_model_that_cannot_be_prepared_harms_nobody(fake_workers, fake_folder, monkeypatch):
    def prepare(source, runtime, timeout):
        if "broken" in source:
            raise PrepareError("the export failed")
        return fake_prepare(source, runtime, timeout)

    monkeypatch.setattr(module, "prepare", prepare)
    broken = Candidate("broken", fake_folder("broken"))
    student = Candidate("student", fake_folder("student"))
    _, bad, good = measure([broken, student], Candidate("teacher", fake_folder("teacher")), PROTOCOL)
    assert bad.error == "the export failed"
    assert bad.artefact is None and bad.weights is not None
    assert good.error is None and good.cpu is not None


def test_leak_is_told_and_figures_stay(fake_workers, fake_folder):
    leaking = Candidate("leaking", fake_folder("leaking", leak=15_000_000))
    steady = Candidate("steady", fake_folder("steady", peak=80_000_000))
    bad, good = measure([leaking, steady], None, PROTOCOL)
    assert bad.warnings == ["memory grew by 60 MB over 5 rounds and was still growing: a leak"]
    assert bad.cpu.growth_mb == 60.0 and bad.error is None
    assert good.warnings == [] and good.cpu.growth_mb == 0


def test_failed_baseline_leaves_figures_without_ratios(fake_workers, fake_folder):
    teacher = Candidate("teacher", "/nowhere/teacher")
    bad, good = measure([Candidate("student", fake_folder("student"))], teacher, PROTOCOL)
    assert "Expected the model folder '/nowhere/teacher'" in bad.error and bad.artefact is None
    assert good.cpu is not None and good.ratios == {}


def test_seconds_of_the_models_add_up_to_the_session(fake_workers, fake_folder, monkeypatch):
    class Clock:
        now = 0.0

        def monotonic(self):
            self.now += 1.0
            return self.now

    monkeypatch.setattr(module, "time", Clock())
    found = measure([Candidate(n, fake_folder(n)) for n in "abc"], None, PROTOCOL)
    # The clock is read before and after, and twice for each model's preparation.
    assert sum(one.seconds for one in found) == pytest.approx(1 + 2 * 3)
    assert min(one.seconds for one in found) > 0


def test_gpu_figures_come_from_workers_of_their_own(fake_workers, fake_folder, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    teacher = Candidate("teacher", fake_folder("teacher", seconds=2e-3, peak=8_000_000))
    student = Candidate("student", fake_folder("student", seconds=1e-3, peak=2_000_000))
    _, measured = measure([student], teacher, PROTOCOL)
    assert measured.environment["gpu"] == "Fake GPU"
    assert (measured.gpu.peak_mb, measured.gpu.reserved_mb) == (2.0, 4.0)
    assert measured.cpu.reserved_mb is None
    assert measured.ratios["gpu_latency"].median == pytest.approx(0.5)
    assert measured.ratios["gpu_memory"] == 0.25


def test_runtime_without_a_gpu_is_measured_on_the_cpu_alone(fake_workers, fake_folder, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    teacher = Candidate("teacher", fake_folder("teacher"))
    _, measured = measure([Candidate("student", fake_folder("s"), runtime="onnx-int8")], teacher, PROTOCOL)
    assert measured.error is None and measured.cpu is not None and measured.gpu is None
