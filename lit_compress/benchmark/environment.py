"""Where a measurement was taken: figures from different environments must not meet in one table."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

import lit_compress
from lit_compress.benchmark.runtimes import runtime

_CPUINFO = Path("/proc/cpuinfo")
_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
# Instructions that decide how fast a model can be: x86 and ARM.
_FLAG_PREFIXES = ("avx", "amx", "fma", "f16c", "asimd", "sve", "i8mm", "bf16")
#: What must be equal for two measurements to be of the same environment.
_IDENTITY = (
    *("cpu", "cpu_flags", "cores", "memory_gb", "gpu"),
    *("python", "torch", "transformers", "onnxruntime", "lit_compress"),
)


def usable_cores() -> int:
    """Return the CPU cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpu_name() -> str:
    """Return the name of the CPU as the operating system gives it."""
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def cpu_flags() -> list[str]:
    """Return the vector and matrix instructions that the CPU has, as the operating system names them."""
    flags = (_cpuinfo("flags") or _cpuinfo("Features") or "").split()
    return sorted(flag for flag in set(flags) if flag.startswith(_FLAG_PREFIXES))


def governor() -> str | None:
    """Return the frequency governor, ``None`` where the system does not show it, as virtual machines."""
    try:
        return _GOVERNOR.read_text(encoding="utf-8").strip() or None
    except OSError:
        return None


def load_average() -> float | None:
    """Return the machine's load over the last minute, ``None`` where the system has no such figure."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def library_version(name: str) -> str | None:
    """Return the version of an installed library without importing it, ``None`` where it is missing."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def runtime_versions(name: str) -> dict[str, str | None]:
    """Return the versions of the libraries that a runtime has of its own, by the names of their distributions.

    Args:
        name: One of :data:`~lit_compress.benchmark.runtimes.RUNTIMES`.
    """
    return {library: library_version(library) for library in runtime(name).libraries}


def gpu_name() -> str | None:
    """Return the name of the first GPU, ``None`` where there is none."""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


def describe_environment() -> dict[str, Any]:
    """Return CPU, memory, cores, library versions and the present load, ready for JSON.

    ``gpu`` and ``load_after`` are filled in by the one who measures.
    """
    return {
        "cpu": cpu_name(),
        "cpu_flags": cpu_flags(),
        "governor": governor(),
        "cores": usable_cores(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "gpu": None,
        "os": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "torch": library_version("torch"),
        "transformers": library_version("transformers"),
        "onnxruntime": library_version("onnxruntime"),
        "lit_compress": lit_compress.__version__,
        "load_before": load_average(),
        "load_after": None,
    }


def same_environment(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Return whether two environments give comparable figures; load and governor may differ."""
    return all(one.get(name) == other.get(name) for name in _IDENTITY)


def _cpuinfo(name: str) -> str | None:
    if _CPUINFO.is_file():
        for line in _CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith(name):
                return line.split(":", 1)[1].strip()
    return None
