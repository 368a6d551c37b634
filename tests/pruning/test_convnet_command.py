"""``lit-compress shrink`` on convolution nets."""

import json
import sys

import pytest
import torch

from lit_compress.commands import run_verb
from lit_compress.models.checkpoint import load
from lit_compress.models.transforms import transforms_of
from tests.pruning.test_convnets import IMAGES, net, weights
from tests.tiny import tiny_bert, tiny_model

pytest.importorskip("torch_pruning")


@pytest.fixture
def resnet(tmp_path):
    net("resnet").save_pretrained(tmp_path / "resnet")
    (tmp_path / "resnet" / "preprocessor_config.json").write_text(json.dumps({"size": {"shortest_edge": 40}}))
    return tmp_path / "resnet"


def test_shrinks_a_stock_folder_and_one_of_its_own(resnet, tmp_path, capsys):
    assert run_verb("shrink", [str(resnet), "--out", str(tmp_path / "once"), "--sparsity", "0.4"]) == 0
    output = capsys.readouterr().out
    assert "image of 40 x 40" in output
    small = load(tmp_path / "once")
    assert weights(small) <= 0.6 * weights(net("resnet"))
    assert f"{weights(net('resnet')):,} → {weights(small):,}" in output
    assert (tmp_path / "once" / "preprocessor_config.json").is_file()
    assert [name for name, _ in transforms_of(small)] == ["sizes"]
    again = [
        str(tmp_path / "once"),
        "--out",
        str(tmp_path / "twice"),
        "--sparsity",
        "0.3",
        "--importance",
        "random",
    ]
    assert run_verb("shrink", again) == 0
    with torch.no_grad():
        assert load(tmp_path / "twice")(IMAGES).logits.shape == (2, 3)
    assert weights(load(tmp_path / "twice")) <= 0.7 * weights(small)


def refused(capsys, source, out, *options):
    assert run_verb("shrink", [str(source), "--out", str(out), *options]) == 1
    assert not out.exists()
    return capsys.readouterr().err


def test_refuses_a_net_without_sparsity(resnet, tmp_path, capsys):
    assert "give --sparsity 0.5" in refused(capsys, resnet, tmp_path / "out")


def test_refuses_sizes_of_transformers(resnet, tmp_path, capsys):
    assert "Expected a transformer for --neurons" in refused(
        capsys, resnet, tmp_path / "out", "--neurons", "8", "--sparsity", "0.5"
    )


def test_refuses_sparsity_for_a_transformer(tmp_path, capsys):
    tiny_bert(layers=1).save_pretrained(tmp_path / "bert")
    message = refused(capsys, tmp_path / "bert", tmp_path / "out", "--sparsity", "0.5")
    assert "Expected a convolution net for --sparsity" in message
    assert "prune it in training" in message


def test_refuses_a_transformer_for_images(tmp_path, capsys):
    tiny_model("vit", layers=1).save_pretrained(tmp_path / "vit")
    assert "Expected a convolution net" in refused(
        capsys, tmp_path / "vit", tmp_path / "out", "--sparsity", "0.5"
    )


def test_refuses_without_the_library(resnet, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_pruning", None)
    assert 'pip install "lit-compress[convnets]"' in refused(
        capsys, resnet, tmp_path / "out", "--sparsity", "0.5"
    )
