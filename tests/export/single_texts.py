"""Batches, references and faults for the runtimes that read one text at a time."""

import contextlib
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

from lit_compress.benchmark.workload import token_batch
from tests.tiny import tiny_bert


def batches(vocabulary=100, pad=0):
    """Texts of one token, of odd lengths, equal and mixed, up to the longest that the tiny models read."""
    for seed, lengths in enumerate([(1,), (9,), (17, 17), (64, 3, 30), (65, 128), (128, 1)]):
        yield token_batch(lengths, vocabulary, pad, seed)


def segments(batch):
    """The same batch as pairs of texts."""
    second = np.arange(batch["input_ids"].shape[1]) > 3
    return {**batch, "token_type_ids": second * batch["attention_mask"]}


@torch.inference_mode()
def wanted(model, batch):
    return model(**{name: torch.from_numpy(array) for name, array in batch.items()}).logits.numpy()


def run(session, batch):
    return session.logits(session.run(session.inputs(batch)))


def large_bert():
    """A model that is mostly its embedding, so that a second copy of it in a file would show."""
    return tiny_bert(layers=2, hidden=32, vocab=40_000).eval()


@contextlib.contextmanager
def full_disk(size):
    """Let every write beyond ``size`` bytes of a file fail, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


# The call of an export in a process of its own: what torch writes in C++ may end the process.
_EXPORT = """
import importlib, sys
from pathlib import Path
from tests.export.single_texts import full_disk
from tests.tiny import tiny_bert
_, module, function, path, size = sys.argv
export = getattr(importlib.import_module(module), function)
try:
    with full_disk(int(size)):
        export(tiny_bert(layers=1), Path(path))
except OSError as error:
    print(f"refused: {error}")
"""


def refusal_of_a_full_disk(export, path, size):
    """Export a tiny model to a path in a process that may write ``size`` bytes to a file; return its refusal."""
    done = subprocess.run(
        [sys.executable, "-c", _EXPORT, export.__module__, export.__name__, str(path), str(size)],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("refused: "), done.stdout
    return done.stdout.removeprefix("refused: ").strip()
