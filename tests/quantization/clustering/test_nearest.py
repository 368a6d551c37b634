"""The search for the nearest centroid against all distances."""

import pytest
import torch

from lit_compress.quantization.clustering.nearest import _by_search, _edges, nearest


def problem(codebooks, clusters, seed=0, outlier=1.0):
    draw = torch.Generator().manual_seed(seed)
    values = torch.randn(codebooks, 500, generator=draw)
    values[:, 0] *= outlier
    return values, torch.randn(codebooks, clusters, generator=draw).sort(1).values


@pytest.mark.parametrize("codebooks", [1, 5])
@pytest.mark.parametrize("clusters", [1, 2, 3, 16, 255, 256])
@pytest.mark.parametrize("outlier", [1.0, 1e6])
def test_the_least_of_all_distances(clusters, codebooks, outlier):
    values, centroids = problem(codebooks, clusters, outlier=outlier)
    found = centroids.gather(1, nearest(values, centroids).long())
    least = (values.double()[:, :, None] - centroids.double()[:, None]).abs().min(2).values
    torch.testing.assert_close((values.double() - found.double()).abs(), least, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("keep_zeros", [False, True])
@pytest.mark.parametrize("clusters", [2, 16, 200])
def test_the_table_and_the_binary_search_agree(clusters, keep_zeros):
    for seed in range(5):
        # Centroids that are close together, many of them in one bin of the table, and far out.
        values, centroids = problem(3, clusters, seed, outlier=1e4)
        centroids[:, : clusters // 2] /= 1000
        centroids[:, 0], centroids[0, -1] = 0, 1e4
        centroids = centroids.sort(1).values
        values[:, ::7] = centroids[:, :1]  # halfway and on the spot
        values[:, 1::7] = 0
        wanted = _by_search(values, _edges(centroids, keep_zeros).contiguous())
        assert torch.equal(nearest(values, centroids, keep_zeros), wanted)


def test_halfway_is_the_lower_one():
    assert nearest(torch.tensor([[0.5, 0.50001, 1.0, -3.0]]), torch.tensor([[0.0, 1.0]])).tolist() == [
        [0, 1, 1, 0]
    ]


def test_zeros_and_nothing_else_get_the_centroid_at_zero():
    values = torch.tensor([[0.0, -0.0, 1e-30, -1e-30, 0.4, -0.4]])
    centroids = torch.tensor([[-1.0, 0.0, 1.0, 2.0]])
    assert nearest(values, centroids, keep_zeros=True).tolist() == [[1, 1, 2, 0, 2, 0]]
    assert nearest(values, centroids).tolist() == [[1, 1, 1, 1, 1, 1]]
    # Without a centroid of their sign small values are zero too.
    assert nearest(values, torch.tensor([[0.0, 1.0]]), keep_zeros=True).tolist() == [[0, 0, 1, 0, 1, 0]]


def test_equal_centroids_and_what_is_no_number_find_a_place():
    assert nearest(torch.tensor([[1.0, 5.0]]), torch.full((1, 4), 3.0)).max() <= 3
    assert 0 <= int(nearest(torch.tensor([[float("nan")]]), torch.tensor([[0.0, 1.0]]))) <= 1
