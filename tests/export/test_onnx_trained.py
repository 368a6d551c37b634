"""Models that were trained with rounding, in ONNX Runtime: the same integers, the same logits."""

import copy

import numpy as np
import pytest
import torch

from lit_compress.benchmark.workload import token_batch
from lit_compress.callbacks.student import deployable
from lit_compress.models.checkpoint import load, save_folder
from lit_compress.quantization import Scheme
from tests.quantization.test_fake_model import SETTINGS, trained
from tests.tiny import TEXT_FAMILIES, tiny_bert, tiny_model

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from onnx import TensorProto  # noqa: E402

from lit_compress.benchmark import artefacts  # noqa: E402
from lit_compress.benchmark.runtimes import runtime  # noqa: E402
from lit_compress.benchmark.runtimes.onnx import OnnxSession  # noqa: E402
from lit_compress.export import onnx_tables, onnx_trained  # noqa: E402
from lit_compress.export.onnx_packed import packed_columns, width_of  # noqa: E402
from lit_compress.export.onnx_trained import export_trained  # noqa: E402
from lit_compress.export.trained import by_content  # noqa: E402
from lit_compress.quantization.grids import take_apart  # noqa: E402

KINDS = {
    "int8": {},
    "uint3 rows": {
        "weights": Scheme(3, False, "rows", 4),
        "embeddings": Scheme(4, False, "rows", 2),
        "exclude": ["classifier"],
    },
    "int8 per tensor": {"weights": Scheme(8, True, "tensor"), "embeddings": Scheme(8, True, "tensor")},
    "int8 weights": {"ranges": "none"},
    "learned int4": SETTINGS["learned int4"],
    "uint4": SETTINGS["uint4"],
    "int6 activations": {"activations": Scheme(6, False, "tensor")},
    "dynamic": {"ranges": "dynamic"},
    "percentile": {"ranges": "percentile"},
    "int4 groups": {"weights": Scheme(4, True, "group", 8), "embeddings": Scheme(4, True, "group", 8)},
    "int4 blocks of words": {"embeddings": Scheme(4, True, "group", 16)},
    "uint3 groups of weights": {
        "weights": Scheme(3, False, "group", 16),
        "embeddings": Scheme(3, False, "group", 16),
        "ranges": "none",
    },
    "int2": {"weights": Scheme(2), "embeddings": Scheme(2)},
}


def rows(model, seed=9):
    return token_batch((17, 2, 9, 30), model.config.vocab_size, model.config.pad_token_id, seed)


def run(path, model):
    session = OnnxSession(path, threads=1)
    return torch.from_numpy(session.run(session.inputs(rows(model))))


def wanted(model):
    with torch.no_grad():
        return model(**{name: torch.from_numpy(value) for name, value in rows(model).items()}).logits


@pytest.mark.parametrize("family", TEXT_FAMILIES)
@pytest.mark.parametrize("kind", KINDS)
def test_the_file_computes_what_was_trained(kind, family, tmp_path):
    model = deployable(trained(tiny_model(family, layers=2), KINDS[kind]))
    before = wanted(model)
    error = export_trained(model, tmp_path / "model.onnx")
    assert error < 0.02  # some rounding of random tokens falls on the other side
    # The same but for the order of sums: rounding itself moves the logits by hundredths.
    torch.testing.assert_close(run(tmp_path / "model.onnx", model), before, rtol=0, atol=1e-5)
    assert torch.equal(wanted(model), before)
    plain, _, _ = take_apart(model)
    moved = float((wanted(plain) - before).abs().max())
    assert moved == 0 if kind.endswith("weights") else moved > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_tables_that_are_not_small_are_looked_up_as_integers(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_tables, "_SMALL_TABLE", 0)
    model = deployable(trained(tiny_bert(layers=2), KINDS[kind]))
    export_trained(model, tmp_path / "model.onnx")
    torch.testing.assert_close(run(tmp_path / "model.onnx", model), wanted(model), rtol=0, atol=1e-5)
    found = onnx.load(tmp_path / "model.onnx").graph
    constants = {entry.name: entry.data_type for entry in found.initializer}
    tables = [
        node for node in found.node if node.op_type.startswith("Gather") and "embeddings" in node.input[0]
    ]
    numbers = [table for table in tables if table.input[0].endswith(("_integers", "_packed", "_blocks"))]
    assert len(numbers) == 3
    assert all(constants[table.input[0]] in (TensorProto.INT8, TensorProto.UINT8) for table in numbers)


