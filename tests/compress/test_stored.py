"""The model as a plan stores it: in so many bits, with factors, and still the model."""

import pytest
import torch

from lit_compress.compress.planning import Storage
from lit_compress.compress.stored import as_stored
from lit_compress.models.checkpoint import load, save_folder
from lit_compress.models.transforms import transforms_of
from lit_compress.pruning.sample_inputs import make_inputs
from lit_compress.quantization.stored import stored_of
from tests.tiny import tiny_bert


@pytest.mark.parametrize(
    "storage", [Storage(), Storage(8, 4), Storage(4, 4), Storage(4, 8), Storage(4, 4, 32), Storage(4, 8, 8)]
)
def test_it_has_the_bits_and_the_factors_of_the_plan(storage, tmp_path):
    model = tiny_bert(layers=1, hidden=64).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    stored = as_stored(model, storage)
    table: torch.nn.Module = stored.get_input_embeddings()
    assert hasattr(table, "expand") == (storage.rank is not None)
    bits = {name: module.scheme.bits for name, module in stored_of(stored)}
    words = {count for name, count in bits.items() if "word_embeddings" in name and "expand" not in name}
    projections = {count for name, count in bits.items() if ".layer.0." in name}
    assert (words, projections) == ({storage.word_bits}, {storage.weight_bits})
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    # It is a folder like any other.
    again = load(save_folder(tmp_path / "model", stored, None, {}))
    inputs = make_inputs(model, 2, 8)
    with torch.inference_mode():
        assert torch.equal(again(**inputs).logits, stored(**inputs).logits)
    assert any(name == "factorized_embedding" for name, _ in transforms_of(again)) == (
        storage.rank is not None
    )
