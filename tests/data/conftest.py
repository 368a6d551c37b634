import json
from collections.abc import Callable
from pathlib import Path

import pytest

from lit_compress.data import Files, TextClassificationDataModule
from tests.tiny import tiny_tokenizer

WORDS = [
    "good",
    "bad",
    "fine",
    "poor",
    "great",
    "awful",
    "not",
    "very",
    "really",
    "quite",
    "film",
    "movie",
    "plot",
    "actor",
    "scene",
    "story",
]


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory) -> str:
    return str(tiny_tokenizer(tmp_path_factory.mktemp("tokenizer")))


def sentence(row: int) -> str:
    """A text whose words and length (1 to 13 words) depend on the row."""
    return " ".join(WORDS[(row * 7 + place) % len(WORDS)] for place in range(1 + (row * 5) % 13))


@pytest.fixture
def write(tmp_path) -> Callable[..., Path]:
    """Write rows (dicts) as jsonl, or text as it is."""

    def put(name: str, content: list[dict] | str) -> Path:
        path = tmp_path / name
        if not isinstance(content, str):
            content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in content)
        path.write_text(content, encoding="utf-8")
        return path

    return put


@pytest.fixture
def make(tmp_path, tokenizer_folder, write) -> Callable[..., TextClassificationDataModule]:
    """Build a data module from rows of splits: ``make(train=[{"text": …, "label": …}, …])``."""

    def build(train=None, validation=None, test=None, **options) -> TextClassificationDataModule:
        splits = {"train": train, "validation": validation, "test": test}
        paths = {
            split: str(write(f"{split}.jsonl", rows)) for split, rows in splits.items() if rows is not None
        }
        options = {"tokenizer": tokenizer_folder, "cache_dir": str(tmp_path / "cache")} | options
        return TextClassificationDataModule(Files(**paths), **options)

    return build


@pytest.fixture
def rows() -> list[dict]:
    return [{"text": sentence(row), "label": row % 3} for row in range(53)]
