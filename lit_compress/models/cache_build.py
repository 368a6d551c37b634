"""Compute a teacher cache: batch by batch, resumable after a kill, with its size announced first."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from io import BufferedWriter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor
from transformers import PreTrainedModel

from lit_compress.files import write_whole
from lit_compress.models.cache_format import (
    CacheArray,
    Counts,
    arrays_of,
    check_identity,
    damaged,
    file_checksum,
    read_meta,
    write_meta,
)
from lit_compress.models.cache_spec import Answer, CacheSpec, TextData
from lit_compress.outputs import Outputs

_PROGRESS = "progress.json"
#: Share of the disk that must stay free beyond the cache.
_SPARE = 0.02


def build_cache(
    folder: Path,
    spec: CacheSpec,
    parts: Mapping[str, str],
    model: PreTrainedModel,
    data: TextData,
    answer: Callable[[], Answer],
    batch_size: int,
) -> None:
    """Compute a cache, or continue where an earlier run stopped.

    Args:
        folder: Where to write; it becomes the cache when it is renamed.
        spec: What is cached and how.
        parts: Identity of the cache.
        model: The teacher, for the shapes of its answers.
        data: The data module.
        answer: Returns what answers a batch; called only where rows are left.
        batch_size: Rows per teacher batch, where nothing is there yet.

    Raises:
        ValueError: What is there belongs to something else or is damaged, the disk is too small, or the
            answers cannot be stored.
    """
    lengths = _token_lengths(data, spec.split)
    total = Counts(len(lengths), int(lengths.sum()), int((lengths**2).sum()))
    meta: dict[str, Any] = {
        "parts": dict(parts),
        "capture": spec.capture,
        "arrays": arrays_of(model, spec.capture, spec.dtype),
        "counts": total,
        "batch_size": batch_size,
    }
    if holds_something(folder):
        meta = read_meta(folder)
        check_identity(folder, meta, parts, spec.capture)
    done = _read_progress(folder)
    _check_disk(folder, meta["arrays"], total, done)
    write_meta(folder, meta)
    with _open_arrays(folder, meta["arrays"], done) as files:
        if done.row < total.row:
            batches = data.sequential_dataloader(spec.split, meta["batch_size"])
            _fill(folder, files, batches, answer(), done, total)
        for file in files.values():
            file.flush()
            os.fsync(file.fileno())
    _finish(folder, meta, done)


def _token_lengths(data: TextData, split: str) -> np.ndarray:
    import pyarrow.compute as pc

    rows = data.rows(split)
    column = "teacher_input_ids" if "teacher_input_ids" in rows.column_names else "input_ids"
    tokens = rows.select_columns([column]).with_format("arrow")[:][column]
    return pc.list_value_length(tokens).to_numpy().astype(np.int64)


def _check_disk(folder: Path, arrays: list[CacheArray], total: Counts, done: Counts) -> None:
    size = sum(total.size(array) for array in arrays)
    rest = size - sum(done.size(array) for array in arrays)
    disk = shutil.disk_usage(folder)
    resumed = f", {done.row:,} rows of them already there" if done.row else ""
    say(f"Teacher cache {folder.with_suffix('')}: {total.row:,} rows, {_gigabytes(size)}{resumed}")
    if rest > disk.free - _SPARE * disk.total:
        raise ValueError(
            f"Expected {_gigabytes(rest)} of free space for the teacher cache in {folder.parent} but only "
            f"{_gigabytes(disk.free)} are free ({_SPARE:.0%} of the disk are left alone); use "
            "teacher.cache_dtype: float16, objectives that need fewer teacher layers, another disk, or a "
            "live teacher."
        )


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e7 else f"{size / 1e6:.2f} MB"


def say(message: str) -> None:
    """Print a line to the terminal, beside what a program prints to its output."""
    Console(stderr=True).print(message, highlight=False, soft_wrap=True)


def _read_progress(folder: Path) -> Counts:
    path = folder / _PROGRESS
    return Counts(**json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else Counts()


def _write_progress(folder: Path, done: Counts) -> None:
    write_whole(folder / _PROGRESS, json.dumps(asdict(done)))


@contextmanager
def _open_arrays(
    folder: Path, arrays: list[CacheArray], done: Counts
) -> Iterator[dict[CacheArray, BufferedWriter]]:
    """Open the files behind their last complete batch; what a killed run wrote after it is cut off."""
    files: dict[CacheArray, BufferedWriter] = {}
    try:
        for array in arrays:
            file = files[array] = (folder / array.file).open("ab")
            if file.tell() < done.size(array):
                raise ValueError(damaged(folder, f"{array.file} is shorter than its recorded progress"))
            file.truncate(done.size(array))
        yield files
    finally:
        for file in files.values():
            file.close()


def _fill(
    folder: Path,
    files: Mapping[CacheArray, BufferedWriter],
    batches: Iterable[Mapping[str, Any]],
    answer: Answer,
    done: Counts,
    total: Counts,
) -> None:
    known = np.fromfile(folder / "example_id.int64", dtype=np.int64)
    seen = 0
    columns = (
        TextColumn("Teacher"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=total.token, completed=done.token)
        for batch in batches:
            ids = batch["example_id"].numpy()
            if seen < len(known):
                if not np.array_equal(ids, known[seen : seen + len(ids)]):
                    raise ValueError(
                        damaged(folder, "the rows now come in another order than before the interruption")
                    )
                seen += len(ids)
                continue
            _append(files, batch, answer(batch), done)
            _write_progress(folder, done)
            bar.update(task, completed=done.token)
    if asdict(done) != asdict(total):
        raise ValueError(
            f"Expected {total.row} rows with {total.token} tokens from the data loader but got {done.row} "
            f"with {done.token}; sequential_dataloader must give every row of the split once."
        )


def _append(
    files: Mapping[CacheArray, BufferedWriter], batch: Mapping[str, Any], outputs: Outputs, done: Counts
) -> None:
    mask = batch.get("teacher_attention_mask", batch.get("attention_mask"))
    if mask is None:
        raise ValueError(
            "Expected an attention_mask in the batches to cache but got none; use a live teacher."
        )
    lengths = mask.sum(1)
    plain = {"example_id": batch["example_id"], "length": lengths, "logits": outputs.logits}
    for array, file in files.items():
        value = plain[array.name] if array.layer is None else getattr(outputs, array.name)[array.layer]
        entries = _entries(array, value.cpu(), mask.bool().cpu(), lengths.tolist()).to(array.torch_dtype)
        if entries.is_floating_point() and not torch.isfinite(entries).all():
            raise ValueError(_overflow(array, value, batch["example_id"]))
        file.write(entries.contiguous().numpy().data)
    for file in files.values():
        file.flush()
    done.row += len(lengths)
    done.token += int(lengths.sum())
    done.pair += int((lengths**2).sum())


def _entries(array: CacheArray, value: Tensor, mask: Tensor, lengths: list[int]) -> Tensor:
    """Bring a padded tensor into the order of the file, without its padding."""
    if array.per == "row":
        return value
    if array.per == "pair":
        return torch.cat([row[:, :n, :n].reshape(-1) for row, n in zip(value, lengths, strict=True)])
    return (value.transpose(1, 2) if value.ndim == 4 else value)[mask]


def _overflow(array: CacheArray, value: Tensor, example_id: Tensor) -> str:
    layer = "" if array.layer is None else f" of layer {array.layer}"
    if not torch.isfinite(value).all():
        rows = ~torch.isfinite(value).reshape(len(value), -1).all(1)
        return (
            f"Expected finite {array.name}{layer} from the teacher but got NaN or infinity for example_id "
            f"{int(example_id[rows.cpu()][0])}; try teacher.precision: fp32, or check the teacher."
        )
    return (
        f"Expected {array.name}{layer} of the teacher within the range of {array.dtype} but got "
        f"{value.abs().max():.4g}; set teacher.cache_dtype: float32."
    )


def _finish(folder: Path, meta: dict[str, Any], done: Counts) -> None:
    ids = np.fromfile(folder / "example_id.int64", dtype=np.int64)
    if len(np.unique(ids)) != len(ids):
        raise ValueError(
            f"Expected a different example_id on every row but {len(ids) - len(np.unique(ids))} repeat; "
            "give every row of the split its own."
        )
    checksums = {array.file: file_checksum(folder / array.file) for array in meta["arrays"]}
    write_meta(folder, {**meta, "counts": done, "sha256": checksums})
    (folder / _PROGRESS).unlink(missing_ok=True)


def holds_something(path: Path) -> bool:
    """Return whether a path is more than a free place for a cache: a file, or a folder that is not empty."""
    return path.is_file() or (path.is_dir() and any(path.iterdir()))
