"""How large a model is, and what a shrink has removed of it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel

from lit_compress.models.anatomy import dissect
from lit_compress.pruning.counting import encoder_matrices, named_tensor


@dataclass(frozen=True)
class ModelSize:
    """Sizes of a model.

    Args:
        parameters: All parameters, tied ones once; without gates and scores.
        encoder_weights: Entries of the weight matrices inside the blocks.
        layers: Blocks.
        heads: Heads per block (key-value heads where queries share them), of all its attentions.
        neurons: Neurons per block.
        hidden: Hidden dimensions.
        vocabulary: Rows of the word embedding; ``None`` for models without one.
        embedding: Columns of that table: as many as hidden dimensions, or fewer where a linear map follows.
    """

    parameters: int
    encoder_weights: int
    layers: int
    heads: tuple[int, ...]
    neurons: tuple[int, ...]
    hidden: int
    vocabulary: int | None
    embedding: int | None = None

    @classmethod
    def of(cls, model: PreTrainedModel) -> ModelSize:
        """Return the sizes of a model, masked or not.

        Raises:
            ValueError: There is no adapter for its family.
        """
        anatomy = dissect(model)
        path = anatomy.word_embedding
        table = None if path is None else named_tensor(model, f"{path}.weight")
        return cls(
            parameters=sum(tensor.numel() for tensor in _own(model)),
            encoder_weights=sum(
                named_tensor(model, name).numel() for name in encoder_matrices(model, anatomy)
            ),
            layers=len(anatomy.blocks),
            heads=tuple(sum(part.heads for part in block.attentions) for block in anatomy.blocks),
            neurons=tuple(
                block.feed_forward.neurons if block.feed_forward else 0 for block in anatomy.blocks
            ),
            hidden=anatomy.stream.size,
            vocabulary=None if table is None else table.shape[0],
            embedding=None if table is None else table.shape[1],
        )


def _own(model: nn.Module) -> list[nn.Parameter]:
    """Return the parameters that are the model's own: no gates, no scores."""
    named = model.named_parameters()
    return [
        tensor
        for name, tensor in named
        if not name.startswith("gates.") and (".parametrizations." not in name or name.endswith(".original"))
    ]


@dataclass(frozen=True)
class ShrinkReport:
    """What a shrink has removed; ``str`` gives a table.

    Args:
        before: The model that was given.
        after: The smaller one.
    """

    before: ModelSize
    after: ModelSize

    @classmethod
    def of(cls, before: PreTrainedModel, after: PreTrainedModel) -> ShrinkReport:
        """Compare two models.

        Args:
            before: The model that was given, masked or not.
            after: The smaller one.
        """
        return cls(ModelSize.of(before), ModelSize.of(after))

    def __str__(self) -> str:
        """Return one line per size, with what is left of it."""
        before, after = self.before, self.after
        lines = [
            ("parameters", _counts(before.parameters, after.parameters)),
            ("encoder weights", _counts(before.encoder_weights, after.encoder_weights)),
            ("layers", _arrow(before.layers, after.layers)),
            ("hidden", _arrow(before.hidden, after.hidden)),
            ("heads per layer", _arrow(_row(before.heads), _row(after.heads))),
            ("neurons per layer", _arrow(_row(before.neurons), _row(after.neurons))),
        ]
        if before.vocabulary is not None:
            lines.append(("vocabulary", _arrow(before.vocabulary, after.vocabulary)))
            lines.append(("embedding width", _arrow(before.embedding, after.embedding)))
        width = max(len(name) for name, _ in lines)
        return "\n".join(f"{name:<{width}}  {text}" for name, text in lines)


def _counts(before: int, after: int) -> str:
    share = 1 - after / before if before else 0.0
    return f"{before:,} → {after:,} ({share:.1%} removed)"


def _arrow(before: object, after: object) -> str:
    return f"{before}" if before == after else f"{before} → {after}"


def _row(values: tuple[int, ...]) -> str:
    """Return ``12 in each of 6`` for blocks that are alike, else all numbers."""
    alike = len(set(values)) == 1 and len(values) > 1
    return f"{values[0]} in each of {len(values)}" if alike else " ".join(map(str, values)) or "none"
