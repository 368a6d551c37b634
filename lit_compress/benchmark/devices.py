"""How a worker takes time and counts memory on the CPU and on a GPU."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch

_CLEAR_REFS = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class Duration:
    """How long one call took.

    Args:
        seconds: By the clock that figures and ratios are made from, see :func:`clock_name`.
        wall_seconds: By the clock on the wall.
    """

    seconds: float
    wall_seconds: float


def clock_name(threads: int) -> str:
    """Return the clock that a CPU measurement goes by.

    With one thread this is the processor time of the process. On an idle machine it equals the wall time;
    on a shared one it leaves out the time that was given to other processes, which says nothing about the
    model. With several threads their processor times add up to no latency, so the wall time counts.
    """
    return "cpu time" if threads == 1 else "wall time"


class CpuDevice:
    """Time and resident memory of this process.

    Args:
        threads: Threads that the model computes with; they decide the clock.
    """

    torch_device = "cpu"

    def __init__(self, threads: int) -> None:
        self._clock = time.process_time if clock_name(threads) == "cpu time" else time.perf_counter
        self._base = 0

    def describe(self) -> str | None:
        """Return ``None``: the CPU is part of the environment."""
        return None

    def reset_memory(self) -> None:
        """Count memory from here on."""
        # "5" makes the kernel forget the peak so far: imports peak higher than they end.
        if _CLEAR_REFS.exists():
            _CLEAR_REFS.write_text("5")
        self._base = peak_rss_bytes()

    def peak_bytes(self) -> int:
        """Return the peak of the resident memory above the level at ``reset_memory``."""
        return peak_rss_bytes() - self._base

    def time(self, call: Callable[[], Any]) -> Duration:
        """Return how long ``call`` took."""
        wall, start = time.perf_counter(), self._clock()
        call()
        end = self._clock()
        return Duration(end - start, time.perf_counter() - wall)


class CudaDevice:
    """Time between CUDA events and allocated memory of the first visible GPU."""

    torch_device = "cuda"

    def __init__(self) -> None:
        if not torch.cuda.is_available():
            raise ValueError("Expected a CUDA device but torch finds none; measure with devices=('cpu',).")

    def describe(self) -> str | None:
        """Return the name of the GPU."""
        return torch.cuda.get_device_name()

    def reset_memory(self) -> None:
        """Count memory from here on."""
        torch.cuda.reset_peak_memory_stats()

    def peak_bytes(self) -> int:
        """Return the peak of the memory that torch allocated."""
        return torch.cuda.max_memory_allocated()

    def time(self, call: Callable[[], Any]) -> Duration:
        """Return how long ``call`` took on the GPU, waits between its kernels included."""
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda.synchronize()
        wall = time.perf_counter()
        start.record()
        call()
        end.record()
        torch.cuda.synchronize()
        return Duration(start.elapsed_time(end) / 1000, time.perf_counter() - wall)


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
