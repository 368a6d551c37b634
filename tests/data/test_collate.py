import numpy as np
import torch
from transformers import AutoTokenizer

from lit_compress.data.collate import Collate


def test_batches_equal_those_of_the_tokenizer(tokenizer_folder):
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    texts, others = ["good film", "not very good", "awful"], ["bad", "the story was great", "a"]
    tokens = tokenizer(texts, others)
    rows = [
        {name: np.array(tokens[name][row], dtype=np.int32) for name in ("input_ids", "token_type_ids")}
        | {"labels": np.int64(row), "example_id": np.int64(10 + row)}
        for row in range(3)
    ]
    batch = Collate({"input_ids": tokenizer.pad_token_id, "token_type_ids": 0})(rows)
    for name, expected in tokenizer(texts, others, padding=True, return_tensors="pt").items():
        assert torch.equal(batch[name], expected)
        assert batch[name].dtype == torch.int64
    assert batch["labels"].tolist() == [0, 1, 2]
    assert batch["example_id"].tolist() == [10, 11, 12]


def test_fixed_width_and_other_padding_value():
    rows = [{"input_ids": np.array([4, 5])}, {"input_ids": np.array([6])}]
    batch = Collate({"input_ids": 9}, width=4)(rows)
    assert batch["input_ids"].tolist() == [[4, 5, 9, 9], [6, 9, 9, 9]]
    assert batch["attention_mask"].tolist() == [[1, 1, 0, 0], [1, 0, 0, 0]]


def test_both_sides_have_their_own_width_and_mask():
    rows = [
        {"input_ids": np.array([4]), "teacher_input_ids": np.array([7, 8, 9])},
        {"input_ids": np.array([4, 5]), "teacher_input_ids": np.array([7])},
    ]
    batch = Collate({"input_ids": 0, "teacher_input_ids": 1})(rows)
    assert batch["attention_mask"].tolist() == [[1, 0], [1, 1]]
    assert batch["teacher_input_ids"].tolist() == [[7, 8, 9], [7, 1, 1]]
    assert batch["teacher_attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]


def test_regression_targets_stay_float32():
    batch = Collate({"input_ids": 0})([{"input_ids": np.array([1]), "labels": np.float32(2.5)}])
    assert batch["labels"].dtype == torch.float32
