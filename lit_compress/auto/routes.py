"""The routes that a model can take: runtimes whose library is installed, and what each of them depends on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lit_compress
from lit_compress.benchmark.artefacts import BUILD_VERSION
from lit_compress.benchmark.environment import cpu_flags, cpu_name, library_version
from lit_compress.benchmark.folders import weight_fingerprint
from lit_compress.benchmark.protocol import BASELINE_RUNTIME, Candidate
from lit_compress.benchmark.quality import Texts
from lit_compress.benchmark.runtimes import RUNTIMES, runtime
from lit_compress.benchmark.runtimes.base import Builder
from lit_compress.models.manifest import read_manifest


def find_routes(names: Sequence[str] | None = None) -> tuple[list[str], dict[str, list[str]]]:
    """Split runtimes into those that can run here and those whose library is missing.

    Args:
        names: Runtimes to look at; all where ``None``. Eager float32, the original, is always among them.

    Returns:
        The usable ones in the order of tables, and the others by what to do about them.

    Raises:
        ValueError: There is no runtime of that name.
    """
    wanted = RUNTIMES if names is None else names
    for name in wanted:
        runtime(name)
    usable: list[str] = []
    missing: dict[str, list[str]] = {}
    for name in RUNTIMES:
        if name not in wanted and name != BASELINE_RUNTIME:
            continue
        try:
            runtime(name).check()
            usable.append(name)
        except ImportError as error:
            missing.setdefault(str(error), []).append(name)
    return usable, missing


def loads_the_folder(name: str) -> bool:
    """Return whether a runtime loads the model folder itself, so that there is nothing to export."""
    return type(runtime(name)).build is Builder.build


def depends_on(candidates: Sequence[Candidate], texts: Texts, threads: int) -> dict[str, dict[str, Any]]:
    """Return by runtime everything that decides the quality of one model in it, ready for JSON.

    Args:
        candidates: The model in its runtimes; its folder is on this machine.
        texts: What it is judged on.
        threads: CPU threads that it computes with.

    Returns:
        Two are equal only where the second judgement would come out as the first did.
    """
    folder, data = Path(candidates[0].folder), texts.datamodule
    manifest = read_manifest(folder) or {}
    structure = [
        (folder / "config.json").read_text(encoding="utf-8"),
        [manifest.get("base_class"), manifest.get("transforms")],
    ]
    model = {
        "weights": weight_fingerprint(folder),
        "structure": _digest(json.dumps(structure, sort_keys=True)),
        "side": candidates[0].side,
        "data": texts.describe(),
        "labels": _digest(repr(data.rows(texts.split)["labels"][:])),
        "metric": texts.task.monitor,
        "threads": threads,
        "machine": [cpu_name(), cpu_flags()],
        "lit_compress": lit_compress.__version__,
        "build": BUILD_VERSION,
    }
    training = data.fingerprint("train")[:12] if data.has_split("train") else None
    found = {}
    for candidate in candidates:
        way = runtime(candidate.runtime)
        libraries = {name: library_version(name) for name in ("torch", "transformers", *way.libraries)}
        own = {
            "runtime": way.name,
            "libraries": libraries,
            "calibration": training if way.calibrated else None,
        }
        found[candidate.runtime] = model | own
    return found


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]
