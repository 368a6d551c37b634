"""A tiny task on disk: texts whose words decide the label, a tokenizer, a teacher folder."""

import random
from pathlib import Path

import pytest

from tests.tiny import WORDS, tiny_bert, tiny_tokenizer

GOOD, BAD = ("good", "great", "fine"), ("bad", "awful", "poor")


def write_texts(path: Path, rows: int, seed: int) -> None:
    """Write a TSV of two classes that a tiny model can learn."""
    draw = random.Random(seed)
    lines = ["sentence\tlabel"]
    neutral = [w for w in WORDS if w not in GOOD + BAD]
    for _ in range(rows):
        label = draw.randrange(2)
        words = [*draw.choices(neutral, k=draw.randint(2, 12)), draw.choice(BAD if label == 0 else GOOD)]
        draw.shuffle(words)
        lines.append(f"{' '.join(words)}\t{label}")
    path.write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="session")
def task(tmp_path_factory):
    """Folder with train.tsv, dev.tsv, test.tsv, and a 4-layer teacher with its tokenizer in teacher/."""
    folder = tmp_path_factory.mktemp("task")
    for name, rows, seed in (("train", 96, 0), ("dev", 40, 1), ("test", 40, 2)):
        write_texts(folder / f"{name}.tsv", rows, seed)
    tiny_tokenizer(folder / "teacher")
    tiny_bert(layers=4, labels=2, dropout=0.1).save_pretrained(folder / "teacher")
    return folder
