"""Text classifiers made of decoders: causal masks, and keys that several queries share, in every runtime."""

import pytest
import torch
from transformers import (
    GPT2ForSequenceClassification,
    LlamaForSequenceClassification,
    MistralForSequenceClassification,
    Qwen2ForSequenceClassification,
    Qwen3ForSequenceClassification,
)

from lit_compress.benchmark.facts import model_facts
from lit_compress.benchmark.runtimes import runtime
from lit_compress.export.onnx import export_onnx
from lit_compress.export.openvino import export_openvino
from lit_compress.export.torchscript import export_torchscript
from lit_compress.models.checkpoint import save_folder
from lit_compress.pruning.groups import find_groups
from lit_compress.pruning.shape import cut_further
from tests.export.test_ragged import run
from tests.families import family_model
from tests.tiny import tiny_bert

DECODERS = {
    "llama": LlamaForSequenceClassification,
    "qwen2": Qwen2ForSequenceClassification,
    "qwen3": Qwen3ForSequenceClassification,
    "mistral": MistralForSequenceClassification,
    "gpt2": GPT2ForSequenceClassification,
}
EXPORTS = {
    "onnx": lambda model, place: export_onnx(model, place / "model.onnx"),
    "openvino": lambda model, place: export_openvino(model, place / "model.xml", "fp32", 1e-3),
    "torchscript": lambda model, place: export_torchscript(model, place / "model.pt"),
}


def classifier(family):
    """Two blocks, all weights and norms random, that lost units everywhere, and all heads of block 1."""
    config = family_model(family, layers=2).config
    config.num_labels, config.use_cache = 3, False
    torch.manual_seed(0)
    model = DECODERS[family](config).eval()
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.copy_(0.3 * torch.randn_like(tensor) + (tensor.dim() == 1))
    groups = find_groups(model, ["head", "neuron", "hidden"])
    units = {
        group.name: list(range(group.units - (4 if group.structure == "hidden" else 1))) for group in groups
    }
    headless = {group.name: [] for group in groups if (group.structure, group.layer) == ("head", 1)}
    cut_further(model, {**units, **headless})
    return model


@pytest.mark.parametrize(
    ("family", "name"),
    [
        *((family, "onnx-fp32") for family in DECODERS),
        *((family, "torchscript-fp32") for family in DECODERS),
        *((family, "openvino-fp32") for family in ("llama", "gpt2")),
    ],
)
def test_the_file_computes_the_same(family, name, tmp_path):
    model = classifier(family)
    folder = save_folder(tmp_path / "model", model, None, {})
    assert run(name, folder, tmp_path / "file", model) <= 1e-4


def test_int8_words_of_decoders(tmp_path):
    model = classifier("llama")
    folder = save_folder(tmp_path / "model", model, None, {})
    assert run("onnx-int8", folder, tmp_path / "onnx", model) <= 0.1


def test_encoders_keep_the_fused_node_and_decoders_have_none(tmp_path):
    onnx = pytest.importorskip("onnx")
    for family, fused in (("bert", 2), ("gpt2", 0)):
        model = classifier(family) if family in DECODERS else tiny_bert(layers=2).eval()
        export_onnx(model, tmp_path / f"{family}.onnx")
        kinds = [node.op_type for node in onnx.load(tmp_path / f"{family}.onnx").graph.node]
        assert kinds.count("MultiHeadAttention") == fused
        assert model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("export", EXPORTS)
@pytest.mark.parametrize("family", ["vit", "whisper", "llama"])
def test_refuses_what_classifies_no_texts(family, export, tmp_path):
    model = family_model(family, dtype=torch.float32)
    with pytest.raises(
        ValueError, match=f"Expected a text classifier .* but got {type(model).__name__}; fine"
    ):
        EXPORTS[export](model, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("family", "reads"), [("vit", "pixel_values"), ("whisper", "input_features")])
def test_refuses_to_measure_what_reads_no_texts(family, reads):
    with pytest.raises(
        ValueError, match=f"reads texts but got .*, which reads {reads}; give a text classifier"
    ):
        model_facts(family_model(family))


def test_a_folder_of_an_image_model_is_refused_by_name(tmp_path):
    folder = save_folder(tmp_path / "model", family_model("vit", dtype=torch.float32), None, {})
    with pytest.raises(ValueError, match="text classifier .* but got ViTForImageClassification"):
        runtime("onnx-fp32").build(folder, tmp_path)
