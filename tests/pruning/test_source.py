"""Texts that a vocabulary is chosen from, and those that it is checked with."""

import yaml

from lit_compress.pruning.source import texts_in
from tests.tiny import tiny_tokenizer


def test_held_out_rows_are_no_training_texts(tmp_path):
    texts = [f"good film {'very ' * number}" for number in range(1, 31)]
    lines = [f"{text},{number % 2}" for number, text in enumerate(texts)]
    (tmp_path / "train.csv").write_text("\n".join(["text,label", *lines]) + "\n")
    init = {
        "source": {"class_path": "Files", "init_args": {"folder": str(tmp_path), "train": "train.csv"}},
        "tokenizer": str(tiny_tokenizer(tmp_path / "tokenizer")),
        "cache_dir": str(tmp_path),
        "validation_share": 0.1,
    }
    data = {"class_path": "TextClassificationDataModule", "init_args": init}
    (tmp_path / "data.yaml").write_text(yaml.safe_dump({"data": data}))
    train, held = (list(texts_in(tmp_path / "data.yaml", split)) for split in ("train", "validation"))
    assert len(held) == 3
    assert sorted(train + held) == sorted(texts)
