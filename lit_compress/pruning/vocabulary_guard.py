"""What a smaller vocabulary does to texts that it was not chosen from."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase


class VocabularyLoss(NamedTuple):
    """What became of held-out texts.

    Args:
        texts: How many were looked at.
        changed: Share of them that become other pieces than before, in [0, 1].
        longer: Pieces of all texts together, as a ratio to before.
        unknown: Share of the pieces that stand for nothing known, where they stood for something before.
    """

    texts: int
    changed: float
    longer: float
    unknown: float

    def __str__(self) -> str:
        return (
            f"Of {self.texts:,} held-out texts {100 * self.changed:.1f} % become other pieces, all of them together "
            f"{100 * (self.longer - 1):.1f} % more, {100 * self.unknown:.2f} % unknown"
        )


def vocabulary_loss(
    before: PreTrainedTokenizerBase, after: PreTrainedTokenizerBase, texts: Iterable[str]
) -> VocabularyLoss:
    """Compare two tokenizers on texts that the vocabulary was not chosen from.

    Args:
        before: The full one.
        after: The trimmed one.
        texts: Held-out texts.

    Raises:
        ValueError: There are no texts.
    """
    count = changed = old = new = unknown = 0
    for text in texts:
        pieces, now = before.tokenize(text), after.tokenize(text)
        count, changed = count + 1, changed + (pieces != now)
        old, new = old + len(pieces), new + len(now)
        unknown += now.count(after.unk_token) - pieces.count(before.unk_token)
    if not count:
        raise ValueError("Expected held-out texts to check the vocabulary with but got none; check the file.")
    return VocabularyLoss(count, changed / count, new / max(old, 1), max(unknown, 0) / max(new, 1))
