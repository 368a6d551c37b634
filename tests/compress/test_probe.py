"""What is counted of models that are tried before anything is trained."""

import pytest

from lit_compress.compress.probe import spared_weights
from lit_compress.pruning.latency import parts_of
from lit_compress.pruning.shape import cut_further
from tests.tiny import tiny_model


@pytest.mark.parametrize("kept", [64, 10, 0])
def test_neurons_of_the_last_block_that_a_fit_would_keep_are_counted(kept):
    model = tiny_model("bert", layers=2).eval()
    small = tiny_model("bert", layers=2).eval()
    neurons = "bert.encoder.layer.{}.intermediate.neuron"
    cut_further(small, {neurons.format(layer): list(range(kept)) for layer in (0, 1) if kept < 64})
    assert spared_weights(model, small) == (64 - kept) * 32 * 2  # of hidden size 32, in and out


def test_nothing_is_spared_where_all_blocks_are_the_last_one():
    model, small = (tiny_model("albert", layers=2).eval() for _ in range(2))
    path = next(part.inside for part in parts_of(small) if part.inside.endswith(".neuron"))
    cut_further(small, {path: list(range(8))})
    assert spared_weights(model, small) == 0
