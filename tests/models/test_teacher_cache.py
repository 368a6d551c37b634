"""The cached teacher gives what the live one gives, or refuses."""

import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from lit_compress.models.cache_spec import CacheSpec
from lit_compress.models.teacher import CachedTeacher, LiveTeacher, Teacher
from lit_compress.models.teacher_cache import ensure_cache
from lit_compress.outputs import Capture, Outputs
from tests.models.cache_worker import BATCH_SIZE, CAPTURE, Counting, build, contents, never, spec
from tests.models.data import TinyData
from tests.tiny import tiny_bert, tiny_model

REPOSITORY = Path(__file__).parents[2]
EVERYTHING = Capture(
    hidden_states=frozenset({0, 1, 4}),
    attention_scores=frozenset({0, 3}),
    queries=frozenset({2}),
    keys=frozenset({2}),
    values=frozenset({2, 3}),
)


def assert_same(cached: Outputs, live: Outputs, tolerance: float = 1e-6, rtol: float = 0.0) -> None:
    """Compare at real tokens, to ``tolerance`` of the largest value (1 at least).

    A live teacher's values at padding mean nothing, and the last digit of a float32 of size 30 is 2e-6.
    """
    close(cached.logits, live.logits, tolerance, rtol)
    assert torch.equal(cached.mask, live.mask)
    token = live.mask
    pair = token[:, None, :, None] & token[:, None, None, :]
    where = {"hidden_states": token[..., None], "attention_scores": pair}
    for name in ("hidden_states", "attention_scores", "queries", "keys", "values"):
        given, expected = getattr(cached, name), getattr(live, name)
        assert given.keys() == expected.keys()
        valid = where.get(name, token[:, None, :, None])
        for layer, tensor in given.items():
            assert tensor.dtype == torch.float32
            close(tensor, expected[layer] * valid, tolerance, rtol)


def close(given: torch.Tensor, expected: torch.Tensor, tolerance: float, rtol: float) -> None:
    scale = max(1.0, expected.abs().max().item())
    torch.testing.assert_close(given, expected, atol=tolerance * scale, rtol=rtol)


def shuffled_batches(data: TinyData, seed: int = 1, size: int = 5):
    """Other orders, other companions, other paddings than those the cache was computed with."""
    order = np.random.default_rng(seed).permutation(len(data.tokens))
    for start in range(0, len(order), size):
        chosen = order[start : start + size].tolist()
        yield data.batch(chosen)
        yield data.batch(chosen[:2], width=15)


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "electra", "albert"])
def test_equals_the_live_teacher_in_any_order_and_company(family, tmp_path):
    """Golden check 21."""
    model, data = tiny_model(family), TinyData()
    with torch.no_grad():  # weights of the usual size: with ten times larger ones logits move by 1.1e-6
        for parameter in model.parameters():
            parameter.mul_(0.25 if parameter.ndim > 1 else 1.0)
    cached = build(tmp_path / "cache", EVERYTHING, model, data)
    live = LiveTeacher(model, EVERYTHING)
    for batch in shuffled_batches(data):
        assert_same(cached.outputs(batch), live.outputs(batch))
    for batch in data.sequential_dataloader("train", 4):  # the batches of the cache itself: not a bit differs
        assert_same(cached.outputs(batch), live.outputs(batch), tolerance=0.0)


def test_answers_are_float32_under_another_default_type(tmp_path):
    """The ``-true`` precisions of a trainer set torch's default type around every step."""
    cached, batch = build(tmp_path / "cache", EVERYTHING), TinyData().batch([3, 1])
    before = cached.outputs(batch)
    torch.set_default_dtype(torch.bfloat16)
    try:
        assert_same(cached.outputs(batch), before, tolerance=0.0)
    finally:
        torch.set_default_dtype(torch.float32)


def test_float16_states_are_rounded_and_logits_are_not(tmp_path):
    model, data = tiny_bert(), TinyData()
    cached, live = (
        build(tmp_path / "cache", EVERYTHING, model, data, "float16"),
        LiveTeacher(model, EVERYTHING),
    )
    batch = data.batch([3, 1, 8])
    given, expected = cached.outputs(batch), live.outputs(batch)
    assert_same(given, expected, tolerance=1e-5, rtol=2**-11)
    close(given.logits, expected.logits, 1e-5, 0.0)


def test_a_second_tokenizer_is_looked_up_with_its_own_mask(tmp_path):
    student, teacher = TinyData(seed=0), TinyData(seed=5)
    teacher.teacher_tokenizer_object = "another one"

    class Both(TinyData):
        teacher_tokenizer_object = "another one"

        def batch(self, chosen, width=None):
            mine = teacher.batch(chosen, width)
            own = {f"teacher_{k}": mine[k] for k in ("input_ids", "attention_mask", "token_type_ids")}
            return {**student.batch(chosen), **own}

        def rows(self, split):
            return student.rows(split).add_column("teacher_input_ids", teacher.tokens)

    data = Both()
    data.teacher_tokenizer_object = "another one"
    model = tiny_bert()
    cached = build(tmp_path / "cache", EVERYTHING, model, data)
    assert cached.meta["parts"]["data"] == "tiny-train-teacher"
    batch = data.batch([4, 9, 2])
    assert_same(cached.outputs(batch), LiveTeacher(model, EVERYTHING).outputs(batch))


