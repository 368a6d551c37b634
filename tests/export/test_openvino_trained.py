"""Models that were trained with rounding, in OpenVINO: the same integers, the same logits."""

from collections import Counter

import numpy as np
import pytest
import torch

from lit_compress.callbacks.student import deployable
from lit_compress.models.checkpoint import load, save_folder
from lit_compress.quantization import Scheme
from lit_compress.quantization.grids import take_apart
from tests.export.test_onnx_trained import rows, wanted
from tests.quantization.test_fake_model import trained
from tests.tiny import TEXT_FAMILIES, tiny_bert, tiny_model

infer = pytest.importorskip("lit_compress.export.infer.openvino")

from lit_compress.benchmark.runtimes import runtime  # noqa: E402
from lit_compress.benchmark.runtimes.openvino import OpenVinoSession  # noqa: E402
from lit_compress.export.openvino_trained import export_trained_openvino  # noqa: E402
from lit_compress.export.parity import ParityError  # noqa: E402

KINDS = {
    "int8": {},
    "uint3 rows": {
        "weights": Scheme(3, False, "rows", 4),
        "embeddings": Scheme(4, False, "rows", 2),
        "exclude": ["classifier"],
    },
    "int8 per tensor": {"weights": Scheme(8, True, "tensor"), "embeddings": Scheme(8, True, "tensor")},
    "int8 weights": {"ranges": "none"},
    "learned int4": {"weights": Scheme(4), "learned_steps": True},
    "uint4": {"weights": Scheme(4, False), "embeddings": Scheme(4, False)},
    "int6 activations": {"activations": Scheme(6, False, "tensor")},
    "int4 groups": {"weights": Scheme(4, True, "group", 8), "embeddings": Scheme(4, True, "group", 8)},
    "uint3 groups of weights": {
        "weights": Scheme(3, False, "group", 16),
        "embeddings": Scheme(3, False, "group", 16),
        "ranges": "none",
    },
    "int8 groups": {"weights": Scheme(8, True, "group", 16)},
    "int2": {"weights": Scheme(2), "embeddings": Scheme(2)},
}


def run(folder, model):
    session = OpenVinoSession(folder / "openvino_model.xml", "int8", threads=1)
    return torch.from_numpy(session.logits(session.run(session.inputs(rows(model)))))


# A projection with one scale that leads straight to a rounding is computed wrongly by OpenVINO 2026.4.
WRONG = [("int8 per tensor", "electra"), ("int8 per tensor", "albert")]


@pytest.mark.parametrize(
    ("kind", "family"),
    [(kind, family) for kind in KINDS for family in TEXT_FAMILIES if (kind, family) not in WRONG],
)
def test_the_file_computes_what_was_trained(kind, family, tmp_path):
    model = deployable(trained(tiny_model(family, layers=2), KINDS[kind]))
    # A rounding or two may fall on the other side; all of them together move the logits further.
    assert export_trained_openvino(model, tmp_path / "openvino_model.xml") < 0.06
    assert float((run(tmp_path, model) - wanted(model)).abs().max()) < 0.01


@pytest.mark.parametrize(("kind", "family"), WRONG)
def test_what_openvino_computes_wrongly_is_not_kept(kind, family, tmp_path):
    model = deployable(trained(tiny_model(family, layers=2), KINDS[kind]))
    with pytest.raises(ParityError):
        export_trained_openvino(model, tmp_path / "openvino_model.xml")
    assert list(tmp_path.iterdir()) == []


def test_weights_are_the_integers_that_are_stored(tmp_path):
    model = deployable(trained(tiny_bert(layers=2), {}))
    export_trained_openvino(model, tmp_path / "openvino_model.xml")
    graph = infer.openvino.Core().read_model(tmp_path / "openvino_model.xml")
    kinds = [op.get_type_name() for op in graph.get_ops()]
    # Queries, keys and values round their input once, but in the last block queries are of one token; pooler and head.
    assert kinds.count("FakeQuantize") == 2 * 4 + 1 + 2
    constants = [op.get_data() for op in graph.get_ops() if op.get_type_name() == "Constant"]
    integers = sum(value.size for value in constants if value.dtype == np.int8)
    assert integers == sum(
        module.weight.numel()
        for module in tiny_bert(layers=2).modules()
        if isinstance(module, (torch.nn.Linear, torch.nn.Embedding))
    )
    assert not any(value.dtype == np.float32 and value.size > 1000 for value in constants)


