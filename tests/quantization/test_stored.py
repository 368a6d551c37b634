"""Models whose weights are stored in few bits, where others expect parameters."""

import pytest
import torch

import lit_compress
from lit_compress.__main__ import main
from lit_compress.models import Pretrained
from lit_compress.models.checkpoint import save_folder
from lit_compress.models.factory import from_pretrained
from lit_compress.modules import FineTuning
from lit_compress.pruning import shrink
from lit_compress.quantization.packed import packed_of
from lit_compress.quantization.post_training import quantize_model
from lit_compress.quantization.scheme import Scheme
from tests.callbacks.conftest import data, make_trainer, texts  # noqa: F401
from tests.tiny import tiny_batch, tiny_bert


@pytest.fixture
def folder(tmp_path):
    model = tiny_bert(labels=2).eval()
    quantize_model(model, Scheme(4), Scheme(8))
    return save_folder(tmp_path / "small", model, None, {"method": "x"})


def test_bfloat16_weights_keep_their_scales_precise(folder):
    """Scales of 8 bits of precision would move every weight by up to 0.4 %."""
    full, half = (from_pretrained(str(folder), dtype=each).eval() for each in ("float32", "bfloat16"))
    batch = {key: value for key, value in tiny_batch().items() if key not in ("labels", "example_id")}
    with torch.no_grad():
        logits, near = full(**batch).logits, half(**batch).logits.float()
    assert (near - logits).abs().max() < 0.03 * logits.abs().max()
    for (_, one), (_, other) in zip(packed_of(full), packed_of(half), strict=True):
        assert torch.equal(one.scale, other.scale) and one.scale.dtype == torch.float32
        assert torch.equal(one.values.bfloat16(), other.values)


def test_refuses_to_train_what_has_no_weights_to_train(folder, data, make_trainer):  # noqa: F811
    with pytest.raises(
        ValueError, match=r"that can be trained but .*word_embeddings.weight is stored in few bits"
    ):
        make_trainer(checkpoint=False).fit(FineTuning(Pretrained(str(folder)), method="x"), data)


def test_refuses_to_shrink_what_is_stored_in_few_bits(folder):
    with pytest.raises(ValueError, match="shrink the folder that it was made from, and quantize the result"):
        shrink(lit_compress.load(folder))


@pytest.mark.parametrize("first", ["nearest", "kmeans"])
@pytest.mark.parametrize(
    "second", [("quantize",), ("quantize", "--method", "kmeans"), ("quantize", "--method", "bf16")]
)
def test_refuses_to_change_a_folder_of_few_bits_again(first, second, tmp_path, capsys):
    whole = save_folder(tmp_path / "whole", tiny_bert(labels=2).eval(), None, {"method": "x"})
    small = tmp_path / "small"
    assert main(["quantize", str(whole), "--out", str(small), "--method", first]) == 0
    assert main([second[0], str(small), "--out", str(tmp_path / "again"), *second[1:]]) == 1
    name = {"nearest": "packed_weights", "kmeans": "codebook_weights"}[first]
    error = " ".join(capsys.readouterr().err.split())
    assert f"but it has {name}; give the model that it was made from." in error
    assert not (tmp_path / "again").exists()
