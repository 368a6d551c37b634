"""Models whose weights share few values: gradients by hand, zeros, and what is stored of them."""

import copy
import math

import pytest
import torch
from torch import nn

import lit_compress
from lit_compress.benchmark.facts import model_facts
from lit_compress.callbacks import QAT, WeightClustering
from lit_compress.callbacks.student import deployable
from lit_compress.models.checkpoint import save_folder
from lit_compress.models.transforms import restore, transforms_of
from lit_compress.pruning.masks import apply_weight_masks, masks_of
from lit_compress.quantization.clustering.clustered_weights import (
    apply_clustered_weights,
    clustered_weights_of,
)
from lit_compress.quantization.clustering.codebook import Codebook, blocks_of, from_blocks
from lit_compress.quantization.clustering.codebook_convert import to_codebooks
from lit_compress.quantization.clustering.codebook_weights import codebooks_of
from lit_compress.quantization.convert import to_floats
from lit_compress.quantization.packing import packed_bytes
from lit_compress.schedules import Progress
from tests.quantization.test_fake_model import batch, logits
from tests.tiny import TEXT_FAMILIES, tiny_bert, tiny_model

SETTINGS = {
    "tensor": {"embedding_rows": None},
    "blocks of rows": {"clusters": 4, "rows": 5, "embedding_clusters": 3, "embedding_rows": 7},
    "int8 centroids": {"centroid_bits": 8, "keep_zeros": True},
    "Huffman code": {"clusters": 8, "entropy": True, "init": "linear"},
    "projections": {"embedding_clusters": 0, "clusters": 2},
    "256": {"clusters": 256, "embedding_clusters": 256, "rows": 16},
}
MATRIX = "bert.encoder.layer.0.intermediate.dense.weight"


def clustered(model, **settings):
    """A model with clusters that have been trained away from where k-means puts them."""
    callback = WeightClustering(**settings)
    callback.apply(model)
    callback.move(model, Progress(9, 10, 0.0))
    draw = torch.Generator().manual_seed(0)
    for _, step in clustered_weights_of(model):
        step.centroids.data += 0.05 * torch.randn(step.centroids.shape, generator=draw)
    return model.eval()


def linear(codebook, seed=0, shape=(6, 8)):
    """A layer with a clustered weight, and what clusters it."""
    layer = nn.Sequential(nn.Linear(shape[1], shape[0], bias=False))
    layer[0].weight.data = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    apply_clustered_weights(layer, ["0.weight"], codebook)
    ((_, step),) = clustered_weights_of(layer)
    step.begin(layer[0].parametrizations.weight.original.detach(), "kmeans++")
    step.set_stage(1)
    return layer, step


@pytest.mark.parametrize("family", TEXT_FAMILIES)
@pytest.mark.parametrize("kind", SETTINGS)
def test_what_is_loaded_computes_what_was_trained_bit_by_bit(kind, family, tmp_path):
    plain = logits(tiny_model(family, layers=1).eval())
    model = clustered(tiny_model(family, layers=1), **SETTINGS[kind])
    wanted = logits(model)
    assert not torch.equal(wanted, plain)
    small = deployable(model)
    assert torch.equal(logits(small), wanted) and torch.equal(logits(model), wanted)
    save_folder(tmp_path / "model", small, None, {})
    loaded = lit_compress.load(tmp_path / "model")
    assert torch.equal(logits(loaded), wanted)
    save_folder(tmp_path / "again", loaded, None, {})
    assert torch.equal(logits(lit_compress.load(tmp_path / "again")), wanted)


@pytest.mark.parametrize("kind", SETTINGS)
def test_every_codebook_has_few_values(kind):
    small = deployable(clustered(tiny_bert(layers=1), **SETTINGS[kind]))
    found = list(codebooks_of(small))
    assert len(found) == (11 if kind != "projections" else 8)
    for name, stored in found:
        for block in blocks_of(stored.values, stored.codebook.rows):
            # What fills up the last block is zero.
            least = 1 if stored.values.numel() % block.numel() else 0
            assert len(block.unique()) <= stored.codebook.clusters + least, name
        if kind == "int8 centroids":
            assert stored.centroids.dtype == torch.int8 and len(stored.scale) == len(stored.centroids)


@pytest.mark.parametrize("rows", [None, 2, 4])
@pytest.mark.parametrize("keep_zeros", [False, True])
def test_the_gradient_of_a_centroid_is_the_sum_over_its_weights(keep_zeros, rows):
    layer, step = linear({"clusters": 4, "rows": rows, "keep_zeros": keep_zeros})
    weight = layer[0].weight.detach().clone()
    inputs = torch.randn(5, 8, generator=torch.Generator().manual_seed(1))
    layer(inputs).square().sum().backward()
    # By hand: y = x W', the loss is its square.
    by_hand = 2 * (inputs @ weight.t()).t() @ inputs
    wanted = torch.zeros_like(step.centroids)
    for output in range(6):
        book = output // (rows or 6)
        for column in range(8):
            (place,) = (step.centroids[book] == weight[output, column]).nonzero()[0]
            wanted[book, place] += by_hand[output, column]
    torch.testing.assert_close(step.centroids.grad, wanted)
    # The weight behind gets what it would get without clusters.
    torch.testing.assert_close(layer[0].parametrizations.weight.original.grad, by_hand)


