"""A cache that is stale, damaged, foreign or too big is refused with the fix, and left alone."""

import itertools
import shutil
from collections import namedtuple
from dataclasses import replace

import pytest
import torch

from lit_compress.models.teacher import LiveTeacher
from lit_compress.models.teacher_cache import ensure_cache
from lit_compress.outputs import Capture
from tests.models.cache_worker import BATCH_SIZE, CAPTURE, Counting, build, contents, never, spec
from tests.models.data import TinyData
from tests.tiny import tiny_bert


def stale(path, **changes):
    """Open a finished cache with something changed."""
    model, data = changes.pop("model", None) or tiny_bert(), changes.pop("data", None) or TinyData()
    ensure_cache(replace(spec(path), **changes), model, data, never)


def biased():
    model = tiny_bert()
    with torch.no_grad():
        model.classifier.bias[0] += 1e-6
    return model


def other_activation():
    model = tiny_bert()
    model.config.hidden_act = "relu"
    return model


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"model": biased}, "the teacher's weights or configuration"),
        ({"model": other_activation}, "the teacher's weights or configuration"),
        ({"data": lambda: TinyData(name="other")}, "the data, the tokenizer or max_length"),
        ({"split": lambda: "validation"}, "the split"),
        (
            {"precision": lambda: "bfloat16"},
            r"the precision of the teacher \(teacher.precision\) \(float32 there",
        ),
        ({"dtype": lambda: "float16"}, r"teacher.cache_dtype \(float32 there, float16 wanted\)"),
        (
            {"capture": lambda: Capture(hidden_states=frozenset({0, 3}))},
            r"hidden_states \[3\] that the objectives need",
        ),
    ],
)
def test_refuses_a_stale_cache_and_leaves_it_alone(tmp_path, changes, part):
    build(tmp_path / "cache")
    before = contents(tmp_path / "cache")
    with pytest.raises(
        ValueError, match=f"to belong to this run but it differs in .*{part}.*delete the folder"
    ):
        stale(tmp_path / "cache", **{name: make() for name, make in changes.items()})
    assert contents(tmp_path / "cache") == before


def test_refuses_to_continue_the_partial_cache_of_another_teacher(tmp_path):
    class Failing(Counting):
        def __call__(self, batch):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ensure_cache(spec(tmp_path / "cache"), tiny_bert(), TinyData(), Failing, BATCH_SIZE)
    with pytest.raises(ValueError, match=r"cache\.partial to belong to this run but .*teacher's weights"):
        stale(tmp_path / "cache", model=biased())


def test_refuses_a_folder_that_is_no_cache(tmp_path):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "thesis.tex").write_text("important")
    with pytest.raises(
        ValueError, match=r"teacher cache in .*cache but it has no meta\.json.*does not exist yet"
    ):
        stale(tmp_path / "cache")
    assert contents(tmp_path / "cache") == {"thesis.tex": b"important"}


def test_an_empty_folder_is_a_place_for_a_cache(tmp_path):
    (tmp_path / "cache").mkdir()
    assert build(tmp_path / "cache").meta["counts"].row == 23


@pytest.mark.parametrize("name", ["logits.float32", "hidden_states.2.float32", "attention_scores.1.float32"])
@pytest.mark.parametrize("damage", ["cut", "flip", "remove"])
def test_refuses_a_damaged_file(tmp_path, name, damage):
    build(tmp_path / "cache")
    file = tmp_path / "cache" / name
    data = bytearray(file.read_bytes())
    if damage == "cut":
        file.write_bytes(data[:-1])
        message = rf"{name} has {len(data) - 1} bytes instead of {len(data)}"
    elif damage == "flip":
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
        message = rf"the checksum of {name} is wrong"
    else:
        file.unlink()
        message = rf"{name} is missing instead of {len(data)} bytes"
    with pytest.raises(ValueError, match=rf"intact teacher cache in .* but {message}.*delete the folder"):
        stale(tmp_path / "cache")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("{", "", r"meta\.json cannot be read"),
        ('"schema": 1', '"schema": 2', "schema 1 in .* but got 2; it was written by another version"),
        ('"parts"', '"part"', r"meta\.json cannot be read \(KeyError: 'parts'\)"),
        ('"sha256"', '"sha255"', "it was never finished"),
    ],
)
def test_refuses_a_damaged_description(tmp_path, old, new, message):
    build(tmp_path / "cache")
    meta = tmp_path / "cache" / "meta.json"
    meta.write_text(meta.read_text().replace(old, new, 1))
    with pytest.raises(ValueError, match=message):
        stale(tmp_path / "cache")


