"""Models with rounded weights and activations: order of transforms, zeros, and what is stored of them."""

import copy
import dataclasses

import pytest
import torch
from torch import nn

import lit_compress
from lit_compress.benchmark.facts import model_facts
from lit_compress.callbacks import QAT
from lit_compress.callbacks.student import deployable
from lit_compress.models.checkpoint import save_folder
from lit_compress.models.transforms import restore, transforms_of
from lit_compress.pruning.bake import bake
from lit_compress.pruning.masks import apply_weight_masks, masks_of
from lit_compress.quantization import Scheme
from lit_compress.quantization.convert import to_floats, to_integers
from lit_compress.quantization.fake_weights import apply_fake_weights, fake_weights_of
from lit_compress.quantization.grid import dequantize, grid_of, quantize, range_of, rows_of
from lit_compress.quantization.inputs import apply_input_quantizers, input_quantizers_of
from lit_compress.quantization.packed import packed_of
from lit_compress.quantization.stage import FROZEN, ROUND
from lit_compress.quantization.straight_through import fake_quantize
from tests.tiny import TEXT_FAMILIES, tiny_batch, tiny_bert, tiny_model

SETTINGS = {
    "int8": {},
    "int8 weights": {"ranges": "none"},
    "int4 groups": {"weights": Scheme(4, True, "group", 8)},
    "uint3 rows": {"weights": Scheme(3, False, "rows", 4), "exclude": ["classifier"]},
    "learned int4": {"weights": Scheme(4, True, "channel"), "learned_steps": True},
    "learned int3 groups": {"weights": Scheme(3, True, "group", 8), "learned_steps": True},
    "uint4": {"weights": Scheme(4, False, "channel"), "embeddings": Scheme(4, False, "channel")},
    "dynamic": {"ranges": "dynamic"},
    "percentile": {"ranges": "percentile"},
}


def batch(seed=0):
    found = tiny_batch(seed=seed)
    found.pop("example_id", None)
    found.pop("labels", None)
    return found


def trained(model, settings, stage=FROZEN):
    """A model with everything rounded, after a few forward passes."""
    callback = QAT(**settings)
    callback.apply(model)
    model.train()
    with torch.no_grad():
        for seed in range(3):
            model(**batch(seed))
    for name, fake in fake_weights_of(model):
        fake.begin(model.get_submodule(name.rpartition(".")[0]).weight)
    for _, step in [*fake_weights_of(model), *input_quantizers_of(model)]:
        step.set_stage(stage)
    return model.eval()


def logits(model, seed=9):
    with torch.no_grad():
        return model(**batch(seed)).logits


@pytest.mark.parametrize("family", TEXT_FAMILIES)
@pytest.mark.parametrize("kind", SETTINGS)
def test_what_is_loaded_computes_what_was_trained_bit_by_bit(kind, family, tmp_path):
    model = trained(tiny_model(family, layers=2), SETTINGS[kind])
    plain = logits(copy.deepcopy(tiny_model(family, layers=2)).eval())
    wanted = logits(model)
    assert not torch.equal(wanted, plain)
    small = deployable(model)
    assert torch.equal(logits(small), wanted) and torch.equal(logits(model), wanted)
    save_folder(tmp_path / "model", small, None, {})
    loaded = lit_compress.load(tmp_path / "model")
    assert torch.equal(logits(loaded), wanted)
    save_folder(tmp_path / "again", loaded, None, {})
    assert torch.equal(logits(lit_compress.load(tmp_path / "again")), wanted)


def test_weights_are_those_of_the_grid_that_covers_them():
    model = tiny_bert(layers=1)
    before = {name: value.detach().clone() for name, value in model.state_dict().items()}
    trained(model, {"ranges": "none"})
    names = [name for name, _ in fake_weights_of(model)]
    matrices = [
        name for name, module in model.named_modules() if isinstance(module, (nn.Linear, nn.Embedding))
    ]
    assert sorted(names) == sorted(f"{name}.weight" for name in matrices)
    scheme = Scheme(8, True, "channel")
    for name in names:
        rows = before[name]
        grid = grid_of(*range_of(rows, scheme), scheme)
        module = model.get_submodule(name.removesuffix(".weight"))
        # Of a table the rows are rounded that were looked up.
        found = module(torch.arange(len(rows))) if isinstance(module, nn.Embedding) else module.weight
        assert torch.equal(found, dequantize(quantize(rows, grid, scheme), grid))
        assert not torch.equal(found, rows)


