"""What is written for TensorRT, which is not on this machine: the graph and the command; building is a stand-in."""

import errno
import shlex
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import XLNetConfig, XLNetForSequenceClassification

from lit_compress.benchmark.runtimes.base import Builder
from lit_compress.benchmark.runtimes.onnx import OnnxSession
from lit_compress.export import tensorrt
from lit_compress.export.parity import ParityError
from lit_compress.export.tensorrt import TensorRTFp16, TensorRTFp32, export_tensorrt
from lit_compress.models.checkpoint import save_folder
from lit_compress.pruning.shrink import shrink
from lit_compress.pruning.uniform import UniformShape
from tests.export.single_texts import full_disk
from tests.export.test_ragged import ragged
from tests.tiny import tiny_batch, tiny_bert, tiny_model

onnx = pytest.importorskip("onnx")


@pytest.fixture(autouse=True)
def _without_gpu(monkeypatch):
    monkeypatch.setattr(tensorrt, "_why_not_here", lambda: "there is no GPU in this test")


@pytest.fixture
def target(tmp_path):
    folder = tmp_path / "target"
    folder.mkdir()
    return folder


def save(model, tmp_path):
    return save_folder(tmp_path / "model", model.eval(), None, {})


def names(folder):
    return sorted(entry.name for entry in folder.iterdir())


def logits(target, batch):
    session = OnnxSession(target / "model.onnx", threads=1)
    return session.logits(session.run(session.inputs({name: array.numpy() for name, array in batch.items()})))


@pytest.mark.parametrize("precision", ["fp16", "fp32"])
@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert", "electra", "albert", "uniform", "ragged"])
def test_the_graph_computes_what_the_model_computes(kind, precision, tmp_path, target):
    if kind == "uniform":
        model = shrink(tiny_bert(layers=3), UniformShape(layers=2, heads=2, neurons=24, hidden=16)).eval()
    else:
        model = ragged() if kind == "ragged" else tiny_model(kind, dropout=0.1).eval()
    result = export_tensorrt(save(model, tmp_path), target, precision)
    assert result.error < {"fp16": 0.02, "fp32": 1e-4}[precision] and not result.built
    batch = {name: tiny_batch((9, 4, 30))[name] for name in ("input_ids", "attention_mask")}
    with torch.inference_mode():
        wanted = model(**batch).logits.numpy()
    atol = {"fp16": 0.03, "fp32": 1e-4}[precision] * np.abs(wanted).max()
    np.testing.assert_allclose(logits(target, batch), wanted, atol=atol)
    assert names(target) == ["build.sh", "model.onnx"]


