"""How much the loss minds changes of each block of a model: its curvature over random subsets of the training data.

Q-BERT (Shen et al., arXiv:1909.05840, section 3.1) gives more bits to blocks with a larger ``|mean| + std`` of the top
eigenvalue of their Hessian. It says something where the model has been trained to a minimum of that loss.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, pstdev
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from lit_compress.capture import model_inputs
from lit_compress.models.anatomy import dissect
from lit_compress.objectives.hard_labels import hard_labels
from lit_compress.quantization.mixed.hvp import Parts, hessian_products, top_eigenvalues, twice_differentiable

#: What has a sensitivity of its own.
LEVELS = ("block", "matrix")
_ROWS_AT_ONCE = 32

Subset = Sequence[Mapping[str, Tensor]]


@dataclass(frozen=True)
class Sensitivity:
    """How much the loss minds changes of a part of a model.

    Args:
        eigenvalues: The top eigenvalue of the Hessian of the part on every subset of the data.
    """

    eigenvalues: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean over the subsets."""
        return fmean(self.eigenvalues)

    @property
    def std(self) -> float:
        """Standard deviation over the subsets; 0 for one subset."""
        return pstdev(self.eigenvalues)

    @property
    def omega(self) -> float:
        """``|mean| + std`` (arXiv:1909.05840, equation 2)."""
        return abs(self.mean) + self.std


def parts_of(
    model: PreTrainedModel, projections: Sequence[str], level: str = "block"
) -> dict[str, list[str]]:
    """Return the matrices inside of the blocks, by what has a sensitivity of its own.

    Args:
        model: A model of a supported family.
        projections: Names of modules below it; those outside of the blocks are left out.
        level: ``block``, or every ``matrix`` by itself.

    Raises:
        ValueError: There is no such level, or no projection is in a block.
    """
    if level not in LEVELS:
        raise ValueError(f"Expected per to be one of {', '.join(LEVELS)} but got {level!r}.")
    paths = dict.fromkeys(block.path for block in dissect(model).blocks)
    blocks = {
        path: [f"{name}.weight" for name in projections if name.startswith(f"{path}.")] for path in paths
    }
    blocks = {path: names for path, names in blocks.items() if names}
    if not blocks:
        raise ValueError(
            "Expected projections inside of blocks but include and exclude leave none; change them."
        )
    if level == "block":
        return blocks
    return {name.removesuffix(".weight"): [name] for names in blocks.values() for name in names}


def sensitivities(
    model: PreTrainedModel,
    parts: Mapping[str, Sequence[str]],
    subsets: Sequence[Subset],
    seed: int = 0,
    tolerance: float = 1e-3,
    most: int = 100,
    tell: Callable[[float], None] | None = None,
) -> dict[str, Sensitivity]:
    """Measure the sensitivity of every part.

    Args:
        model: A fine-tuned model; the same afterwards.
        parts: Names of parameters by part, see :func:`parts_of`.
        subsets: Batches with ``labels``, see :func:`draw_subsets`.
        seed: Of the power iteration.
        tolerance: Relative change of an eigenvalue at which its iteration ends.
        most: Iterations after which it ends at the latest.
        tell: Told which share is done, at the least.

    Raises:
        ValueError: There are no subsets, or the loss or its derivatives are not finite.
    """
    if not subsets or not all(subsets):
        raise ValueError("Expected labelled texts to measure the loss on but got none; name the data.")
    leaves: Parts = {part: [model.get_parameter(name) for name in names] for part, names in parts.items()}
    found: dict[str, list[float]] = {part: [] for part in parts}
    with twice_differentiable(model, leaves):
        for number, subset in enumerate(subsets):

            def told(done: int, number: int = number) -> None:
                if tell is not None:
                    tell((number + done / most) / len(subsets))

            values = top_eigenvalues(
                lambda vectors, subset=subset: _products(model, subset, leaves, vectors),  # type: ignore[misc]
                leaves,
                seed + number,
                tolerance,
                most,
                told,
            )
            for part, value in values.items():
                found[part].append(value)
    return {part: Sensitivity(tuple(values)) for part, values in found.items()}


def _products(
    model: PreTrainedModel, subset: Subset, leaves: Parts, vectors: Parts
) -> dict[str, list[Tensor]]:
    """Return products with the Hessian of the mean loss over the rows of a subset."""
    rows = sum(len(batch["labels"]) for batch in subset)
    total: dict[str, list[Tensor]] = {}
    for batch in subset:
        loss = hard_labels(model(**model_inputs(model, batch)).logits, batch["labels"])
        if not bool(loss.isfinite()):
            raise ValueError(
                f"Expected a finite loss on the training texts but got {float(loss)}; check the model and the texts."
            )
        share = len(batch["labels"]) / rows
        for part, product in hessian_products(loss * share, leaves, vectors).items():
            if part in total:
                for sum_, term in zip(total[part], product, strict=True):
                    sum_ += term
            else:
                total[part] = product
    return total


def draw_subsets(data: Any, share: float, count: int, seed: int = 0) -> list[list[dict[str, Tensor]]]:
    """Return random subsets of the training rows as batches, each subset without repetition.

    Args:
        data: Data module with ``sequential_dataloader`` and ``lengths``.
        share: Share of the rows in every subset.
        count: Number of subsets.
        seed: Of the draw.

    Raises:
        ValueError: A number is out of range, or there are no training rows.
    """
    if not 0 < share <= 1:
        raise ValueError(f"Expected a share of the training rows, 0 < share <= 1, but got {share}.")
    if count < 1:
        raise ValueError(f"Expected at least one subset but got {count}.")
    if not data.has_split("train"):
        raise ValueError(
            "Expected a train split to measure the loss on but the data has none; name its train file."
        )
    loader = data.sequential_dataloader("train", _ROWS_AT_ONCE)
    lengths = torch.from_numpy(data.lengths("train"))
    draw = torch.Generator().manual_seed(seed)
    size = max(1, round(share * len(lengths)))

    def batches() -> Iterator[dict[str, Tensor]]:
        chosen = torch.randperm(len(lengths), generator=draw)[:size]
        # Rows of similar length together: less padding.
        for rows in chosen[lengths[chosen].argsort(stable=True)].split(_ROWS_AT_ONCE):
            yield loader.collate_fn([loader.dataset[int(row)] for row in rows])

    return [list(batches()) for _ in range(count)]
