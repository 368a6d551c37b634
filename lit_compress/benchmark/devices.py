"""How a worker takes time and counts memory and energy on the CPU and on a GPU."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from lit_compress.benchmark.energy import EnergyMeter
from lit_compress.benchmark.protocol import clock_name

_CLEAR_REFS = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")
# A GPU that was idle runs at low clocks; this many calls bring it up, or fewer once they take the same time.
_MOST_WARM_UP_CALLS = 20
_STEADY = 0.05


@dataclass(frozen=True)
class Duration:
    """How long one call took.

    Args:
        seconds: By the clock that figures and ratios are made from, see ``clock_name``.
        wall_seconds: By the clock on the wall.
    """

    seconds: float
    wall_seconds: float


@dataclass(frozen=True)
class Memory:
    """Memory of the model, in bytes.

    Args:
        peak: Highest since ``reset_memory``: resident on the CPU, allocated by torch on a GPU.
        now: At present.
        reserved: Highest that torch took from a GPU; ``None`` on the CPU.
    """

    peak: int
    now: int
    reserved: int | None = None


class CpuDevice:
    """Time, resident memory and energy of this process.

    Args:
        threads: Threads that the model computes with; they decide the clock.
    """

    torch_device = "cpu"

    def __init__(self, threads: int) -> None:
        self._clock = time.process_time if clock_name(threads) == "cpu time" else time.perf_counter
        self._base = 0
        self._energy = EnergyMeter()

    def describe(self) -> str | None:
        """Return ``None``: the CPU is part of the environment."""
        return None

    def reset_memory(self) -> None:
        """Count memory from here on."""
        # "5" makes the kernel forget the peak so far: imports peak higher than they end.
        if _CLEAR_REFS.exists():
            _CLEAR_REFS.write_text("5")
        self._base = peak_rss_bytes()

    def memory(self) -> Memory:
        """Return the resident memory above the level at ``reset_memory``."""
        return Memory(peak_rss_bytes() - self._base, psutil.Process().memory_info().rss - self._base)

    def warm_up(self, call: Callable[[], Any]) -> None:
        """Do nothing: a CPU is warm after the rounds that do not count."""

    def time(self, call: Callable[[], Any]) -> Duration:
        """Return how long ``call`` took."""
        wall, start = time.perf_counter(), self._clock()
        call()
        end = self._clock()
        return Duration(end - start, time.perf_counter() - wall)

    def energy(self, calls: Callable[[], Any]) -> float | None:
        """Return the joules that were used while ``calls`` ran, ``None`` where the machine does not tell."""
        before = self._energy.read()
        calls()
        return self._energy.joules(before, self._energy.read())


class CudaDevice:
    """Time between CUDA events and allocated memory of the first visible GPU."""

    torch_device = "cuda"

    def __init__(self) -> None:
        import torch

        self._torch = torch
        if not torch.cuda.is_available():
            raise ValueError("Expected a CUDA device but torch finds none; measure with devices=('cpu',).")

    def describe(self) -> str | None:
        """Return the name of the GPU."""
        return self._torch.cuda.get_device_name()

    def reset_memory(self) -> None:
        """Count memory from here on."""
        self._torch.cuda.reset_peak_memory_stats()

    def memory(self) -> Memory:
        """Return the memory that torch has allocated and reserved."""
        cuda = self._torch.cuda
        return Memory(cuda.max_memory_allocated(), cuda.memory_allocated(), cuda.max_memory_reserved())

    def warm_up(self, call: Callable[[], Any]) -> None:
        """Run ``call`` until two runs take the same time: the clocks have come up."""
        last = 0.0
        for _ in range(_MOST_WARM_UP_CALLS):
            seconds = self.time(call).seconds
            if abs(seconds - last) < _STEADY * seconds:
                break
            last = seconds

    def time(self, call: Callable[[], Any]) -> Duration:
        """Return how long ``call`` took on the GPU, waits between its kernels included."""
        cuda = self._torch.cuda
        start, end = cuda.Event(enable_timing=True), cuda.Event(enable_timing=True)
        cuda.synchronize()
        wall = time.perf_counter()
        start.record()
        call()
        end.record()
        cuda.synchronize()
        return Duration(start.elapsed_time(end) / 1000, time.perf_counter() - wall)

    def energy(self, calls: Callable[[], Any]) -> float | None:
        """Run ``calls``; the processor's counters say nothing about a GPU."""
        calls()
        return None


def open_device(name: str, threads: int) -> CpuDevice | CudaDevice:
    """Return the device ``"cpu"`` or ``"cuda"``."""
    return CudaDevice() if name == "cuda" else CpuDevice(threads)


def peak_rss_bytes() -> int:
    """Return the peak resident memory of this process.

    ``getrusage`` is of no use on Linux: its peak includes that of the process which started this one.
    """
    if _STATUS.exists():
        for line in _STATUS.read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    memory = psutil.Process().memory_info()
    return getattr(memory, "peak_wset", memory.rss)
