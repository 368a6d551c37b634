import json
from pathlib import Path

import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser
from transformers import AutoTokenizer

from lit_compress.data import Docstrings, Files, Hub, TextClassificationDataModule
from tests.data.conftest import sentence
from tests.tiny import tiny_tokenizer


def epoch(loader):
    return [{name: value.clone() for name, value in batch.items()} for batch in loader]


def ids_of(loader):
    return [row for batch in loader for row in batch["example_id"].tolist()]


def test_batches_hold_what_the_tokenizer_makes_of_the_rows(make, rows, tokenizer_folder):
    data = make(train=rows, batch_size=8)
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    seen = []
    for batch in data.train_dataloader():
        ids = batch["example_id"].tolist()
        expected = tokenizer([rows[i]["text"] for i in ids], padding=True, return_tensors="pt")
        for name, value in expected.items():
            assert torch.equal(batch[name], value)
        assert batch["labels"].tolist() == [rows[i]["label"] for i in ids]
        seen += ids
    assert sorted(seen) == list(range(53))


def test_facts_are_known_right_after_construction(make, rows):
    data = make(train=rows)
    assert (data.num_labels, data.label_names, data.is_regression) == (3, ["0", "1", "2"], False)
    assert data.teacher_tokenizer_object is None
    assert data.has_split("train")
    assert not data.has_split("test")


def test_pairs_and_regression(make, tokenizer_folder):
    rows = [{"one": sentence(row), "two": sentence(row + 1), "score": row / 2} for row in range(9)]
    data = make(train=rows, text=["one", "two"], label="score", batch_size=9)
    assert (data.num_labels, data.label_names, data.is_regression) == (1, None, True)
    (batch,) = epoch(data.train_dataloader())
    ids = batch["example_id"].tolist()
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    pairs = tokenizer([rows[i]["one"] for i in ids], [rows[i]["two"] for i in ids], padding=True)
    assert batch["input_ids"].tolist() == pairs["input_ids"]
    assert batch["token_type_ids"].tolist() == pairs["token_type_ids"]
    assert batch["token_type_ids"].any()
    assert batch["labels"].dtype == torch.float32
    assert batch["labels"].tolist() == [row / 2 for row in ids]


def test_a_second_tokenizer_adds_its_own_columns(make, rows, tmp_path, tokenizer_folder):
    other = tiny_tokenizer(tmp_path / "other", words=["very", "good", "story"])
    data = make(train=rows, teacher_tokenizer=str(other), batch_size=64, max_length=12)
    (batch,) = epoch(data.train_dataloader())
    texts = [rows[i]["text"] for i in batch["example_id"].tolist()]
    for prefix, folder in (("", tokenizer_folder), ("teacher_", other)):
        expected = AutoTokenizer.from_pretrained(folder)(
            texts, padding=True, truncation=True, max_length=12, return_tensors="pt"
        )
        for name, value in expected.items():
            assert torch.equal(batch[prefix + name], value)
    assert not torch.equal(batch["input_ids"], batch["teacher_input_ids"])
    assert data.fingerprint("train", "teacher") != data.fingerprint("train", "student")


def test_long_rows_are_cut_and_counted(make, rows, tokenizer_folder):
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    full = [len(ids) for ids in tokenizer([row["text"] for row in rows])["input_ids"]]
    data = make(train=rows, max_length=8)
    with pytest.warns(UserWarning, match=rf"{sum(n > 8 for n in full)} of 53 train rows .* max_length=8"):
        assert data.lengths("train").tolist() == [min(n, 8) for n in full]
    assert data.truncated_rows("train") == sum(n > 8 for n in full)
    assert data.rows("train")[0]["input_ids"][0] == tokenizer.cls_token_id
    assert all(ids[-1] == tokenizer.sep_token_id for ids in data.rows("train")["input_ids"])


def test_empty_rows_are_left_out_and_keep_the_numbers_of_the_others(make, rows):
    rows[4]["text"], rows[7]["text"] = "", " \n"
    rows[9]["text"] = None
    data = make(train=rows)
    with pytest.warns(
        UserWarning, match="3 of 53 rows of .*train.jsonl are left out because text is empty.* row 4 "
    ):
        kept = data.rows("train")["example_id"]
    assert list(kept) == [row for row in range(53) if row not in (4, 7, 9)]


def test_a_pair_needs_both_texts(make):
    rows = [{"one": one, "two": two, "label": n % 2} for n, (one, two) in enumerate(["aa", " b", "a ", "bb"])]
    with pytest.warns(
        UserWarning, match="2 of 4 rows of .* because one or two is empty, the first of them row 1 "
    ):
        assert list(make(train=rows, text=["one", "two"]).rows("train")["example_id"]) == [0, 3]