def test_the_centroid_at_zero_stays_there_and_gets_no_gradient():
    layer, step = linear({"clusters": 4, "keep_zeros": True})
    assert step.centroids.shape == (1, 3) and (step.values() == 0).sum() == 1
    layer[0].parametrizations.weight.original.data[:3] = 0
    found = layer[0].weight
    assert bool((found[:3] == 0).all()) and bool((found[3:] != 0).all())
    found[:3].sum().backward()
    assert bool((step.centroids.grad == 0).all())


def test_centroids_that_no_weight_is_nearest_to_do_no_harm():
    layer, step = linear({"clusters": 4})
    step.centroids.data[0, 2] = 1e6
    layer(torch.ones(1, 8)).sum().backward()
    assert float(step.centroids.grad[0, 2]) == 0 and bool(step.centroids.grad.isfinite().all())
    # In any order: the codebook is sorted where it is used.
    assert float((layer[0].weight - layer[0].parametrizations.weight.original).abs().max()) < 3


def test_rounded_centroids_learn_too():
    layer, step = linear({"clusters": 4, "centroid_bits": 4})
    scale = step.centroids.abs().max() / 7
    assert bool(((step.values() / scale).round() - step.values() / scale).abs().max() < 1e-4)
    layer(torch.ones(1, 8)).sum().backward()
    assert float(step.centroids.grad.sum()) == pytest.approx(48)


@pytest.mark.parametrize("first", ["masks", "clusters"])
def test_what_was_pruned_stays_zero_whoever_was_first(first, tmp_path):
    model = tiny_bert(layers=1)
    callback = WeightClustering(clusters=4, keep_zeros=True)
    steps = [lambda: apply_weight_masks(model, [MATRIX]), lambda: callback.apply(model)]
    for step in steps if first == "masks" else steps[::-1]:
        step()
    ((_, mask),) = masks_of(model)
    mask.keep.copy_(torch.rand(mask.keep.shape, generator=torch.Generator().manual_seed(0)) < 0.5)
    callback.move(model, Progress(9, 10, 0.0))
    save_folder(tmp_path / "model", deployable(model), None, {})
    found = lit_compress.load(tmp_path / "model").bert.encoder.layer[0].intermediate.dense.weight
    assert torch.equal(found == 0, ~mask.keep)


def test_transforms_are_idempotent_and_restored_from_their_record():
    settings = SETTINGS["int8 centroids"]
    model = clustered(tiny_bert(layers=1), **settings)
    state, wanted = model.state_dict(), logits(model)
    WeightClustering(**settings).apply(model)
    assert torch.equal(logits(model), wanted)
    again = tiny_bert(layers=1, seed=3)
    restore(again, transforms_of(model))
    again.load_state_dict(state)
    assert torch.equal(logits(again.eval()), wanted)
    with pytest.raises(ValueError, match="Expected 'clustered_weights' with the settings"):
        WeightClustering(clusters=5).apply(model)


@pytest.mark.parametrize("clusters", [2, 16, 100, 256])
def test_a_matrix_takes_the_bytes_of_the_formula(clusters):
    model = tiny_bert(layers=1)
    small = deployable(clustered(model, clusters=clusters, embedding_clusters=0))
    count = small.get_buffer(MATRIX).numel()
    stored = dict(codebooks_of(small))[MATRIX]
    size = sum(tensor.numel() * tensor.element_size() for tensor in stored.state_dict().values())
    # n b / (n log2 K + K b), with as many bits as an index needs.
    bits = math.ceil(math.log2(clusters))
    assert 32 * count / (8 * size) == pytest.approx(32 * count / (count * bits + clusters * 32))


def test_a_huffman_code_is_taken_where_it_is_smaller():
    model = tiny_bert(layers=1, hidden=64)
    model.get_parameter(MATRIX).data[:, ::2] = 0
    model.get_parameter(MATRIX).data[:, 1::4] = 0
    small = deployable(clustered(model, entropy=True, keep_zeros=True))
    found = dict(codebooks_of(small))
    coded, even = found[MATRIX], found["classifier.weight"]
    assert len(coded.indices) < 0.6 * packed_bytes(coded.values.numel(), 4)
    assert even.lengths is None and len(even.indices) == packed_bytes(even.values.numel(), 4)