def test_refuses_rows_that_are_not_in_the_cache(tmp_path):
    cached, batch = build(tmp_path / "cache"), TinyData().batch([0, 1])
    unknown = next(i for i in itertools.count() if i not in TinyData().ids)
    for missing in (unknown, 10**9, -1):
        batch["example_id"][1] = missing
        with pytest.raises(
            ValueError, match=rf"1 are missing \(first example_id: {missing}\).*split 'train'"
        ):
            cached.outputs(batch)


def test_refuses_a_row_with_other_tokens(tmp_path):
    cached, batch = build(tmp_path / "cache"), TinyData().batch([0, 1])
    batch["attention_mask"][1, 0] = 0
    with pytest.raises(
        ValueError, match=rf"tokens in example_id {TinyData().ids[1]}, .*tokenisation changed"
    ):
        cached.outputs(batch)


def test_refuses_to_fill_the_disk(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**6, 10**6 - 30_000, 30_000))
    with pytest.raises(
        ValueError, match=r"of free space for the teacher cache in .* but only 0\.03 MB are free.*float16"
    ):
        build(tmp_path / "cache")
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**6, 10**5, 9 * 10**5))
    build(tmp_path / "cache")


def changed_answer(change):
    teacher = LiveTeacher(tiny_bert(), CAPTURE)

    def answer(batch):
        outputs = teacher.outputs(batch)
        change(outputs, batch)
        return outputs

    return lambda: answer


def test_refuses_values_beyond_float16(tmp_path):
    def change(outputs, batch):
        outputs.hidden_states[2][0, 0, 0] = 1e5

    narrow = replace(spec(tmp_path / "cache"), dtype="float16")
    with pytest.raises(
        ValueError, match=r"hidden_states of layer 2 .* range of float16 but got 1e\+05; .*float32"
    ):
        ensure_cache(narrow, tiny_bert(), TinyData(), changed_answer(change), BATCH_SIZE)


def test_refuses_a_teacher_that_answers_nan(tmp_path):
    bad = int(TinyData().ids[7])

    def change(outputs, batch):
        outputs.logits[batch["example_id"] == bad] = float("nan")

    with pytest.raises(ValueError, match=rf"finite logits from the teacher but got NaN .* example_id {bad};"):
        ensure_cache(spec(tmp_path / "cache"), tiny_bert(), TinyData(), changed_answer(change), BATCH_SIZE)


def test_refuses_a_loader_that_drops_rows(tmp_path):
    class Dropping(TinyData):
        def sequential_dataloader(self, split, batch_size):
            yield from list(super().sequential_dataloader(split, batch_size))[:-1]

    with pytest.raises(
        ValueError, match=r"Expected 23 rows .* but got 20 with .*every row of the split once"
    ):
        build(tmp_path / "cache", data=Dropping())


def test_refuses_repeated_example_ids(tmp_path):
    data = TinyData()
    data.ids[3] = data.ids[2]
    with pytest.raises(ValueError, match=r"a different example_id on every row but 1 repeat"):
        build(tmp_path / "cache", data=data)


def test_refuses_another_order_of_rows_on_resume(tmp_path):
    class Reversed(TinyData):
        def sequential_dataloader(self, split, batch_size):
            yield from reversed(list(super().sequential_dataloader(split, batch_size)))

    class Failing(Counting):
        def __call__(self, batch):
            if self.calls == 2:
                raise KeyboardInterrupt
            return super().__call__(batch)

    with pytest.raises(KeyboardInterrupt):
        ensure_cache(spec(tmp_path / "cache"), tiny_bert(), TinyData(), Failing, BATCH_SIZE)
    with pytest.raises(ValueError, match=r"rows now come in another order than before the interruption"):
        ensure_cache(spec(tmp_path / "cache"), tiny_bert(), Reversed(), Counting, BATCH_SIZE)


def test_progress_that_is_ahead_of_the_files_is_refused(tmp_path, monkeypatch):
    class Failing(Counting):
        def __call__(self, batch):
            if self.calls == 2:
                raise KeyboardInterrupt
            return super().__call__(batch)

    with pytest.raises(KeyboardInterrupt):
        ensure_cache(spec(tmp_path / "cache"), tiny_bert(), TinyData(), Failing, BATCH_SIZE)
    (tmp_path / "cache.partial" / "logits.float32").write_bytes(b"")
    with pytest.raises(ValueError, match=r"logits\.float32 is shorter than its recorded progress"):
        ensure_cache(spec(tmp_path / "cache"), tiny_bert(), TinyData(), Counting, BATCH_SIZE)


def test_refuses_batches_without_a_mask(tmp_path):
    class Unmasked(TinyData):
        def batch(self, chosen, width=None):
            batch = super().batch(chosen, width)
            del batch["attention_mask"]
            return batch

    with pytest.raises(ValueError, match=r"attention_mask in the batches to cache"):
        build(tmp_path / "cache", data=Unmasked())
