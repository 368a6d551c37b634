"""A tiny task of text pairs on disk: the same words or not, as a class or as a score."""

import json
import random
from pathlib import Path

import yaml

from lit_compress.models.checkpoint import save_folder
from lit_compress.models.loading import quiet
from tests.tiny import WORDS, tiny_bert, tiny_tokenizer

#: Only in the second column, and in none.
SECOND_ONLY, UNUSED = "blue", "five"
_COMMON = [word for word in WORDS if word not in (SECOND_ONLY, UNUSED)]


def write_pair_task(folder: Path, is_regression: bool) -> Path:
    """Write train, dev and test files of pairs, a 6-layer teacher in teacher/, and data.yaml, which names them."""
    for name, rows, seed in (("train", 96, 0), ("dev", 40, 1), ("test", 40, 2)):
        draw = random.Random(seed)
        lines = [json.dumps(_row(draw, is_regression)) for _ in range(rows)]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    teacher = tiny_bert(layers=6, hidden=64, labels=2, regression=is_regression)
    with quiet():
        save_folder(folder / "teacher", teacher, None, {"method": "teacher"})
    tiny_tokenizer(folder / "teacher")
    files = {name: f"{file}.jsonl" for name, file in _FILES.items()}
    init = {
        "source": {"class_path": "Files", "init_args": {"folder": str(folder), **files}},
        "text": ["first", "second"],
        "label": "label",
        "tokenizer": str(folder / "teacher"),
        "cache_dir": str(folder / "tokens"),
    }
    data = {"class_path": "TextClassificationDataModule", "init_args": init}
    (folder / "data.yaml").write_text(yaml.safe_dump({"data": data}))
    return folder


_FILES = {"train": "train", "validation": "dev", "test": "test"}


def _row(draw, is_regression):
    first = draw.choices(_COMMON, k=draw.randint(2, 8))
    second = [word if draw.random() < 0.5 else SECOND_ONLY for word in first]
    shared = sum(a == b for a, b in zip(first, second, strict=True)) / len(first)
    label = round(5 * shared, 1) + 0.05 if is_regression else int(shared > 0.5)
    return {"first": " ".join(first), "second": " ".join(second), "label": label}