@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_the_graph_has_standard_operators_in_its_precision(precision, tmp_path, target):
    export_tensorrt(save(tiny_bert(layers=2), tmp_path), target, precision)
    model = onnx.load(target / "model.onnx")
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 17)]
    assert {node.domain for node in model.graph.node} == {""}
    kinds = {tensor.data_type for tensor in model.graph.initializer if len(tensor.dims) == 2}
    half = onnx.TensorProto.FLOAT16
    assert kinds == {half if precision == "fp16" else onnx.TensorProto.FLOAT}
    inputs = {entry.name: entry.type.tensor_type for entry in model.graph.input}
    assert {entry.elem_type for entry in inputs.values()} == {onnx.TensorProto.INT64}
    assert [dim.dim_param for dim in inputs["input_ids"].shape.dim] == ["batch", "length"]
    assert model.graph.output[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT


@pytest.mark.parametrize(("family", "longest", "segments"), [("bert", 130, True), ("distilbert", 130, False)])
def test_the_script_builds_for_every_length_of_the_model(family, longest, segments, tmp_path, target):
    result = export_tensorrt(save(tiny_model(family), tmp_path), target, "fp16")
    assert result.note.startswith("unbuilt: there is no GPU in this test; run build.sh")
    script = (target / "build.sh").read_text()
    assert (target / "build.sh").stat().st_mode & 0o111
    command = shlex.split(script.splitlines()[-1])
    inputs = ["input_ids", "attention_mask", "token_type_ids"][: 3 if segments else 2]
    assert command == [
        "trtexec",
        "--onnx=model.onnx",
        "--stronglyTyped",
        "--minShapes=" + ",".join(f"{name}:1x1" for name in inputs),
        "--optShapes=" + ",".join(f"{name}:8x128" for name in inputs),
        "--maxShapes=" + ",".join(f"{name}:32x{longest}" for name in inputs),
        "--saveEngine=model.plan",
    ]
    assert inputs == [entry.name for entry in onnx.load(target / "model.onnx").graph.input]


def test_float32_means_float32(tmp_path, target):
    export_tensorrt(save(tiny_bert(layers=1), tmp_path), target, "fp32")
    assert "--noTF32" in (target / "build.sh").read_text()


def fake_tensorrt(plan=b"engine", parses=True):
    """The calls that are documented for TensorRT 10 and 11; others fail."""
    told = []
    network, config, profile = object(), SimpleNamespace(), SimpleNamespace()
    config.set_memory_pool_limit = lambda pool, size: told.append(("pool", pool, size))
    config.clear_flag = lambda flag: told.append(("clear", flag))
    config.add_optimization_profile = lambda one: told.append(("profile", one is profile))
    profile.set_shape = lambda name, low, usual, high: told.append((name, low, usual, high))
    parser = SimpleNamespace(
        parse=lambda data: parses, num_errors=1, get_error=lambda index: "no such operator"
    )
    builder = SimpleNamespace(
        create_network=lambda flags: told.append(("flags", flags)) or network,
        create_builder_config=lambda: config,
        create_optimization_profile=lambda: profile,
        build_serialized_network=lambda net, settings: (
            plan if net is network and settings is config else None
        ),
    )
    logger = type("Logger", (), {"WARNING": 2, "__init__": lambda self, level: None})
    return told, SimpleNamespace(
        __version__="10.13",
        Logger=logger,
        Builder=lambda log: builder,
        OnnxParser=lambda net, log: parser,
        NetworkDefinitionCreationFlag=SimpleNamespace(STRONGLY_TYPED=1),
        MemoryPoolType=SimpleNamespace(WORKSPACE="workspace"),
        BuilderFlag=SimpleNamespace(TF32="tf32"),
    )


@pytest.fixture
def gpu(monkeypatch):
    """A machine that builds engines, with a stand-in for TensorRT and for running what it built."""

    def install(**kwargs):
        told, module = fake_tensorrt(**kwargs)
        monkeypatch.setitem(sys.modules, "tensorrt", module)
        monkeypatch.setattr(tensorrt, "_why_not_here", lambda: None)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a stand-in")
        return told

    return install


def engine_of(target, factor=1.0):
    def run(path):
        assert path.read_bytes() == b"engine"
        session = tensorrt._in_onnx(target / ".model.onnx.part")
        return lambda batch: factor * session(batch)

    return run


@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_an_engine_is_built_where_it_can_be(precision, gpu, tmp_path, target, monkeypatch):
    told = gpu()
    monkeypatch.setattr(tensorrt, "_in_tensorrt", engine_of(target))
    result = export_tensorrt(save(tiny_bert(layers=1), tmp_path), target, precision)
    assert result.built and result.note == "model.plan was built for a stand-in."
    assert names(target) == ["model.onnx", "model.plan"]
    assert ("flags", 2) in told and ("profile", True) in told
    assert ("attention_mask", (1, 1), (8, 128), (32, 130)) in told
    assert (("clear", "tf32") in told) is (precision == "fp32")


@pytest.mark.parametrize(
    ("kwargs", "match"),
    [
        ({"parses": False}, r"Expected an ONNX file that TensorRT 10.13 can read.*no such operator"),
        ({"plan": None}, r"Expected TensorRT 10.13 to build an engine"),
    ],
)
def test_an_engine_that_cannot_be_built_leaves_nothing(kwargs, match, gpu, tmp_path, target):
    gpu(**kwargs)
    with pytest.raises(ValueError, match=match):
        export_tensorrt(save(tiny_bert(layers=1), tmp_path), target)
    assert names(target) == []


def test_an_engine_that_computes_something_else_is_not_kept(gpu, tmp_path, target, monkeypatch):
    gpu()
    monkeypatch.setattr(tensorrt, "_in_tensorrt", engine_of(target, factor=1.2))
    with pytest.raises(ParityError, match="Expected the TensorRT engine to compute"):
        export_tensorrt(save(tiny_bert(layers=1), tmp_path), target)
    assert names(target) == []


def test_a_graph_that_ignores_padding_is_not_kept(tmp_path, target, monkeypatch):
    monkeypatch.setattr(tensorrt, "_HIDDEN", 0.0)
    with pytest.raises(ParityError, match="Expected the ONNX file for TensorRT to compute"):
        export_tensorrt(save(tiny_bert(layers=1), tmp_path), target)
    assert names(target) == []


def test_a_full_disk_leaves_nothing(tmp_path, target):
    folder = save(tiny_bert(layers=1), tmp_path)
    with full_disk(20_000), pytest.raises(OSError, match="File too large"):
        export_tensorrt(folder, target)
    assert names(target) == []


def test_a_disk_that_is_full_after_the_graph_leaves_nothing(tmp_path, target, monkeypatch):
    folder = save(tiny_bert(layers=1), tmp_path)
    monkeypatch.setattr(
        type(target), "write_text", lambda *a, **k: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full"))
    )
    with pytest.raises(OSError, match="full"):
        export_tensorrt(folder, target)
    assert names(target) == []


def test_refuses_a_model_that_computes_its_attention_itself(tmp_path, target):
    config = XLNetConfig(vocab_size=50, d_model=16, n_layer=1, n_head=2, d_inner=16)
    folder = save_folder(tmp_path / "model", XLNetForSequenceClassification(config), None, {})
    with pytest.raises(
        ValueError, match="Expected a model that supports.*got XLNetForSequenceClassification"
    ):
        export_tensorrt(folder, target)
    assert names(target) == []


def test_refuses_other_precisions(tmp_path, target):
    with pytest.raises(
        ValueError, match="Expected a precision of tensorrt but got 'int8'; choose one of fp16, fp32"
    ):
        export_tensorrt(tmp_path, target, "int8")


def test_refuses_without_the_libraries(tmp_path, target, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    for call in (TensorRTFp16().check, lambda: export_tensorrt(tmp_path, target)):
        with pytest.raises(ImportError, match=r'onnx.*pip install "lit-compress\[onnx\]"'):
            call()


@pytest.mark.parametrize("builder", [TensorRTFp16, TensorRTFp32])
def test_builders_write_the_files(builder, tmp_path, target):
    way = builder()
    assert isinstance(way, Builder)
    assert way.build(save(tiny_bert(layers=1), tmp_path), target) < way.tolerance
    assert names(target) == ["build.sh", "model.onnx"]
    assert way.note(target) == (
        "The difference is that of model.onnx in ONNX Runtime, not of an engine; unbuilt: there is no GPU in this "
        "test; run build.sh on a machine with TensorRT and the GPU that is to run model.plan."
    )
    (target / "model.plan").write_bytes(b"engine")
    assert way.note(target) == "The difference is that of the engine, model.plan, on the GPU here."
