"""Models whose blocks differ in size, exported and run: nothing may assume one number of heads or neurons."""

import numpy as np
import pytest
import torch

from lit_compress.benchmark.facts import model_facts
from lit_compress.benchmark.runtimes import runtime
from lit_compress.benchmark.workload import token_batch
from lit_compress.models.checkpoint import save_folder
from lit_compress.pruning.groups import find_groups
from lit_compress.pruning.shape import cut_further
from lit_compress.pruning.shrink import shrink
from lit_compress.pruning.uniform import UniformShape
from tests.tiny import tiny_bert, tiny_model

FAMILIES = ("bert", "roberta", "distilbert", "electra")
# Those have tests of their own: a compilation takes half a minute.
TOLERANCE = {"torch-compile": 1e-4, "onnx-fp32": 1e-4}


def ragged(family="bert", headless=(1,)):
    """Block 0 with one head, block 1 without any, block 2 without neurons; five sixths of the hidden dimensions."""
    model = tiny_model(family, layers=4, hidden=24).eval()
    units = {"hidden": [n for n in range(24) if n % 6]}
    for group in find_groups(model, ["head", "neuron"]):
        count = {("head", 0): 1, ("neuron", 2): 0, ("head", 3): 3}.get(
            (group.structure, group.layer), group.units - 5
        )
        count = 0 if group.structure == "head" and group.layer in headless else max(count, 0)
        units[group.name] = list(range(count))
    cut_further(model, units)
    return model


def run(name, folder, target, model):
    """Return the error of a runtime, relative to the size of the logits, on texts of several lengths."""
    target.mkdir()
    way = runtime(name)
    way.check()
    way.imports(folder)
    way.build(folder, target)
    session = way.open(folder, target if any(target.iterdir()) else folder, "cpu", threads=1)
    errors, sizes = [], []
    for lengths in ((9,), (3, 21, 14)):
        batch = token_batch(lengths, model.config.vocab_size, model.config.pad_token_id, seed=len(lengths))
        with torch.no_grad():
            wanted = model(**{key: torch.from_numpy(value) for key, value in batch.items()}).logits.numpy()
        errors.append(np.abs(session.logits(session.run(session.inputs(batch))) - wanted).max())
        sizes.append(np.sqrt(np.square(wanted).mean()))
    return max(errors) / max(sizes)


@pytest.mark.slow
def test_the_compiler_takes_a_ragged_model(tmp_path):
    model = ragged()
    folder = save_folder(tmp_path / "model", model, None, {})
    assert run("torch-compile", folder, tmp_path / "compiled", model) <= TOLERANCE["torch-compile"]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_onnx_file_of_every_family_computes_the_same(family, tmp_path):
    model = ragged(family)
    folder = save_folder(tmp_path / "model", model, None, {})
    assert run("onnx-fp32", folder, tmp_path / "onnx", model) <= TOLERANCE["onnx-fp32"]


def test_blocks_without_heads_add_their_bias_without_repeating_it(tmp_path):
    onnx = pytest.importorskip("onnx")
    runtime("onnx-fp32").build(save_folder(tmp_path / "model", ragged(headless=(0, 1)), None, {}), tmp_path)
    kinds = [node.op_type for node in onnx.load(tmp_path / "model.onnx").graph.node]
    assert "Expand" not in kinds and kinds.count("Shape") == 1


def test_a_model_without_any_head_still_reads_its_padding_mask(tmp_path):
    model = ragged(headless=range(4))
    folder = save_folder(tmp_path / "model", model, None, {})
    assert run("onnx-fp32", folder, tmp_path / "onnx", model) <= TOLERANCE["onnx-fp32"]


def test_a_uniform_model_is_exported_like_any_other(tmp_path):
    model = shrink(tiny_bert(layers=3), UniformShape(layers=2, heads=2, neurons=24, hidden=16))
    folder = save_folder(tmp_path / "model", model, None, {})
    assert run("onnx-fp32", folder, tmp_path / "onnx", model) <= TOLERANCE["onnx-fp32"]


def test_facts_count_what_is_there():
    model, full = ragged(), tiny_model("bert", layers=4, hidden=24).eval()
    facts, before = model_facts(model), model_facts(full)
    assert facts["params"] == sum(p.numel() for p in model.parameters()) < before["params"]
    assert facts["shape"]["hidden"] == 20
    # Projections of the heads that are left, their scores and sums over 128 tokens, and the neurons that are left.
    heads, neurons = [1, 0, 0, 3], [43, 43, 0, 43]
    tokens = 128
    blocks = sum(4 * 20 * 6 * h + 2 * 20 * n for h, n in zip(heads, neurons, strict=True)) * tokens
    attention = 2 * sum(heads) * 6 * tokens * tokens
    head = 20 * 24 + 24 * 3
    assert facts["macs"] == {"length": tokens, "count": blocks + attention + head}
