import torch

from lit_compress.benchmark.workload import token_batch


def test_batch_has_the_lengths_and_pads_on_the_right():
    batch = token_batch([2, 5, 3], vocab_size=50, pad_token_id=1, seed=0)
    assert batch["attention_mask"].tolist() == [[1, 1, 0, 0, 0], [1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]
    assert (batch["input_ids"][batch["attention_mask"] == 0] == 1).all()


def test_padding_token_is_never_drawn():
    # RoBERTa counts positions from the tokens that are not padding.
    batch = token_batch([400], vocab_size=3, pad_token_id=1, seed=0)
    assert set(batch["input_ids"].flatten().tolist()) == {0, 2}


def test_tokens_depend_on_the_seed_alone():
    first, again = (token_batch([9, 4], 1000, None, seed=3)["input_ids"] for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, token_batch([9, 4], 1000, None, seed=4)["input_ids"])
    assert first.max() < 1000
