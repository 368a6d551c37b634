"""The folder of an export: complete or not there, and of use without this library."""

import json

import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from lit_compress.benchmark.artefacts import Artefact
from lit_compress.benchmark.runtimes.base import Builder
from lit_compress.export.folder import infer_script, requirements, write_export
from lit_compress.export.formats import FORMATS, builder, full_name
from lit_compress.files import whole_folder
from lit_compress.models.factory import load_config
from tests.tiny import tiny_bert, tiny_tokenizer

PARITY = {
    "random_tokens": 1e-5,
    "texts": {"data": "validation 1", "texts": 9, "error": 0.1, "same_label": 0.98},
}


class Copied(Builder):
    """Stands for any builder."""

    name = "onnx-fp32"


@pytest.fixture
def artefact(tmp_path):
    folder, path = tmp_path / "model", tmp_path / "artefact"
    tiny_bert(layers=1).save_pretrained(folder)
    tiny_tokenizer(folder)
    path.mkdir()
    (path / "model.onnx").write_bytes(b"graph")
    (path / "facts.json").write_text("{}")
    (folder / "secret.txt").write_text("not for others")
    return Artefact(folder, path, 5, {"max_positions": 130}), load_config(str(folder))


def test_holds_the_artefact_the_tokenizer_and_what_there_is_to_know(artefact, tmp_path):
    found = write_export(tmp_path / "out", artefact[0], Copied(), artefact[1], PARITY)
    names = {path.name for path in found.iterdir()}
    assert {"model.onnx", "tokenizer.json", "config.json", "export.json", "README.md"} <= names
    assert not names & {"facts.json", "secret.txt", "model.safetensors"}
    settings = json.loads((found / "export.json").read_text())
    assert (settings["format"], settings["precision"]) == ("onnx", "fp32")
    assert settings["labels"] == ["LABEL_0", "LABEL_1", "LABEL_2"] and settings["max_length"] == 130
    assert settings["parity"] == PARITY
    assert settings["files"]["model.onnx"]["bytes"] == 5
    assert len(settings["files"]["model.onnx"]["sha256"]) == 64
    assert "98.0 %" in (found / "README.md").read_text()


def test_label_names_of_the_data_come_first(artefact, tmp_path):
    manifest = {"schema": 1, "transforms": [], "base_class": "BertForSequenceClassification"}
    text = json.dumps({**manifest, "label_names": ["bad", "fine", "good"]})
    (artefact[0].folder / "lit_compress.json").write_text(text)
    found = write_export(tmp_path / "out", artefact[0], Copied(), artefact[1], PARITY)
    assert json.loads((found / "export.json").read_text())["labels"] == ["bad", "fine", "good"]


def test_label_names_come_in_the_order_of_the_outputs(artefact, tmp_path):
    settings = json.loads((artefact[0].folder / "config.json").read_text())
    settings["id2label"] = {str(index): f"class {index}" for index in range(12)}
    # As json.dumps(…, sort_keys=True) leaves it: "0", "1", "10", "11", "2", …
    (artefact[0].folder / "config.json").write_text(json.dumps(settings, sort_keys=True))
    config = load_config(str(artefact[0].folder))
    found = write_export(tmp_path / "out", artefact[0], Copied(), config, PARITY)
    labels = json.loads((found / "export.json").read_text())["labels"]
    assert labels == [f"class {index}" for index in range(12)]


def classifier(folder, monkeypatch):
    """The Classifier of infer.py with a model that gives back the ids it reads."""
    pytest.importorskip("onnxruntime")
    from lit_compress.export.infer import base

    monkeypatch.setattr(base, "open_model", lambda *arguments: lambda batch: batch["input_ids"])
    return base.Classifier(folder)


def test_texts_are_cut_where_the_tokenizer_of_the_model_cuts_them(artefact, tmp_path, monkeypatch):
    text = "good film bad plot very fine story"
    folder, found = artefact[0].folder, {}
    for side in ("right", "left"):
        own = AutoTokenizer.from_pretrained(folder, truncation_side=side)
        own.save_pretrained(folder)
        short = Artefact(folder, artefact[0].path, 5, {"max_positions": 5})
        write_export(tmp_path / "out", short, Copied(), artefact[1], PARITY)
        found[side] = classifier(tmp_path / "out", monkeypatch).logits([text])[0].tolist()
        assert found[side] == own(text, truncation=True, max_length=5)["input_ids"]
    assert found["left"] != found["right"]


