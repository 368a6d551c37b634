import os
import resource
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import BertForSequenceClassification, MPNetConfig, MPNetForSequenceClassification

from lit_compress.benchmark.runtimes import runtime
from lit_compress.benchmark.runtimes.openvino import (
    OpenVinoBf16,
    OpenVinoFp32,
    OpenVinoInt8,
    OpenVinoSession,
)
from lit_compress.benchmark.workload import token_batch
from lit_compress.export.openvino import export_openvino
from lit_compress.export.openvino_int8 import quantize_openvino
from lit_compress.export.parity import ParityError
from lit_compress.models.checkpoint import save_folder
from tests.export.test_ragged import ragged
from tests.tiny import TEXT_FAMILIES, tiny_batch, tiny_bert, tiny_model

# Not "openvino" itself: imported like that it would report to its makers.
infer = pytest.importorskip("lit_compress.export.infer.openvino")

ROOT = Path(__file__).parents[2]


def export(model, folder, precision="fp32"):
    tolerance = {"fp32": 1e-4, "bf16": 0.2}[precision]
    return export_openvino(model, folder / "openvino_model.xml", precision, tolerance)


def samples(vocab=100):
    return [token_batch((length,), vocab, 0, length) for length in range(2, 65, 2)]


def run(folder, batch, precision="fp32"):
    session = OpenVinoSession(folder / "openvino_model.xml", precision, threads=1)
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


def error(got, expected):
    return np.sqrt(np.mean((got - expected) ** 2) / np.mean(expected**2))


def graph(folder):
    return infer.openvino.Core().read_model(folder / "openvino_model.xml")


@pytest.mark.parametrize("family", TEXT_FAMILIES)
def test_file_computes_what_the_model_computes(family, tmp_path):
    # Dropout: an exporter that leaves the model in train mode is found out.
    model = tiny_model(family, dropout=0.1).eval()
    before = wanted(model, texts(9, 4))
    assert export(model, tmp_path) < 1e-4
    for batch in (texts(1), texts(6), texts(30, 2, 17), texts(*[5] * 12), texts(8, 3, extra_padding=20)):
        np.testing.assert_allclose(run(tmp_path, batch), wanted(model, batch), atol=2e-5)
    np.testing.assert_array_equal(wanted(model, texts(9, 4)), before)
    assert not model.training
    assert sorted(path.name for path in tmp_path.iterdir()) == ["openvino_model.bin", "openvino_model.xml"]
    # The names by which Optimum finds files and outputs.
    assert graph(tmp_path).output(0).names == {"logits"}


@pytest.mark.parametrize("family", ["bert", "electra"])
def test_segments_of_pairs_count(family, tmp_path):
    model = tiny_model(family).eval()
    export(model, tmp_path)
    pairs = texts(9, 6, segments=True)
    np.testing.assert_allclose(run(tmp_path, pairs), wanted(model, pairs), atol=2e-5)
    assert np.abs(wanted(model, pairs) - wanted(model, texts(9, 6))).max() > 1e-2


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_graph_has_the_tokenizers_inputs_and_one_attention_node_per_layer(attention, tmp_path):
    model = tiny_bert(layers=3).eval()
    model.set_attn_implementation(attention)
    export(model, tmp_path)
    found = graph(tmp_path)
    inputs = {entry.any_name: str(entry.partial_shape) for entry in found.inputs}
    assert inputs == dict.fromkeys(["input_ids", "attention_mask", "token_type_ids"], "[?,?]")
    kinds = [node.get_type_name() for node in found.get_ops()]
    assert kinds.count("ScaledDotProductAttention") == 3
    assert "Softmax" not in kinds


def test_a_model_that_computes_its_attention_itself_is_exported(tmp_path):
    config = MPNetConfig(
        vocab_size=100, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64
    )
    torch.manual_seed(0)
    model = MPNetForSequenceClassification(config).eval()
    assert export(model, tmp_path) < 1e-4


