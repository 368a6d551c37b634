"""Tables of latencies on disk: measured once for a machine, a library and a shape of model."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch.distributed as distributed
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from transformers import PreTrainedModel

from lit_compress.benchmark.environment import (
    cpu_flags,
    cpu_name,
    gpu_name,
    library_version,
    runtime_versions,
)
from lit_compress.benchmark.protocol import BASELINE_RUNTIME
from lit_compress.benchmark.runtimes import runtime
from lit_compress.files import write_whole
from lit_compress.models.anatomy import dissect
from lit_compress.models.transforms import transforms_of
from lit_compress.processes import train_together
from lit_compress.pruning.latency import Curve, LatencyTable, parts_of, pattern
from lit_compress.pruning.latency_figures import Figures
from lit_compress.pruning.latency_measure import measure_figures
from lit_compress.pruning.latency_setting import Setting

# Raise it when tables are measured in another way.
_FORMAT = 3


def measured_or_cached(
    model: PreTrainedModel,
    varied: bool,
    setting: Setting,
    known: Mapping[str, Any] | None = None,
) -> LatencyTable:
    """Return a known table, else that of the cache, else measure it and keep it; see ``LatencyTable.of``.

    Of several processes of a run the first one measures, and all get its table.

    Raises:
        ValueError: The setting cannot be measured with.
    """
    setting.check()
    found: list[Any] = [None]
    together = train_together()
    if not together or distributed.get_rank() == 0:
        key = table_key(model, varied, setting)
        if known is not None and known["key"] == key:
            found[0] = known
        else:
            found[0] = _get(key, partial(measure_figures, model, varied, setting))
    if together:
        distributed.broadcast_object_list(found)
    figures = read_figures(found[0])
    table = LatencyTable(figures.curves, figures.layer, figures.constant, model, figures.hidden)
    table.record = dict(found[0])
    return table


def _get(key: dict[str, Any], measure: Callable[[], Figures]) -> dict[str, Any]:
    path = table_path(key)
    cached = _read(path, key)
    if cached is not None:
        return cached
    what = f"batch {key['batch']} of length {key['length']} on {key['processor']}"
    what += f" in {key['runtime']}" if "runtime" in key else ""
    rank_zero_info(f"Latency table: measuring {what}, once; {path}")
    table = {"key": key, **write_figures(measure())}
    write_whole(path, json.dumps(table, indent=1) + "\n")
    return table


def table_key(model: PreTrainedModel, varied: bool, setting: Setting) -> dict[str, Any]:
    """Return everything on which a table depends, as plain JSON data."""
    anatomy, parts = dissect(model), parts_of(model, runtime(setting.runtime).narrow_end)
    return {
        "format": _FORMAT,
        "processor": gpu_name() if setting.device == "cuda" else cpu_name(),
        "flags": [] if setting.device == "cuda" else cpu_flags(),
        "threads": setting.threads,
        **{name: library_version(name) for name in ("torch", "transformers")},
        "dtype": str(model.dtype),
        "model": type(model).__name__,
        "hidden": anatomy.stream.size,
        "hidden_varied": varied,
        "vocabulary": getattr(model.config, "vocab_size", None),
        "parts": [[part.kind, part.units] for part in parts],
        "blocks": [pattern(block.path) for block in anatomy.blocks],
        "batch": setting.batch,
        "length": setting.length,
        **_runtime_key(setting.runtime),
        # Without it, keys are what they were before there was one.
        **{name: arguments for name, arguments in transforms_of(model) if name == "factorized_embedding"},
    }


def _runtime_key(name: str) -> dict[str, Any]:
    """Return what decides how a model comes out of an export; nothing for torch itself."""
    if name == BASELINE_RUNTIME:
        return {}
    from lit_compress.benchmark.artefacts import BUILD_VERSION

    return {"runtime": name, "build": BUILD_VERSION, "libraries": runtime_versions(name)}


def table_path(key: Mapping[str, Any]) -> Path:
    """Return the file of a table: below ``XDG_CACHE_HOME``, else ``~/.cache``."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    return root / "lit_compress" / "latency" / f"{digest}.json"


def _read(path: Path, key: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what a file holds; ``None``, with a warning, where it is damaged or of something else."""
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["key"] != key:
            raise ValueError("it is of another machine, library or model")
        read_figures(found)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        rank_zero_warn(f"Latency table: {path} cannot be used ({error}) and is measured again.")
        return None
    return found


def write_figures(figures: Figures) -> dict[str, Any]:
    """Return the figures of a table as plain JSON data."""
    return json.loads(json.dumps(asdict(figures)))


def read_figures(found: Mapping[str, Any]) -> Figures:
    """Return the figures of a table from plain JSON data.

    Raises:
        ValueError: A number is none, is negative, or falls where there are more units.
        KeyError: Something is missing.
    """
    curves = {name: _curve(name, curve) for name, curve in found["curves"].items()}
    if any(curve.units[0] != 0 or curve.values[0] != 0 for curve in curves.values()):
        raise ValueError("Expected curves that begin with 0 ms at 0 units; measure the table again.")
    layer = {name: _number(name, value) for name, value in found["layer"].items()}
    constant = _number("constant", found["constant"])
    hidden = found["hidden"]
    factors = None if hidden is None else {name: _curve(name, curve) for name, curve in hidden.items()}
    return Figures(curves, layer, constant, factors)


def _curve(name: str, found: Mapping[str, Any]) -> Curve:
    values = tuple(_number(name, value) for value in found["values"])
    if list(values) != sorted(values):
        raise ValueError(f"Expected {name} not to fall with more units; measure the table again.")
    return Curve(tuple(_number(name, units) for units in found["units"]), values)


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
        raise ValueError(
            f"Expected {name} to hold numbers from 0 but got {value!r}; measure the table again."
        )
    return float(value)