def test_a_tokenizer_of_another_form_becomes_one_that_infer_reads(artefact, tmp_path, monkeypatch):
    folder, texts = artefact[0].folder, ["A Good film", "naïve, xyz!"]
    spec = json.loads((folder / "tokenizer.json").read_text())
    wanted = Tokenizer.from_file(str(folder / "tokenizer.json")).encode_batch(texts)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    words = sorted(spec["model"]["vocab"], key=spec["model"]["vocab"].get)
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    out = write_export(tmp_path / "out", artefact[0], Copied(), artefact[1], PARITY)
    got = classifier(out, monkeypatch).logits(texts)
    assert [row[: len(one)].tolist() for row, one in zip(got, wanted, strict=True)] == [o.ids for o in wanted]
    assert (out / "infer.py").is_file() and not (folder / "tokenizer.json").exists()


def test_without_a_tokenizer_there_is_no_infer_and_the_export_says_so(artefact, tmp_path):
    for path in artefact[0].folder.glob("tokenizer*"):
        path.unlink()
    out = write_export(tmp_path / "out", artefact[0], Copied(), artefact[1], PARITY)
    assert not (out / "infer.py").exists()
    (note,) = json.loads((out / "export.json").read_text())["notes"]
    assert note.startswith("There is no infer.py: the model folder has no tokenizer.json")
    readme = (out / "README.md").read_text()
    assert note in readme and "python infer.py" not in readme


def test_an_earlier_export_is_replaced_but_nothing_else(artefact, tmp_path):
    out = tmp_path / "out"
    write_export(out, artefact[0], Copied(), artefact[1], PARITY)
    (out / "old.bin").write_text("of the earlier export")
    write_export(out, artefact[0], Copied(), artefact[1], PARITY)
    assert not (out / "old.bin").exists()
    other = tmp_path / "thesis"
    other.mkdir()
    (other / "chapter.txt").write_text("years of work")
    with pytest.raises(ValueError, match=r"an export to replace, at .*thesis but something else is there"):
        write_export(other, artefact[0], Copied(), artefact[1], PARITY)
    assert (other / "chapter.txt").read_text() == "years of work"


def test_a_full_disk_leaves_the_earlier_export_as_it_was(artefact, tmp_path, monkeypatch):
    out = tmp_path / "out"
    write_export(out, artefact[0], Copied(), artefact[1], PARITY)
    before = {path.name: path.read_bytes() for path in out.iterdir()}

    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lit_compress.export.folder.shutil.copy2", full)
    with pytest.raises(OSError, match="No space left"):
        write_export(out, artefact[0], Copied(), artefact[1], PARITY)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".out")] == []


def test_a_kill_between_the_two_renames_loses_nothing(tmp_path):
    (tmp_path / ".out.old").mkdir()
    (tmp_path / ".out.old" / "file").write_text("kept")
    with pytest.raises(RuntimeError), whole_folder(tmp_path / "out"):
        raise RuntimeError
    assert (tmp_path / "out" / "file").read_text() == "kept"


@pytest.mark.parametrize("format", FORMATS)
def test_every_infer_script_is_one_program_of_its_runtime(format):
    script = infer_script(format)
    if script is None:
        assert requirements(format) == []
        return
    names = compile(script, "infer.py", "exec").co_names
    assert {"open_model", "Classifier", "main", "REQUIREMENTS"} <= set(names)
    assert "lit_compress" not in script and "transformers" not in script
    assert "tokenizers" in requirements(format)


def test_a_language_model_has_a_program_of_its_own():
    script = infer_script("gguf", classifies=False)
    assert "def complete" in script and "lit_compress" not in script and "Classifier" not in script
    assert requirements("gguf", classifies=False) == ["xllamacpp>=2026.10"]
    assert infer_script("onnx", classifies=False) is None and requirements("onnx", classifies=False) == []


def test_compiled_code_asks_for_the_torch_that_compiled_it():
    minor = ".".join(torch.__version__.split(".")[:2])
    found = requirements("aotinductor", builder("aotinductor-fp32").bound_to)
    assert found == ["tokenizers", "numpy", f"torch=={minor}.*"]


def test_every_format_in_every_precision_has_a_builder_of_that_name():
    for format, precisions in FORMATS.items():
        for precision in precisions:
            assert builder(full_name(format, precision)).name == f"{format}-{precision}"
        assert full_name(format, None) == f"{format}-{precisions[0]}"


def test_unknown_formats_and_precisions_are_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="Expected a format among onnx.* but got 'onxx'"):
        full_name("onxx", None)
    with pytest.raises(ValueError, match="Expected a precision of onnx among fp32.* but got 'int3'"):
        full_name("onnx", "int3")
