"""Curvature of a loss without its Hessian: products with vectors, and the top eigenvalue of every diagonal block."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from transformers import PreTrainedModel

#: Tensors by the name of what they are a part of.
Parts = Mapping[str, Sequence[Tensor]]


def hessian_products(loss: Tensor, parts: Parts, vectors: Parts) -> dict[str, list[Tensor]]:
    """Return ``H_ii v_i`` for every part ``i``, where ``H_ii`` is the second derivative of a loss by that part alone.

    The gradient ``g_i`` is taken once for all parts, then ``H_ii v_i`` is the gradient of ``g_i . v_i``.

    Args:
        loss: A scalar with its graph.
        parts: Leaves of the graph.
        vectors: Of the shapes of the leaves, for all parts or some of them.

    Returns:
        Products of the shapes of the vectors.

    Raises:
        ValueError: An operation of the graph has no second derivative.
    """
    wanted = {name: list(parts[name]) for name in vectors}
    try:
        flat = torch.autograd.grad(
            loss, [leaf for leaves in wanted.values() for leaf in leaves], create_graph=True
        )
        gradients = iter(flat)
        own = {name: [next(gradients) for _ in leaves] for name, leaves in wanted.items()}
        return {
            name: [
                part.detach()
                for part in torch.autograd.grad(
                    own[name], leaves, list(vectors[name]), retain_graph=True, materialize_grads=True
                )
            ]
            for name, leaves in wanted.items()
        }
    except RuntimeError as error:
        if "not implemented" not in str(error):
            raise
        raise ValueError(
            f"Expected a loss that can be differentiated twice but {error}; fused attention cannot be, so call "
            'model.set_attn_implementation("eager") first.'
        ) from error


def top_eigenvalues(
    products: Callable[[Parts], Parts],
    parts: Parts,
    seed: int = 0,
    tolerance: float = 1e-3,
    most: int = 100,
    tell: Callable[[int], None] | None = None,
) -> dict[str, float]:
    """Return the eigenvalue of largest magnitude of every diagonal block, by power iteration on all of them at once.

    It may be negative where the loss is not at a minimum.

    Args:
        products: Returns the products of the blocks that are asked for with vectors.
        parts: Leaves of every block.
        seed: Of the first vectors.
        tolerance: Relative change of an eigenvalue at which its iteration ends.
        most: Iterations after which it ends at the latest.
        tell: Told how many iterations were done.

    Returns:
        One number per block.

    Raises:
        ValueError: A product is not finite.
    """
    draw = torch.Generator().manual_seed(seed)
    vectors = {
        name: _unit([torch.randn(leaf.shape, generator=draw, dtype=leaf.dtype).to(leaf) for leaf in leaves])
        for name, leaves in parts.items()
    }
    values: dict[str, float] = {}
    for done in range(1, most + 1):
        for name, product in products(vectors).items():
            value = sum(float((a * b).sum()) for a, b in zip(vectors[name], product, strict=True))
            if not all(bool(part.isfinite().all()) for part in product):
                raise ValueError(
                    f"Expected finite second derivatives of the loss by {name} but got infinities or NaN; check the "
                    "model and the texts."
                )
            before, values[name] = values.get(name), value
            settled = before is not None and abs(value - before) <= tolerance * abs(value)
            if settled or not any(bool(part.any()) for part in product):
                del vectors[name]
            else:
                vectors[name] = _unit(product)
        if tell is not None:
            tell(done)
        if not vectors:
            break
    return values


def _unit(vector: Sequence[Tensor]) -> list[Tensor]:
    length = torch.stack([part.double().square().sum() for part in vector]).sum().sqrt()
    return [part / length.to(part.dtype) for part in vector]


@contextmanager
def twice_differentiable(model: PreTrainedModel, parts: Parts) -> Iterator[None]:
    """Let a model compute so that its loss has second derivatives by some of its parameters, and by no others.

    Plain attention, as the fused ones have no second derivative, and eval mode.

    Args:
        model: The model; as it was before when the context ends.
        parts: Parameters of the model.

    Raises:
        ValueError: The model has no plain attention.
    """
    attention, training = model.config._attn_implementation, model.training
    needed = {id(leaf) for leaves in parts.values() for leaf in leaves}
    before = [(leaf, leaf.requires_grad) for leaf in model.parameters()]
    model.set_attn_implementation("eager")
    try:
        if model.config._attn_implementation != "eager":
            raise ValueError(
                f"Expected a model with eager attention, which can be differentiated twice, but {type(model).__name__} "
                f"keeps {model.config._attn_implementation}; choose another model."
            )
        for leaf, _ in before:
            leaf.requires_grad_(id(leaf) in needed)
        model.eval()
        yield
    finally:
        for leaf, learns in before:
            leaf.requires_grad_(learns)
        model.set_attn_implementation(attention)
        model.train(training)
