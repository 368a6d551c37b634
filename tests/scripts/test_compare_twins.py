"""The table of a rounded model and its files for other runtimes."""

import numpy as np
import pytest

from lit_compress.callbacks.student import deployable
from lit_compress.models.checkpoint import save_folder
from tests.quantization.test_fake_model import trained
from tests.tiny import tiny_bert


@pytest.fixture
def twins():
    import compare_twins

    return compare_twins


def test_a_row_says_how_far_the_logits_are_apart(twins):
    logits = np.array([[1.0, 0.0], [0.0, 2.0], [0.5, 0.25], [3.0, 1.0]], np.float32)
    original = twins.Run("torch-fp32", 4_000_000, 0.75, logits, 0.4)
    # One of four labels is another; errors 0, 0, 0.5, 0.25, 0, 0, 0, 0: mean square (0.25 + 0.0625) / 8.
    other = logits + np.array([[0, 0], [0, 0], [0, 0.5], [0.25, 0]], np.float32)
    found = twins.row(twins.Run("onnx-int8", 1_000_000, 0.73, other, 0.1), original)
    assert found == "| onnx-int8 | 1.0 | 0.7300 | -2.00 | 75.00 % | 0.5 | 0.198 | 25.00 |"
    assert twins.row(original, original).startswith(
        "| torch-fp32 | 4.0 | 0.7500 | +0.00 | 100.00 % | 0 | 0 |"
    )


def test_refuses_a_folder_without_data(twins, tmp_path):
    folder = save_folder(tmp_path / "model", deployable(trained(tiny_bert(layers=1), {})), None, {})
    with pytest.raises(ValueError, match="Expected labelled texts but nothing names data; give a YAML file"):
        twins.compare(str(folder), ["onnx-int8"], None, "validation", 1)
