import sys

import numpy as np
import onnx
import pytest
import torch

from lit_compress.benchmark.runtimes import runtime
from lit_compress.benchmark.runtimes.onnx import OnnxSession
from lit_compress.benchmark.workload import token_batch
from lit_compress.export import onnx_graph
from lit_compress.export.onnx import export_onnx, quantize_onnx
from lit_compress.export.onnx_static import quantize_onnx_static
from lit_compress.export.parity import ParityError
from lit_compress.models.checkpoint import save_folder
from tests.export.test_ragged import ragged
from tests.tiny import TEXT_FAMILIES, tiny_bert, tiny_model

SAMPLES = [token_batch((length,), 100, 0, length) for length in range(2, 65, 2)]


def run(path, *lengths, seed=0):
    session = OnnxSession(path, threads=1)
    return session.logits(session.run(session.inputs(token_batch(lengths, 100, 0, seed))))


@torch.inference_mode()
def wanted(model, *lengths, seed=0):
    batch = token_batch(lengths, 100, 0, seed)
    return model(**{name: torch.from_numpy(array) for name, array in batch.items()}).logits.numpy()


def error(got, expected):
    return np.sqrt(np.mean((got - expected) ** 2) / np.mean(expected**2))


@pytest.mark.parametrize("family", [*TEXT_FAMILIES, "ragged bert"])
def test_logits_are_near(family, tmp_path):
    model = ragged() if family == "ragged bert" else tiny_model(family).eval()
    folder = save_folder(tmp_path / "model", model, None, {})
    target = tmp_path / "built"
    target.mkdir()
    way = runtime("onnx-int8-static")
    assert way.calibrated
    found = way.build(folder, target, SAMPLES)
    assert [path.name for path in target.iterdir()] == ["model.onnx"]
    assert 0 < found < 0.25
    for lengths in ((7,), (40, 40), (3, 60, 21)):
        assert 0 < error(run(target / "model.onnx", *lengths), wanted(model, *lengths)) < 0.25


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    model = tiny_bert(layers=2).eval()
    export_onnx(model, folder / "float32.onnx")
    quantize_onnx(folder / "float32.onnx", folder / "dynamic.onnx", model)
    quantize_onnx_static(folder / "float32.onnx", folder / "static.onnx", model, SAMPLES)
    return model, folder


def test_only_feed_forward_networks_look_for_their_range_while_they_run(files):
    _, folder = files
    kinds = [node.op_type for node in onnx.load(folder / "static.onnx").graph.node]
    # Per layer what queries, keys and values read, what attention gives, and what the feed-forward network reads; the
    # query of the last layer reads the first token alone.
    assert kinds.count("QuantizeLinear") == 7
    assert kinds.count("DynamicQuantizeLinear") == 2


def test_a_text_comes_out_the_same_beside_an_unusual_one(files):
    _, folder = files
    batch = token_batch((20, 20), 100, 0, seed=1)
    # The same token all over: activations of a kind that no other text has.
    batch["input_ids"][1] = 7
    alone = {name: array[:1] for name, array in batch.items()}
    moved = {}
    for name in ("static", "dynamic"):
        session = OnnxSession(folder / f"{name}.onnx", threads=1)
        pair, single = (session.run(session.inputs(inputs)) for inputs in (batch, alone))
        moved[name] = np.abs(pair[0] - single[0]).max()
    assert moved["static"] < 0.1 * moved["dynamic"]


def test_samples_that_show_too_little_are_found_out(files, tmp_path):
    model, folder = files
    with pytest.raises(ParityError, match="Expected the calibrated int8 ONNX file to compute the logits"):
        quantize_onnx_static(folder / "float32.onnx", tmp_path / "static.onnx", model, SAMPLES[:1])
    assert not list(tmp_path.iterdir())


def test_weights_beside_the_graph_are_calibrated_too(files, tmp_path, monkeypatch):
    model, folder = files
    monkeypatch.setattr(onnx_graph, "_MOST_BYTES", 1000)
    export_onnx(model, tmp_path / "float32.onnx")
    quantize_onnx_static(tmp_path / "float32.onnx", tmp_path / "static.onnx", model, SAMPLES)
    assert {path.name for path in tmp_path.iterdir()} == {
        f"{name}.onnx{data}" for name in ("float32", "static") for data in ("", ".data")
    }
    assert error(run(tmp_path / "static.onnx", 30), wanted(model, 30)) < 0.1
    np.testing.assert_array_equal(run(tmp_path / "static.onnx", 30), run(folder / "static.onnx", 30))


def test_refuses_to_calibrate_without_samples(files, tmp_path):
    model, folder = files
    with pytest.raises(
        ValueError, match="Expected sample texts to calibrate int8 activations with but got none"
    ):
        quantize_onnx_static(folder / "float32.onnx", tmp_path / "static.onnx", model, [])
    assert not list(tmp_path.iterdir())


def test_refuses_without_the_libraries(files, tmp_path, monkeypatch):
    model, folder = files
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r'onnx.*pip install "lit-compress\[onnx\]"'):
        quantize_onnx_static(folder / "float32.onnx", tmp_path / "static.onnx", model, SAMPLES)
