"""The real files beside the repository, where they are there."""

import json

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from lit_compress.data import Files, TextClassificationDataModule


@pytest.fixture
def load(shared_data, tokenizer_folder, tmp_path):
    def build(name, *files, **options):
        source = Files(*files, folder=str(shared_data(name)))
        options = {"tokenizer": tokenizer_folder, "cache_dir": str(tmp_path)} | options
        return TextClassificationDataModule(source, **options)

    return build


def counts(data, split):
    return np.bincount(data.rows(split).data.column("labels").to_numpy()).tolist()


@pytest.mark.parametrize(("name", "train"), [("sst2", [29780, 37569]), ("sst2_sentences", [3310, 3610])])
def test_sst2(load, name, train):
    data = load(name, "train.tsv", "dev.tsv", "test.tsv", text="sentence")
    assert data.num_labels == 2
    assert counts(data, "train") == train
    assert counts(data, "validation") == [428, 444]
    assert counts(data, "test") == [912, 909]
    assert sum(len(batch["labels"]) for batch in data.val_dataloader()) == 872


def test_mrpc_pairs(load, shared_data):
    data = load(
        "mrpc", "train.jsonl", "dev.jsonl", "test.jsonl", text=["sentence1", "sentence2"], max_length=64
    )
    assert counts(data, "train") == [1194, 2474]
    raw = [json.loads(line) for line in (shared_data("mrpc") / "dev.jsonl").read_text().splitlines()]
    for batch in data.val_dataloader():
        assert batch["labels"].tolist() == [raw[row]["label"] for row in batch["example_id"].tolist()]
        assert batch["token_type_ids"].any()


def test_stsb_regression(load, shared_data):
    data = load("stsb_en", "train.jsonl", "dev.jsonl", text=["sentence1", "sentence2"], label="score")
    assert data.is_regression
    raw = [
        json.loads(line)["score"] for line in (shared_data("stsb_en") / "dev.jsonl").read_text().splitlines()
    ]
    labels = data.rows("validation").data.column("labels").to_numpy()
    assert np.allclose(labels, raw)
    assert np.isclose(labels.mean(), 2.36, atol=0.01)


def test_russian_tweets_with_two_tokenizers(load, shared_data, tmp_path):
    lines = (shared_data("rusentitweet") / "train.jsonl").read_text(encoding="utf-8").splitlines()
    texts = [json.loads(line)["text"] for line in lines]
    folders = {size: word_pieces(texts[:2000], size, tmp_path / str(size)) for size in (500, 2000)}
    data = load(
        "rusentitweet",
        "train.jsonl",
        None,
        "test.jsonl",
        tokenizer=folders[500],
        teacher_tokenizer=folders[2000],
        validation_share=0.1,
    )
    assert data.label_names == ["negative", "neutral", "positive", "skip", "speech"]
    assert len(data.rows("train")) + len(data.rows("validation")) == 10713
    assert len(data.rows("validation")) == 1071
    rows = data.rows("test")
    assert sum(map(len, rows["teacher_input_ids"])) < sum(map(len, rows["input_ids"]))
    batch = next(iter(data.train_dataloader()))
    assert batch["teacher_input_ids"].shape == batch["teacher_attention_mask"].shape
    assert batch["input_ids"].shape != batch["teacher_input_ids"].shape


def word_pieces(texts, size, folder):
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    tokenizer.train_from_iterator(texts, trainers.WordPieceTrainer(vocab_size=size, special_tokens=special))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(
        folder
    )
    return str(folder)
