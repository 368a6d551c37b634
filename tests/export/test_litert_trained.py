"""Models that were trained with rounding, in LiteRT: the same integers, the same logits."""

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("litert_torch")

from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from lit_compress.benchmark.runtimes import runtime
from lit_compress.benchmark.runtimes.litert import LiteRtSession
from lit_compress.benchmark.workload import token_batch
from lit_compress.callbacks.student import deployable
from lit_compress.export import litert, litert_trained
from lit_compress.export.litert_integers import _factors, _nibbles
from lit_compress.export.litert_trained import export_trained_litert
from lit_compress.models.checkpoint import load, save_folder
from lit_compress.quantization import Scheme
from lit_compress.quantization.grids import take_apart
from tests.export.test_ragged import ragged
from tests.quantization.test_fake_model import trained
from tests.tiny import tiny_bert, tiny_model

KINDS = {
    "int8": {},
    "int8 per tensor": {"weights": Scheme(8, True, "tensor"), "embeddings": Scheme(8, True, "tensor")},
    "int8 weights": {"ranges": "none"},
    "int4 weights": {"weights": Scheme(4), "ranges": "none"},
    "learned int4": {"weights": Scheme(4), "learned_steps": True},
    "uint4": {"weights": Scheme(4, False), "embeddings": Scheme(7, False)},
    "int6 activations": {"activations": Scheme(6, False, "tensor")},
    "activations around zero": {"activations": Scheme(8, True, "tensor")},
}


@pytest.fixture(autouse=True)
def one_graph(monkeypatch):
    """A graph for 130 tokens, the longest: every one takes its time."""
    monkeypatch.setattr(litert, "_SHORTEST", 256)


def rows(model):
    return token_batch((17, 2, 9, 30), model.config.vocab_size, model.config.pad_token_id, 9)


def run(path, model):
    session = LiteRtSession(path, threads=1)
    return torch.from_numpy(session.run(session.inputs(rows(model))))


@torch.no_grad()
def wanted(model):
    return model(**{name: torch.from_numpy(value) for name, value in rows(model).items()}).logits


def parts(path):
    """The first graph of a file, and the content of a tensor's buffer."""
    model = schema.ModelT.InitFromPackedBuf(path.read_bytes())
    return model.subgraphs[0], lambda tensor: model.buffers[tensor.buffer].data


@pytest.mark.parametrize("kind", KINDS)
def test_the_file_computes_what_was_trained(kind, tmp_path):
    model = deployable(trained(tiny_bert(layers=2), KINDS[kind]))
    before = wanted(model)
    assert export_trained_litert(model, tmp_path / "model.tflite") < 0.02
    torch.testing.assert_close(run(tmp_path / "model.tflite", model), before, rtol=0, atol=1e-5)
    assert torch.equal(wanted(model), before) and list(tmp_path.iterdir()) == [tmp_path / "model.tflite"]
    moved = float((wanted(take_apart(model)[0]) - before).abs().max())
    assert moved == 0 if kind.endswith("weights") else moved > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("family", ["roberta", "distilbert", "electra", "albert"])
def test_every_family(family, tmp_path):
    model = deployable(trained(tiny_model(family, layers=2), {}))
    export_trained_litert(model, tmp_path / "model.tflite")
    torch.testing.assert_close(run(tmp_path / "model.tflite", model), wanted(model), rtol=0, atol=1e-5)


@pytest.mark.parametrize("settings", [{}, {"weights": Scheme(4)}], ids=["int8", "int4"])
def test_blocks_may_differ_in_size_and_have_odd_numbers_of_neurons(settings, tmp_path):
    model = deployable(trained(ragged(), settings))
    assert any(m.in_features % 2 for m in model.modules() if isinstance(m, nn.Linear))
    export_trained_litert(model, tmp_path / "model.tflite")
    torch.testing.assert_close(run(tmp_path / "model.tflite", model), wanted(model), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("bits", "kind"), [(8, "INT8"), (6, "INT8"), (3, "INT4")])
def test_the_file_holds_the_stored_integers_and_scales(bits, kind, tmp_path):
    model = deployable(trained(tiny_bert(layers=1), {"weights": Scheme(bits)}))
    export_trained_litert(model, tmp_path / "model.tflite")
    graph, content = parts(tmp_path / "model.tflite")
    found = []
    for operator in graph.operators:
        tensor = graph.tensors[operator.inputs[1]] if len(operator.inputs) > 1 else None
        if tensor is not None and tensor.type == getattr(schema.TensorType, kind) and len(tensor.shape) == 2:
            flat = np.asarray(content(tensor))
            if kind == "INT4":
                flat = np.stack([flat << 4, flat], 1).view(np.int8).reshape(-1) >> 4
            scale = tensor.quantization.scale
            if scale is not None:  # not of a table
                found.append((flat.view(np.int8).reshape(tensor.shape), scale))
    _, matrices, _ = take_apart(model)
    products = [stored for name, stored in matrices.items() if "embeddings" not in name]
    assert len(found) == len(products) == 8
    for stored in products:
        integers = stored.integers.numpy()
        same = [scale for values, scale in found if np.array_equal(values[:, : integers.shape[1]], integers)]
        assert len(same) == 1
        # The converter may have multiplied all outputs, as it does with the queries.
        ratio = same[0] / stored.grid.scale.numpy()[:, 0]
        np.testing.assert_allclose(ratio, ratio[0], rtol=1e-6)
    assert all((values[:, integers.shape[1] :] == 0).all() for values, _ in found[:1])
    large = [t for t in graph.tensors if t.type == schema.TensorType.FLOAT32 and content(t) is not None]
    assert max(len(content(tensor)) for tensor in large) <= 130 * 32 * 4  # the positions of all tokens


