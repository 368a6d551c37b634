"""No verb replaces the folder that it reads."""

import pytest

from lit_compress.__main__ import main
from lit_compress.models.checkpoint import save_folder
from tests.tiny import tiny_bert

WORDS = {
    "quantize": (),
    "prune": ("--method", "magnitude", "--sparsity", "0.5"),
    "shrink": ("--layers", "1"),
    "export": ("--format", "onnx"),
}


def files(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A model folder with another one inside, and a link to it; the place is the present folder."""
    monkeypatch.chdir(tmp_path)
    model = tiny_bert(layers=2)
    found = save_folder(tmp_path / "model", model, None, {})
    save_folder(found / "inner", model, None, {})
    (found / "export.json").write_text("{}")
    (tmp_path / "link").symlink_to(found, target_is_directory=True)
    return found


@pytest.mark.parametrize("verb", WORDS)
@pytest.mark.parametrize(
    ("source", "out"),
    [
        ("model", "model"),
        ("model", "model/inner/.."),
        ("model", "link"),
        ("link", "model"),
        ("model/inner", "model"),
    ],
)
def test_the_source_is_not_replaced(verb, source, out, folder, capsys):
    before = files(folder)
    assert main([verb, source, "--out", out, *WORDS[verb]]) == 1
    text = capsys.readouterr().err
    assert "would be lost; choose another folder with --out" in text and text.count("\n") == 1
    assert files(folder) == before


def test_a_folder_inside_the_source_is_free(folder):
    before = files(folder)
    assert main(["quantize", "model", "--out", "model/small"]) == 0
    assert before.items() <= files(folder).items()