@pytest.mark.parametrize(
    "scheme",
    [Scheme(8), Scheme(4, False), Scheme(4, True, "group", 8), Scheme(2, False, "group", 16)],
    ids=str,
)
def test_rounding_what_was_looked_up_is_rounding_the_table(scheme):
    torch.manual_seed(0)
    module = nn.Module()
    module.table = nn.Embedding(20, 32, padding_idx=0)
    mask = torch.rand(20, 32) > 0.3
    apply_weight_masks(module, ["table.weight"])
    dict(masks_of(module))["table.weight"].keep.copy_(mask)
    apply_fake_weights(module, ["table.weight"], dataclasses.asdict(scheme))
    ((_, fake),) = fake_weights_of(module)
    ids = torch.tensor([[3, 3, 7], [0, 19, 3]])
    plain = module.table.weight.detach().clone()
    assert torch.equal(module.table(ids), plain[ids])  # rounding has not begun
    fake.set_stage(ROUND)
    found = module.table(ids)
    upstream = torch.randn_like(found)
    found.backward(upstream)
    # The definition: the whole table is rounded in every step.
    weight = plain.clone().requires_grad_()
    rows = rows_of(weight, scheme)
    rounded = fake_quantize(rows, grid_of(*range_of(rows.detach(), scheme), scheme), scheme).view(20, 32)
    wanted = nn.functional.embedding(ids, rounded, padding_idx=0)
    wanted.backward(upstream)
    assert torch.equal(found, wanted) and not torch.equal(found, plain[ids])
    assert torch.equal(module.table.parametrizations.weight.original.grad, weight.grad * mask)
    assert torch.equal(copy.deepcopy(module).table(ids), found)
    bake(module)
    to_integers(module)
    assert torch.equal(module.table(ids), found) and not module.table._forward_hooks


@pytest.mark.parametrize("first", ["masks", "rounding"])
def test_masks_come_before_rounding_whoever_was_first(first):
    matrix = "bert.encoder.layer.0.intermediate.dense.weight"
    model = tiny_bert(layers=1)
    steps = [
        lambda: apply_weight_masks(model, [matrix]),
        lambda: apply_fake_weights(model, [matrix], {"bits": 4, "symmetric": False}),
    ]
    for step in steps if first == "masks" else steps[::-1]:
        step()
    weight = model.get_parameter(matrix.replace("weight", "parametrizations.weight.original"))
    ((_, mask),) = masks_of(model)
    # The largest weight of every row goes: the grid covers what is left.
    mask.keep[torch.arange(len(weight)), weight.abs().argmax(1)] = False
    ((_, fake),) = fake_weights_of(model)
    fake.set_stage(ROUND)
    found = model.get_submodule(matrix.removesuffix(".weight")).weight
    assert bool((found[~mask.keep] == 0).all())
    masked = (weight * mask.keep).detach()
    scheme = Scheme(4, False, "channel")
    grid = grid_of(*range_of(masked, scheme), scheme)
    assert torch.equal(found, dequantize(quantize(masked, grid, scheme), grid))
    keys = [key for key in model.state_dict() if "parametrizations.weight" in key]
    assert [key.rpartition("weight.")[2] for key in keys] == ["original", "0.keep", "1.stage"]


