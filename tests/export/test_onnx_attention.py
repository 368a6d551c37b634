"""Query, key and value as one product within the attention: the same numbers from fewer nodes."""

import numpy as np
import pytest
import torch

from lit_compress.callbacks.student import deployable
from lit_compress.quantization import Scheme
from tests.export.test_onnx_trained import KINDS, rows
from tests.quantization.test_fake_model import trained
from tests.tiny import TEXT_FAMILIES, tiny_bert, tiny_model

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from lit_compress.benchmark.runtimes.onnx import OnnxSession  # noqa: E402
from lit_compress.export import onnx_int8, onnx_trained  # noqa: E402
from lit_compress.export.onnx import export_onnx, quantize_onnx  # noqa: E402
from lit_compress.export.onnx_trained import export_trained  # noqa: E402
from lit_compress.pruning import shrink  # noqa: E402


def kinds_of(path):
    return [node.op_type for node in onnx.load(path).graph.node]


def run(path, model):
    session = OnnxSession(path, threads=1)
    return session.run(session.inputs(rows(model)))


@pytest.mark.parametrize("family", TEXT_FAMILIES)
@pytest.mark.parametrize("kind", ["int8", "int8 per tensor", "dynamic", "learned int4", "int2"])
def test_one_node_gives_the_bits_that_four_gave(kind, family, tmp_path, monkeypatch):
    model = deployable(trained(tiny_model(family, layers=3), KINDS[kind]))
    export_trained(model, tmp_path / "joined.onnx")
    monkeypatch.setattr(onnx_trained, "join_projections", lambda graph: None)
    export_trained(model, tmp_path / "four.onnx")
    # The query of the last block reads the first token alone, and is no part of one product with its keys; with the
    # range of the batch at hand it reads all of them.
    narrow = 0 if kind == "dynamic" else 1
    assert kinds_of(tmp_path / "joined.onnx").count("QAttention") == 3 - narrow
    assert kinds_of(tmp_path / "joined.onnx").count("MultiHeadAttention") == narrow
    assert kinds_of(tmp_path / "four.onnx").count("MultiHeadAttention") == 3
    # Texts of several lengths: what is padding for one of them is masked.
    assert np.array_equal(run(tmp_path / "joined.onnx", model), run(tmp_path / "four.onnx", model))


def test_layers_that_share_their_weights_go_on_sharing_them(tmp_path):
    model = deployable(trained(tiny_model("albert", layers=3), {}))
    export_trained(model, tmp_path / "model.onnx")
    graph = onnx.load(tmp_path / "model.onnx").graph
    weights = [node.input[1] for node in graph.node if node.op_type == "QAttention"]
    assert len(weights) == 2 and len(set(weights)) == 1


def test_a_float_model_that_is_rounded_by_the_export_is_joined_too(tmp_path, monkeypatch):
    torch.manual_seed(0)
    model = tiny_bert(layers=3).eval()
    export_onnx(model, tmp_path / "float.onnx")
    quantize_onnx(tmp_path / "float.onnx", tmp_path / "joined.onnx", model)
    monkeypatch.setattr(onnx_int8, "join_projections", lambda graph: None)
    quantize_onnx(tmp_path / "float.onnx", tmp_path / "four.onnx", model)
    assert kinds_of(tmp_path / "joined.onnx").count("QAttention") == 2
    assert np.array_equal(run(tmp_path / "joined.onnx", model), run(tmp_path / "four.onnx", model))


def test_attentions_with_fewer_heads_are_joined(tmp_path):
    model = tiny_bert(layers=3).eval()
    attention = model.bert.encoder.layer[0].attention
    width = attention.self.query.out_features // model.config.num_attention_heads
    with torch.no_grad():
        attention.output.dense.weight[:, :width] = 0
    small = shrink(model)
    assert small.bert.encoder.layer[0].attention.self.query.out_features < attention.self.query.out_features
    rounded = deployable(trained(small, {}))
    export_trained(rounded, tmp_path / "model.onnx")
    assert kinds_of(tmp_path / "model.onnx").count("QAttention") == 2
    with torch.no_grad():
        wanted = rounded(**{name: torch.from_numpy(value) for name, value in rows(rounded).items()}).logits
    np.testing.assert_allclose(run(tmp_path / "model.onnx", rounded), wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "settings",
    [
        {"weights": Scheme(8, False, "channel")},  # zero points
        {"exclude": ["query"]},  # a product of floats beside two of integers
        {"weights": Scheme(4, True, "group", 8)},  # products of floats
    ],
)
def test_products_that_differ_stay_in_front_of_their_attention(settings, tmp_path):
    model = deployable(trained(tiny_bert(layers=2), settings))
    export_trained(model, tmp_path / "model.onnx")
    kinds = kinds_of(tmp_path / "model.onnx")
    assert "QAttention" not in kinds and "MultiHeadAttention" in kinds
