"""Shapes that a plan tries: as fast as asked by the table, with the strongest heads and neurons in equal shares."""

import pytest
import torch

from lit_compress.compress import shapes
from lit_compress.compress.shapes import STRUCTURES, Shapes
from lit_compress.pruning.alive import writing_norms
from lit_compress.pruning.groups import find_groups
from tests.tiny import tiny_bert


class Costs:
    """A table in which every unit of a kind costs the same, all heads as much as all neurons."""

    def removed(self, kept):
        shares = [
            1 - torch.cat([kept[name] for name in kept if name.endswith(end)]).mean() for end in STRUCTURES
        ]
        return sum(shares) / len(shares)


@pytest.fixture
def model():
    return tiny_bert(layers=3)


@pytest.fixture
def tried(model, monkeypatch):
    monkeypatch.setattr(shapes.LatencyTable, "of", lambda *args, **settings: Costs())
    return Shapes(model, length=8)


def units(model, structure):
    return {group.name: group.units for group in find_groups(model, [structure], strict=False)}


@pytest.mark.parametrize("speedup", [1.2, 2.0, 3.0])
def test_equal_shares_of_heads_and_neurons_stay(speedup, tried, model):
    small = tried.at(speedup)
    for structure in STRUCTURES:
        before, after = sum(units(model, structure).values()), sum(units(small, structure).values())
        # By less than one unit in each of the two pools more than asked.
        assert after / before == pytest.approx(1 / speedup, abs=1 / before + 0.03)


def test_the_strongest_of_all_blocks_stay(tried, model):
    small, left = tried.at(2.0), units(tried.at(2.0), "neuron")
    norms = {group.name: writing_norms(model, group) for group in find_groups(model, ["neuron"])}
    order = torch.cat(list(norms.values())).argsort(descending=True)[: sum(left.values())]
    sizes = [len(values) for values in norms.values()]
    strongest = torch.zeros(sum(sizes), dtype=torch.bool).index_fill(0, order, True).split(sizes)
    assert left == {name: int(kept.sum()) for name, kept in zip(norms, strongest, strict=True)}
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in model.parameters())


def test_nothing_goes_where_nothing_is_asked(tried, model):
    whole = tried.at(1.0)
    assert units(whole, "head") == units(model, "head") and whole is not model and not whole.training
