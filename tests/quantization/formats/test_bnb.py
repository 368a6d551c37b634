"""The formats of bitsandbytes: what is stored, what stock transformers loads, and what would be silently wrong."""

import copy
import json
import sys

import pytest
import torch
from bitsandbytes.functional import dequantize_4bit
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
)

import lit_compress
from lit_compress.__main__ import main
from lit_compress.benchmark import artefacts
from lit_compress.models.checkpoint import save_folder
from lit_compress.quantization.formats.bnb import to_bitsandbytes
from lit_compress.quantization.packed import apply_packed_weights
from tests.tiny import tiny_bert

# Table of NormalFloat in appendix E of arXiv:2305.14314.
NF4 = (-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635)
NF4 += (-0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725)
NF4 += (0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941)
NF4 += (0.7229568362236023, 1.0)
NAME = "bert.encoder.layer.0.attention.self.query"
IDS = torch.randint(5, 90, (2, 9), generator=torch.Generator().manual_seed(0))


def bert():
    return tiny_bert(layers=1, hidden=64, labels=2).eval()


def llama(tied):
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 1, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=96, **sizes, tie_word_embeddings=tied)).eval()


def gpt2():
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(vocab_size=96, n_embd=64, n_head=2, n_layer=1)).eval()


MODELS = {
    "bert": (bert, AutoModelForSequenceClassification),
    "llama": (lambda: llama(False), AutoModelForCausalLM),
    "tied": (lambda: llama(True), AutoModelForCausalLM),
    "gpt2": (gpt2, AutoModelForCausalLM),
}


def equal_states(one, other):
    one, other = one.state_dict(), other.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize(
    ("name", "kind"),
    [(name, kind) for name in MODELS for kind in ("nf4", "llm_int8")],
)
def test_equals_what_transformers_makes_and_loads_in_it(name, kind, tmp_path):
    build, auto = MODELS[name]
    model = build()
    model.save_pretrained(tmp_path / "float")
    to_bitsandbytes(model, kind)
    settings = copy.deepcopy(model.config.quantization_config)
    theirs = auto.from_pretrained(tmp_path / "float", quantization_config=settings, device_map="cpu")
    assert equal_states(model, theirs)
    folder = save_folder(tmp_path / "small", model, None, {})
    stock, ours = auto.from_pretrained(folder), lit_compress.load(folder)
    assert equal_states(stock, theirs) and equal_states(ours, theirs)
    with torch.no_grad():
        logits = theirs(IDS).logits
        assert torch.equal(stock(IDS).logits, logits) and torch.equal(ours(IDS).logits, logits)
        full = build()(IDS).logits
    assert 0 < (logits - full).norm() < 0.4 * full.norm()


def test_values_are_the_nearest_of_the_table_times_the_largest_of_their_block():
    model = bert()
    weight = model.get_submodule(NAME).weight.detach().clone()
    to_bitsandbytes(model, "nf4")
    stored = model.get_submodule(NAME).weight
    blocks = weight.reshape(-1, 64)
    scale = blocks.abs().amax(1, keepdim=True)
    table = torch.tensor(NF4)
    nearest = table[(blocks[:, :, None] / scale[:, :, None] - table).abs().argmin(2)]
    values = dequantize_4bit(stored.data, stored.quant_state).reshape(-1, 64)
    found = values.abs().amax(1, keepdim=True)
    # The scales are themselves rounded to 8 bits.
    assert ((found - scale).abs() <= scale.max() / 64).all()
    assert torch.allclose(values / found, nearest, atol=1e-5)


def test_says_what_stays_in_floats():
    kept = to_bitsandbytes(bert(), "nf4")
    assert kept == {"classifier": "2 outputs, no multiple of 32"}
    assert to_bitsandbytes(bert(), "llm_int8") == {}
    assert list(to_bitsandbytes(llama(False), "nf4")) == ["lm_head"]
    model = bert()
    to_bitsandbytes(model, "nf4", include=["query"])
    rounded = [name for name, module in model.named_modules() if type(module).__name__ == "Linear4bit"]
    assert rounded == [NAME]


@pytest.mark.parametrize("kind", ["nf4", "llm_int8"])
def test_everything_else_may_be_bfloat16(kind, tmp_path):
    full, half = bert(), bert()
    to_bitsandbytes(full, kind)
    to_bitsandbytes(half, kind, torch.bfloat16)
    places = [save_folder(tmp_path / name, m, None, {}) for name, m in (("full", full), ("half", half))]
    model = lit_compress.load(places[1])
    assert model.dtype == torch.bfloat16
    assert model.bert.embeddings.word_embeddings.weight.dtype == torch.bfloat16
    bytes_ = [(place / "model.safetensors").stat().st_size for place in places]
    table = model.bert.embeddings.word_embeddings.weight.numel()
    assert bytes_[0] - bytes_[1] > 2 * table
    # The float32 weights are what is rounded.
    tensors = [load_file(place / "model.safetensors")[f"{NAME}.weight"] for place in places]
    assert torch.equal(*tensors)
    with torch.no_grad():
        one, other = model(IDS).logits.float(), lit_compress.load(places[0])(IDS).logits
    assert (one - other).norm() < 0.04 * other.norm()


