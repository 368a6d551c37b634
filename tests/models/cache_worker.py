"""Build teacher caches; as a script, stop dead in the middle, for the test that kills it."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch

from lit_compress.models.cache_spec import CacheSpec
from lit_compress.models.teacher import LiveTeacher
from lit_compress.models.teacher_cache import ensure_cache
from lit_compress.outputs import Capture
from tests.models.data import TinyData
from tests.tiny import tiny_bert

BATCH_SIZE = 4
CAPTURE = Capture(hidden_states=frozenset({0, 2}), attention_scores=frozenset({1}))


def spec(folder: Path) -> CacheSpec:
    return CacheSpec(folder, "train", CAPTURE, dtype="float32")


class Counting:
    """Answers like a live teacher and counts; hangs before batch ``stop``."""

    def __init__(self, stop: int | None = None) -> None:
        self.teacher = LiveTeacher(tiny_bert(), CAPTURE)
        self.calls, self.stop = 0, stop

    def __call__(self, batch):
        if self.calls == self.stop:
            print("hanging", flush=True)
            time.sleep(600)
        self.calls += 1
        return self.teacher.outputs(batch)


def never():
    raise AssertionError("the teacher was asked although nothing was to be computed")


def build(path, capture=CAPTURE, model=None, data=None, dtype="float32", **kwargs):
    model, data = model or tiny_bert(), data or TinyData()
    answer = LiveTeacher(model, capture).outputs
    return ensure_cache(
        CacheSpec(path, "train", capture, dtype=dtype, **kwargs), model, data, lambda: answer, 4
    )


def contents(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir()}


if __name__ == "__main__":
    torch.set_num_threads(1)
    counting = Counting(stop=int(sys.argv[2]))
    ensure_cache(spec(Path(sys.argv[1])), tiny_bert(), TinyData(), lambda: counting, BATCH_SIZE)
