"""The models that no other model beats on both axes."""

from __future__ import annotations

from collections.abc import Sequence


def pareto_front(low: Sequence[float], high: Sequence[float], qualities: Sequence[float]) -> list[int]:
    """Return the points that are not dominated.

    Costs are ranges, because measured ones are uncertain: where two ranges overlap, the costs count as
    equal. A point is dominated by one of better quality that does not cost more, and by one of the same
    quality that costs less. Give the same numbers twice for exact costs.

    Args:
        low: Lower end of each cost; lower is better.
        high: Upper end of each cost.
        qualities: Higher is better.

    Returns:
        Indices, cheapest first; quality never falls along them.
    """

    def dominates(other: int, point: int) -> bool:
        if qualities[other] > qualities[point]:
            return low[other] <= high[point]
        return qualities[other] == qualities[point] and high[other] < low[point]

    points = range(len(qualities))
    front = [point for point in points if not any(dominates(other, point) for other in points)]
    return sorted(front, key=lambda point: (qualities[point], low[point]))