def test_a_step_may_ask_for_less_and_a_run_for_less_than_the_cache_holds(tmp_path):
    build(tmp_path / "cache", EVERYTHING)
    small = Capture(hidden_states=frozenset({1}))
    cached = ensure_cache(
        CacheSpec(tmp_path / "cache", "train", small, dtype="float32"), tiny_bert(), TinyData(), never
    )
    batch = TinyData().batch([0, 1])
    assert list(cached.outputs(batch).hidden_states) == [1]
    assert not cached.outputs(batch, Capture()).hidden_states


def test_answers_can_be_trained_on_and_never_reach_the_file(tmp_path):
    cached, batch = build(tmp_path / "cache"), TinyData().batch([0, 1])
    first = cached.outputs(batch)
    kept = first.hidden_states[2].clone()
    first.hidden_states[2].zero_()
    first.logits.zero_()
    again = cached.outputs(batch)
    assert torch.equal(again.hidden_states[2], kept) and again.logits.abs().sum() > 0
    student = torch.randn_like(kept, requires_grad=True)
    (student * again.hidden_states[2]).sum().backward()
    assert torch.equal(student.grad, kept)


def test_size_is_announced_and_is_the_size_on_disk(tmp_path, capfd):
    data = TinyData()
    build(tmp_path / "cache", data=data)
    lengths = [len(t) for t in data.tokens]
    # two hidden states of 32, one score array of 4 heads, 3 logits, an id and a length
    size = 4 * (2 * 32 * sum(lengths) + 4 * sum(n * n for n in lengths) + 3 * len(lengths)) + 12 * len(
        lengths
    )
    files = [p for p in (tmp_path / "cache").iterdir() if p.name != "meta.json"]
    assert sum(p.stat().st_size for p in files) == size
    assert f"cache: 23 rows, {size / 1e6:.2f} MB" in capfd.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["cache"]


def test_a_killed_run_is_continued_where_it_stopped(tmp_path):
    command = [sys.executable, "-m", "tests.models.cache_worker", str(tmp_path / "cache"), "3"]
    process = subprocess.Popen(
        command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout.readline() == "hanging\n"
    process.kill()
    process.wait()
    assert not (tmp_path / "cache").exists() and (tmp_path / "cache.partial").is_dir()
    # what a kill in the middle of a write leaves behind
    with (tmp_path / "cache.partial" / "hidden_states.2.float32").open("ab") as file:
        file.write(b"half a row")
    counting = Counting()
    ensure_cache(spec(tmp_path / "cache"), tiny_bert(), TinyData(), lambda: counting, batch_size=7)
    whole = Counting()
    ensure_cache(spec(tmp_path / "whole"), tiny_bert(), TinyData(), lambda: whole, BATCH_SIZE)
    assert whole.calls == 6 and counting.calls == 3
    assert contents(tmp_path / "cache") == contents(tmp_path / "whole")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cache", "whole"]


@pytest.mark.parametrize("fail_at", [0, 1, 5])
def test_an_error_at_any_batch_leaves_a_cache_that_can_be_continued(tmp_path, fail_at):
    class Failing(Counting):
        def __call__(self, batch):
            if self.calls == fail_at:
                raise KeyboardInterrupt
            return super().__call__(batch)

    with pytest.raises(KeyboardInterrupt):
        ensure_cache(spec(tmp_path / "cache"), tiny_bert(), TinyData(), Failing, BATCH_SIZE)
    assert not (tmp_path / "cache").exists()
    counting = Counting()
    cached = ensure_cache(spec(tmp_path / "cache"), tiny_bert(), TinyData(), lambda: counting, BATCH_SIZE)
    assert counting.calls == 6 - fail_at
    batch = TinyData().batch([7, 3])
    assert_same(cached.outputs(batch), counting.teacher.outputs(batch))


def test_of_two_processes_one_computes_and_the_other_waits(tmp_path):
    started, go, answers = threading.Event(), threading.Event(), []

    class Slow(Counting):
        def __init__(self):
            super().__init__()
            answers.append(self)
            started.set()
            go.wait(10)

    def run():
        found.append(ensure_cache(spec(tmp_path / "cache"), tiny_bert(), TinyData(), Slow, BATCH_SIZE))

    found: list[CachedTeacher] = []
    threads = [threading.Thread(target=run) for _ in range(2)]
    threads[0].start()
    assert started.wait(10)
    threads[1].start()
    threads[1].join(0.3)
    assert not found  # both are busy: one in the teacher, one at the lock
    go.set()
    for thread in threads:
        thread.join(20)
    assert len(found) == 2 and len(answers) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["cache"]


def test_from_a_recipe(tmp_path):
    tiny_bert().save_pretrained(tmp_path / "model")
    teacher = Teacher(str(tmp_path / "model"), cache=str(tmp_path / "a" / "cache"), precision="bf16")
    model, data = teacher.load(), TinyData()
    cached = teacher.cached(model, data, CAPTURE)
    assert model.dtype == torch.float32 and data.served == 1
    assert teacher.cached(model, data, CAPTURE).path == cached.path and data.served == 1
    batch = data.batch([5, 0, 1])
    live = teacher.live(teacher.load(), CAPTURE).outputs(batch)
    assert_same(cached.outputs(batch), live, tolerance=0.02)
    assert cached.to("cpu") is cached
