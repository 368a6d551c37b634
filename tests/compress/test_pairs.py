"""Pairs of texts through the other commands of the chain: a smaller vocabulary, fewer bits, an exported file."""

import json

import pytest
from transformers import AutoTokenizer

import lit_compress
from lit_compress.__main__ import main
from tests.compress.pairs import SECOND_ONLY, UNUSED, write_pair_task


@pytest.mark.slow
@pytest.mark.parametrize("is_regression", [False, True], ids=["classes", "scores"])
def test_pairs_are_shrunk_rounded_and_exported(is_regression, tmp_path, capsys):
    pytest.importorskip("onnxruntime")
    (tmp_path / "task").mkdir()
    task = write_pair_task(tmp_path / "task", is_regression)
    data, small, rounded = (str(tmp_path / name) for name in ("task/data.yaml", "small", "rounded"))
    assert main(["shrink", str(task / "teacher"), "--vocabulary-from", data, "--out", small]) == 0
    # Both columns are read.
    pieces = AutoTokenizer.from_pretrained(small).get_vocab()
    assert SECOND_ONLY in pieces and UNUSED not in pieces
    kept = (tmp_path / "task" / "kept.yaml", str(task / "teacher"), small)
    kept[0].write_text((task / "data.yaml").read_text().replace(*kept[1:]))
    words = ["--data", str(kept[0]), "--out", rounded]
    assert main(["quantize", small, *words]) == 0
    assert lit_compress.load(rounded).num_labels == (1 if is_regression else 2)
    capsys.readouterr()
    words = ["--format", "onnx", "--precision", "int8", "--data", str(kept[0]), "--no-benchmark"]
    assert main(["export", small, *words, "--out", str(tmp_path / "onnx")]) == 0
    told = json.loads((tmp_path / "onnx" / "export.json").read_text())
    assert told["format"] == "onnx"
    same = [value for key, value in _flat(told) if key == "same_label"]
    # A share of equal labels means nothing where there is a single score.
    assert same == [None] if is_regression else 0.9 <= same[0] <= 1.0


def _flat(node):
    if isinstance(node, dict):
        for key, value in node.items():
            yield key, value
            yield from _flat(value)
