"""Models whose weights are stored in few bits, where others expect parameters."""

import pytest
import torch

import lit_compress
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
