"""Every runtime computes what eager PyTorch computes, whatever a text is padded with."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from lit_compress.benchmark.runtimes import RUNTIMES, runtime
from lit_compress.benchmark.workload import token_batch
from tests.tiny import tiny_bert, tiny_model

# Largest difference of a logit from float32, relative to the root mean square of the logits. bfloat16 keeps
# 8 bits of every number; int8 quantizes all activations of a batch with one scale.
TOLERANCE = {
    "torch-fp32": 1e-5,
    "torch-bf16": 0.1,
    "torch-compile": 1e-4,
    "onnx-fp32": 1e-4,
    "onnx-int8": 0.3,
    "torchscript-fp32": 1e-5,
}

# The compiler takes half a minute per shape; the runtimes of other extras have their own files, and all of them
# tests/export/test_every_route.py.
each_runtime = pytest.mark.parametrize("name", [name for name in TOLERANCE if name != "torch-compile"])


@pytest.fixture(scope="module")
def model():
    return tiny_bert(layers=2).eval()


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    """The model's folder; artefacts are built beside it."""
    folder = tmp_path_factory.mktemp("runtimes") / "model"
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def session(folder):
    """Return a function that builds and opens the model in a runtime, once."""
    opened = {}

    def open_session(name):
        if name not in opened:
            way, target = runtime(name), folder.parent / name
            target.mkdir()
            way.check()
            way.imports(folder)
            way.build(folder, target)
            artefact = target if any(target.iterdir()) else folder
            opened[name] = way.open(folder, artefact, "cpu", threads=1)
        return opened[name]

    return open_session


def logits(session, batch):
    return session.logits(session.run(session.inputs(batch)))


def test_names_are_those_of_the_classes():
    assert [runtime(name).name for name in RUNTIMES] == list(RUNTIMES)
    assert all("cpu" in runtime(name).devices for name in RUNTIMES)


def test_refuses_an_unknown_runtime_and_says_what_was_meant():
    with pytest.raises(
        ValueError, match=r"Expected a runtime among torch-fp32, .*'onnx-in8'; did you mean onnx-int8\?"
    ):
        runtime("onnx-in8")


@each_runtime
def test_logits_are_those_of_the_model(name, session, model):
    for seed, lengths in enumerate([(9,), (12,), (20, 20), (31, 4, 17, 2)]):
        batch = token_batch(lengths, 100, 0, seed)
        with torch.inference_mode():
            wanted = model(**{key: torch.from_numpy(array) for key, array in batch.items()}).logits.numpy()
        got = logits(session(name), batch)
        assert got.dtype == np.float32 and got.shape == wanted.shape
        np.testing.assert_allclose(got, wanted, atol=TOLERANCE[name] * np.sqrt(np.mean(wanted**2)))


@each_runtime
def test_padding_changes_no_logit(name, session):
    batch = token_batch((5, 30, 12), 100, 0, seed=3)
    together = logits(session(name), batch)
    for row, length in enumerate((5, 30, 12)):
        alone = logits(session(name), {key: array[row : row + 1, :length] for key, array in batch.items()})
        np.testing.assert_allclose(
            alone[0], together[row], atol=TOLERANCE[name] * np.sqrt(np.mean(together**2))
        )


@pytest.mark.slow
def test_compiled_logits_are_those_of_the_model_for_any_length(tmp_path):
    model = tiny_bert(layers=1).eval()
    model.save_pretrained(tmp_path)
    compiled = runtime("torch-compile").open(tmp_path, tmp_path, "cpu", threads=1)
    assert isinstance(compiled.forward, torch._dynamo.OptimizedModule)
    for seed, lengths in enumerate([(31, 4, 17), (12, 40, 9)]):
        batch = token_batch(lengths, 100, 0, seed)
        with torch.inference_mode():
            wanted = model(**{key: torch.from_numpy(array) for key, array in batch.items()}).logits.numpy()
        scale = np.sqrt(np.mean(wanted**2))
        np.testing.assert_allclose(logits(compiled, batch), wanted, atol=TOLERANCE["torch-compile"] * scale)


def test_bf16_is_near_but_not_equal(session):
    batch = token_batch((20, 7), 100, 0, seed=4)
    assert np.abs(logits(session("torch-bf16"), batch) - logits(session("torch-fp32"), batch)).max() > 1e-4
    assert {p.dtype for p in session("torch-bf16").forward.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("family", ["roberta", "distilbert", "electra"])
@pytest.mark.parametrize("name", ["torch-bf16", "onnx-fp32", "onnx-int8"])
def test_other_families_agree_too(name, family, tmp_path):
    model = tiny_model(family, layers=2).eval()
    model.save_pretrained(tmp_path / "model")
    (tmp_path / "artefact").mkdir()
    way = runtime(name)
    way.build(tmp_path / "model", tmp_path / "artefact")
    artefact = tmp_path / ("artefact" if any((tmp_path / "artefact").iterdir()) else "model")
    opened = way.open(tmp_path / "model", artefact, "cpu", threads=1)
    reference = runtime("torch-fp32").open(tmp_path / "model", tmp_path / "model", "cpu", threads=1)
    batch = token_batch((31, 4, 17, 2), 100, 0, seed=5)
    wanted = logits(reference, batch)
    error = np.sqrt(np.mean((logits(opened, batch) - wanted) ** 2) / np.mean(wanted**2))
    assert error < TOLERANCE[name]


def test_onnx_threads_are_pinned_and_do_not_spin(session):
    options = session("onnx-fp32")._model._session.get_session_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (1, 1)
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"


def test_onnx_artefact_is_one_file(session, folder):
    session("onnx-int8")
    assert [path.name for path in (folder.parent / "onnx-int8").iterdir()] == ["model.onnx"]


def test_a_process_that_runs_onnx_never_imports_torch(session, folder):
    session("onnx-fp32")
    code = f"""
import sys, numpy as np
from pathlib import Path
from lit_compress.benchmark.runtimes import runtime
way = runtime("onnx-fp32")
way.imports(Path("nowhere"))
session = way.open(Path("nowhere"), Path({str(folder.parent / "onnx-fp32")!r}), "cpu", 1)
ones = np.ones((2, 5), dtype=np.int64)
print(session.logits(session.run(session.inputs({{"input_ids": ones, "attention_mask": ones}}))).shape)
assert not {{"torch", "transformers", "onnx"}} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == ("(2, 3)", "")


def test_refuses_onnx_where_a_library_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    for name in ("onnx-fp32", "onnx-int8"):
        with pytest.raises(
            ImportError, match=r'Expected onnxruntime for.*pip install "lit-compress\[onnx\]"'
        ):
            runtime(name).check()


def test_refuses_a_model_that_classifies_no_texts(tmp_path):
    tiny_model("vit").save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="Expected a model that classifies texts but .* holds a 'vit'"):
        runtime("torch-fp32").imports(tmp_path)
