"""Perturbed copies of training texts for a teacher to label: more points at which a student can learn it.

Tang et al. 2019, Distilling Task-Specific Knowledge from BERT, arXiv:1903.12136, section 4.3.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Augmentation:
    """Copies of every training row in which words are masked or replaced, some cut to an n-gram.

    Each word becomes the mask token with probability ``mask``, or a word drawn from all training texts (so
    frequent words come often) with probability ``replace``; then, with probability ``ngram``, only a window
    of one to five words of the copy is kept. The paper draws the replacement among words of the same part of
    speech; this needs no tagger and works in any language that puts spaces between words.

    A copy keeps the label of its row, which may no longer be true: leave ``HardLabels`` out, and let the
    teacher say what the copy means.

    Args:
        copies: Copies per row; one that is empty, unchanged or drawn before is dropped.
        mask: Probability that a word becomes the mask token.
        replace: Probability that a word becomes another word.
        ngram: Probability that a copy is cut to a window of one to five words.
        seed: Seed of the draws; a copy depends on it and on the number of its row only.

    Raises:
        ValueError: A number is out of its range.
    """

    copies: int = 4
    mask: float = 0.1
    replace: float = 0.1
    ngram: float = 0.25
    seed: int = 0

    def __post_init__(self) -> None:
        if self.copies < 1:
            raise ValueError(
                f"Expected data.augment.copies to be at least 1 but got {self.copies}; leave data.augment out "
                "to train without copies."
            )
        for name in ("mask", "replace", "ngram"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise ValueError(f"Expected data.augment.{name} to be in [0, 1] but got {value}; correct it.")
        if self.mask + self.replace > 1:
            raise ValueError(
                "Expected data.augment.mask + replace to be at most 1, the probability that a word changes, "
                f"but got {self.mask} + {self.replace}; lower one of them."
            )


#: Longest window that ``ngram`` keeps.
_LONGEST = 5


def augmented_rows(
    texts: Sequence[Sequence[str]], rows: Sequence[int], settings: Augmentation, mask_token: str
) -> Iterator[tuple[int, int, list[str]]]:
    """Draw the copies of some rows.

    Args:
        texts: One sequence of texts per text column; all as long as ``rows``.
        rows: Numbers of the rows in their source; the draws of a row depend on its number.
        settings: How many copies, and how they differ.
        mask_token: What a masked word becomes.

    Yields:
        Position of the row in ``rows``, number of the copy (from 1), and its text in every column.
    """
    words = [word for column in texts for text in column for word in text.split()]
    for position, row in enumerate(rows):
        original = [column[position] for column in texts]
        seen = {tuple(" ".join(text.split()) for text in original)}
        for copy in range(1, settings.copies + 1):
            draw = np.random.default_rng([settings.seed, int(row), copy])
            drawn = [_perturbed(text.split(), words, settings, mask_token, draw) for text in original]
            if all(drawn) and tuple(drawn) not in seen:
                seen.add(tuple(drawn))
                yield position, copy, drawn


def _perturbed(
    text: list[str], words: list[str], settings: Augmentation, mask_token: str, draw: np.random.Generator
) -> str:
    chances = draw.random(len(text))
    others = draw.integers(len(words), size=len(text))
    changed = [
        mask_token
        if chance < settings.mask
        else words[other]
        if chance < settings.mask + settings.replace
        else word
        for word, chance, other in zip(text, chances, others, strict=True)
    ]
    if draw.random() < settings.ngram:
        length = int(draw.integers(1, _LONGEST + 1))
        start = int(draw.integers(max(1, len(changed) - length + 1)))
        changed = changed[start : start + length]
    return " ".join(changed)
