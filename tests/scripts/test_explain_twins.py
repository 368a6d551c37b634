"""Where a file first rounds otherwise: only values next to a border may."""

import numpy as np
import pytest
import torch

from lit_compress.benchmark.workload import token_batch
from lit_compress.callbacks.student import deployable
from lit_compress.quantization.inputs import input_quantizers_of
from tests.quantization.test_fake_model import trained
from tests.tiny import tiny_bert

pytest.importorskip("onnxruntime")

from lit_compress.export.onnx_trained import export_trained


@pytest.fixture
def twins():
    import explain_twins

    return explain_twins


def test_only_the_first_activation_that_differs_counts(twins):
    first, second, third = (0.1, 3), (0.2, 5), (0.3, 7)
    ratios = {first: np.array([1.2, 0.4]), second: np.array([2.4999, 3.2, -1.25]), third: np.array([0.0])}
    mine = {first: np.array([1, 0]), second: np.array([2, 3, -1]), third: np.array([0])}
    found = twins.Borders()
    found.add(ratios, mine, mine)
    assert (found.texts, found.differing, found.distances, found.largest) == (1, 0, [], 0)
    found.add(ratios, mine, {**mine, second: np.array([3, 3, -3]), third: np.array([9])})
    assert (found.texts, found.differing, found.largest) == (2, 1, 2)
    assert found.distances == pytest.approx([0.0001, 0.25])
    assert twins.line("m", "onnx-int8", found) == "| m | onnx-int8 | 1 of 2 | 2 | 2 | 0.13 | 0.25 |"


@pytest.mark.parametrize("moved", [False, True])
def test_a_file_with_another_scale_is_found_out(twins, moved, tmp_path):
    model = deployable(trained(tiny_bert(layers=2), {}))
    mine = twins.rounded_inputs(model)
    export_trained(model, tmp_path / "model.onnx")
    file = twins.integers_of_onnx(tmp_path / "model.onnx")
    if moved:  # the file is of a model whose first normalization is another
        with torch.no_grad():
            model.bert.embeddings.LayerNorm.weight.mul_(1.05)
    found = twins.Borders()
    for seed in range(4):
        batch = token_batch((12,), 100, 0, seed)
        ratios, integers = mine(batch)
        theirs = file(batch)
        # Queries, keys and values read the same; two blocks, pooler and head.
        assert integers.keys() == theirs.keys() and len(integers) == 2 * 4 + 2
        found.add(ratios, integers, theirs)
    assert len(list(input_quantizers_of(model))) == 14
    if moved:
        assert found.differing == 4 and np.median(found.distances) > 0.01
    else:
        assert max(found.distances, default=0.0) < 1e-3