def test_products_are_of_integers_and_weights_those_that_are_stored(tmp_path):
    model = deployable(trained(tiny_bert(layers=2), {}))
    export_trained(model, tmp_path / "model.onnx")
    graph = onnx.load(tmp_path / "model.onnx").graph
    kinds = [node.op_type for node in graph.node]
    # Three of every block, beside those of queries, keys and values: one, and three in the last block, where the query
    # is that of the first token; the pooler and the head.
    assert kinds.count("MatMulIntegerToFloat") == 11 and kinds.count("QAttention") == 1
    assert "MatMul" not in kinds and "Gemm" not in kinds
    # Queries, keys and values round their input once, and the first token of the last block once more.
    assert kinds.count("QuantizeLinear") == 2 * 4 + 1 + 2
    constants = {entry.name: onnx.numpy_helper.to_array(entry) for entry in graph.initializer}
    _, matrices, _ = take_apart(model)
    for name in [name for name in constants if "+" in name]:
        parts = name.split("+")
        constants |= dict(zip(parts, np.split(constants[name], len(parts), axis=1), strict=True))
    for name, stored in matrices.items():
        found = constants[f"{name}_integers"]
        assert found.dtype == np.int8
        integers = stored.integers.numpy()
        assert np.array_equal(found if "embeddings" in name else found.T, integers)
    assert not any(
        value.dtype == np.float32 and value.ndim == 2 and value.size > 200 for value in constants.values()
    )


def test_a_matrix_that_stays_in_float_is_left_as_it_is(tmp_path):
    model = deployable(trained(tiny_bert(layers=1), {"exclude": ["classifier", "pooler", "position"]}))
    export_trained(model, tmp_path / "model.onnx")
    kinds = [node.op_type for node in onnx.load(tmp_path / "model.onnx").graph.node]
    assert kinds.count("MatMulIntegerToFloat") == 6 and kinds.count("Gemm") == 2