def test_the_runtime_takes_the_integers_of_a_folder(tmp_path):
    model = deployable(trained(tiny_bert(layers=1), {"weights": Scheme(4)}))
    folder = save_folder(tmp_path / "model", model, None, {})
    (tmp_path / "int8").mkdir()
    runtime("openvino-int8").build(folder, tmp_path / "int8")
    torch.testing.assert_close(run(tmp_path / "int8", model), wanted(load(folder)), rtol=0, atol=5e-3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ranges": "dynamic"}, "fixed ranges for OpenVINO .*quantize with --activations static"),
    ],
)
def test_refuses_what_openvino_cannot_compute(settings, message, tmp_path):
    model = deployable(trained(tiny_bert(layers=1), settings))
    with pytest.raises(ValueError, match=message):
        export_trained_openvino(model, tmp_path / "openvino_model.xml")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("weights", "kind"),
    [(Scheme(4), "i4"), (Scheme(3, False, "group", 16), "u4"), (Scheme(2), "i4"), (Scheme(6, False), "u8")],
    ids=str,
)
def test_integers_of_up_to_four_bits_take_half_a_byte(weights, kind, tmp_path):
    model = deployable(trained(tiny_bert(layers=1), {"weights": weights, "ranges": "none"}))
    export_trained_openvino(model, tmp_path / "openvino_model.xml")
    graph = infer.openvino.Core().read_model(tmp_path / "openvino_model.xml")
    found = [op for op in graph.get_ops() if op.get_type_name() == "Constant"]
    counted = dict.fromkeys(("i4", "u4", "i8", "u8"), 0)
    for op in found:
        name = op.get_element_type().get_type_name()
        # Zero points are no more than one for each of 16 weights; a row of one of them takes a byte.
        if name in counted and np.prod(op.get_output_shape(0)) >= 96:
            counted[name] += int(np.prod(op.get_output_shape(0)))
    _, matrices, _ = take_apart(model)
    sizes = {True: 0, False: 0}
    for name, stored in matrices.items():
        sizes["embeddings" in name] += stored.integers.numel()
    grouped = sizes[False] // 16 if weights.per == "group" else 0
    assert 0 <= counted.pop(kind) - sizes[False] <= grouped
    assert counted.pop("i8") >= sizes[True] - 64  # the table of segments is small
    assert sum(counted.values()) <= grouped


def products(path):
    """What the compiled file multiplies matrices in, by how many of them."""
    session = OpenVinoSession(path, "int8", threads=1)
    executed = session._model._request.get_compiled_model().get_runtime_model()
    facts = [op.get_rt_info() for op in executed.get_ops()]
    # Not the precision that is told beside it, which is that of the weights as they lie in memory.
    return Counter(
        found["primitiveType"].astype(str).rpartition("_")[2].lower()
        for found in facts
        if found["layerType"].astype(str) == "FullyConnected"
    )


@pytest.mark.parametrize(
    "weights",
    [Scheme(), Scheme(6, False), Scheme(4), Scheme(4, False), Scheme(3, False, "rows", 4), Scheme(2)],
    ids=str,
)
def test_products_with_activations_of_eight_bits_are_of_integers(weights, tmp_path):
    settings = {"weights": weights, "embeddings": Scheme(4), "exclude": ["classifier"]}
    model = deployable(trained(tiny_bert(layers=2), settings))
    export_trained_openvino(model, tmp_path / "openvino_model.xml")
    found = products(tmp_path / "openvino_model.xml")
    # Six of every block and the pooler; the head is not rounded.
    assert found == {"i8": 13, "f32": 1}
    graph = infer.openvino.Core().read_model(tmp_path / "openvino_model.xml")
    small = {
        tuple(op.get_output_shape(0))
        for op in graph.get_ops()
        if op.get_type_name() == "Constant" and op.get_element_type().get_type_name() == "i4"
    }
    # Tables are looked up, and stay small.
    assert small == {(100, 32), (model.config.max_position_embeddings, 32), (2, 32)}


@pytest.mark.parametrize(
    ("settings", "kinds"),
    [
        ({"weights": Scheme(8, False)}, {"f32": 14}),
        ({"weights": Scheme(4, True, "group", 16)}, {"f32": 14}),
        ({"ranges": "none"}, {"f32": 14}),
        ({"activations": Scheme(6, False, "tensor")}, {"f32": 14}),
        ({"activations": Scheme(4, False, "tensor")}, {"i8": 13, "f32": 1}),
    ],
    ids=["zero points of 8 bits", "groups", "weights alone", "activations of 6 bits", "of 4 bits"],
)
def test_products_are_of_floats_where_docs_twins_says_so(settings, kinds, tmp_path):
    model = deployable(trained(tiny_bert(layers=2), {"exclude": ["classifier"], **settings}))
    export_trained_openvino(model, tmp_path / "openvino_model.xml")
    assert products(tmp_path / "openvino_model.xml") == kinds