@pytest.mark.parametrize("headless", [(1,), range(4)])
@pytest.mark.parametrize("name", ["openvino-fp32", "openvino-bf16", "openvino-int8"])
def test_blocks_may_differ_in_size_and_lack_attention(name, headless, tmp_path):
    if name == "openvino-int8":
        pytest.importorskip("nncf")
    model, way = ragged(headless=headless), runtime(name)
    folder = save_folder(tmp_path / "model", model, None, {})
    way.check()
    assert way.build(folder, tmp_path, samples()) < way.tolerance
    session, batch = way.open(folder, tmp_path, "cpu", threads=1), texts(9, 21, 3)
    got = session.run(session.inputs({key: array.numpy() for key, array in batch.items()}))
    assert error(session.logits(got), wanted(model, batch)) < way.tolerance


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A model with a large vocabulary, and the folder of its file in every precision."""
    pytest.importorskip("nncf")
    model = tiny_bert(layers=2, vocab=5000).eval()
    folders = {name: tmp_path_factory.mktemp(name) for name in ("fp32", "bf16", "int8")}
    for precision in ("fp32", "bf16"):
        export(model, folders[precision], precision)
    quantize_openvino(model, folders["int8"] / "openvino_model.xml", samples(5000), 0.5)
    return model, folders


@pytest.mark.parametrize(("precision", "size"), [("fp32", 4), ("bf16", 2), ("int8", 1)])
def test_weights_take_the_bytes_of_their_precision(precision, size, files):
    model, folders = files
    weights = sum(parameter.numel() for parameter in model.parameters())
    assert (
        0.95 * size * weights
        < (folders[precision] / "openvino_model.bin").stat().st_size
        < 1.15 * size * weights
    )


@pytest.mark.parametrize(
    ("precision", "least", "most"), [("fp32", 0, 1e-5), ("bf16", 1e-4, 0.1), ("int8", 1e-3, 0.3)]
)
def test_every_precision_is_what_it_is_called(precision, least, most, files):
    model, folders = files
    batch = texts(9, 4, 30)
    assert least <= error(run(folders[precision], batch, precision), wanted(model, batch)) < most


def test_int8_quantizes_matrices_per_output_and_activations_too(files):
    model, folders = files
    nodes = graph(folders["int8"]).get_ops()
    small = [
        node
        for node in nodes
        if node.get_type_name() == "Constant" and node.get_element_type().get_type_name() == "i8"
    ]
    shapes = sorted(tuple(node.get_output_shape(0)) for node in small)
    linears = [m for m in model.modules() if isinstance(m, torch.nn.Linear)]
    embedding = tuple(model.get_input_embeddings().weight.shape)
    assert embedding in shapes
    assert set(shapes) >= {tuple(linear.weight.shape) for linear in linears}
    assert sum(node.get_type_name() == "FakeQuantize" for node in nodes) >= len(linears)


def test_float32_is_asked_for_where_bfloat16_is_the_default(files, monkeypatch):
    asked = []
    core = infer.openvino.Core

    class Watched(core):
        def compile_model(self, *args):
            asked.append(args[2]["INFERENCE_PRECISION_HINT"])
            return super().compile_model(*args)

    monkeypatch.setattr(infer.openvino, "Core", Watched)
    for precision, folder in files[1].items():
        run(folder, texts(3), precision)
    assert asked == ["f32", "bf16", "f32"]


def test_refuses_a_processor_that_falls_back_to_float32(files, monkeypatch):
    kind = SimpleNamespace(get_type_name=lambda: "f32")
    compiled = SimpleNamespace(get_property=lambda name: kind, inputs=[], create_infer_request=lambda: None)
    core = SimpleNamespace(compile_model=lambda *args: compiled)
    monkeypatch.setattr(infer.openvino, "Core", lambda: core)
    OpenVinoSession(files[1]["fp32"] / "openvino_model.xml", "fp32", threads=1)
    with pytest.raises(ValueError, match="Expected a processor that computes in bf16 .* use openvino-fp32"):
        OpenVinoSession(files[1]["bf16"] / "openvino_model.xml", "bf16", threads=1)


class CountsTokens(BertForSequenceClassification):
    """Its logits depend on a size that becomes a constant when the model is traced."""

    def forward(self, *args, **kwargs):
        output = super().forward(*args, **kwargs)
        output.logits = output.logits * (1 + int(kwargs["input_ids"].shape[1]))
        return output


class TakesEigenvalues(BertForSequenceClassification):
    """It does what OpenVINO has no operator for."""

    def forward(self, *args, **kwargs):
        output = super().forward(*args, **kwargs)
        output.logits = output.logits + torch.linalg.eigvalsh(self.bert.pooler.dense.weight).sum()
        return output


def test_refuses_a_file_that_computes_something_else_and_leaves_the_old_one(tmp_path):
    for name in ("openvino_model.xml", "openvino_model.bin"):
        (tmp_path / name).write_bytes(b"the old one")
    with pytest.raises(
        ParityError, match=r"Expected the OpenVINO file in fp32 to compute .* nothing was kept"
    ):
        export(CountsTokens(tiny_bert(layers=1).config).eval(), tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == dict.fromkeys(
        ["openvino_model.xml", "openvino_model.bin"], b"the old one"
    )


@pytest.mark.parametrize(("way", "told"), [(OpenVinoFp32, True), (OpenVinoInt8, True), (OpenVinoBf16, False)])
def test_who_loads_a_float32_file_elsewhere_is_told_what_to_set(way, told, tmp_path):
    note = way().note(tmp_path)
    assert ("INFERENCE_PRECISION_HINT to f32" in note and "bfloat16" in note) if told else note is None


def test_refuses_an_operator_that_openvino_lacks(tmp_path):
    with pytest.raises(
        ValueError, match="Expected a text classifier that OpenVINO can convert.*TakesEigen.*linalg"
    ):
        export(TakesEigenvalues(tiny_bert(layers=1).config).eval(), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("room", [300_000, 3_000])  # within the weights, and within the graph
def test_a_full_disk_leaves_nothing(room, tmp_path):
    model = tiny_bert(layers=1, vocab=5000).eval()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        with pytest.raises(
            OSError,
            match="Expected to write .*openvino_model.xml but OpenVINO stopped with: .*check the disk",
        ):
            export(model, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())


def test_refuses_to_export_without_the_libraries(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(ImportError, match=r'Expected nncf for .*pip install "lit-compress\[openvino\]"'):
        quantize_openvino(tiny_bert(layers=1), tmp_path / "openvino_model.xml", samples(), 0.5)
    with pytest.raises(ImportError, match="nncf"):
        runtime("openvino-int8").check()
    runtime("openvino-bf16").check()  # does without it
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ImportError, match=r'Expected openvino for .*pip install "lit-compress\[openvino\]"'):
        export(tiny_bert(layers=1), tmp_path)
    with pytest.raises(ImportError, match="openvino and nncf"):
        runtime("openvino-int8").check()


def test_int8_wants_samples(tmp_path):
    pytest.importorskip("nncf")
    with pytest.raises(ValueError, match="Expected sample texts to calibrate int8 activations"):
        quantize_openvino(tiny_bert(layers=1), tmp_path / "openvino_model.xml", [], 0.5)


# Not under pytest's name, where NNCF would be silent anyway.
QUANTIZED = """
import logging, sys
from pathlib import Path
from unittest.mock import MagicMock
from lit_compress.benchmark.runtimes import runtime
from lit_compress.benchmark.workload import token_batch
way = runtime("openvino-int8")
way.check()
way.build(Path(sys.argv[1]), Path(sys.argv[2]), [token_batch((n,), 100, 0, n) for n in range(2, 34)])
from nncf.telemetry import telemetry
assert isinstance(telemetry, MagicMock) and "pytest" not in sys.modules
assert not logging.getLogger().handlers and logging.getLoggerClass() is logging.Logger
"""


@pytest.mark.slow
def test_nothing_is_sent_written_elsewhere_or_printed(tmp_path):
    pytest.importorskip("nncf")
    folder = save_folder(tmp_path / "model", tiny_bert(layers=1).eval(), None, {})
    home, target = tmp_path / "home", tmp_path / "target"
    home.mkdir()
    target.mkdir()
    environment = {
        key: value for key, value in os.environ.items() if key not in ("CI", "TF_BUILD", "JENKINS_URL")
    }
    done = subprocess.run(
        [sys.executable, "-c", QUANTIZED, str(folder), str(target)],
        env={**environment, "HOME": str(home), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "" and "nncf" not in done.stderr.lower()
    # Before it sends anything, the telemetry makes this folder for the number by which it knows the user.
    assert not (home / "intel").exists()


OPENED = """
import sys
from pathlib import Path
import numpy as np
from lit_compress.benchmark.runtimes import runtime
way = runtime("openvino-bf16")
way.check()
way.imports(Path(sys.argv[1]))
session = way.open(Path(sys.argv[1]), Path(sys.argv[1]), "cpu", threads=1)
ids = np.ones((2, 5), np.int64)
assert session.logits(session.run(session.inputs({"input_ids": ids, "attention_mask": ids}))).shape == (2, 3)
assert "torch" not in sys.modules and "nncf" not in sys.modules
"""


def test_a_worker_does_without_torch(files):
    command = [sys.executable, "-c", OPENED, str(files[1]["bf16"])]
    subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True, timeout=300)


@pytest.mark.parametrize("family", TEXT_FAMILIES)
def test_the_last_block_computes_one_token_where_the_head_reads_no_other(family, tmp_path):
    export(tiny_model(family, layers=2).eval(), tmp_path)
    graph = infer.openvino.Core().read_model(tmp_path / "openvino_model.xml")
    graph.reshape({entry.any_name: [3, 9] for entry in graph.inputs})
    products = [op.output(0).shape for op in graph.get_ordered_ops() if op.get_type_name() == "MatMul"]
    tokens = [shape[1] for shape in products if len(shape) == 3]
    # Four products of the attention in some order, and those of the feed-forward network.
    assert sorted(tokens[-6:-2]) == [1, 1, 9, 9] and tokens[-2:] == [1, 1]
    assert set(tokens[:-6]) == {9}
