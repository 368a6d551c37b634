import numpy as np

from lit_compress.benchmark.protocol import Protocol
from lit_compress.benchmark.workload import round_of, token_batch


def test_round_holds_single_texts_batches_and_fixed_lengths():
    lengths = tuple(range(1, 33))
    protocol = Protocol(lengths, fixed_batches=(4,), fixed_lengths=(32, 384))
    found = {workload.name: workload for workload in round_of(protocol, lengths, max_positions=512)}
    assert found["latency"].batches == tuple((n,) for n in lengths)
    (whole,) = found["throughput 32"].batches
    assert sorted(whole) == list(lengths)
    # Eight of the texts, evenly spaced over the 32: their mean length is that of all.
    assert found["throughput 8"].batches == ((3, 7, 11, 15, 19, 23, 27, 31),)
    assert set(found["latency 32"].batches) == {(32,)}
    assert found["throughput 4x384"].batches == ((384,) * 4,)
    assert (found["throughput 8"].texts, found["latency"].texts) == (8, 32)


def test_texts_that_are_too_long_are_left_out():
    protocol = Protocol((4,), fixed_batches=(2,))
    names = [workload.name for workload in round_of(protocol, (4,), max_positions=128)]
    assert "latency 128" in names and "throughput 2x128" in names
    assert not [name for name in names if "384" in name]


def test_few_texts_are_repeated_to_fill_a_batch():
    (batch,) = next(w for w in round_of(Protocol((3, 5)), (3, 5), None) if w.name == "throughput 8").batches
    assert sorted(batch) == [3] * 4 + [5] * 4


def test_batch_has_the_lengths_and_pads_on_the_right():
    batch = token_batch([2, 5, 3], vocab_size=50, pad_token_id=1, seed=0)
    assert batch["attention_mask"].tolist() == [[1, 1, 0, 0, 0], [1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]
    assert (batch["input_ids"][batch["attention_mask"] == 0] == 1).all()
    assert {array.dtype for array in batch.values()} == {np.dtype("int64")}


def test_padding_token_is_never_drawn():
    # RoBERTa counts positions from the tokens that are not padding.
    batch = token_batch([400], vocab_size=3, pad_token_id=1, seed=0)
    assert set(batch["input_ids"].flatten().tolist()) == {0, 2}


def test_tokens_depend_on_the_seed_alone():
    first, again = (token_batch([9, 4], 1000, None, seed=3)["input_ids"] for _ in range(2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, token_batch([9, 4], 1000, None, seed=4)["input_ids"])
    assert first.max() < 1000
