"""Model folders: complete or untouched, and loadable by anybody."""

import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

import lit_compress
from lit_compress.capture import prepare_capture, run_model
from lit_compress.models.checkpoint import load, save_folder
from lit_compress.models.manifest import build_manifest, read_manifest
from lit_compress.models.student import LayerSubset
from lit_compress.outputs import Capture
from tests.tiny import TEXT_FAMILIES, tiny_batch, tiny_bert, tiny_images, tiny_model, tiny_tokenizer

FACTS = {
    "method": "soft-targets",
    "recipe": "distil/soft_targets",
    "teacher": "runs/teacher/model",
    "label_names": ["bad", "fine", "good"],
    "input_lengths": [3, 5, 8],
    "metrics": {"val/accuracy": 0.5},
}
STOCK = """
import sys, torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer
model = AutoModelForSequenceClassification.from_pretrained(sys.argv[1])
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
batch = tokenizer(["good film", "a bad plot it was"], padding=True, return_tensors="pt")
with torch.no_grad():
    torch.save(model(**batch).logits, sys.argv[2])
assert "lit_compress" not in sys.modules
"""


@pytest.fixture
def folder(tmp_path):
    return save_folder(tmp_path / "model", tiny_bert(layers=2), None, FACTS, "# card\n")


def logits(model, batch):
    with torch.no_grad():
        return model.eval()(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits


def edit_manifest(folder, **changes):
    path = folder / "lit_compress.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def listing(folder):
    return sorted(p.name for p in folder.iterdir())


def test_a_fresh_process_loads_it_with_stock_transformers(tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(tiny_tokenizer(tmp_path / "tokenizer"))
    student = LayerSubset([0, 3]).build(lambda: tiny_bert(), 3, ["bad", "fine", "good"])
    # as after a fit with an attention objective
    capture = Capture(attention_scores=frozenset({1}), hidden_states=frozenset({1}))
    prepare_capture(student, capture)
    run_model(student.eval(), {"input_ids": tiny_batch()["input_ids"]}, capture)
    save_folder(tmp_path / "model", student, tokenizer, FACTS, "# card\n")
    command = [
        sys.executable,
        "-W",
        "error",
        "-c",
        STOCK,
        str(tmp_path / "model"),
        str(tmp_path / "logits.pt"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    batch = tokenizer(["good film", "a bad plot it was"], padding=True, return_tensors="pt")
    assert torch.equal(torch.load(tmp_path / "logits.pt", weights_only=True), logits(student, batch))
    config = (tmp_path / "model" / "config.json").read_text()
    assert "lit_compress" not in config and str(tmp_path) not in config
    assert json.loads(config)["id2label"] == {"0": "bad", "1": "fine", "2": "good"}


@pytest.mark.parametrize("family", TEXT_FAMILIES)
def test_load_gives_the_same_model_in_eval_mode(family, tmp_path):
    model = tiny_model(family, layers=2)
    save_folder(tmp_path / "model", model, None, FACTS)
    loaded = lit_compress.load(tmp_path / "model")
    assert type(loaded) is type(model) and not loaded.training
    assert torch.equal(logits(loaded, tiny_batch()), logits(model, tiny_batch()))


def test_load_keeps_the_type_of_the_weights_and_the_class_of_the_model(tmp_path):
    save_folder(tmp_path / "half", tiny_bert(layers=1).bfloat16(), None, {})
    assert load(tmp_path / "half").dtype == torch.bfloat16
    images = tiny_model("vit", layers=1).eval()
    save_folder(tmp_path / "vit", images, None, {})
    with torch.no_grad():
        inputs = {"pixel_values": tiny_images()["pixel_values"]}
        assert torch.equal(load(tmp_path / "vit")(**inputs).logits, images(**inputs).logits)


def test_load_takes_a_stock_folder(tmp_path):
    model = tiny_bert(layers=1)
    model.save_pretrained(tmp_path / "stock")
    assert read_manifest(tmp_path / "stock") is None
    assert torch.equal(logits(load(tmp_path / "stock"), tiny_batch()), logits(model, tiny_batch()))


def test_the_manifest_holds_the_facts(folder):
    manifest = read_manifest(folder)
    assert {key: manifest[key] for key in FACTS} == FACTS
    assert (manifest["schema"], manifest["base_class"], manifest["transforms"]) == (
        1,
        "BertForSequenceClassification",
        [],
    )
    assert manifest["library"] == f"lit-compress {lit_compress.__version__}"
    assert listing(folder) == ["README.md", "config.json", "lit_compress.json", "model.safetensors"]


def test_a_second_run_replaces_the_folder(folder):
    other = tiny_bert(layers=1, seed=3)
    save_folder(folder, other, None, {"method": "second"})
    assert read_manifest(folder)["method"] == "second" and not (folder / "README.md").exists()
    assert torch.equal(logits(load(folder), tiny_batch()), logits(other, tiny_batch()))
    assert listing(folder.parent) == ["model"]


@pytest.mark.parametrize("step", ["weights", "tokenizer", "rename"])
def test_a_failure_leaves_what_was_there(folder, monkeypatch, step):
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    model, tokenizer = tiny_bert(layers=1), None

    def fail(*args, **kwargs):
        raise OSError("disk full")

    if step == "weights":
        monkeypatch.setattr(model, "save_pretrained", fail)
    elif step == "tokenizer":
        tokenizer = type("Tokenizer", (), {"save_pretrained": fail})()
    else:
        rename = os.rename
        calls = iter([rename, fail, rename])
        monkeypatch.setattr(os, "rename", lambda *args: next(calls)(*args))
    with pytest.raises(OSError, match="disk full"):
        save_folder(folder, model, tokenizer, {})
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    assert listing(folder.parent) == ["model"]


def test_a_kill_between_the_renames_loses_nothing(folder):
    folder.rename(folder.with_name(".model.old"))
    (folder.parent / ".model.new").mkdir()
    with pytest.raises(ValueError, match="plain JSON"):
        save_folder(folder, tiny_bert(layers=1), None, {"bad": object})
    save_folder(folder, tiny_bert(layers=1), None, {"method": "after"})
    assert read_manifest(folder)["method"] == "after" and listing(folder.parent) == ["model"]


# -- refusals --------------------------------------------------------------------------------------


def test_refuses_to_replace_what_is_no_model_folder(tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("important")
    with pytest.raises(ValueError, match=r"a model folder to replace, at .*home but something else is there"):
        save_folder(tmp_path / "home", tiny_bert(layers=1), None, {})
    with pytest.raises(ValueError, match="something else is there"):
        save_folder(tmp_path / "home" / "thesis.tex", tiny_bert(layers=1), None, {})
    assert listing(tmp_path / "home") == ["thesis.tex"]


@pytest.mark.parametrize(
    "fact", [{"metrics": {"x": float("nan")}}, {"model": tiny_bert}, {"t": torch.ones(1)}]
)
def test_refuses_facts_that_are_no_json(fact):
    with pytest.raises(ValueError, match=r"plain JSON data in the manifest"):
        build_manifest(tiny_bert(layers=1), fact)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"schema": 1}', '{"schema": 1, "transforms": 5, "base_class": ""}']
)
def test_refuses_a_corrupt_manifest(folder, text):
    (folder / "lit_compress.json").write_text(text)
    with pytest.raises(
        ValueError, match=r"lit_compress\.json but it cannot be read .*corrupt: save the model folder"
    ):
        load(folder)


def test_refuses_a_newer_manifest(folder):
    edit_manifest(folder, schema=2, library="lit-compress 9.0")
    with pytest.raises(
        ValueError, match=r"schema 1 in .* but got 2 \(written by lit-compress 9\.0.*pip install -U"
    ):
        load(folder)


def test_refuses_a_transform_it_does_not_know(folder):
    edit_manifest(folder, transforms=[["factorize", {"rank": 8}]])
    with pytest.raises(
        ValueError, match=r"transforms that lit-compress .* knows .* but got 'factorize'; upgrade"
    ):
        load(folder)


@pytest.mark.parametrize("name", ["NoSuchModel", "AutoConfig", "is_torch_available"])
def test_refuses_a_class_that_is_no_model_of_transformers(folder, name):
    edit_manifest(folder, base_class=name)
    with pytest.raises(
        ValueError, match=rf"base_class in .*lit_compress\.json but got '{name}', which transformers"
    ):
        load(folder)


def test_refuses_a_base_class_that_is_no_name(folder):
    edit_manifest(folder, base_class=3)
    with pytest.raises(
        ValueError, match=r"name of a class as base_class in .* but got 3; save the model folder"
    ):
        load(folder)


def test_refuses_missing_and_foreign_weights(folder):
    state = load_file(folder / "model.safetensors")
    moved = {name.replace("classifier.", "other."): value for name, value in state.items()}
    save_file(moved, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        ValueError, match=r"2 missing: classifier\.bias, .*; 2 not part of the model: other\.bias"
    ):
        load(folder)


def test_refuses_cut_weights(folder):
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match=r"readable model at .*model' but got SafetensorError"):
        load(folder)


def test_refuses_a_corrupt_config(folder):
    (folder / "config.json").write_text('{"model_type": "bert"')
    with pytest.raises(ValueError, match=r"readable model at .*model' but got OSError: .*not a valid JSON"):
        load(folder)


def test_refuses_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(ValueError, match=r"model folder .*nowhere' but found nothing"):
        load(tmp_path / "nowhere")
