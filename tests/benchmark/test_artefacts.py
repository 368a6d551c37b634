"""The cache of artefacts: real builds where it matters, scripted ones for everything that goes wrong."""

import json
import os
import sys
import textwrap
import threading
import time

import datasets
import numpy as np
import pytest

from lit_compress.benchmark import artefacts, measure
from lit_compress.benchmark.artefacts import PrepareError, prepare
from lit_compress.benchmark.protocol import Candidate
from lit_compress.benchmark.runtimes import runtime
from lit_compress.export.parity import ParityError, is_only_timed, only_timed
from tests.tiny import tiny_bert


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    """The folder of the artefacts, empty."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "lit_compress" / "artefacts"


@pytest.fixture
def folder(tmp_path):
    tiny_bert(layers=1).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def scripted(monkeypatch):
    """Return a function that lets a script build the artefact; it knows ``target`` and counts its runs."""
    runs = []

    def use(script):
        head = "import os, sys, json, time, signal\nfrom pathlib import Path\ntarget = Path(sys.argv[1])\n"

        def command(name, folder, target):
            runs.append(name)
            return [sys.executable, "-S", "-c", head + textwrap.dedent(script), str(target)]

        monkeypatch.setattr(artefacts, "_command", command)
        return runs

    return use


# The digest is that of b"weights".
BUILD = """
    (target / "model.onnx").write_bytes(b"weights")
    files = {"model.onnx": {"bytes": 7, "sha256": "DIGEST"}}
    (target / "facts.json").write_text(json.dumps({"facts": {"params": 1}, "files": files}))
