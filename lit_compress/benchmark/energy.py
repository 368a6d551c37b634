"""Energy that the processor's packages have used, where the machine tells it."""

from __future__ import annotations

from pathlib import Path

_POWERCAP = Path("/sys/class/powercap")


class EnergyMeter:
    """Counts the joules of all processor packages (RAPL), whoever uses them.

    Args:
        root: Folder of the kernel's power capping zones.
    """

    def __init__(self, root: Path = _POWERCAP) -> None:
        # "intel-rapl:0" is a package, "intel-rapl:0:0" a part of it that it already contains.
        zones = [zone for zone in sorted(root.glob("intel-rapl:*")) if zone.name.count(":") == 1]
        self._counters = [zone / "energy_uj" for zone in zones]
        self._ranges = [_read(zone / "max_energy_range_uj") for zone in zones]

    def read(self) -> list[int] | None:
        """Return the counters, ``None`` where there are none or only root may read them."""
        values = [_read(counter) for counter in self._counters]
        known = [value for value in values if value is not None]
        return known if known and len(known) == len(values) else None

    def joules(self, before: list[int] | None, after: list[int] | None) -> float | None:
        """Return the energy between two readings."""
        if before is None or after is None:
            return None
        used = 0
        for start, end, full in zip(before, after, self._ranges, strict=True):
            # A counter begins again at 0 when it is full.
            used += end - start if end >= start else end - start + (full or 0)
        return used / 1e6


def _read(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
