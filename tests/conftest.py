"""Shared fixtures: no network, few threads, tiny models."""

import os
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
# Tiny models do not profit from threads, and threads of parallel tests only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put files with slow tests first, the one with most of them at the front; files stay whole and in order."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


@pytest.fixture(autouse=True)
def same_numbers_in_every_run() -> None:
    """Weights and texts that a test draws without a seed of its own are those of its last run."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture
def shared_data() -> Callable[[str], Path]:
    """Find a folder of real data, or skip: it is not part of the repository."""
    root = Path(os.environ.get("LIT_COMPRESS_DATA", Path(__file__).parents[2] / "shared" / "data"))

    def find(name: str) -> Path:
        folder = root / name
        if not folder.is_dir():
            pytest.skip(f"no real data at {folder}")
        return folder

    return find


@pytest.fixture(scope="session")
def cli_task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with train.tsv, dev.tsv, test.tsv and a 6-layer teacher, for runs of the command line."""
    from tests.runs import write_task

    return write_task(tmp_path_factory.mktemp("cli_task"))
