from math import sqrt

import numpy as np
import pytest

from lit_compress.data.augment import Augmentation, augmented_rows
from tests.data.conftest import sentence

ROWS = [{"text": sentence(row), "label": row % 2} for row in range(40)]


def drawn(settings: Augmentation, count: int = 400, length: int = 20) -> list[str]:
    texts = [" ".join(f"w{row}x{place}" for place in range(length)) for row in range(count)]
    return [copy[0] for _, _, copy in augmented_rows([texts], range(count), settings, "[MASK]")]


def test_words_are_masked_and_replaced_as_often_as_asked():
    copies = drawn(Augmentation(copies=2, mask=0.2, replace=0.3, ngram=0.0))
    places = [(word, place) for copy in copies for place, word in enumerate(copy.split())]
    total = len(places)
    masked = sum(word == "[MASK]" for word, _ in places) / total
    kept = sum(word.endswith(f"x{place}") for word, place in places) / total
    # A replacement falls on a word of the same place once in 20 times, which counts as kept here.
    assert masked == pytest.approx(0.2, abs=4 * sqrt(0.2 * 0.8 / total))
    assert kept == pytest.approx(0.5 + 0.3 / 20, abs=4 * sqrt(0.25 / total))


def test_ngrams_are_windows_of_one_to_five_words():
    copies = drawn(Augmentation(copies=1, mask=0.0, replace=0.0, ngram=1.0))
    lengths = [len(copy.split()) for copy in copies]
    assert set(lengths) == {1, 2, 3, 4, 5}
    for copy in copies:
        places = [int(word.split("x")[1]) for word in copy.split()]
        assert places == list(range(places[0], places[0] + len(places)))


def test_a_copy_depends_on_the_number_of_its_row_only():
    texts = [sentence(row) for row in range(30)]
    # Replacements come from the texts that are given, so a subset is compared without them.
    settings = Augmentation(copies=3, replace=0.0)
    every = {(row, copy): text for row, copy, text in augmented_rows([texts], range(30), settings, "[MASK]")}
    chosen = [4, 17, 29]
    some = augmented_rows([[texts[row] for row in chosen]], chosen, settings, "[MASK]")
    for position, copy, text in some:
        assert every[chosen[position], copy] == text


def test_no_copy_is_empty_unchanged_or_repeated():
    texts = ["good film"] * 50
    copies = list(augmented_rows([texts], range(50), Augmentation(copies=10), "[MASK]"))
    for row in range(50):
        own = [text[0] for position, _, text in copies if position == row]
        assert len(own) == len(set(own)) > 0
        assert "good film" not in own and "" not in own


def test_the_data_module_adds_copies_to_the_training_rows_only(make):
    plain = make(train=ROWS, validation=ROWS[:10])
    augmented = make(train=ROWS, validation=ROWS[:10], augment=Augmentation(copies=2, ngram=0.0))
    rows, before = augmented.rows("train"), plain.rows("train")
    ids = np.asarray(rows["example_id"])
    assert len(rows) > 1.5 * len(before) and len(set(ids.tolist())) == len(rows)
    assert rows[: len(before)]["input_ids"] == before[:]["input_ids"]
    labels = np.asarray(rows["labels"])
    assert (labels == np.asarray([ROWS[row % len(ROWS)]["label"] for row in ids])).all()
    assert augmented.fingerprint("train") != plain.fingerprint("train")
    assert augmented.fingerprint("validation") == plain.fingerprint("validation")
    mask = augmented.tokenizer_object.mask_token_id
    assert any(mask in tokens for tokens in rows[len(before) :]["input_ids"])


def test_pairs_are_perturbed_on_both_sides(make):
    rows = [{"text": row["text"], "other": row["text"], "label": row["label"]} for row in ROWS]
    data = make(train=rows, text=["text", "other"], augment=Augmentation(copies=1, mask=1.0, replace=0.0))
    separator, mask = data.tokenizer_object.sep_token_id, data.tokenizer_object.mask_token_id
    for tokens in data.rows("train")[len(rows) :]["input_ids"]:
        first, second = " ".join(map(str, tokens[1:-1])).split(f" {separator} ")
        assert set(first.split()) == set(second.split()) == {str(mask)}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"copies": 0}, "data.augment.copies to be at least 1 but got 0; leave data.augment out"),
        ({"mask": 1.5}, r"data.augment.mask to be in \[0, 1\] but got 1.5"),
        ({"mask": 0.7, "replace": 0.7}, "mask .* replace to be at most 1"),
    ],
)
def test_refuses_impossible_numbers(options, words):
    with pytest.raises(ValueError, match=words):
        Augmentation(**options)


def test_refuses_masks_where_the_tokenizer_has_none(make):
    data = make(train=ROWS, augment=Augmentation())
    data.tokenizer_object.mask_token = None
    with pytest.raises(
        ValueError, match=r"a mask token for data.augment.mask=0.1 .* set data.augment.mask to 0"
    ):
        data.rows("train")