def test_the_runtime_takes_the_integers_of_a_folder(tmp_path):
    model = deployable(trained(tiny_bert(layers=1), {"weights": Scheme(4)}))
    folder = save_folder(tmp_path / "model", model, None, {})
    (tmp_path / "int8").mkdir()
    runtime("onnx-int8").build(folder, tmp_path / "int8")
    got = run(tmp_path / "int8" / "model.onnx", model)
    torch.testing.assert_close(got, wanted(load(folder)), rtol=0, atol=1e-5)
    for other in ("onnx-fp32", "torchscript-fp32", "gguf-f16"):
        with pytest.raises(
            ValueError,
            match=f"for {other} but .* has rounded weights or activations.*use onnx-int8.*was made from",
        ):
            artefacts._work(other, folder, tmp_path / "int8")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"activations": Scheme(8, True, "tensor")}, "Expected activations with a zero point"),
        (
            {"ranges": "dynamic", "activations": Scheme(6, False, "tensor")},
            "Expected 8 bits for activations with dynamic",
        ),
    ],
)
def test_refuses_what_onnx_runtime_cannot_compute(settings, message, tmp_path):
    model = deployable(trained(tiny_bert(layers=1), settings))
    with pytest.raises(ValueError, match=message):
        export_trained(model, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_refuses_a_matrix_that_the_graph_does_not_hold(tmp_path, monkeypatch):
    model = deployable(trained(tiny_bert(layers=1), {}))
    other = copy.deepcopy(tiny_bert(layers=1, seed=5)).eval()
    monkeypatch.setattr(
        onnx_trained, "trace", lambda plain, path, where, trace=onnx_trained.trace: trace(other, path, where)
    )
    with pytest.raises(ValueError, match="Expected to find the matrix bert.embeddings"):
        export_trained(model, tmp_path / "model.onnx")


@pytest.mark.parametrize(
    ("weights", "bytes_per_weight"),
    [(Scheme(8), 1.0), (Scheme(4), 0.5), (Scheme(3, False, "group", 16), 0.5), (Scheme(2), 0.25)],
    ids=str,
)
def test_integers_of_few_bits_share_bytes_in_the_file(weights, bytes_per_weight, tmp_path):
    model = deployable(trained(tiny_bert(layers=1), {"weights": weights, "embeddings": Scheme(4)}))
    export_trained(model, tmp_path / "model.onnx")
    kept = {entry.name: entry for entry in onnx.load(tmp_path / "model.onnx").graph.initializer}
    _, matrices, _ = take_apart(model)
    for name, stored in matrices.items():
        wanted = {f"{name}_packed", f"{name}_integers"}
        (place,) = [key for key in kept if wanted & set(key.split("+"))]
        share = 0.5 if "embeddings" in name else bytes_per_weight
        outputs, inputs = stored.integers.shape
        # Of the head's three outputs the last byte is not full.
        columns = -(-inputs * share // 1) if "embeddings" in name else -(-outputs * share // 1)
        shared = len(place.split("+"))  # queries, keys and values lie beside each other
        assert len(kept[place].raw_data) == shared * columns * (outputs if "embeddings" in name else inputs)
    assert not any(
        entry.data_type == onnx.TensorProto.FLOAT and np.prod(entry.dims) > 200 for entry in kept.values()
    )


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_columns_that_share_bytes_come_back(bits):
    integers = np.random.default_rng(0).integers(0, 2**bits, (3, 7))
    packed, width = packed_columns(integers, bits), width_of(bits)
    assert packed.shape == (3, 2 if bits == 2 else 4)
    for row, column in np.ndindex(integers.shape):
        part, place = divmod(column, packed.shape[1])
        assert packed[row, place] >> part * width & 2**width - 1 == integers[row, column]


@pytest.mark.parametrize("symmetric", [True, False])
def test_words_in_blocks_are_looked_up_by_one_operator(symmetric, tmp_path, monkeypatch):
    settings = {"embeddings": Scheme(4, symmetric, "group", 16)}
    model = deployable(trained(tiny_bert(layers=2), settings))
    monkeypatch.setattr(onnx_tables, "_SMALL_TABLE", 0)
    export_trained(model, tmp_path / "model.onnx")
    kinds = [node.op_type for node in onnx.load(tmp_path / "model.onnx").graph.node]
    assert kinds.count("GatherBlockQuantized") == 3 and "BitShift" not in kinds


@pytest.mark.parametrize(
    "scheme",
    [
        Scheme(4, True, "group", 16),
        Scheme(3, False, "group", 16),
        Scheme(8),
        Scheme(8, False, "tensor"),
        Scheme(2),
    ],
    ids=str,
)
def test_small_tables_are_looked_up_as_floats_made_once(scheme, tmp_path):
    model = deployable(trained(tiny_bert(layers=2), {"embeddings": scheme}))
    export_trained(model, tmp_path / "model.onnx")
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "loaded.onnx")
    onnxruntime.InferenceSession(tmp_path / "model.onnx", options, providers=["CPUExecutionProvider"])
    graph = onnx.load(tmp_path / "loaded.onnx").graph
    found = {entry.name: onnx.numpy_helper.to_array(entry) for entry in graph.initializer}
    plain, matrices, _ = take_apart(model)
    for name in (name for name in matrices if "embeddings" in name):
        (look_up,) = (node for node in graph.node if node.input and node.input[0] == f"{name}_table")
        assert look_up.op_type == "Gather"
        assert np.array_equal(found[f"{name}_table"], plain.get_parameter(name).detach().numpy())


def test_products_in_groups_are_of_floats_and_nothing_else_is_rounded(tmp_path):
    settings = {"weights": Scheme(4, True, "group", 16)}
    model = deployable(trained(tiny_bert(layers=2), settings))
    export_trained(model, tmp_path / "model.onnx")
    kinds = [node.op_type for node in onnx.load(tmp_path / "model.onnx").graph.node]
    assert kinds.count("MatMul") == 14 and kinds.count("QuantizeLinear") == 2 * 4 + 1 + 2
    # ONNX Runtime would fuse them with products, which it then rounds in ways of its own.
    assert "DequantizeLinear" not in kinds


def test_blocks_that_hold_the_same_keep_ranges_of_their_own(tmp_path):
    full = tiny_bert(layers=2)
    full.bert.encoder.layer[1].load_state_dict(full.bert.encoder.layer[0].state_dict())
    model = deployable(trained(full, {}))
    ranges = [model.bert.encoder.layer[n].output.dense.input_quantizer.grid().scale for n in range(2)]
    assert not torch.equal(*ranges)
    export_trained(model, tmp_path / "model.onnx")
    torch.testing.assert_close(run(tmp_path / "model.onnx", model), wanted(model), rtol=0, atol=1e-5)


def test_refuses_a_graph_that_multiplies_more_often_than_there_are_matrices():
    full = tiny_bert(layers=2)
    full.bert.encoder.layer[1].load_state_dict(full.bert.encoder.layer[0].state_dict())
    plain, matrices, inputs = take_apart(deployable(trained(full, {})))
    products, _ = by_content(plain, matrices, inputs, "ONNX Runtime")
    values = plain.bert.encoder.layer[0].output.dense.weight.detach().numpy()
    names = [products.take(values).name for _ in range(2)]
    assert names == [f"bert.encoder.layer.{n}.output.dense.weight" for n in range(2)]
    with pytest.raises(
        ValueError, match="Expected a product for each of bert.encoder.layer.0.output.dense.weight and"
    ):
        products.take(values)
