"""Products with Hessians and their top eigenvalues against finite differences and full Hessians in float64."""

import pytest
import torch

from lit_compress.objectives.hard_labels import hard_labels
from lit_compress.quantization.mixed.hvp import hessian_products, top_eigenvalues, twice_differentiable
from tests.families import family_batch, family_model
from tests.tiny import TEXT_FAMILIES, tiny_bert

LABELS = torch.tensor([0, 2])


def loss_of(model, family="bert"):
    return hard_labels(model(**family_batch(family)).logits, LABELS)


def block_of(model, index):
    layer = f"layer.{index}."
    return [
        leaf for name, leaf in model.named_parameters() if layer in name and name.endswith("dense.weight")
    ]


def random_like(leaves, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return [torch.randn(leaf.shape, generator=draw, dtype=leaf.dtype) for leaf in leaves]


@pytest.mark.parametrize("family", TEXT_FAMILIES)
def test_products_are_differences_of_gradients(family):
    model = family_model(family, 2)
    matrices = [leaf for leaf in model.parameters() if leaf.dim() == 2][4:]
    parts = {"first": matrices[:3], "second": matrices[3:5]}
    vectors = {name: random_like(leaves, seed) for seed, (name, leaves) in enumerate(parts.items())}
    with twice_differentiable(model, parts):
        found = hessian_products(loss_of(model, family), parts, vectors)
        step = 1e-5
        for name, leaves in parts.items():
            slopes = []
            for sign in (1, -1):
                with torch.no_grad():
                    for leaf, vector in zip(leaves, vectors[name], strict=True):
                        leaf.add_(sign * step * vector)
                slopes.append(torch.autograd.grad(loss_of(model, family), leaves))
                with torch.no_grad():
                    for leaf, vector in zip(leaves, vectors[name], strict=True):
                        leaf.sub_(sign * step * vector)
            for product, up, down in zip(found[name], *slopes, strict=True):
                wanted = (up - down) / (2 * step)
                assert float((product - wanted).norm()) < 1e-5 * float(wanted.norm())


def quadratic(*diagonals):
    """Parts whose Hessians are diagonal, with what multiplies with them."""
    parts = {
        str(index): [torch.randn(len(one), dtype=torch.float64, requires_grad=True)]
        for index, one in enumerate(diagonals)
    }

    def products(vectors):
        loss = sum(
            (torch.tensor(one, dtype=torch.float64) * parts[str(index)][0].square()).sum() / 2
            for index, one in enumerate(diagonals)
        )
        return hessian_products(loss, parts, vectors)

    return parts, products


def test_the_eigenvalue_of_a_diagonal_is_its_largest_entry_with_its_sign():
    parts, products = quadratic([3.0, 1.0, 0.5], [1.0, -7.0, 2.0], [0.0, 0.0])
    found = top_eigenvalues(products, parts, tolerance=1e-9)
    assert found == pytest.approx({"0": 3.0, "1": -7.0, "2": 0.0}, rel=1e-6)


def test_the_eigenvalue_is_that_of_the_full_hessian_of_a_block():
    model = family_model("bert", 2)
    parts = {
        f"block {index}": [model.bert.encoder.layer[index].attention.self.query.bias] for index in range(2)
    }
    with twice_differentiable(model, parts):
        loss = loss_of(model)
        found = top_eigenvalues(
            lambda vectors: hessian_products(loss, parts, vectors), parts, tolerance=1e-6, most=200
        )
        for name, (leaf,) in parts.items():
            flat = torch.autograd.grad(loss, leaf, create_graph=True)[0].flatten()
            rows = [torch.autograd.grad(entry, leaf, retain_graph=True)[0].flatten() for entry in flat]
            spectrum = torch.linalg.eigvalsh(torch.stack(rows))
            assert found[name] == pytest.approx(float(spectrum[spectrum.abs().argmax()]), rel=1e-3)


def test_iteration_ends_where_the_eigenvalue_settles_and_at_the_latest_after_the_most():
    counts = []
    parts, products = quadratic([5.0, 1.0])
    top_eigenvalues(products, parts, tell=counts.append)
    assert 2 <= counts[-1] < 20
    parts, products = quadratic([5.0, 4.99])
    top_eigenvalues(products, parts, tolerance=0.0, most=7, tell=counts.append)
    assert counts[-1] == 7
    # What has settled is not multiplied any more.
    asked = []
    parts, products = quadratic([5.0, 0.0], [5.0, 4.0])
    top_eigenvalues(lambda vectors: asked.append(set(vectors)) or products(vectors), parts)
    assert asked[0] == {"0", "1"} and asked[-1] == {"1"}


def test_the_model_is_as_before_afterwards():
    model = tiny_bert(layers=2).train()
    model.set_attn_implementation("sdpa")
    frozen = model.bert.embeddings.word_embeddings.weight.requires_grad_(False)
    parts = {"block": block_of(model, 1)}
    with pytest.raises(RuntimeError, match="injected"), twice_differentiable(model, parts):
        assert model.config._attn_implementation == "eager" and not model.training
        assert sum(leaf.requires_grad for leaf in model.parameters()) == len(parts["block"])
        raise RuntimeError("injected")
    assert model.config._attn_implementation == "sdpa" and model.training
    assert not frozen.requires_grad
    assert all(leaf.requires_grad for leaf in model.parameters() if leaf is not frozen)


def test_refuses_fused_attention():
    model = family_model("bert", 1, attention="sdpa", dtype=torch.float32)
    parts = {"block": [model.bert.encoder.layer[0].attention.self.query.weight]}
    batch = family_batch("bert", dtype=torch.float32)
    loss = hard_labels(model(**batch).logits, LABELS)
    with pytest.raises(ValueError, match='differentiated twice but .*set_attn_implementation."eager"'):
        hessian_products(loss, parts, {"block": random_like(parts["block"])})


def test_refuses_nan():
    parts, _ = quadratic([1.0, 2.0])
    with pytest.raises(ValueError, match="Expected finite second derivatives of the loss by 0 but got"):
        top_eigenvalues(lambda vectors: {"0": [vectors["0"][0] * float("nan")]}, parts)