def test_what_was_pruned_stays_zero_in_the_folder(tmp_path):
    model = tiny_bert(layers=1)
    matrix = "bert.encoder.layer.0.output.dense.weight"
    apply_weight_masks(model, [matrix])
    ((_, mask),) = masks_of(model)
    mask.keep.copy_(torch.rand(mask.keep.shape, generator=torch.Generator().manual_seed(0)) < 0.5)
    trained(model, {"weights": Scheme(4, False, "group", 16)})
    save_folder(tmp_path / "model", deployable(model), None, {})
    found = lit_compress.load(tmp_path / "model").bert.encoder.layer[0].output.dense.weight
    assert torch.equal(found == 0, ~mask.keep | (found == 0)) and bool((found[~mask.keep] == 0).all())
    assert float((found != 0).float().mean()) > 0.3


def test_transforms_are_idempotent_and_restored_from_their_record():
    model = trained(tiny_bert(layers=1), SETTINGS["learned int4"])
    state, wanted = model.state_dict(), logits(model)
    QAT(**SETTINGS["learned int4"]).apply(model)
    assert torch.equal(logits(model), wanted)
    again = tiny_bert(layers=1, seed=3)
    restore(again, transforms_of(model))
    again.load_state_dict(state)
    assert torch.equal(logits(again.eval()), wanted)
    with pytest.raises(ValueError, match="Expected 'fake_weights' with the settings"):
        QAT(weights=Scheme(2)).apply(model)


def test_files_have_the_bytes_of_their_bits(tmp_path):
    model = tiny_bert(layers=2, hidden=64, vocab=2000)
    save_folder(tmp_path / "full", copy.deepcopy(model).eval(), None, {})
    full = sum(path.stat().st_size for path in (tmp_path / "full").glob("*.safetensors"))
    for bits, share in ((8, 0.30), (4, 0.18), (2, 0.12)):
        scheme = Scheme(bits, True, "channel")
        small = deployable(trained(copy.deepcopy(model), {"weights": scheme, "embeddings": scheme}))
        folder = save_folder(tmp_path / str(bits), small, None, {})
        size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
        assert bits / 32 * full < size < share * full


def test_integers_are_what_the_values_stand_for():
    model = trained(tiny_bert(layers=1), SETTINGS["uint4"])
    to_integers(model)
    for name, packed in packed_of(model):
        numbers, grid = packed.whole_numbers(), packed.grid()
        assert int(numbers.min()) == 0 and int(numbers.max()) == 15, name
        torch.testing.assert_close(dequantize(numbers.float(), grid), packed.values, rtol=0, atol=0, msg=name)


def test_the_benchmark_counts_weights_that_are_stored_as_integers():
    before = model_facts(tiny_bert(layers=1).eval())
    small = deployable(trained(tiny_bert(layers=1), {"ranges": "none"}))
    after = model_facts(small)
    assert after["params"] == before["params"]
    zeros = sum(int((packed.values == 0).sum()) for _, packed in packed_of(small))
    assert after["nonzero_params"] <= before["nonzero_params"] and zeros
    assert after["macs"] == before["macs"]


def test_to_floats_gives_ordinary_parameters_of_the_same_values():
    model = trained(tiny_bert(layers=1), {"ranges": "none"})
    wanted = logits(model)
    to_integers(model)
    to_floats(model)
    assert transforms_of(model) == []
    assert model.state_dict().keys() == tiny_bert(layers=1).state_dict().keys()
    assert torch.equal(logits(model), wanted)


def test_ranges_of_activations_are_observed_in_training_only():
    model = tiny_bert(layers=1)
    apply_input_quantizers(model, ["classifier"], {"symmetric": False, "per": "tensor"}, "min_max")
    ((_, quantizer),) = input_quantizers_of(model)
    seen = []
    model.classifier.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    model.train()(**batch(0))
    ends = [float(quantizer.observer.low), float(quantizer.observer.high)]
    assert ends == [float(seen[0].min()), float(seen[0].max())]
    model.eval()(**batch(1))
    quantizer.set_stage(FROZEN)
    model.train()(**batch(2))
    assert ends == [float(quantizer.observer.low), float(quantizer.observer.high)]


