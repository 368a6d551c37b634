"""Open the teacher's answers on disk, or have them computed once."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from transformers import PreTrainedModel

from lit_compress.models.cache_build import build_cache, holds_something, say
from lit_compress.models.cache_spec import Answer, CacheSpec, TextData
from lit_compress.models.cached_teacher import CachedTeacher


def ensure_cache(
    spec: CacheSpec,
    model: PreTrainedModel,
    data: TextData,
    answer: Callable[[], Answer],
    batch_size: int = 64,
) -> CachedTeacher:
    """Open a cache; compute it first where it is missing, or finish it where a run was killed.

    Several processes may ask for the same cache: one computes it, the others wait.

    Args:
        spec: What is cached, where and how.
        model: The teacher in float32, for its identity and shape.
        data: The data module.
        answer: Returns what answers a batch; called only where something is to be computed.
        batch_size: Rows per teacher batch; a cache that is resumed keeps the number that it began with.

    Returns:
        A teacher that answers from the cache.

    Raises:
        ValueError: The folder holds something else, is damaged, or belongs to other weights, data, tokens,
            precision or captured states; or the disk is too small.
    """
    parts = spec.identity(model, data)
    partial = spec.path.with_name(f"{spec.path.name}.partial")
    if not holds_something(spec.path):
        with _exclusive(partial):
            # Another process may have finished while this one waited.
            if not holds_something(spec.path):
                build_cache(partial, spec, parts, model, data, answer, batch_size)
                partial.replace(spec.path)
    return CachedTeacher(spec.path, spec.capture, parts)


@contextmanager
def _exclusive(folder: Path) -> Iterator[None]:
    """Let one process at a time work in a folder; the lock goes away with the process that holds it."""
    folder.mkdir(parents=True, exist_ok=True)
    if os.name == "nt":  # no locks on folders there: two simultaneous first fits would clash
        yield
        return
    import fcntl

    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"Teacher cache {folder}: another process is computing it, waiting …")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
