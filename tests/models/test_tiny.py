"""The builders that every other test relies on."""

import pytest
import torch
from transformers import AutoTokenizer

from tests.tiny import (
    IMAGE_FAMILIES,
    TEXT_FAMILIES,
    WORDS,
    tiny_batch,
    tiny_images,
    tiny_model,
    tiny_tokenizer,
)


@pytest.mark.parametrize("family", [*TEXT_FAMILIES, *IMAGE_FAMILIES])
def test_tiny_model_is_seeded_and_depends_on_its_input(family):
    model = tiny_model(family, labels=5)
    inputs = tiny_images() if family in IMAGE_FAMILIES else tiny_batch()
    inputs = {k: v for k, v in inputs.items() if k in ("input_ids", "attention_mask", "pixel_values")}
    with torch.no_grad():
        logits = model(**inputs).logits
        again = tiny_model(family, labels=5)(**inputs).logits
    assert model.training and logits.shape == (4, 5)
    assert torch.equal(logits, again)
    assert (logits[0] - logits[1]).abs().max() > 0.01


def test_tiny_tokenizer_fits_the_tiny_models(tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(tiny_tokenizer(tmp_path))
    assert len(tokenizer) == 100
    words = tokenizer.convert_ids_to_tokens(tokenizer("Good film, unhappy").input_ids)
    assert words[:4] == ["[CLS]", "good", "film", "[UNK]"] and words[-1] == "[SEP]"
    pair = tokenizer(WORDS[0], WORDS[1])
    assert pair["token_type_ids"] == [0, 0, 0, 1, 1]


def test_tiny_batch_pads_without_touching_the_tokens():
    short, long = tiny_batch(), tiny_batch(extra_padding=6)
    assert torch.equal(short["input_ids"], long["input_ids"][:, :7])
    assert long["attention_mask"].sum(1).tolist() == [7, 5, 3, 7]
    assert (long["input_ids"] * (1 - long["attention_mask"])).sum() == 0
