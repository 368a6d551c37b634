"""The files that runtimes load, built once in a clean process and kept in the cache.

Run as ``python -m lit_compress.benchmark.artefacts NAME FOLDER TARGET``, this module is that process. Texts to
calibrate with lie in TARGET.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from enum import Enum
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

import lit_compress
from lit_compress.benchmark.environment import usable_cores
from lit_compress.benchmark.folders import local_folder, weight_bytes, weight_fingerprint
from lit_compress.benchmark.process import worker_environment
from lit_compress.benchmark.runtimes.base import Batch, Builder
from lit_compress.export.formats import builder as find_builder
from lit_compress.export.parity import ParityError, is_only_timed, only_timed
from lit_compress.files import describe_file
from lit_compress.models.factory import load_config
from lit_compress.models.loading import written_by
from lit_compress.models.manifest import is_rounded, read_manifest
from lit_compress.quantization.clustering.plain_folder import plain_folder

_FACTS = "facts.json"
_ERROR = "error.json"
_SAMPLES = "samples.npz"
# Tells the clean process that what it exports is timed and thrown away.
_ONLY_TIMED = "LIT_COMPRESS_ONLY_TIMED"
#: Raised when the same model and libraries lead to another artefact than before.
BUILD_VERSION = 16
# Artefacts of old checkpoints go when there are more bytes than this, those of the last hour never.
_KEEP_BYTES = 4 * 2**30
_KEEP_SECONDS = 3600
_SILENT_SECONDS = 3


class Failure(str, Enum):
    """Why a model could not be made ready for a runtime."""

    PARITY = "parity"  #: It was exported, but does not compute what the original computes.
    REFUSED = "refused"  #: A library or an operator is missing, or the architecture cannot be expressed.
    CRASHED = "crashed"  #: What nobody foresaw: a full disk, too little memory, a bug, a process that hangs.


class PrepareError(RuntimeError):
    """A model could not be made ready for a runtime; the text says why.

    Args:
        text: One paragraph.
        kind: Whether trying again can help: only a crash may have come from the machine.
    """

    def __init__(self, text: str, kind: Failure = Failure.REFUSED) -> None:
        super().__init__(text)
        self.kind = kind


@dataclass(frozen=True)
class Artefact:
    """What a worker needs to open a model in a runtime.

    Args:
        folder: The model folder.
        path: What the runtime opens: a folder in the cache, or the model folder itself.
        bytes: Size of what is loaded.
        facts: Parameters, shape and limits of the model, see :func:`~lit_compress.benchmark.facts.model_facts`.
    """

    folder: Path
    path: Path
    bytes: int
    facts: dict[str, Any]


def prepare(source: str, name: str, timeout: float, samples: Sequence[Batch] = ()) -> Artefact:
    """Build what a runtime loads, or take it from the cache.

    Args:
        source: Model folder, ``package:NAME``, or the name of a hub model that was downloaded before.
        name: Name of the runtime, or of a format that nothing here runs.
        timeout: Seconds that building may take.
        samples: Real training texts for those that are calibrated.

    Returns:
        The artefact, with its files checked.

    Raises:
        PrepareError: A library or the model is missing, or building it failed, hung or died; nothing is left.
        ValueError: There is no runtime of that name.
    """
    way = find_builder(name)
    try:
        way.check()
        folder = local_folder(source)
        # What was trained with rounding has its ranges.
        calibrated = way.calibrated and not is_rounded(folder)
        if calibrated and not samples:
            raise ValueError(
                f"Expected training texts to calibrate {name} with but got none; give the data with --data."
            )
        root = _root()
        root.mkdir(parents=True, exist_ok=True)
        # The runtimes that load the model folder itself share one record.
        kind = "folder" if type(way).build is Builder.build else name
        used = samples if calibrated else ()
        place = root / f"{kind}-{_key(folder, way, used)}"
        record = _read(place)
        if record is None:
            _build(place, folder, name, source, timeout, used)
            record = _read(place)
    except OSError as error:
        raise PrepareError(str(error), Failure.CRASHED) from error
    except (ImportError, ValueError) as error:
        raise PrepareError(str(error)) from error
    if record is None:
        raise PrepareError(
            f"Expected the artefact of {source} for {name} in {place} but its files are gone or changed "
            "right after they were written; check the disk, and that nothing else clears this folder.",
            Failure.CRASHED,
        )
    os.utime(place)  # marks it as used
    _drop_old(root)
    size = sum(entry["bytes"] for entry in record["files"].values())
    if not record["files"]:
        return Artefact(folder, folder, weight_bytes(folder), record["facts"])
    return Artefact(folder, place, size, record["facts"])


def _root() -> Path:
    # Imported late: it brings the datasets library, which the clean process has no use for.
    from lit_compress.data.cache import cache_folder

    return cache_folder(None) / "artefacts"


def _key(folder: Path, way: Builder, samples: Sequence[Batch]) -> str:
    manifest = read_manifest(folder) or {}
    libraries = {name: version(name) for name in ("torch", "transformers", *way.libraries)}
    parts = [
        BUILD_VERSION,
        lit_compress.__version__,
        libraries,
        weight_fingerprint(folder),
        (folder / "config.json").read_text(encoding="utf-8"),
        [manifest.get("base_class"), manifest.get("transforms")],
        [batch["input_ids"].tolist() for batch in samples],
        # Files of their own: nobody has compared their logits.
        *(["only timed"] if is_only_timed() else []),
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def _read(place: Path) -> dict[str, Any] | None:
    """Return the record of a finished artefact, ``None`` where there is none or a file of it is damaged."""
    try:
        record = json.loads((place / _FACTS).read_text(encoding="utf-8"))
        sound = all(describe_file(place / name) == entry for name, entry in record["files"].items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return record if sound else None


def _build(
    place: Path, folder: Path, name: str, source: str, timeout: float, samples: Sequence[Batch]
) -> None:
    """Let a clean process write the artefact beside its place, and move it there when it is complete."""
    part = Path(tempfile.mkdtemp(prefix=".part-", dir=place.parent))
    message = f"Preparing {source} for {name} …"
    timer = threading.Timer(_SILENT_SECONDS, print, [message], {"file": sys.stderr, "flush": True})
    timer.start()
    try:
        if samples:
            _write_samples(part, samples)
        _run(part, folder, name, source, timeout)
        if place.exists() and _read(place) is None:
            shutil.rmtree(place)
        try:
            part.rename(place)
        except OSError:
            if _read(place) is None:  # else another process was faster, which is as good
                raise
    finally:
        timer.cancel()
        shutil.rmtree(part, ignore_errors=True)


def _write_samples(target: Path, samples: Sequence[Batch]) -> None:
    arrays = {
        f"{number} {name}": rows for number, batch in enumerate(samples) for name, rows in batch.items()
    }
    np.savez(target / _SAMPLES, **arrays)  # type: ignore[arg-type]


def _take_samples(target: Path) -> list[Batch]:
    """Read the texts that the parent left in the target, and remove them from there."""
    path = target / _SAMPLES
    if not path.is_file():
        return []
    samples: dict[str, Batch] = {}
    with np.load(path) as arrays:
        for key in arrays.files:
            number, name = key.split(" ")
            samples.setdefault(number, {})[name] = arrays[key]
    path.unlink()
    return list(samples.values())


def _command(name: str, folder: Path, target: Path) -> list[str]:
    return [sys.executable, "-m", "lit_compress.benchmark.artefacts", name, str(folder), str(target)]


def _run(part: Path, folder: Path, name: str, source: str, timeout: float) -> None:
    what = f"Expected {source} to be prepared for {name} but"
    environment = worker_environment("cpu", usable_cores())
    if is_only_timed():
        environment = {**environment, _ONLY_TIMED: "1"}
    with tempfile.TemporaryFile() as log:
        try:
            done = subprocess.run(
                _command(name, folder, part),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise PrepareError(
                f"{what} it took more than {timeout:g} s and was stopped; leave this runtime out, or give "
                "it more time.",
                Failure.CRASHED,
            ) from None
        if done.returncode == 0:
            return
        if (part / _ERROR).is_file():
            left = json.loads((part / _ERROR).read_text(encoding="utf-8"))
            raise PrepareError(left["text"], Failure(left["kind"]))
        log.seek(max(0, log.seek(0, os.SEEK_END) - 2000))
        lines = log.read().decode("utf-8", errors="replace").strip().splitlines()
    hint = " (killed, perhaps for lack of memory)" if done.returncode == -9 else ""
    words = f": {lines[-1].strip()}" if lines else ""
    raise PrepareError(
        f"{what} the process ended with status {done.returncode}{hint}{words}", Failure.CRASHED
    )


def _drop_old(root: Path) -> None:
    """Remove the artefacts that were not used for longest until the rest is within the limit."""
    found = []
    for place in root.iterdir():
        try:
            size = sum(path.stat().st_size for path in place.rglob("*") if path.is_file())
            found.append((place.stat().st_mtime, size, place))
        except OSError:  # another process removed it meanwhile
            continue
    total = sum(size for _, size, _ in found)
    for used, size, place in sorted(found):
        if total <= _KEEP_BYTES or time.time() - used < _KEEP_SECONDS:
            return
        shutil.rmtree(place, ignore_errors=True)
        total -= size


def _work(name: str, folder: Path, target: Path) -> None:
    """Build the artefact and write what belongs to it; runs in the clean process."""
    way, samples = find_builder(name), _take_samples(target)
    if is_rounded(folder) and not way.rounded and type(way).build is not Builder.build:
        raise ValueError(
            f"Expected a model that rounds nothing for {name} but {folder} has rounded weights or activations, "
            f"which {name} does not compute with; use onnx-int8, openvino-int8 or litert-int8, or give the model that "
            "it was made from."
        )
    library = written_by(load_config(str(folder)))
    if library is not None and type(way).build is not Builder.build:
        raise ValueError(
            f"Expected a model with float weights for {name} but those in {folder} are in the format of {library}, "
            "which only PyTorch computes with; give the model that it was made from."
        )
    facts = way.facts(folder)
    if type(way).build is Builder.build:
        facts["parity_error"] = None
    else:
        with plain_folder(folder) as plain:
            facts["parity_error"] = way.build(plain, target, samples)
    files = {path.name: describe_file(path) for path in sorted(target.iterdir())}
    (target / _FACTS).write_text(json.dumps({"facts": facts, "files": files}, indent=1), encoding="utf-8")


def main() -> None:
    """Do the work of the clean process; its failure is left in the target folder as one paragraph."""
    name, folder, target = sys.argv[1:]
    try:
        with only_timed() if os.environ.get(_ONLY_TIMED) else nullcontext():
            _work(name, Path(folder), Path(target))
    except Exception as error:
        kind, text = Failure.CRASHED, f"{name} failed on {folder}: {type(error).__name__}: {error}"
        if isinstance(error, ValueError | ImportError):
            kind = Failure.PARITY if isinstance(error, ParityError) else Failure.REFUSED
            text = str(error)
        (Path(target) / _ERROR).write_text(json.dumps({"kind": kind, "text": text}), encoding="utf-8")
        raise


if __name__ == "__main__":
    main()