def test_from_the_command_line(tmp_path, capsys):
    source = save_folder(tmp_path / "model", bert(), None, {"method": "x"})
    words = ["--method", "nf4", "--compute", "bf16"]
    assert main(["quantize", str(source), "--out", str(tmp_path / "small"), *words]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "classifier stays as it is: it has 2 outputs, no multiple of 32." in text
    assert "The embeddings stay as they are" in text
    manifest = json.loads((tmp_path / "small" / "lit_compress.json").read_text())
    assert manifest["quantization"]["method"] == "nf4" and manifest["quantization"]["compute"] == "bf16"
    assert "AutoModelForSequenceClassification" in (tmp_path / "small" / "README.md").read_text()
    assert main(["quantize", str(tmp_path / "small"), "--out", str(tmp_path / "smaller")]) == 1
    assert "rounded in the format of bitsandbytes" in capsys.readouterr().err


# -- what would be silently wrong ------------------------------------------------------------------


def test_refuses_to_save_what_a_forward_pass_has_rearranged(tmp_path):
    model = bert()
    to_bitsandbytes(model, "nf4")
    with torch.no_grad():
        model(IDS)
    state = model.get_submodule(NAME).weight.quant_state
    if not getattr(state, "packing_format_for_cpu", False):
        pytest.skip("bitsandbytes does not rearrange weights on this machine")
    with pytest.raises(ValueError, match="rearranged by a forward pass"):
        save_folder(tmp_path / "x", model, None, {})
    model.state_dict()  # puts the integers back, and only them
    with pytest.raises(ValueError, match="save first, or load it anew"):
        save_folder(tmp_path / "x", model, None, {})
    assert not (tmp_path / "x").exists()


def test_refuses_a_file_that_is_not_the_model(tmp_path, monkeypatch):
    model = bert()
    to_bitsandbytes(model, "nf4")
    save_pretrained = type(model).save_pretrained

    def broken(self, folder, **options):
        save_pretrained(self, folder, **options)
        tensors = load_file(folder / "model.safetensors")
        tensors[f"{NAME}.weight.absmax"] = tensors[f"{NAME}.weight.absmax"].flip(0)
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})

    monkeypatch.setattr(type(model), "save_pretrained", broken)
    with pytest.raises(ValueError, match=f"{NAME}.weight.absmax differs after loading"):
        save_folder(tmp_path / "x", model, None, {})
    assert list(tmp_path.iterdir()) == []


def test_refuses_a_model_that_does_not_compute_what_was_saved(tmp_path):
    model = bert()
    to_bitsandbytes(model, "llm_int8")

    def moved(module, inputs, output):
        output.logits.add_(1e-3)

    model.register_forward_hook(moved)
    with pytest.raises(ValueError, match="logits differs after loading"):
        save_folder(tmp_path / "x", model, None, {})


def test_refuses_models_that_stock_transformers_does_not_load():
    model = bert()
    apply_packed_weights(model, {f"{NAME}.weight": {"bits": 8}})
    with pytest.raises(ValueError, match="that stock transformers loads but it has packed_weights"):
        to_bitsandbytes(model, "nf4")


def test_refuses_where_nothing_fits():
    with pytest.raises(ValueError, match="has 32 inputs, no multiple of 64, and so all others"):
        to_bitsandbytes(tiny_bert(layers=1, hidden=32), "nf4", include=["query"])


def test_refuses_weights_that_are_not_finite():
    model = bert()
    model.get_submodule(NAME).weight.data[0, 0] = float("nan")
    with pytest.raises(ValueError, match=f"finite weights in {NAME}"):
        to_bitsandbytes(model, "nf4")


def test_refuses_an_unknown_type(tmp_path, capsys):
    source = save_folder(tmp_path / "model", bert(), None, {})
    words = ["--out", str(tmp_path / "x"), "--method", "fp4", "--compute", "fp8"]
    assert main(["quantize", str(source), *words]) == 1
    assert "Expected compute to be one of fp32, bf16 but got 'fp8'" in capsys.readouterr().err


def test_refuses_without_the_package(tmp_path, monkeypatch):
    model = bert()
    folder = save_folder(tmp_path / "x", _rounded(), None, {})
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(ImportError, match=r'for the method nf4 .* pip install "lit-compress\[bnb\]"'):
        to_bitsandbytes(model, "nf4")
    with pytest.raises(ImportError, match=r'for the weights in .* pip install "lit-compress\[bnb\]"'):
        lit_compress.load(folder)


def test_refuses_runtimes_that_cannot_compute_with_it(tmp_path):
    folder = save_folder(tmp_path / "x", _rounded(), None, {})
    with pytest.raises(ValueError, match="in the format of bitsandbytes, which only PyTorch computes with"):
        artefacts._work("torchscript-fp32", folder, tmp_path)


def _rounded():
    model = bert()
    to_bitsandbytes(model, "nf4")
    return model