""".replace("DIGEST", "9a129038d9a00aed0cf6a7ea059ca50a813449061ab87848cf1a13eafdf33b2c")


def test_a_torch_runtime_loads_the_folder_itself_and_has_its_facts(folder, root):
    found = prepare(str(folder), "torch-fp32", timeout=120)
    assert (found.folder, found.path) == (folder, folder)
    assert found.bytes == (folder / "model.safetensors").stat().st_size
    assert found.facts["params"] == sum(p.numel() for p in tiny_bert(layers=1).parameters())
    units = {"heads": 4, "neurons": 64}
    shape = {"family": "bert", "layers": 1, "hidden": 32, "vocab": 100, "per_layer": units}
    assert found.facts["shape"] == shape
    # One record serves all of them.
    assert prepare(str(folder), "torch-bf16", timeout=0.001).facts == found.facts
    assert len(list(root.iterdir())) == 1


def test_an_onnx_artefact_is_built_once_and_opens(folder, root, scripted, capfd):
    found = prepare(str(folder), "onnx-int8", timeout=120)
    assert found.path.parent == root and found.folder == folder
    assert found.bytes == (found.path / "model.onnx").stat().st_size
    session = runtime("onnx-int8").open(folder, found.path, "cpu", threads=1)
    ones = np.ones((2, 5), dtype=np.int64)
    assert session.run(session.inputs({"input_ids": ones, "attention_mask": ones})).shape == (2, 3)
    runs = scripted("raise SystemExit(3)")
    assert prepare(str(folder), "onnx-int8", timeout=120) == found
    assert runs == []


def test_refuses_a_folder_that_holds_no_trained_classifier(folder, root):
    tiny_bert(layers=1).bert.save_pretrained(folder)
    with pytest.raises(
        PrepareError, match="Expected weights for BertForSequenceClassification.*missing: classifier"
    ):
        prepare(str(folder), "onnx-fp32", timeout=120)
    assert list(root.iterdir()) == []


def test_other_weights_settings_or_libraries_make_another_artefact(folder, root, scripted, monkeypatch):
    runs = scripted(BUILD)
    paths = [prepare(str(folder), "onnx-fp32", timeout=60).path]
    tiny_bert(layers=1, seed=1).save_pretrained(folder)
    paths.append(prepare(str(folder), "onnx-fp32", timeout=60).path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"layer_norm_eps": 1e-6}))
    paths.append(prepare(str(folder), "onnx-fp32", timeout=60).path)
    monkeypatch.setattr(artefacts, "version", lambda name: "0")
    paths.append(prepare(str(folder), "onnx-fp32", timeout=60).path)
    paths.append(prepare(str(folder), "onnx-int8", timeout=60).path)
    assert len(set(paths)) == len(runs) == 5
    # A copy of the model elsewhere is the same model.
    copy = folder.with_name("copy")
    folder.rename(copy)
    assert prepare(str(copy), "onnx-int8", timeout=60).path == paths[-1]
    assert len(runs) == 5


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: (path / "model.onnx").write_bytes(b"weighty"),
        lambda path: (path / "model.onnx").unlink(),
        lambda path: (path / "facts.json").write_text("{"),
        lambda path: (path / "facts.json").write_text("[]"),
        lambda path: (path / "facts.json").unlink(),
    ],
)
def test_a_damaged_artefact_is_built_again(damage, folder, scripted):
    runs = scripted(BUILD)
    found = prepare(str(folder), "onnx-fp32", timeout=60)
    damage(found.path)
    assert prepare(str(folder), "onnx-fp32", timeout=60) == found
    assert (found.path / "model.onnx").read_bytes() == b"weights" and len(runs) == 2


@pytest.mark.parametrize(
    ("script", "kind", "message"),
    [
        (
            "os.kill(os.getpid(), signal.SIGKILL)",
            "crashed",
            r"status -9 \(killed, perhaps for lack of memory\)",
        ),
        ("time.sleep(60)", "crashed", r"it took more than 0\.5 s and was stopped"),
        (
            "print('tracing'); sys.exit('no such operator')",
            "crashed",
            "ended with status 1: no such operator",
        ),
        ("leave('parity', 'Expected more.')", "parity", "^Expected more.$"),
        ("leave('refused', 'Expected less.')", "refused", "^Expected less.$"),
    ],
)
def test_refuses_what_a_failed_build_left(script, kind, message, folder, root, scripted):
    leave = """
        def leave(kind, text):
            (target / 'error.json').write_text(json.dumps({'kind': kind, 'text': text}))
            sys.exit(1)
    """
    scripted(f"{textwrap.dedent(leave)}\n(target / 'model.onnx').write_bytes(b'half'); {script}")
    with pytest.raises(PrepareError, match=message) as failure:
        prepare(str(folder), "onnx-fp32", timeout=0.5 if "sleep" in script else 60)
    assert failure.value.kind == kind
    assert list(root.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (ParityError("Expected the same logits."), "parity", "Expected the same logits."),
        (ValueError("Expected attention."), "refused", "Expected attention."),
        (ImportError("Expected onnx."), "refused", "Expected onnx."),
        (IndexError("list index"), "crashed", "onnx-fp32 failed on model: IndexError: list index"),
    ],
)
def test_the_clean_process_says_which_kind_of_failure_it_was(error, kind, text, tmp_path, monkeypatch):
    def fail(*_):
        raise error

    monkeypatch.setattr(artefacts, "_work", fail)
    monkeypatch.setattr(sys, "argv", ["artefacts", "onnx-fp32", "model", str(tmp_path)])
    with pytest.raises(type(error)):
        artefacts.main()
    assert json.loads((tmp_path / "error.json").read_text()) == {"kind": kind, "text": text}


def test_refuses_a_build_without_a_record(folder, root, scripted):
    scripted("(target / 'model.onnx').write_bytes(b'weights')")
    with pytest.raises(PrepareError, match="files are gone or changed right after they were written"):
        prepare(str(folder), "onnx-fp32", timeout=60)


def test_refuses_a_missing_library_before_anything_is_built(folder, monkeypatch, scripted):
    runs = scripted(BUILD)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(PrepareError, match=r'pip install "lit-compress\[onnx\]"'):
        prepare(str(folder), "onnx-fp32", timeout=60)
    assert runs == []


def test_refuses_a_missing_model_and_an_unknown_runtime(tmp_path):
    with pytest.raises(PrepareError, match="Expected the model folder .*nowhere' but found nothing"):
        prepare(str(tmp_path / "nowhere"), "torch-fp32", timeout=60)
    with pytest.raises(ValueError, match="did you mean torch-fp32"):
        prepare(str(tmp_path), "torch-fp23", timeout=60)


def test_refuses_a_cache_that_cannot_be_written(folder, root, scripted):
    root.parent.mkdir(parents=True)
    root.write_text("a file in its place")
    with pytest.raises(PrepareError, match="artefacts"):
        prepare(str(folder), "onnx-fp32", timeout=60)


def test_two_sessions_that_build_the_same_artefact_both_get_it(folder, root, scripted):
    runs = scripted(BUILD + "\n    time.sleep(1)")
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(prepare(str(folder), "onnx-fp32", 60))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(runs) == 2 and found[0] == found[1]
    assert list(root.iterdir()) == [found[0].path]


def test_artefacts_that_were_not_used_for_longest_make_room(root, monkeypatch):
    now = time.time()
    for hours in (0.5, 3, 5, 9):
        place = root / f"{hours}"
        place.mkdir(parents=True)
        (place / "model.onnx").write_bytes(b"0" * 100)
        os.utime(place, (now - 3600 * hours,) * 2)
    monkeypatch.setattr(artefacts, "_KEEP_BYTES", 250)
    artefacts._drop_old(root)
    assert sorted(path.name for path in root.iterdir()) == ["0.5", "3"]
    monkeypatch.setattr(artefacts, "_KEEP_BYTES", 0)
    artefacts._drop_old(root)
    assert [path.name for path in root.iterdir()] == ["0.5"]


def test_what_is_only_timed_is_built_by_itself_and_its_process_knows(folder, root, scripted):
    told = 'int(os.environ.get("LIT_COMPRESS_ONLY_TIMED", 0))'
    runs = scripted(BUILD.replace('{"params": 1}', f'{{"timed": {told}}}'))
    compared = prepare(str(folder), "onnx-int8", 60)
    with only_timed():
        timed = prepare(str(folder), "onnx-int8", 60)
        assert prepare(str(folder), "onnx-int8", 60) == timed
    assert runs == ["onnx-int8"] * 2 and timed.path != compared.path
    assert compared.facts == {"timed": 0} and timed.facts == {"timed": 1}
    assert prepare(str(folder), "onnx-int8", 60) == compared


def test_models_that_are_prepared_side_by_side_are_only_timed_too(monkeypatch):
    found = []
    monkeypatch.setattr(measure, "_prepare", lambda candidate, texts: found.append(is_only_timed()))
    with only_timed():
        measure._prepare_all([Candidate("a", "a"), Candidate("b", "b")], None)
    measure._prepare_all([Candidate("a", "a")], None)
    assert found == [True, True, False]
