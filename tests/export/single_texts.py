"""Batches, references and faults for the runtimes that read one text at a time."""

import contextlib
import resource

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
