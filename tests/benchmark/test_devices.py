import time

import pytest
import torch

from lit_compress.benchmark.devices import CpuDevice, CudaDevice, open_device
from lit_compress.benchmark.energy import EnergyMeter


def busy(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def test_one_thread_counts_work_and_not_waiting():
    duration = CpuDevice(threads=1).time(lambda: (busy(0.05), time.sleep(0.2)))
    assert 0.05 <= duration.seconds < 0.15
    assert duration.wall_seconds >= 0.25


def test_several_threads_count_wall_time():
    duration = CpuDevice(threads=2).time(lambda: time.sleep(0.1))
    assert duration.seconds >= 0.1


def test_memory_is_the_peak_since_the_reset():
    device = CpuDevice(threads=1)
    early = torch.ones(100_000_000, dtype=torch.uint8)  # a peak before the reset does not count
    del early
    device.reset_memory()
    block = torch.ones(60_000_000, dtype=torch.uint8)
    del block
    assert 55e6 < device.memory().peak < 90e6
    assert abs(device.memory().now) < 40e6 and device.memory().reserved is None


def test_energy_is_that_of_the_calls(tmp_path):
    device, file = CpuDevice(threads=1), tmp_path / "intel-rapl:0" / "energy_uj"
    file.parent.mkdir()
    file.write_text("1000")
    device._energy = EnergyMeter(tmp_path)
    assert device.energy(lambda: file.write_text("501000")) == 0.5
    device._energy = EnergyMeter(tmp_path / "none")
    assert device.energy(lambda: None) is None


class FakeCuda:
    """Stands for ``torch.cuda``: a GPU on which every call takes 12 ms and 300 MB."""

    def __init__(self):
        self.calls = []
        self.peak = 999
        self.times = []

    def install(self, monkeypatch):
        for name in (
            "synchronize",
            "reset_peak_memory_stats",
            "max_memory_allocated",
            "memory_allocated",
            "max_memory_reserved",
            "Event",
            "is_available",
        ):
            monkeypatch.setattr(torch.cuda, name, getattr(self, name))
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Fake GPU")

    def is_available(self):
        return True

    def synchronize(self):
        self.calls.append("synchronize")

    def reset_peak_memory_stats(self):
        self.peak = 0

    def max_memory_allocated(self):
        return self.peak

    def memory_allocated(self):
        return self.peak // 3

    def max_memory_reserved(self):
        return 2 * self.peak

    def Event(self, enable_timing):
        cuda = self

        class Event:
            def record(self):
                cuda.calls.append("record")

            def elapsed_time(self, end):
                # Before the device is synchronised, the end has not been reached.
                assert cuda.calls[-1] == "synchronize"
                return cuda.times.pop(0) if cuda.times else 12.0

        assert enable_timing
        return Event()


def test_gpu_time_is_between_synchronised_events(monkeypatch):
    cuda = FakeCuda()
    cuda.install(monkeypatch)
    device = open_device("cuda", threads=1)

    def model():
        cuda.calls.append("model")
        cuda.peak = 300_000_000

    device.reset_memory()
    assert device.time(model).seconds == pytest.approx(0.012)
    assert cuda.calls == ["synchronize", "record", "model", "record", "synchronize"]
    memory = device.memory()
    assert (memory.peak, memory.now, memory.reserved) == (300_000_000, 100_000_000, 600_000_000)
    assert device.describe() == "Fake GPU"


def test_gpu_is_warm_when_two_calls_take_the_same_time(monkeypatch):
    cuda = FakeCuda()
    cuda.install(monkeypatch)
    # The clocks come up: the fourth call takes as long as the third.
    cuda.times = [40.0, 30.0, 20.0, 19.9, 5.0]
    calls = []
    open_device("cuda", threads=1).warm_up(lambda: calls.append(1))
    assert len(calls) == 4


def test_warming_up_a_gpu_that_never_settles_ends(monkeypatch):
    cuda = FakeCuda()
    cuda.install(monkeypatch)
    cuda.times = [float(10 + 5 * (i % 2)) for i in range(1000)]
    calls = []
    open_device("cuda", threads=1).warm_up(lambda: calls.append(1))
    assert len(calls) == 20


def test_refuses_a_missing_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="CUDA device but torch finds none"):
        CudaDevice()
