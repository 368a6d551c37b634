"""What one forward pass of a model hands to the objectives, and how a part asks for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from torch import Tensor


@dataclass(frozen=True)
class Capture:
    """The tensors that a set of objectives needs from one model.

    Args:
        hidden_states: Indices in the Hugging Face numbering: ``0`` is the embedding output,
            ``i + 1`` the output of block ``i``.
        attention_scores: 0-based blocks whose pre-softmax attention scores are needed.
        queries: 0-based blocks whose query vectors are needed.
        keys: 0-based blocks whose key vectors are needed.
        values: 0-based blocks whose value vectors are needed.
    """

    hidden_states: frozenset[int] = frozenset()
    attention_scores: frozenset[int] = frozenset()
    queries: frozenset[int] = frozenset()
    keys: frozenset[int] = frozenset()
    values: frozenset[int] = frozenset()

    def __or__(self, other: Capture) -> Capture:
        """Return the union of both requests."""
        return Capture(**{f.name: getattr(self, f.name) | getattr(other, f.name) for f in fields(self)})

    @property
    def needs_attention(self) -> bool:
        """Whether anything inside the attention function has to be recorded."""
        return bool(self.attention_scores or self.queries or self.keys or self.values)

    def to_dict(self) -> dict[str, list[int]]:
        """Return the request as sorted lists, for JSON files and fingerprints."""
        return {f.name: sorted(getattr(self, f.name)) for f in fields(self)}


@dataclass
class Outputs:
    """Named outputs of a student or a teacher for one batch.

    Args:
        logits: ``(batch, num_labels)``.
        hidden_states: HF index → ``(batch, length, hidden_size)``.
        attention_scores: block → ``(batch, heads, length, length)``, scaled by ``1/sqrt(head_dim)``,
            before the mask and the softmax.
        queries: block → ``(batch, heads, length, head_dim)``.
        keys: block → ``(batch, heads, length, head_dim)``.
        values: block → ``(batch, heads, length, head_dim)``.
        mask: ``(batch, length)``, true on real tokens; ``None`` where every position is real.
    """

    logits: Tensor | None = None
    hidden_states: Mapping[int, Tensor] = field(default_factory=dict)
    attention_scores: Mapping[int, Tensor] = field(default_factory=dict)
    queries: Mapping[int, Tensor] = field(default_factory=dict)
    keys: Mapping[int, Tensor] = field(default_factory=dict)
    values: Mapping[int, Tensor] = field(default_factory=dict)
    mask: Tensor | None = None