def test_blocks_of_rows_come_back():
    for shape, axis, rows in (((7, 3), 0, 2), ((7, 3), 1, 2), ((7, 3), 0, 100), ((4, 3), 0, None)):
        values = torch.arange(math.prod(shape)).reshape(shape)
        blocks = blocks_of(values, rows, axis)
        assert torch.equal(from_blocks(blocks, values, axis), values)
        if rows == 2:
            first = values.transpose(0, axis)[:2].reshape(-1)
            assert torch.equal(blocks[0], first) and blocks[-1].tolist()[-1] == 0


def test_outputs_along_the_other_axis_share_a_codebook():
    from transformers.pytorch_utils import Conv1D

    model = nn.Sequential(Conv1D(6, 4))
    apply_clustered_weights(model, ["0.weight"], {"clusters": 2, "rows": 3})
    ((_, step),) = clustered_weights_of(model)
    step.begin(model[0].weight, "linear")
    step.set_stage(1)
    wanted = model[0].weight.detach().clone()
    assert [len(part.unique()) for part in (wanted[:, :3], wanted[:, 3:])] == [2, 2]
    to_codebooks(model)
    assert torch.equal(model[0].weight, wanted)


def test_it_counts_and_becomes_what_ordinary_models_are():
    before = model_facts(tiny_bert(layers=1).eval())
    model = clustered(tiny_bert(layers=1))
    wanted = logits(model)
    small = deployable(model)
    after = model_facts(small)
    assert (after["params"], after["macs"]) == (before["params"], before["macs"])
    to_floats(small)
    assert transforms_of(small) == []
    assert small.state_dict().keys() == tiny_bert(layers=1).state_dict().keys()
    assert torch.equal(logits(small), wanted)


def test_a_step_in_bfloat16_trains_the_centroids():
    model = clustered(tiny_bert(layers=1)).train()
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(**batch()).logits.float().square().sum()
    loss.backward()
    for name, step in clustered_weights_of(model):
        assert step.centroids.grad.dtype == torch.float32 and bool(step.centroids.grad.isfinite().all()), name


def test_refuses_a_damaged_file(tmp_path):
    small = deployable(clustered(tiny_bert(layers=1, hidden=64), entropy=True, clusters=3))
    coded = [stored for _, stored in codebooks_of(small) if stored.lengths is not None]
    assert coded
    coded[0].indices[5] ^= 16
    save_folder(tmp_path / "coded", small, None, {})
    with pytest.raises(ValueError, match="the file is damaged"):
        lit_compress.load(tmp_path / "coded")
    small = deployable(clustered(tiny_bert(layers=1), clusters=3, embedding_clusters=3))
    next(codebooks_of(small))[1].indices.fill_(255)
    save_folder(tmp_path / "packed", small, None, {})
    with pytest.raises(ValueError, match="Expected indices below 3 but got 3; the file is damaged"):
        lit_compress.load(tmp_path / "packed")


def test_refuses_to_ship_what_is_not_clustered_yet():
    model = tiny_bert(layers=1)
    WeightClustering().apply(model)
    with pytest.raises(ValueError, match="is not clustered yet; let the fit go on beyond cluster_at"):
        deployable(model)


@pytest.mark.parametrize("first", [QAT, WeightClustering])
def test_refuses_a_matrix_that_something_else_rounds(first):
    model = tiny_bert(layers=1)
    first().apply(model)
    second = QAT if first is WeightClustering else WeightClustering
    with pytest.raises(ValueError, match=r"query.weight: Expected a matrix that nothing rounds yet but"):
        second().apply(model)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"clusters": 1}, "Expected 2 to 256 clusters, so that an index fits into a byte, but got 1"),
        ({"embedding_clusters": 300}, "Expected 2 to 256 clusters, .* but got 300"),
        ({"rows": 0}, "Expected rows >= 1"),
        ({"centroid_bits": 16}, "Expected bits from 2 to 8 but got 16"),
        ({"init": "random"}, "Expected init to be one of"),
        ({"cluster_at": 1.0}, "Expected 0 <= cluster_at < 1"),
    ],
)
def test_refuses_settings_out_of_range(settings, message):
    with pytest.raises(ValueError, match=message):
        WeightClustering(**settings)


def test_a_copy_is_a_model_of_its_own():
    small = deployable(clustered(tiny_bert(layers=1)))
    again = copy.deepcopy(small)
    wanted = logits(small)
    for _, stored in codebooks_of(again):
        stored.centroids += 1
        stored.after_load()
    assert torch.equal(logits(small), wanted) and not torch.equal(logits(again), wanted)


def test_codebooks_are_described():
    assert str(Codebook(16, 64, centroid_bits=8)) == "16 int8 values per 64 rows"
    assert str(Codebook()) == "16 float32 values per tensor"
