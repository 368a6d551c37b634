"""K-means of numbers against brute force and its invariances."""

import itertools

import pytest
import torch

from lit_compress.quantization.clustering.kmeans import INITS, kmeans
from lit_compress.quantization.clustering.nearest import nearest


def values(count=400, seed=0):
    return torch.randn(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def draw(seed=0):
    return torch.Generator().manual_seed(seed)


def owners(numbers, centroids, keep_zeros=False):
    return nearest(numbers[None], centroids[None], keep_zeros)[0].long()


def error(numbers, centroids):
    return float((numbers[:, None] - centroids).square().min(1).values.sum())


@pytest.mark.parametrize("init", INITS)
def test_the_error_never_rises(init):
    numbers = values()
    errors = [error(numbers, kmeans(numbers, 16, init, steps=steps, generator=draw())) for steps in range(12)]
    assert all(later <= earlier * (1 + 1e-12) for earlier, later in itertools.pairwise(errors))
    assert errors[-1] < 0.95 * errors[0]


@pytest.mark.parametrize("init", INITS)
def test_centroids_are_the_means_of_their_values(init):
    numbers = values()
    centroids = kmeans(numbers, 8, init, steps=1000, generator=draw())
    owner = (numbers[:, None] - centroids).abs().argmin(1)
    assert torch.equal(owners(numbers, centroids), owner)
    for index, centroid in enumerate(centroids):
        torch.testing.assert_close(numbers[owner == index].mean(), centroid, rtol=1e-9, atol=1e-9)


def test_not_far_from_the_best_partition():
    numbers = values(12, seed=3).sort().values
    best = min(
        sum(float((part - part.mean()).square().sum()) for part in numbers.tensor_split(cuts))
        for cuts in itertools.combinations(range(1, 12), 2)
    )
    found = min(error(numbers, kmeans(numbers, 3, "kmeans++", generator=draw(seed))) for seed in range(10))
    assert found == pytest.approx(best)


@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize("clusters", [2, 3, 16, 256])
def test_pruned_zeros_stay_and_nothing_else_becomes_zero(clusters, init):
    numbers = values()
    numbers[torch.rand(400, generator=draw()) < 0.6] = 0
    centroids = kmeans(numbers, clusters, init, keep_zeros=True, generator=draw())
    assert len(centroids) == clusters and 0 in centroids
    found = centroids[owners(numbers, centroids, keep_zeros=True)]
    assert bool((found[numbers == 0] == 0).all())
    if clusters > 2:
        assert bool((found[numbers != 0] != 0).all())
        assert bool((found.sign() == numbers.sign()).all())
    # Without it no zero survives as it is.
    plain = kmeans(numbers, clusters, init, generator=draw())
    assert float((plain[owners(numbers, plain)][numbers == 0] == 0).double().mean()) == 0 or clusters == 256


def test_centroids_are_shared_out_by_the_numbers_of_both_signs():
    numbers = torch.cat(
        [-values(100).abs() - 0.1, values(300).abs() + 0.1, torch.zeros(50, dtype=torch.float64)]
    )
    centroids = kmeans(numbers, 17, keep_zeros=True)
    assert int((centroids < 0).sum()) == 4 and int((centroids > 0).sum()) == 12
    one_sided = kmeans(numbers.clamp(min=0), 5, keep_zeros=True)
    assert int((one_sided == 0).sum()) == 1 and int((one_sided > 0).sum()) == 4


def test_fewer_values_than_centroids_are_all_kept():
    numbers = torch.tensor([1.5, -2.0, 1.5, 7.0])
    for init in INITS:
        centroids = kmeans(numbers, 8, init, generator=draw())
        assert torch.allclose(centroids[owners(numbers, centroids)], numbers) or init == "linear"
    assert kmeans(torch.full((9,), 3.0), 4).tolist() == [3.0] * 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"clusters": 0}, "Expected at least 1 clusters but got 0"),
        ({"clusters": 1, "keep_zeros": True}, "Expected at least 2 clusters but got 1"),
        ({"clusters": 4, "init": "random"}, "Expected init to be one of linear, density, kmeans"),
        ({"clusters": 4, "values": torch.tensor([])}, "Expected values to cluster but got none"),
        ({"clusters": 4, "values": torch.tensor([float("nan")])}, "Expected finite values to cluster"),
    ],
)
def test_refuses_what_cannot_be_clustered(arguments, message):
    with pytest.raises(ValueError, match=message):
        kmeans(**{"values": torch.ones(3), **arguments})
