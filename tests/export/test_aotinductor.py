"""Packages of AOTInductor. Every compilation takes a while: few models, asked a lot."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from lit_compress.benchmark.runtimes.aotinductor import AotInductorBf16, AotInductorFp32
from lit_compress.benchmark.workload import token_batch
from lit_compress.export import aotinductor as export
from lit_compress.export.aotinductor import export_aotinductor
from lit_compress.export.infer import aotinductor as infer
from lit_compress.export.parity import ParityError, relative_error
from lit_compress.models.checkpoint import save_folder
from tests.export.single_texts import full_disk
from tests.export.test_ragged import ragged
from tests.export.test_torchscript import LONGEST, batches, clean_process, run, wanted
from tests.tiny import tiny_bert, tiny_model

FAMILIES = ("bert", "roberta", "distilbert", "electra", "albert")


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """A model, and the folder with its package in float32."""
    folder = tmp_path_factory.mktemp("aotinductor")
    # Dropout: a model that is exported in train mode is found out.
    model = tiny_bert(layers=2, dropout=0.1).eval()
    model.save_pretrained(folder / "model")
    (folder / "package").mkdir()
    before = dict(os.environ)
    assert AotInductorFp32().build(folder / "model", folder / "package") < 1e-4
    assert dict(os.environ) == before
    return model, folder / "package"


@pytest.fixture
def session(package):
    return AotInductorFp32().open(package[1], package[1], "cpu", threads=1)


@pytest.mark.slow
def test_package_computes_what_the_model_computes(package, session):
    for batch in batches(package[0]):
        np.testing.assert_allclose(run(session, batch), wanted(package[0], batch), atol=5e-5)
    assert [path.name for path in package[1].iterdir()] == ["model.pt2"]


@pytest.mark.slow
def test_segments_of_pairs_count(package, session):
    batch = token_batch([9, 6], 100, 0, seed=1)
    pairs = {**batch, "token_type_ids": (np.arange(9) > 3) * batch["attention_mask"]}
    np.testing.assert_allclose(run(session, pairs), wanted(package[0], pairs), atol=5e-5)
    assert np.abs(run(session, pairs) - run(session, batch)).max() > 1e-2


@pytest.mark.slow
def test_inputs_that_the_compiled_code_would_not_survive_are_refused(session):
    good = token_batch([9, 6], 100, 0, seed=1)
    long = token_batch([LONGEST + 2], 100, 0, seed=1)
    with pytest.raises(ValueError, match=r"Expected texts of at most 130 tokens but got 131; truncate them"):
        session.inputs(long)
    for token in (100, -1):
        with pytest.raises(ValueError, match=f"Expected token ids from 0 to 99 but got .*{token}"):
            session.inputs({**good, "input_ids": np.where(good["input_ids"] == 0, token, good["input_ids"])})
    with pytest.raises(ValueError, match=r"Expected arrays of one shape .* got \(2, 9\), \(2, 4\), \(2, 9\)"):
        session.inputs({**good, "attention_mask": good["attention_mask"][:, :4]})
    # Strides are not looked at either.
    turned = {name: np.asfortranarray(array) for name, array in good.items()}
    np.testing.assert_array_equal(run(session, turned), run(session, good))


@pytest.mark.slow
def test_the_part_of_infer_runs_in_a_clean_process_without_a_compiler(package, monkeypatch):
    model, folder = package
    monkeypatch.setenv("PATH", "/nowhere")
    batch = token_batch([9, 6, 17], 100, 0, seed=1)
    got = clean_process(infer, folder, {"libraries": {"torch": torch.__version__}}, batch)
    np.testing.assert_allclose(got, wanted(model, batch), atol=5e-5)


def test_infer_refuses_another_torch(tmp_path):
    with pytest.raises(ValueError, match=r'Expected torch 2\.5, .* run pip install "torch==2\.5\.\*"'):
        infer.open_model(tmp_path, {"libraries": {"torch": "2.5.1+cpu"}}, 1)


@pytest.mark.slow
def test_bf16_is_near_but_not_equal_on_a_ragged_model(tmp_path):
    model = ragged()
    save_folder(tmp_path / "model", model, None, {})
    (tmp_path / "package").mkdir()
    AotInductorBf16().build(tmp_path / "model", tmp_path / "package")
    session = AotInductorBf16().open(tmp_path / "model", tmp_path / "package", "cpu", threads=1)
    for batch in batches(model):
        got = run(session, batch)
        assert got.dtype == np.float32
        assert relative_error(got, wanted(model, batch)) < AotInductorBf16.tolerance
    assert relative_error(got, wanted(model, batch)) > 1e-4


@pytest.mark.slow
def test_refuses_a_package_that_ignores_padding_and_leaves_the_old_one(tmp_path, monkeypatch):
    class Ignores(export.Logits):
        def forward(self, input_ids, attention_mask, token_type_ids):
            return super().forward(input_ids, attention_mask * 0 + 1, token_type_ids)

    (tmp_path / "model.pt2").write_bytes(b"the old one")
    monkeypatch.setattr(export, "Logits", Ignores)
    with pytest.raises(ParityError, match=r"Expected the AOTInductor package to compute .* nothing was kept"):
        export_aotinductor(tiny_bert(layers=1), tmp_path / "model.pt2")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"model.pt2": b"the old one"}


@pytest.mark.parametrize("headless", [None, (1,), range(4)], ids=["ordinary", "ragged", "no attention"])
@pytest.mark.parametrize("family", FAMILIES)
def test_exported_graph_is_free_in_batch_size_and_length(family, headless):
    """What is compiled, run without compiling it."""
    if headless is not None and family == "albert":
        pytest.skip("its layers share their weights")
    model = tiny_model(family, layers=2).eval() if headless is None else ragged(family, headless)
    program = export._exported(model, torch.float32).module()
    names = export.example_inputs(model)
    for batch in batches(model):
        inputs = {
            name: torch.from_numpy(batch.get(name, np.zeros_like(batch["input_ids"]))) for name in names
        }
        np.testing.assert_allclose(program(**inputs).detach().numpy(), wanted(model, batch), atol=5e-5)


class DependsOnData(nn.Module):
    """What torch.export refuses: which branch is taken depends on the numbers."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, tensor, *args, **kwargs):
        return self.inner(tensor) if tensor.sum() > 0 else self.inner(-tensor)


