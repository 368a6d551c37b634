"""Quantization without training, on every text family and a language model."""

import copy

import pytest
import torch

import lit_compress
from lit_compress.models.checkpoint import save_folder
from lit_compress.quantization import Scheme
from lit_compress.quantization.calibration import in_order, read_by
from lit_compress.quantization.gptq import gptq
from lit_compress.quantization.inputs import input_quantizers_of
from lit_compress.quantization.packed import packed_of
from lit_compress.quantization.post_training import quantize_model
from tests.families import EVERY_FAMILY, family_batch, family_model
from tests.quantization.test_fake_model import batch, logits
from tests.tiny import tiny_bert

UINT8 = Scheme(8, False, "tensor")
SETTINGS = {
    "nearest int4": {"weights": Scheme(4), "embeddings": Scheme(8)},
    "gptq int4 groups": {"weights": Scheme(4, True, "group", 4), "method": "gptq"},
    "static int8": {"weights": Scheme(8), "embeddings": Scheme(8), "activations": UINT8},
    "gptq with activations": {
        "weights": Scheme(4),
        "activations": UINT8,
        "method": "gptq",
        "ranges": "percentile",
    },
    "dynamic int8": {"weights": Scheme(8), "activations": UINT8, "ranges": "dynamic"},
}


def batches(count=4):
    return [batch(seed) for seed in range(count)]


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_what_is_saved_computes_the_same_bit_by_bit(settings, tmp_path):
    model = tiny_bert(layers=2).eval()
    plain = logits(model)
    quantize_model(model, **settings, batches=batches())
    found = logits(model)
    assert not torch.equal(found, plain)
    save_folder(tmp_path / "model", model, None, {})
    assert torch.equal(logits(lit_compress.load(tmp_path / "model")), found)


@pytest.mark.parametrize("family", EVERY_FAMILY)
def test_every_family_is_rounded_with_and_without_texts(family):
    model = family_model(family, 2).float().eval()
    texts = [family_batch(family, seed, torch.float32) for seed in range(3)]
    names = [name for name, _ in model.named_modules()]
    exclude = [part for part in ("lm_head", "proj_out") if part in names]  # tied to the embeddings
    settings = {"weights": Scheme(4), "exclude": exclude, "batches": texts, "activations": UINT8}
    for method in ("nearest", "gptq", "awq"):
        small = copy.deepcopy(model)
        quantize_model(small, method=method, **settings)
        assert len(list(packed_of(small))) == len(list(input_quantizers_of(small))) >= 8
        with torch.no_grad():
            output = small(**texts[0])
        assert bool(output[0].isfinite().all())


def test_blocks_are_calibrated_with_the_rounded_blocks_before_them():
    model = tiny_bert(layers=2).eval()
    small = copy.deepcopy(model)
    quantize_model(small, Scheme(3), method="gptq", batches=batches())
    # By hand: the second block reads what the first one gives once it is rounded.
    half = copy.deepcopy(model)
    for name, packed in packed_of(small):
        if "layer.0." in name:
            half.get_parameter(name).data.copy_(packed.values)
    query = "bert.encoder.layer.1.attention.self.query"
    for start, same in ((half, True), (model, False)):
        statistics = next(iter(read_by(copy.deepcopy(start), [[query]], batches())))[query]
        values, _ = gptq(model.get_submodule(query).weight, statistics.hessian(), Scheme(3))
        assert torch.equal(values, small.get_submodule(query).weight) == same


def test_gptq_keeps_the_outputs_nearer_than_nearest_values():
    errors = {}
    model = tiny_bert(layers=2, hidden=64).eval()
    wanted = torch.stack([logits(model, seed) for seed in range(20, 30)])
    texts = [batch(seed) for seed in range(20)]
    for method in ("nearest", "gptq"):
        small = copy.deepcopy(model)
        quantize_model(small, Scheme(3), method=method, batches=texts)
        found = torch.stack([logits(small, seed) for seed in range(20, 30)])
        errors[method] = float((found - wanted).square().mean())
    assert errors["gptq"] < 0.8 * errors["nearest"]


def test_groups_follow_the_blocks():
    model = tiny_bert(layers=2)
    names = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
    groups = in_order(model, names)
    assert [len(group) for group in groups] == [6, 6, 2]
    assert groups[2] == ["bert.pooler.dense", "classifier"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "adaround"}, "Expected a method among nearest, gptq, awq but got 'adaround'"),
        ({"method": "gptq"}, "Expected texts to calibrate with but got none"),
        ({"activations": UINT8}, "Expected texts to find the ranges of activations with but got none"),
        ({"exclude": ["nothing"]}, "'nothing' is in no name"),
    ],
)
def test_refuses_what_does_not_fit(settings, message):
    with pytest.raises(ValueError, match=message):
        quantize_model(tiny_bert(layers=1).eval(), Scheme(8), **settings)


def test_refuses_a_model_that_is_rounded_already():
    model = tiny_bert(layers=1).eval()
    quantize_model(model, Scheme(8))
    with pytest.raises(
        ValueError, match="Expected a model that rounds nothing yet but it has packed_weights"
    ):
        quantize_model(model, Scheme(4))


def test_refuses_texts_that_lead_to_nan():
    model = tiny_bert(layers=1).eval()
    with torch.no_grad():
        model.bert.embeddings.word_embeddings.weight[7] = float("nan")
    texts = batches()
    texts[0]["input_ids"][0, 1] = 7
    with pytest.raises(ValueError, match="Expected finite activations"):
        quantize_model(copy.deepcopy(model), Scheme(8), method="gptq", batches=texts)
    with pytest.raises(ValueError, match="infinities or NaN"):
        quantize_model(model, Scheme(8), activations=UINT8, ranges="min_max", batches=texts)


@pytest.mark.parametrize("activations", [None, Scheme(8, False, "tensor")])
def test_refuses_weights_that_are_no_numbers(activations):
    model = tiny_bert(layers=1).eval()
    with torch.no_grad():
        model.bert.encoder.layer[0].output.dense.weight[0, 0] = float("nan")
    with pytest.raises(
        ValueError, match="Expected finite weights but bert.encoder.layer.0.output.dense.weight holds"
    ):
        quantize_model(model, Scheme(8), activations=activations, ranges="dynamic")
