"""Injected faults must be found, rounding must not be."""

import numpy as np
import pytest
import torch

from lit_compress.export.parity import ParityError, check_parity, max_length
from tests.tiny import tiny_model


@pytest.fixture(scope="module")
def model():
    return tiny_model("bert").eval()


def answer(model, batch):
    with torch.inference_mode():
        return model(**{name: torch.from_numpy(array) for name, array in batch.items()}).logits.numpy()


def test_the_model_itself_has_no_error(model):
    assert check_parity(lambda batch: answer(model, batch), model, 1e-9, "itself") == 0


def test_error_is_relative_to_the_size_of_the_logits(model):
    # Logits that are 1 % too large everywhere are 1 % off in the batch whose logits are of average size.
    error = check_parity(lambda batch: 1.01 * answer(model, batch), model, 0.1, "a scaled one")
    assert 0.01 <= error < 0.02


@pytest.mark.parametrize(
    "fault",
    {
        "ignores the mask": lambda model, batch: answer(
            model, {**batch, "attention_mask": np.ones_like(batch["attention_mask"])}
        ),
        "knows 64 tokens": lambda model, batch: answer(
            model, {name: array[:, :64] for name, array in batch.items()}
        ),
        "answers for the first text": lambda model, batch: np.tile(
            answer(model, batch)[:1], (len(batch["input_ids"]), 1)
        ),
        "gives no number": lambda model, batch: answer(model, batch) * np.nan,
        "gives one NaN": lambda model, batch: np.where(
            np.arange(len(batch["input_ids"]))[:, None] == 5, np.nan, answer(model, batch)
        ),
    }.items(),
    ids=lambda fault: fault[0],
)
def test_refuses_a_model_that(model, fault):
    with pytest.raises(ParityError, match="Expected a broken one to compute the logits of the original"):
        check_parity(lambda batch: fault[1](model, batch), model, 0.05, "a broken one")


def test_refuses_logits_of_another_shape(model):
    with pytest.raises(
        ParityError, match=r"Expected logits of shape \(1, 3\) from a broken one.*got \(1, 2\)"
    ):
        check_parity(lambda batch: answer(model, batch)[:, :2], model, 0.05, "a broken one")


@pytest.mark.parametrize(("family", "longest"), [("bert", 130), ("roberta", 129), ("distilbert", 130)])
def test_longest_text_is_just_readable(family, longest):
    model = tiny_model(family).eval()
    assert max_length(model) == longest
    model(input_ids=torch.full((1, longest), 7))
    with pytest.raises((IndexError, RuntimeError)):
        model(input_ids=torch.full((1, longest + 1), 7))