def test_refuses_a_model_that_cannot_be_exported(tmp_path):
    branching = tiny_bert(layers=1)
    branching.classifier = DependsOnData(branching.classifier)
    for model in (branching, tiny_model("vit")):
        with pytest.raises(
            ValueError, match=f"compile but got {type(model).__name__}, which stops"
        ) as caught:
            export_aotinductor(model, tmp_path / "model.pt2")
        assert "\n" not in str(caught.value) and str(caught.value).endswith("use another runtime.")
    assert not list(tmp_path.iterdir())


def test_refuses_to_build_without_a_compiler(tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    for call in (
        AotInductorFp32().check,
        lambda: export_aotinductor(tiny_bert(layers=1), tmp_path / "model.pt2"),
    ):
        with pytest.raises(
            ImportError, match=r"Expected a C\+\+ compiler .*'no-such-compiler'.*apt install g\+\+"
        ):
            call()
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(
    "room", [20_000, 300_000]
)  # for what inductor writes, and for what the compiler does
def test_a_full_disk_leaves_the_old_package(room, tmp_path):
    (tmp_path / "model.pt2").write_bytes(b"the old one")
    with (
        full_disk(room),
        pytest.raises(OSError, match=r"Expected to .*model\.pt2 but got: File .*check the disk"),
    ):
        export_aotinductor(tiny_bert(layers=1), tmp_path / "model.pt2")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"model.pt2": b"the old one"}


def test_a_disk_that_is_full_when_all_is_compiled_leaves_the_old_package(tmp_path, monkeypatch):
    (tmp_path / "model.pt2").write_bytes(b"the old one")
    monkeypatch.setattr(export, "_compile", lambda program, model: bytes(200_000))
    with (
        full_disk(100_000),
        pytest.raises(OSError, match=r"Expected to write .*model\.pt2 but got: File too"),
    ):
        export_aotinductor(tiny_bert(layers=1), tmp_path / "model.pt2")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"model.pt2": b"the old one"}


@pytest.mark.parametrize(
    ("words", "kind", "told"),
    [
        # As g++ and ld say it on a file system that is full, and under a limit on the size of files.
        ("/tmp/cc.s: Fatal error: x.o: No space left on device", OSError, "model.pt2 but got: No space left"),
        (
            "/usr/bin/ld: final link failed: No space left on device\ncollect2: error: ld returned 1 exit status",
            OSError,
            "model.pt2 but got: No space left on device; check the disk",
        ),
        (
            "g++: internal compiler error: File size limit exceeded signal terminated program cc1plus",
            OSError,
            "model.pt2 but got: File size limit exceeded; check the disk",
        ),
        ("x.cpp:1:2: error: expected ';'", ValueError, "stops with RuntimeError: x.cpp:1:2: error: expected"),
    ],
)
def test_nothing_is_left_when_the_compiler_stops(words, kind, told, tmp_path, monkeypatch):
    def compile(program, model):
        (Path(os.environ["TORCHINDUCTOR_CACHE_DIR"]) / "kernel.cpp").write_text("int main")
        raise RuntimeError(f"C++ compile error\n\nCommand:\ng++ x\n\nOutput:\n{words}\n")

    monkeypatch.setattr(export, "_compile", compile)
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    with pytest.raises(kind, match=told):
        export_aotinductor(tiny_bert(layers=1), tmp_path / "model.pt2")
    assert not list(tmp_path.iterdir()) and "TORCHINDUCTOR_CACHE_DIR" not in os.environ
