"""Models that round nothing any more: for what is timed, and for what is cut."""

import pytest
import torch
from torch.nn.utils import parametrize

from lit_compress.callbacks.student import deployable
from lit_compress.models.transforms import transforms_of
from lit_compress.pruning.latency_measure import plain_copy
from lit_compress.quantization.clustering.clustered_weights import apply_clustered_weights, begin_clustering
from lit_compress.quantization.unround import unround
from tests.families import family_batch, family_model
from tests.pruning.conftest import exact_norms  # noqa: F401
from tests.pruning.gating import close_at_random, fix
from tests.quantization.test_shrunk import put_rounding_on, run


def test_what_is_trained_with_rounding_has_its_weights_again():
    model, plain = family_model("bert"), family_model("bert")
    put_rounding_on(model, "bert", {"bits": 4, "per": "channel"}, learned=True)
    apply_clustered_weights(model, ["bert.embeddings.word_embeddings.weight"], {"clusters": 4})
    begin_clustering(model, "linear")
    assert not torch.equal(run(model, "bert"), run(plain, "bert"))
    assert torch.equal(run(unround(model), "bert"), run(plain, "bert"))
    assert transforms_of(model) == [] and model.state_dict().keys() == plain.state_dict().keys()


@pytest.mark.parametrize("shipped", [False, True])
def test_what_is_timed_rounds_nothing(shipped):
    """Rounding in floats takes longer than the product itself; what a runtime does in its place is faster."""
    model = family_model("bert")
    close_at_random(fix(model, ["head", "neuron"]), seed=1)
    put_rounding_on(model, "bert")
    timed = plain_copy(deployable(model) if shipped else model)
    assert not any(parametrize.is_parametrized(module) for module in timed.modules())
    assert not any(module._forward_pre_hooks for module in timed.modules())
    assert all(parameter.is_floating_point() for parameter in timed.parameters())
    timed(**family_batch("bert"))