def test_length_buckets_save_padding(make):
    rows = [{"text": sentence(row), "label": row % 2} for row in range(400)]
    cost = {}
    for pool in (0, 50):
        loader = make(train=rows, batch_size=10, bucket_pool=pool).train_dataloader()
        cost[pool] = sum(batch["input_ids"].numel() for batch in loader)
    tokens = int(make(train=rows).lengths("train").sum())
    assert cost[50] < 1.1 * tokens < 1.3 * tokens < cost[0]


def test_fixed_padding(make, rows):
    batches = epoch(make(train=rows, padding="max_length", max_length=20, batch_size=8).train_dataloader())
    assert {batch["input_ids"].shape[1] for batch in batches} == {20}


def test_worker_processes_give_the_same_batches(make, rows):
    plain = epoch(make(train=rows, batch_size=8).train_dataloader())
    workers = epoch(make(train=rows, batch_size=8, num_workers=2).train_dataloader())
    for one, two in zip(plain, workers, strict=True):
        assert all(torch.equal(one[name], two[name]) for name in one)


def test_loaders_leave_the_global_random_state_alone(make, rows):
    data = make(train=rows, validation=rows, batch_size=8)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    for loader in (data.train_dataloader(), data.val_dataloader(), data.sequential_dataloader("train", 4)):
        epoch(loader)
    assert torch.equal(torch.get_rng_state(), before)


def test_evaluation_sees_every_row_once(make, rows):
    data = make(train=rows, validation=rows[:31], test=rows[10:], batch_size=4)
    assert sorted(ids_of(data.val_dataloader())) == list(range(31))
    assert sorted(ids_of(data.test_dataloader())) == list(range(43))
    sequential = data.sequential_dataloader("train", 7)
    widths = [batch["attention_mask"].sum(1) for batch in sequential]
    assert (np.diff(torch.cat(widths)) >= 0).all()
    assert sorted(ids_of(sequential)) == list(range(53))


def test_sequential_loader_gives_every_row_to_one_process_of_many(make, rows, monkeypatch):
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 0)
    data = make(train=rows, validation=rows[:31], batch_size=4)
    assert sorted(ids_of(data.sequential_dataloader("train", 7))) == list(range(53))
    assert len(ids_of(data.val_dataloader())) == 16


def test_predictions_come_in_source_order_without_labels(make, rows):
    hidden = [{"text": row["text"], "label": -1} for row in rows]
    loader = make(train=rows, test=hidden, batch_size=4).predict_dataloader()
    assert ids_of(loader) == list(range(53))
    assert all("labels" not in batch for batch in loader)
    unlabelled = [{"text": row["text"]} for row in rows[:5]]
    assert ids_of(make(train=rows, test=unlabelled).predict_dataloader()) == list(range(5))
    assert ids_of(make(train=rows, validation=rows[:9]).predict_dataloader()) == list(range(9))


def test_tokens_are_cached_until_something_changes(make, rows, monkeypatch):
    calls = []
    original = TextClassificationDataModule.tokenizer_object.fget

    make(train=rows).rows("train")
    monkeypatch.setattr(
        "lit_compress.data.tokens._tokenize_rows", lambda *args, **kwargs: calls.append(1) or 1 / 0
    )
    assert len(make(train=rows).rows("train")) == 53
    assert (
        make(train=rows).rows("train")["input_ids"][0]
        == original(make(train=rows))(rows[0]["text"])["input_ids"]
    )
    assert not calls
    changed = [*rows[:-1], {"text": "very good", "label": 1}]
    for options in ({"train": changed}, {"train": rows, "max_length": 9}):
        with pytest.raises(ZeroDivisionError):
            make(**options).rows("train")


def test_fingerprint_follows_rows_tokenizer_and_length(make, rows, tmp_path):
    base = make(train=rows).fingerprint("train")
    assert base == make(train=rows, batch_size=3, seed=4).fingerprint("train")
    other = tiny_tokenizer(tmp_path / "other", words=["good"])
    changed = [
        make(train=rows, max_length=64),
        make(train=rows, tokenizer=str(other)),
        make(train=rows, limit_train=20),
        make(train=rows[1:]),
    ]
    assert len({base, *(data.fingerprint("train") for data in changed)}) == 5
    used = make(train=rows)
    used.tokenizer_object("text", padding="max_length", truncation=True, max_length=30)
    make(train=rows)
    assert used.fingerprint("train") == base


