"""Learn the teacher's embeddings and hidden states, as TinyBERT does."""

from __future__ import annotations

from lit_compress.models.architecture import Architecture
from lit_compress.objectives.hidden import HiddenStates
from lit_compress.objectives.layer_map import Pairs, block_pairs, early_pairs, hidden_pairs
from lit_compress.objectives.preset import resolve_options
from lit_compress.schedules import Schedule

_HIDDEN_DEFAULTS = {"projection": "shared", "embeddings": False, "reduction": "example"}
_HIDDEN_PRESETS = {
    "paper": {"projection": "shared", "embeddings": False, "reduction": "token"},
    "reference": {"projection": "shared", "embeddings": True, "reduction": "padded"},
}


class TinyBERTHidden(HiddenStates):
    """Learn the teacher's hidden states through a linear map (TinyBERT, arXiv:1909.10351, equation 8).

    The loss is the sum over the mapped layers of the mean squared error ``MSE(W h_S, h_T)``; W lives only
    while training. ``paper`` is one W for all layers without the embeddings (add ``TinyBERTEmbedding``) and
    the mean over all valid tokens. ``reference`` is the published code: one W for embeddings and layers, and
    the mean over padding too, so the loss depends on how far a batch is padded.

    With ``projection: none`` and a written-out layer map it works in a plain loop without ``bind``.

    Args:
        weight: Factor of this term in the sum, or a schedule of it.
        layer_map: ``uniform`` (default), ``skip``, ``last``, or pairs of 0-based blocks (student, teacher)
            whose outputs are compared.
        projection: ``shared`` (default: one W), ``separate`` (one per layer) or ``none`` (equal widths only).
            At equal widths W starts as the identity.
        embeddings: Compare the embedding outputs too. Default false.
        reduction: ``example`` (default: mean over each row's tokens, then over rows), ``token`` (mean over
            all valid tokens) or ``padded`` (mean over all positions).
        preset: ``paper`` or ``reference``; excludes options that contradict it.
    """

    def __init__(
        self,
        weight: float | Schedule = 1.0,
        layer_map: str | list[list[int]] = "uniform",
        projection: str | None = None,
        embeddings: bool | None = None,
        reduction: str | None = None,
        preset: str | None = None,
    ) -> None:
        given = {"projection": projection, "embeddings": embeddings, "reduction": reduction}
        options = resolve_options("TinyBERTHidden", preset, _HIDDEN_PRESETS, _HIDDEN_DEFAULTS, given)
        super().__init__(weight, options["projection"], options["reduction"])
        self.layer_map, self.embeddings = layer_map, options["embeddings"]
        if early := early_pairs(layer_map):
            self.pairs = self._with_embeddings(early)

    def _with_embeddings(self, pairs: Pairs) -> Pairs:
        return ([(0, 0)] if self.embeddings else []) + hidden_pairs(pairs)

    def bind(self, student: Architecture, teacher: Architecture) -> None:
        """Resolve the layer map and create the projections, unless they are there already.

        Raises:
            ValueError: The layer map or the widths do not fit.
        """
        pairs = block_pairs(self.layer_map, student.num_layers, teacher.num_layers)
        self._bind_pairs(self._with_embeddings(pairs), student, teacher)


class TinyBERTEmbedding(HiddenStates):
    """Learn the teacher's embedding output through a linear map (TinyBERT, arXiv:1909.10351, equation 9).

    The published code shares its W with the hidden states: that is ``TinyBERTHidden`` with
    ``preset: reference``. With ``projection: none`` it works in a plain loop without ``bind``.

    Args:
        weight: Factor of this term in the sum, or a schedule of it.
        projection: ``shared`` (default: one W, which starts as the identity at equal widths) or ``none``
            (equal widths only).
        reduction: ``example`` (default: mean over each row's tokens, then over rows), ``token`` (mean over
            all valid tokens) or ``padded`` (mean over all positions).
        preset: ``paper`` (the mean over all valid tokens); excludes options that contradict it.
    """

    def __init__(
        self,
        weight: float | Schedule = 1.0,
        projection: str | None = None,
        reduction: str | None = None,
        preset: str | None = None,
    ) -> None:
        options = resolve_options(
            "TinyBERTEmbedding",
            preset,
            {"paper": {"projection": "shared", "reduction": "token"}},
            {"projection": "shared", "reduction": "example"},
            {"projection": projection, "reduction": reduction},
        )
        super().__init__(weight, options["projection"], options["reduction"])
        self.pairs = [(0, 0)]

    def bind(self, student: Architecture, teacher: Architecture) -> None:
        """Create the projection, unless it is there already.

        Raises:
            ValueError: The widths do not fit.
        """
        self._bind_pairs([(0, 0)], student, teacher)
