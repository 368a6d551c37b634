"""Folders in the compressed-tensors format: stock transformers computes what our own packed model does."""

import json
import sys

import pytest
import torch
from safetensors.torch import load_file

import lit_compress
from lit_compress.__main__ import main
from lit_compress.models.checkpoint import save_folder
from lit_compress.models.low_rank import LowRankLinear
from lit_compress.pruning.low_rank import apply_low_rank
from lit_compress.pruning.post_training import prune_model
from lit_compress.quantization import Scheme
from lit_compress.quantization.formats.compressed_tensors import save_compressed_tensors
from lit_compress.quantization.post_training import quantize_model
from tests.families import family_model
from tests.language import llama_folder, text_file, tiny_llama
from tests.quantization.test_fake_model import batch
from tests.tiny import tiny_bert

pytest.importorskip("compressed_tensors")

UINT8 = Scheme(8, False, "tensor")
SETTINGS = {
    "int4 groups": {"weights": Scheme(4, True, "group", 16), "method": "gptq"},
    "int4 channels": {"weights": Scheme(4)},
    "int8 channels": {"weights": Scheme(8)},
    "static int8": {"weights": Scheme(8), "activations": UINT8},
    "dynamic int8": {"weights": Scheme(8), "activations": UINT8, "ranges": "dynamic"},
}


def example(kind):
    if kind == "bert":
        return tiny_bert(layers=2).eval(), batch(3), ["classifier"]
    ids = torch.randint(4, 100, (2, 9), generator=torch.Generator().manual_seed(0))
    return tiny_llama(), {"input_ids": ids}, ["lm_head"]


@torch.no_grad()
def logits(model, inputs):
    return model(**inputs).logits


@pytest.mark.parametrize("kind", ["bert", "llama"])
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_stock_transformers_and_we_compute_what_the_packed_model_does(settings, kind, tmp_path, capsys):
    model, inputs, exclude = example(kind)
    plain = logits(model, inputs)
    quantize_model(model, **settings, batches=[inputs], exclude=exclude)
    wanted = logits(model, inputs)
    path = save_compressed_tensors(tmp_path / "model", model, None, {})
    capsys.readouterr()
    ours = lit_compress.load(path)
    assert capsys.readouterr() == ("", "")
    for found in (ours, type(model).from_pretrained(path)):
        torch.testing.assert_close(logits(found, inputs), wanted, rtol=1e-5, atol=1e-5)
    assert float((wanted - plain).abs().max()) > 1e-3
    assert logits(model, inputs).equal(wanted)  # the model is as it was
    layer = "bert.encoder.layer.1.output.dense" if kind == "bert" else "model.layers.1.mlp.down_proj"
    assert torch.equal(ours.get_parameter(f"{layer}.weight"), model.get_submodule(layer).weight)
    rounded = json.loads((path / "config.json").read_text())["quantization_config"]
    assert exclude[0] in rounded["ignore"]
    assert rounded["format"] == ("int-quantized" if "activations" in settings else "pack-quantized")


def test_four_bits_are_four_bits_on_disk(tmp_path):
    model, inputs, exclude = example("bert")
    quantize_model(model, Scheme(4, True, "group", 16), batches=[inputs], exclude=exclude)
    tensors = load_file(save_compressed_tensors(tmp_path / "model", model, None, {}) / "model.safetensors")
    name = "bert.encoder.layer.0.intermediate.dense"
    assert tensors[f"{name}.weight_packed"].nbytes == 64 * 32 // 2
    assert tensors[f"{name}.weight_scale"].nbytes == 64 * 32 // 16 * 2
    assert f"{name}.weight" not in tensors and tensors["classifier.weight"].dtype == torch.float32


def test_zeros_stay_zero(tmp_path):
    model, inputs, exclude = example("llama")
    prune_model(model, "wanda", pattern=(2, 4), batches=[inputs])
    quantize_model(model, Scheme(4, True, "group", 16), method="gptq", batches=[inputs], exclude=exclude)
    found = lit_compress.load(save_compressed_tensors(tmp_path / "model", model, None, {}))
    weight = found.model.layers[0].mlp.up_proj.weight
    assert bool(((weight.view(64, -1, 4) == 0).sum(-1) >= 2).all()) and bool(weight.any())