def test_held_out_rows_are_disjoint_and_keep_their_numbers(make, rows):
    data = make(train=rows, validation_share=0.2)
    train, held = (list(data.rows(split)["example_id"]) for split in ("train", "validation"))
    assert len(held) == 11
    assert sorted(train + held) == list(range(53))
    assert held != list(range(11))
    assert data.fingerprint("train") != data.fingerprint("validation")
    again = make(train=rows, validation_share=0.2)
    assert list(again.rows("validation")["example_id"]) == held


def test_texts_are_those_of_the_rows(make, rows):
    data = make(train=rows, validation_share=0.2)
    for split in ("train", "validation"):
        wanted = [rows[number]["text"] for number in data.rows(split)["example_id"]]
        assert data.texts(split) == {"text": wanted}


def test_teacher_and_students_of_other_seeds_hold_out_the_same_rows(make, rows):
    teacher, student = (make(train=rows, validation_share=0.2, seed=seed) for seed in (0, 7))
    for split in ("train", "validation"):
        assert list(teacher.rows(split)["example_id"]) == list(student.rows(split)["example_id"])
        assert teacher.fingerprint(split) == student.fingerprint(split)
    few = [make(train=rows, validation_share=0.2, limit_train=10, seed=seed) for seed in (0, 7)]
    chosen = [set(data.rows("train")["example_id"]) for data in few]
    held = set(teacher.rows("validation")["example_id"])
    assert chosen[0] != chosen[1] and not (chosen[0] | chosen[1]) & held


def test_limited_training_rows(make, rows):
    data = make(train=rows, limit_train=10, validation_share=0.2)
    chosen = list(data.rows("train")["example_id"])
    assert len(chosen) == 10
    assert not set(chosen) & set(data.rows("validation")["example_id"])
    assert len(data.rows("validation")) == 11


def test_evaluation_without_a_train_split(make, rows):
    data = make(validation=rows, labels=["0", "1", "2"])
    assert data.num_labels == 3
    assert len(ids_of(data.val_dataloader())) == 53


@pytest.mark.parametrize(
    "source",
    [
        {"class_path": "lit_compress.data.Files", "init_args": {"train": "a.tsv"}},
        {"class_path": "lit_compress.data.Hub", "init_args": {"name": "org/data"}},
        {"class_path": "lit_compress.data.Docstrings"},
    ],
)
def test_yaml_round_trip(source):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(TextClassificationDataModule, "data")
    arguments = {"source": source, "tokenizer": "folder", "text": ["a", "b"], "labels": [1, "two"]}
    config = parser.parse_object(
        {"data": {"class_path": "lit_compress.data.TextClassificationDataModule", "init_args": arguments}}
    )
    again = parser.parse_string(parser.dump(config))
    data = parser.instantiate_classes(again).data
    assert isinstance(data.source, (Files, Hub, Docstrings))
    assert data.batch_size == 32
    assert again.data.init_args.labels == [1, "two"]


# ---- refusals ----------------------------------------------------------------------------------------------


def refusal(function, *args, **kwargs):
    with pytest.raises(ValueError) as error:
        function(*args, **kwargs)
    return str(error.value)


def test_refuses_a_missing_column(make, rows):
    message = refusal(lambda: make(train=rows, text="txt").num_labels)
    assert "Expected the column 'txt' in" in message
    assert "train.jsonl but got the columns 'text', 'label'; did you mean 'text'?" in message


def test_refuses_a_missing_label_column_in_another_split(make, rows):
    data = make(train=rows, validation=[{"text": "good"}])
    assert "Expected the column 'label' in" in refusal(data.val_dataloader)


def test_refuses_texts_that_are_all_empty(make, rows):
    message = refusal(make(train=[{"text": " ", "label": row % 2} for row in range(4)]).rows, "train")
    assert "all 4 rows are empty" in message


def test_refuses_a_number_column_as_text(make):
    message = refusal(make(train=[{"text": row, "label": row % 2} for row in range(4)]).rows, "train")
    assert "Expected text in column 'text'" in message
    assert "int64 (row 0: 0)" in message


def test_refuses_a_file_with_a_header_only(tmp_path, write, tokenizer_folder):
    path = write("a.tsv", "text\tlabel\n")
    data = TextClassificationDataModule(Files(str(path)), tokenizer_folder, cache_dir=str(tmp_path))
    assert f"Expected rows in {path} but it has none" in refusal(data.rows, "train")


