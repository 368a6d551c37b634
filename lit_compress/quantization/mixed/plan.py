"""What there is to choose in a model: its parts, the widths of each, and what they cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel

from lit_compress.pruning.masks import refuse_tied
from lit_compress.quantization.choice import choose
from lit_compress.quantization.fake_weights import output_axis
from lit_compress.quantization.mixed.allocation import Option, rounding_error, stored_bytes
from lit_compress.quantization.mixed.sensitivity import parts_of
from lit_compress.quantization.scheme import Scheme
from lit_compress.quantization.stored import refuse_few_bits

# What is outside of the blocks is small or read by rows; fewer bits there bring little.
_OUTSIDE = 8


@dataclass(frozen=True)
class MixedPlan:
    """The matrices of a model that get bits under a budget, and all others.

    Args:
        model: The model.
        parts: Names of matrices by what gets bits of its own.
        choices: Scheme by bits.
        outside: Schemes of the matrices that do not take part.
    """

    model: PreTrainedModel
    parts: Mapping[str, Sequence[str]]
    choices: Mapping[int, Scheme]
    outside: Mapping[str, Scheme]

    def options(self, omegas: Mapping[str, float]) -> dict[str, list[Option]]:
        """Return what every width costs every part: bytes, and ``omega ||Q(W) - W||^2``.

        With the top eigenvalue of the Hessian as ``omega`` half of it is the most that rounding can add to the loss, to
        second order. Between equal errors more bits go where ``omega`` is larger, the rule of Q-BERT; weighing with the
        error is that of HAWQ-V2 (arXiv:1911.03852).

        Args:
            omegas: Sensitivity by part.
        """
        return {
            part: [
                Option(
                    bits,
                    sum(self._bytes(name, scheme) for name in names),
                    omegas[part] * sum(self._error(name, scheme) for name in names),
                )
                for bits, scheme in self.choices.items()
            ]
            for part, names in self.parts.items()
        }

    def sizes(self) -> dict[str, list[Option]]:
        """Return the same without losses, which take measuring."""
        return {
            part: [
                Option(bits, sum(self._bytes(name, scheme) for name in names), 0.0)
                for bits, scheme in self.choices.items()
            ]
            for part, names in self.parts.items()
        }

    def fixed_bytes(self) -> int:
        """Return the bytes of all weights that do not take part: tables and heads at their bits, biases, norms."""
        inside = {name for names in self.parts.values() for name in names}
        return sum(
            self._bytes(name, self.outside[name]) if name in self.outside else leaf.nbytes
            for name, leaf in self.model.named_parameters()
            if name not in inside
        )

    def budget(self, average_bits: float) -> int:
        """Return the bytes of so many bits for every weight, with the scales, which do not depend on the bits.

        Args:
            average_bits: Bits per weight of the parts.
        """
        bits, scheme = next(iter(self.choices.items()))
        stored = sum(self._bytes(name, scheme) for names in self.parts.values() for name in names)
        return stored + round(sum(self._weights().values()) * (average_bits - bits) / 8)

    def average(self, chosen: Mapping[str, Option]) -> float:
        """Return the bits per weight of a choice."""
        weights = self._weights()
        return sum(weights[part] * chosen[part].bits for part in weights) / sum(weights.values())

    def schemes(self, chosen: Mapping[str, Option]) -> dict[str, Scheme]:
        """Return the scheme of every matrix that is rounded, under a choice."""
        found = {
            name: self.choices[chosen[part].bits] for part, names in self.parts.items() for name in names
        }
        return {**found, **self.outside}

    def _weights(self) -> dict[str, int]:
        return {
            part: sum(self.model.get_parameter(name).numel() for name in names)
            for part, names in self.parts.items()
        }

    def _bytes(self, name: str, scheme: Scheme) -> int:
        try:
            return stored_bytes(self.model.get_parameter(name).shape, scheme, _axis(self.model, name))
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error

    def _error(self, name: str, scheme: Scheme) -> float:
        try:
            return rounding_error(self.model.get_parameter(name), scheme, _axis(self.model, name))
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error


def _axis(model: nn.Module, name: str) -> int:
    return output_axis(model.get_submodule(name.rpartition(".")[0]))


def plan_of(
    model: PreTrainedModel,
    bits: Sequence[int],
    group_size: int,
    zero_points: bool,
    embedding_bits: int,
    per: str,
    include: Sequence[str] | None = None,
    exclude: Sequence[str] = (),
) -> MixedPlan:
    """Return what there is to choose.

    Args:
        model: A finished model.
        bits: Widths to choose from.
        group_size: Consecutive outputs that share a scale.
        zero_points: Whether grids have zero points.
        embedding_bits: Bits of the embeddings; 0 leaves them as they are.
        per: ``block`` or ``matrix``.
        include: Parts of the names of projections and embeddings to round; all where ``None``.
        exclude: Parts of the names of those to leave as they are.

    Raises:
        ValueError: A setting does not fit the model, or it is rounded already.
    """
    refuse_few_bits(model)
    projections, tables = choose(model, include, exclude)
    tables = tables if embedding_bits else []
    refuse_tied(model, [f"{name}.weight" for name in [*projections, *tables]])
    parts = parts_of(model, projections, per)
    inside = {name for names in parts.values() for name in names}
    weights = [f"{name}.weight" for name in projections]
    outside = {name: Scheme(_OUTSIDE) for name in weights if name not in inside}
    outside |= {f"{name}.weight": Scheme(embedding_bits) for name in tables}
    choices = {one: Scheme(one, not zero_points, "rows", group_size) for one in sorted(set(bits))}
    return MixedPlan(model, parts, choices, outside)
