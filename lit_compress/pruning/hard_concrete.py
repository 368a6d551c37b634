r"""The hard concrete distribution: gates in [0, 1] that are exactly 0 or 1 with a probability that has a gradient.

Louizos et al. 2018, Learning Sparse Neural Networks through L0 Regularization, arXiv:1712.01312, section 2.2.
With :math:`u` uniform in (0, 1) and location :math:`\log\alpha`,

.. math:: s = \sigma((\log u - \log(1 - u) + \log\alpha) / \beta), \quad
          z = \min(1, \max(0, s (\zeta - \gamma) + \gamma)).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

#: Temperature and stretch limits of the paper.
BETA, GAMMA, ZETA = 2 / 3, -0.1, 1.1
# The logarithms of u and 1 - u must stay finite in float32.
_EDGE = 1e-6


def sample_gates(
    log_alpha: Tensor,
    beta: float = BETA,
    gamma: float = GAMMA,
    zeta: float = ZETA,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draw one gate per entry, differentiable with respect to ``log_alpha``.

    Args:
        log_alpha: Locations, any shape; computed in at least float32 whatever the autocast.
        beta: Temperature.
        gamma: Lower stretch limit, below 0.
        zeta: Upper stretch limit, above 1.
        generator: Source of the random numbers, on any device; torch's global one where ``None``.

    Returns:
        Gates in [0, 1] of the shape of ``log_alpha``.

    Raises:
        ValueError: The stretch limits do not enclose [0, 1], or the temperature is not positive.
    """
    _check(beta, gamma, zeta)
    location = log_alpha.to(torch.promote_types(log_alpha.dtype, torch.float32))
    device = location.device if generator is None else generator.device
    noise = torch.empty_like(location, device=device).uniform_(_EDGE, 1 - _EDGE, generator=generator)
    noise = noise.to(location.device)
    concrete = torch.sigmoid((noise.log() - (-noise).log1p() + location) / beta)
    return (concrete * (zeta - gamma) + gamma).clamp(0, 1)


def deterministic_gates(log_alpha: Tensor, gamma: float = GAMMA, zeta: float = ZETA) -> Tensor:
    """Return the gates of evaluation, equation 13: the stretched sigmoid without noise and temperature.

    Args:
        log_alpha: Locations, any shape.
        gamma: Lower stretch limit, below 0.
        zeta: Upper stretch limit, above 1.

    Returns:
        Gates in [0, 1].
    """
    _check(1.0, gamma, zeta)
    return (torch.sigmoid(log_alpha.float()) * (zeta - gamma) + gamma).clamp(0, 1)


def probability_open(
    log_alpha: Tensor, beta: float = BETA, gamma: float = GAMMA, zeta: float = ZETA
) -> Tensor:
    """Return the probability that a gate is not zero, equation 12: the expected L0 norm per gate.

    Args:
        log_alpha: Locations, any shape.
        beta: Temperature.
        gamma: Lower stretch limit, below 0.
        zeta: Upper stretch limit, above 1.

    Returns:
        Probabilities of the shape of ``log_alpha``.

    Example:
        >>> probability_open(torch.tensor(0.0)).item()  # doctest: +ELLIPSIS
        0.831...
    """
    return _probability_above(0.0, log_alpha, beta, gamma, zeta)


def probability_of_one(
    log_alpha: Tensor, beta: float = BETA, gamma: float = GAMMA, zeta: float = ZETA
) -> Tensor:
    """Return the probability that a gate is exactly one.

    Args:
        log_alpha: Locations, any shape.
        beta: Temperature.
        gamma: Lower stretch limit, below 0.
        zeta: Upper stretch limit, above 1.

    Returns:
        Probabilities of the shape of ``log_alpha``.
    """
    return _probability_above(1.0, log_alpha, beta, gamma, zeta)


def _probability_above(threshold: float, log_alpha: Tensor, beta: float, gamma: float, zeta: float) -> Tensor:
    """The stretched gate, before it is cut to [0, 1], is above a threshold with this probability."""
    _check(beta, gamma, zeta)
    odds = (threshold - gamma) / (zeta - threshold)
    return torch.sigmoid(log_alpha.float() - beta * math.log(odds))


def _check(beta: float, gamma: float, zeta: float) -> None:
    if beta <= 0 or gamma >= 0 or zeta <= 1:
        raise ValueError(
            f"Expected beta > 0, gamma < 0 and zeta > 1 but got beta={beta}, gamma={gamma}, zeta={zeta}; without the "
            "stretch no gate is ever exactly 0 or 1."
        )