def test_refuses_an_unknown_label_in_validation(make):
    train = [{"text": "good", "label": "pos"}, {"text": "bad", "label": "neg"}]
    data = make(train=train, validation=[*train, {"text": "a", "label": "neutral"}])
    message = refusal(data.val_dataloader)
    assert "validation.jsonl but got 'neutral'" in message
    assert "row 2" in message


def test_refuses_hidden_test_labels_in_test_only(make, rows):
    data = make(train=rows, test=[{"text": "good", "label": -1}])
    assert "use the test split with predict only" in refusal(data.test_dataloader)
    assert len(ids_of(data.predict_dataloader())) == 1


def test_refuses_a_missing_test_split(make, rows):
    assert "Expected a test split but the source has none; set source.test" in refusal(
        make(train=rows).test_dataloader
    )


def test_refuses_an_unknown_split(make, rows):
    assert "a split among train, validation, test but got 'dev'" in refusal(make(train=rows).rows, "dev")


def test_refuses_to_hold_out_beside_a_validation_split(make, rows):
    data = make(train=rows, validation=rows, validation_share=0.1)
    assert "remove one of the two" in refusal(data.rows, "train")


def test_refuses_to_guess_classes_without_a_train_split(make, rows):
    assert "give all classes in data.labels" in refusal(lambda: make(validation=rows).num_labels)


def test_refuses_the_label_column_as_text(make, rows):
    assert "'text' as both; set data.label" in refusal(make, train=rows, label="text")


@pytest.mark.parametrize("text", [[], ["a", "a"], ["a", "b", "c"]])
def test_refuses_other_numbers_of_text_columns(make, rows, text):
    assert "one text column, or two different ones for pairs" in refusal(make, train=rows, text=text)


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("batch_size", 0, "data.batch_size >= 1 but got 0"),
        ("eval_batch_size", 0, "data.eval_batch_size >= 1 but got 0"),
        ("bucket_pool", -1, "data.bucket_pool >= 0 but got -1"),
        ("max_length", 2, "data.max_length >= 5 but got 2"),
        ("limit_train", 0, "data.limit_train >= 1 but got 0"),
        ("validation_share", 10, "0 < data.validation_share < 1 but got 10"),
        ("padding", "short", "'longest' or 'max_length' but got 'short'"),
    ],
)
def test_refuses_numbers_out_of_range(make, rows, option, value, words):
    assert words in refusal(make, train=rows, **{option: value})


def test_refuses_to_train_on_more_rows_than_there_are(make, rows):
    message = refusal(make(train=rows, limit_train=50, validation_share=0.1).rows, "train")
    assert "data.limit_train <= 48, the training rows there are, but got 50" in message


def test_refuses_to_hold_out_everything(make, rows):
    message = refusal(make(train=rows[:2], validation_share=0.9).rows, "train")
    assert "Expected train rows with text but none of the 0 chosen rows" in message
    assert "data.validation_share" in message


def test_refuses_rows_longer_than_the_tokenizer_allows(make, rows):
    assert "max_length <= 128, the limit of data.tokenizer=" in refusal(
        make(train=rows, max_length=512).rows, "train"
    )


def test_refuses_a_folder_without_tokenizer(make, rows, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(json.dumps({"model_type": "bert"}))
    (tmp_path / "model" / "model.safetensors").touch()
    message = refusal(make(train=rows, tokenizer=str(tmp_path / "model")).rows, "train")
    assert "Expected a vocabulary" in message
    assert "lacks tokenizer.json" in message


def test_refuses_a_damaged_tokenizer(make, rows, tmp_path):
    (tmp_path / "tokenizer.json").write_text("{")
    message = refusal(make(train=rows, teacher_tokenizer=str(tmp_path)).rows, "train")
    assert f"a tokenizer for data.teacher_tokenizer='{tmp_path}'" in message


def test_refuses_a_tokenizer_without_padding(make, rows, tokenizer_folder, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    tokenizer.pad_token = None
    tokenizer.save_pretrained(tmp_path / "unpadded")
    message = refusal(make(train=rows, tokenizer=str(tmp_path / "unpadded")).rows, "train")
    assert "Expected a padding token" in message


def test_refuses_a_damaged_cache(make, rows, tmp_path):
    make(train=rows).rows("train")
    (path,) = Path(tmp_path / "cache").glob("*.arrow")
    path.write_bytes(path.read_bytes()[:200])
    message = refusal(make(train=rows).rows, "train")
    assert f"{path} but the file is damaged" in message
    assert "delete it" in message
