"""What only the head reads is computed for the first token: the same logits from fewer rows."""

import numpy as np
import pytest
import torch

from lit_compress.callbacks.student import deployable
from tests.export.test_first_token import Mean
from tests.export.test_onnx_trained import rows
from tests.quantization.test_fake_model import trained
from tests.tiny import TEXT_FAMILIES, tiny_model

pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper  # noqa: E402

from lit_compress.benchmark.runtimes.onnx import OnnxSession  # noqa: E402
from lit_compress.export import onnx, onnx_trained  # noqa: E402
from lit_compress.export.first_token import last_attention  # noqa: E402
from lit_compress.export.onnx import export_onnx, quantize_onnx, trace  # noqa: E402
from lit_compress.export.onnx_trained import export_trained  # noqa: E402


def tokens_of(model, tmp_path):
    """The number of tokens, of nine, that every product and attention of a graph is computed for."""
    graph = trace(model.eval(), tmp_path / "traced.onnx", last_attention(model))
    names = [n.output[0] for n in graph.graph.node if n.op_type in ("MatMul", "MultiHeadAttention")]
    graph.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names)
    session = ort.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    ones = np.ones((2, 9), np.int64)
    found = session.run(names, {entry.name: ones for entry in session.get_inputs()})
    return [value.shape[1] for value in found if value.ndim == 3]


@pytest.mark.parametrize("family", TEXT_FAMILIES)  # layers that share their weights among them
def test_the_last_block_computes_keys_and_values_for_all_tokens_and_the_rest_for_the_first(family, tmp_path):
    found = tokens_of(tiny_model(family, layers=2), tmp_path)
    # Query, key, value, attention, its output, and the two products of the feed-forward network.
    assert found[-7:] == [1, 9, 9, 1, 1, 1, 1]
    # The block before, and what makes embeddings as wide as the blocks in some families.
    assert len(found) in (14, 15) and set(found[:-7]) == {9}


@pytest.mark.parametrize("family", TEXT_FAMILIES)
@pytest.mark.parametrize("kind", ["fp32", "int8", "trained"])
def test_logits_stay(kind, family, tmp_path, monkeypatch):
    torch.manual_seed(0)
    model = tiny_model(family, layers=2).eval()
    if kind == "trained":
        model = deployable(trained(model, {}))

    def write(path):
        if kind == "trained":
            export_trained(model, path)
        elif kind == "fp32":
            export_onnx(model, path)
        else:
            export_onnx(model, tmp_path / "float.onnx")
            quantize_onnx(tmp_path / "float.onnx", path, model)

    def logits(path):
        session = OnnxSession(path, threads=1)
        return session.logits(session.run(session.inputs(rows(model))))

    write(tmp_path / "first.onnx")
    for module in (onnx, onnx_trained):
        monkeypatch.setattr(module, "last_attention", lambda model: None)
    write(tmp_path / "all.onnx")
    first, every = logits(tmp_path / "first.onnx"), logits(tmp_path / "all.onnx")
    with torch.inference_mode():
        wanted = model(
            **{name: torch.from_numpy(value) for name, value in rows(model).items()}
        ).logits.numpy()
    # Where ranges are those of the batch at hand, fewer tokens have other ranges: as far from the model as before.
    assert error(first, every) < (0.05 if kind == "int8" else 1e-5)
    assert error(first, wanted) < 0.05


def error(got, expected):
    return np.sqrt(np.mean((got - expected) ** 2) / np.mean(expected**2))


def test_a_head_that_reads_every_token_leaves_the_graph_as_it_is(tmp_path):
    model = tiny_model("bert", layers=2).eval()
    model.bert.pooler = Mean()
    assert tokens_of(model, tmp_path) == [9] * 14