def test_activations_are_rounded_alike_without_xnnpack(tmp_path):
    model = deployable(trained(tiny_bert(layers=1), {}))
    export_trained_litert(model, tmp_path / "model.tflite")
    plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = Interpreter(str(tmp_path / "model.tflite"), experimental_op_resolver_type=plain)
    signature = interpreter.get_signature_runner("tokens_130")
    for row, text in enumerate(wanted(model)):
        inputs = {name: np.zeros((1, 130), np.int32) for name in signature.get_input_details()}
        for name, array in rows(model).items():
            inputs[name][0, : array.shape[1]] = array[row]
        np.testing.assert_allclose(signature(**inputs)["output_0"][0], text, atol=1e-4)


def test_a_matrix_that_stays_in_float_is_left_as_it_is(tmp_path):
    model = deployable(trained(tiny_bert(layers=1), {"exclude": ["classifier", "word"]}))
    export_trained_litert(model, tmp_path / "model.tflite")
    graph, content = parts(tmp_path / "model.tflite")
    full = {
        tuple(tensor.shape): np.asarray(content(tensor)).view(np.float32).reshape(tensor.shape)
        for tensor in graph.tensors
        if tensor.type == schema.TensorType.FLOAT32 and content(tensor) is not None and len(tensor.shape) == 2
    }
    np.testing.assert_array_equal(full[3, 32], model.classifier.weight.detach().numpy())
    np.testing.assert_array_equal(
        full[100, 32], model.bert.embeddings.word_embeddings.weight.detach().numpy()
    )


def test_the_runtime_takes_the_integers_of_a_folder(tmp_path):
    model = deployable(trained(tiny_bert(layers=1), {"weights": Scheme(4)}))
    folder = save_folder(tmp_path / "model", model, None, {})
    (tmp_path / "int8").mkdir()
    runtime("litert-int8").build(folder, tmp_path / "int8")
    got = run(tmp_path / "int8" / "model.tflite", model)
    torch.testing.assert_close(got, wanted(load(folder)), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"weights": Scheme(4, True, "group", 8)},
            "for products of LiteRT but .* int4 per group of 8; train with",
        ),
        ({"ranges": "dynamic"}, "Expected activations with fixed ranges for LiteRT.*moving_average"),
        (
            {"weights": Scheme(8, False)},
            "Expected 8 bits around zero, or fewer bits.*uint8 per channel; train",
        ),
    ],
)
def test_refuses_what_litert_cannot_compute(settings, message, tmp_path):
    model = deployable(trained(tiny_bert(layers=1), settings))
    with pytest.raises(ValueError, match=message):
        export_trained_litert(model, tmp_path / "model.tflite")
    assert list(tmp_path.iterdir()) == []


def test_refuses_a_matrix_that_the_graph_does_not_hold(tmp_path, monkeypatch):
    model = deployable(trained(tiny_bert(layers=1), {}))
    other = tiny_bert(layers=1, seed=5).eval()
    convert = litert_trained.convert
    monkeypatch.setattr(
        litert_trained, "convert", lambda plain, lengths, where: convert(other, lengths, where)
    )
    with pytest.raises(ValueError, match="Expected to find the matrix bert.encoder"):
        export_trained_litert(model, tmp_path / "model.tflite")
    assert list(tmp_path.iterdir()) == []


def test_a_matrix_is_known_by_its_values_whatever_multiplies_its_outputs():
    matrix = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
    matrix[1] = 0  # pruned
    factors = np.array([0.17678, 1.0, -2.0])
    np.testing.assert_allclose(
        _factors((matrix * factors[:, None]).astype(np.float32), matrix), factors, rtol=1e-6
    )
    changed = matrix.copy()
    changed[2, 3] *= 1.001
    assert _factors(changed, matrix) is None and _factors(matrix[:, :4], matrix) is None


def test_two_integers_of_four_bits_share_a_byte():
    assert _nibbles(np.array([[1, -1], [-7, 7]], np.int8)).tolist() == [0xF1, 0x79]