@pytest.mark.parametrize("method", ["nearest", "gptq", "awq"])
def test_the_command_line_writes_it(method, tmp_path, capsys):
    folder, text = llama_folder(tmp_path / "model"), text_file(tmp_path / "text.txt")
    words = ["quantize", folder, "--out", str(tmp_path / "small"), "--method", method, "--bits", "4"]
    words += ["--group-size", "16", "--format", "compressed-tensors", "--data", text, "--length", "8"]
    words += [] if method == "nearest" else ["--texts", "10"]
    assert main(words) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "Embeddings stay as they are" in said and "the perplexity goes from" in said
    assert "AutoModelForCausalLM.from_pretrained" in (tmp_path / "small" / "README.md").read_text()
    before, after = (
        lit_compress.load(place).model.embed_tokens.weight for place in (folder, tmp_path / "small")
    )
    assert torch.equal(before, after)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--format", "gguf"], "Expected a format among lit-compress, compressed-tensors but got 'gguf'"),
        (
            ["--method", "bf16"],
            "Expected a method among nearest, gptq, awq for --format compressed-tensors but got",
        ),
        (["--embedding-bits", "4"], "but got --embedding-bits 4; leave it out"),
        (["--bits", "3"], "Expected 4 or 8 symmetric bits per channel or group"),
        (["--bits", "3"], "change --bits, or leave --format out."),
        (["--zero-points"], "leave --zero-points out, or leave --format out."),
        (["--per", "tensor"], "leave --per tensor out, or leave --format out."),
        (["--bits", "4", "--activations", "dynamic"], "Expected int8 per channel beside activations"),
    ],
)
def test_refuses_what_the_format_does_not_have(words, message, tmp_path, capsys):
    folder = llama_folder(tmp_path / "model")
    words = words if "--format" in words else [*words, "--format", "compressed-tensors"]
    assert main(["quantize", folder, "--out", str(tmp_path / "small"), *words]) == 1
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "small").exists()


def test_refuses_matrices_of_other_layers(tmp_path):
    model = family_model("gpt2", 1).float()
    quantize_model(model, Scheme(8), exclude=["lm_head"])
    with pytest.raises(
        ValueError, match="Expected Linear layers alone .* belongs to a Conv1D; leave --format out"
    ):
        save_compressed_tensors(tmp_path / "model", model, None, {})
    model = tiny_bert(layers=1).eval()
    quantize_model(model, Scheme(8), embeddings=Scheme(8))
    with pytest.raises(ValueError, match="belongs to a Embedding; give --embedding-bits 0"):
        save_compressed_tensors(tmp_path / "model", model, None, {})
    model = tiny_llama(layers=1)
    apply_low_rank(model, {"model.layers.0.mlp.up_proj": 4})
    assert isinstance(model.model.layers[0].mlp.up_proj, LowRankLinear)
    quantize_model(model, Scheme(8))
    with pytest.raises(ValueError, match="Expected blocks of one size .* but the model has low_rank"):
        save_compressed_tensors(tmp_path / "model", model, None, {})
    with pytest.raises(ValueError, match="Expected one scheme for all layers .* but got none"):
        save_compressed_tensors(tmp_path / "model", tiny_llama(layers=1), None, {})


def test_refuses_where_the_package_is_missing(tmp_path, capsys, monkeypatch):
    folder = str(save_folder(tmp_path / "model", tiny_bert(layers=1).eval(), None, {}))
    words = ["--format", "compressed-tensors", "--out", str(tmp_path / "small")]
    assert main(["quantize", folder, *words]) == 0
    capsys.readouterr()
    monkeypatch.setitem(sys.modules, "compressed_tensors", None)
    assert main(["quantize", folder, "--out", str(tmp_path / "again"), *words[:2]]) == 1
    assert 'pip install "lit-compress[compressed-tensors]"' in capsys.readouterr().err
    with pytest.raises(ImportError, match="Expected compressed_tensors for the weights in"):
        lit_compress.load(tmp_path / "small")
