"""How many units go where: exact minimum, shares, what stays, against brute force."""

import pytest
import torch

from lit_compress.pruning.allocate import allocate


class Priced:
    """A cost with a price per unit of each group, and a share that nothing removes."""

    def __init__(self, prices, sizes, fixed=0.0):
        self.prices = prices
        self.total = sum(prices[name] * size for name, size in sizes.items()) + fixed

    def removed(self, gates):
        gone = [self.prices[name] * float((1 - gate).sum()) for name, gate in gates.items()]
        return torch.tensor(sum(gone) / self.total, dtype=torch.float64)


VALUES = {"a": torch.tensor([4.0, 1.0, 3.0, 2.0]), "b": torch.tensor([8.0, 2.5, 6.0])}
COST = Priced({"a": 1.0, "b": 2.0}, {"a": 4, "b": 3})  # ten in all
POOLS = [["a"], ["b"]]


def closed(found):
    return {name: (~units).nonzero().flatten().tolist() for name, units in found.items()}


def test_global_takes_the_lowest_value_per_cost_first():
    # Values per cost: a 4 1 3 2, b 4 1.25 3: the order is a1, b1, a3, a2, b2, a0, b0.
    assert closed(allocate(VALUES, COST, 0.1, POOLS, at_least=0)) == {"a": [1], "b": []}
    assert closed(allocate(VALUES, COST, 0.3, POOLS, at_least=0)) == {"a": [1], "b": [1]}
    assert closed(allocate(VALUES, COST, 0.31, POOLS, at_least=0)) == {"a": [1, 3], "b": [1]}
    assert closed(allocate(VALUES, COST, 0.7, POOLS, at_least=0)) == {"a": [1, 2, 3], "b": [1, 2]}


def test_learned_values_are_not_divided_by_the_cost():
    # The order is a1, a3, b1, a2, a0, b2, b0.
    assert closed(allocate(VALUES, COST, 0.4, POOLS, at_least=0, per_cost=False)) == {"a": [1, 3], "b": [1]}


def test_the_best_units_of_every_group_stay():
    found = allocate(VALUES, COST, 0.7, POOLS, at_least=1)
    assert closed(found) == {"a": [1, 2, 3], "b": [1, 2]}
    with pytest.raises(ValueError, match=r"at most 0\.7000"):
        allocate(VALUES, COST, 0.71, POOLS, at_least=1)


def test_units_of_infinite_value_stay():
    values = {"a": torch.tensor([4.0, 1.0, float("inf"), float("inf")]), "b": VALUES["b"]}
    found = closed(allocate(values, COST, 0.8, POOLS, at_least=0))
    assert found == {"a": [0, 1], "b": [0, 1, 2]}


def test_local_takes_the_same_share_everywhere():
    sizes = {"a": 8, "b": 4}
    values = {name: torch.arange(size).float() for name, size in sizes.items()}
    cost = Priced({"a": 1.0, "b": 1.0}, sizes)
    found = closed(allocate(values, cost, 0.5, [["a"], ["b"]], "local"))
    assert found == {"a": [0, 1, 2, 3], "b": [0, 1]}
    # 0.55 of 12 is 6.6 units: a quarter more of a unit in a, and none in b, would be enough.
    found = closed(allocate(values, cost, 0.55, [["a"], ["b"]], "local"))
    assert [len(units) for units in found.values()] == [5, 2] or [len(u) for u in found.values()] == [5, 3]


def test_groups_of_one_unit_count_as_one_pool():
    values = {name: torch.tensor([value]) for name, value in (("x", 3.0), ("y", 1.0), ("z", 2.0))}
    cost = Priced(dict.fromkeys(values, 1.0), dict.fromkeys(values, 1))
    for scope in ("global", "local"):
        assert closed(allocate(values, cost, 0.6, [["x", "y", "z"]], scope)) == {"x": [], "y": [0], "z": [0]}
    with pytest.raises(ValueError, match=r"at most 0\.6667"):
        allocate(values, cost, 0.7, [["x", "y", "z"]])


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("scope", ["global", "local"])
def test_a_unit_less_would_not_be_enough(seed, scope):
    generator = torch.Generator().manual_seed(seed)
    values = {name: torch.rand(6, generator=generator) for name in "abcd"}
    cost = Priced({"a": 1.0, "b": 2.0, "c": 0.5, "d": 3.0}, dict.fromkeys("abcd", 6), fixed=4.0)
    target = 0.05 + 0.06 * seed
    found = allocate(values, cost, target, [[name] for name in "abcd"], scope)
    gates = {name: units.double() for name, units in found.items()}
    assert cost.removed(gates) >= target - 1e-6
    if scope == "global":
        prices = {name: cost.prices[name] for name in values}
        worth = {(n, u): float(values[n][u]) / prices[n] for n in values for u in range(6) if not found[n][u]}
        name, unit = max(worth, key=worth.get)  # the last one that was closed
        gates[name][unit] = 1.0
        assert cost.removed(gates) < target
    else:
        counts = {int((~units).sum()) for units in found.values()}
        assert len(counts) == 1
        step = 6.5 / cost.total
        assert cost.removed(gates) - target < step


def test_nothing_is_closed_for_nothing():
    assert closed(allocate(VALUES, COST, 0.0, POOLS)) == {"a": [], "b": []}


def test_refuses_values_that_are_not_numbers():
    with pytest.raises(ValueError, match="NaN"):
        allocate({"a": torch.tensor([1.0, float("nan")]), "b": VALUES["b"]}, COST, 0.1, POOLS)
