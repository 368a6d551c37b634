"""What the exporters of ONNX have no operator for, said in one paragraph, with nothing left behind."""

import pytest
import torch
from transformers import BertForSequenceClassification

from lit_compress.export import onnx, tensorrt
from lit_compress.models.checkpoint import save_folder
from tests.tiny import tiny_bert

pytest.importorskip("onnxruntime")


class TakesEigenvalues(BertForSequenceClassification):
    """It does what ONNX has no operator for."""

    def forward(self, *args, **kwargs):
        output = super().forward(*args, **kwargs)
        output.logits = output.logits + torch.linalg.eigvalsh(self.bert.pooler.dense.weight).sum()
        return output


def eigenvalues():
    return TakesEigenvalues(tiny_bert(layers=1).config).eval()


class Stops(BertForSequenceClassification):
    """It stops as models do whose code a trace cannot follow."""

    def forward(self, *args, **kwargs):
        raise RuntimeError("Expected a tensor of two dimensions\nand more lines")


def test_refuses_an_operator_that_onnx_lacks(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"the old one")
    with pytest.raises(
        ValueError,
        match=r"^Expected a model that ONNX can express but got TakesEigenvalues, which stops with "
        r"UnsupportedOperatorError: .*linalg.*; use a torch runtime\.$",
    ):
        onnx.export_onnx(eigenvalues(), tmp_path / "model.onnx")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"model.onnx": b"the old one"}


def test_refuses_a_model_that_stops_while_it_is_traced_in_one_line(tmp_path):
    with pytest.raises(
        ValueError, match=r"RuntimeError: Expected a tensor of two dimensions; use a torch runtime"
    ):
        onnx.export_onnx(Stops(tiny_bert(layers=1).config).eval(), tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_refuses_an_operator_that_standard_onnx_lacks(tmp_path, monkeypatch):
    folder = save_folder(tmp_path / "model", tiny_bert(layers=1).eval(), None, {})
    monkeypatch.setattr(tensorrt, "load", lambda folder: eigenvalues())
    (tmp_path / "target").mkdir()
    with pytest.raises(
        ValueError,
        match=r"standard ONNX operators can express but got TakesEigenvalues, which stops with .*linalg",
    ):
        tensorrt.export_tensorrt(folder, tmp_path / "target")
    assert not list((tmp_path / "target").iterdir())