def test_what_is_rounded_dynamically_is_as_onnx_runtime_does_it():
    onnxruntime = pytest.importorskip("onnxruntime")
    from onnx import TensorProto, helper

    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("x", "y")]
    graph = helper.make_model(
        helper.make_graph(nodes, "g", ends[:1], ends[1:]), opset_imports=[helper.make_opsetid("", 17)]
    )
    graph.ir_version = 9
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    model = tiny_bert(layers=1)
    apply_input_quantizers(model, ["classifier"], {"symmetric": False, "per": "tensor"}, "dynamic")
    ((_, quantizer),) = input_quantizers_of(model)
    quantizer.set_stage(ROUND)
    for seed in range(20):
        values = torch.randn(7, 32, generator=torch.Generator().manual_seed(seed)) + seed / 10
        found = quantizer(values)
        wanted = torch.from_numpy(session.run(None, {"x": values.numpy()})[0])
        torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"exclude": ["clasifier"]}, "'clasifier' is in no name"),
        ({"include": ["embeddings"]}, "Expected projections to round but include and exclude leave none"),
        ({"weights": Scheme(4, True, "group", 7)}, "divides the 32 inputs of every output but got 7"),
        ({"activations": Scheme(8)}, "Expected activations with per: tensor"),
    ],
)
def test_refuses_what_cannot_be_rounded(settings, message):
    with pytest.raises(ValueError, match=message):
        QAT(**settings).apply(tiny_bert(layers=1))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"ranges": "minmax"},
            "Expected ranges to be one of moving_average, .*, dynamic, none but got 'minmax'",
        ),
        (
            {"ranges": "none", "activations": Scheme(8, False, "tensor")},
            "Expected no activations with ranges=none",
        ),
        ({"quantize_at": 0.8}, "Expected 0 <= quantize_at < freeze_at < 1"),
        (
            {"learned_steps": True, "weights": Scheme(4, False)},
            "Expected symmetric weights for learned_steps",
        ),
    ],
)
def test_refuses_settings_that_do_not_fit_together(settings, message):
    with pytest.raises(ValueError, match=message):
        QAT(**settings)


def test_refuses_to_ship_what_is_not_rounded_yet():
    model = tiny_bert(layers=1)
    QAT().apply(model)
    with pytest.raises(ValueError, match="is not rounded yet; let the fit go on beyond quantize_at"):
        deployable(model)


@pytest.mark.parametrize("size", [1e-5, 1e-3])
def test_tiny_weights_of_one_sign_are_stored_as_they_were_trained(size):
    model = tiny_bert(layers=1)
    with torch.no_grad():
        weight = model.bert.encoder.layer[0].output.dense.weight
        weight.copy_(-weight.abs() * size)
        weight[:, ::3] = 0
    scheme = Scheme(8, False, "group", 4)
    rounded = trained(model, {"weights": scheme, "exclude": ["classifier"]})
    before = rounded.bert.encoder.layer[0].output.dense.weight.detach().clone()
    stored = deployable(rounded).bert.encoder.layer[0].output.dense.weight
    assert torch.equal(stored, before) and bool((stored[:, ::3] == 0).all())
    assert float((before - weight).abs().max()) < size


def test_fixed_ranges_are_searched_once(monkeypatch):
    model = trained(tiny_bert(layers=1), {"ranges": "mse"})
    searched = []
    kind = type(next(q for _, q in input_quantizers_of(model)).observer)
    monkeypatch.setattr(
        kind, "range", lambda self, scheme, before=kind.range: searched.append(self) or before(self, scheme)
    )
    with torch.inference_mode():
        first = model(**batch()).logits
    model.train()
    found = model(**batch())
    found.logits.sum().backward()  # what was found while nothing was recorded can be trained with
    model.eval()
    assert torch.equal(logits(model, 9), logits(model, 9)) and first.shape == found.logits.shape
    quantizers = [q for _, q in input_quantizers_of(model)]
    assert len(searched) == len(quantizers)
    # A checkpoint brings other ranges.
    state = {
        name: value * 2 if name.endswith((".low", ".high")) else value
        for name, value in model.state_dict().items()
    }
    before = quantizers[0].grid().scale.clone()
    model.load_state_dict(state)
    assert not torch.equal(quantizers[0].grid().scale, before)
