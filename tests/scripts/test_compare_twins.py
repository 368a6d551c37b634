"""The page of rounded models and their files for other runtimes."""

import json

import numpy as np
import pytest
import torch

import lit_compress
from lit_compress.benchmark.workload import token_batch
from lit_compress.callbacks.student import deployable
from lit_compress.models.checkpoint import save_folder
from lit_compress.quantization.inputs import input_quantizers_of
from tests.quantization.test_fake_model import trained
from tests.tiny import tiny_bert


@pytest.fixture
def twins():
    import compare_twins

    return compare_twins


@pytest.fixture
def folder(tmp_path):
    return save_folder(tmp_path / "model", deployable(trained(tiny_bert(layers=2), {})), None, {})


def test_differences_are_those_of_all_texts(twins):
    logits = np.array([[1.0, 0.0], [0.0, 2.0], [0.5, 0.25], [3.0, 1.0]], np.float32)
    # One of four labels is another; the errors are 0.5 and 0.25, and six times 0.
    other = logits + np.array([[0, 0], [0, 0], [0, 0.5], [0.25, 0]], np.float32)
    found = twins.differences(twins.Run(0.73, other), twins.Run(0.75, logits))
    assert found == {
        "texts": 4,
        "points": pytest.approx(-2),
        "other_label": 1,
        "largest": 0.5,
        "mean": 0.75 / 8,
    }
    record = {"model": "m", "runtime": "onnx-int8", "bytes": 1_000_000, **found}
    assert twins.line(record) == "| m | onnx-int8 | 1.0 | -2.00 | 1 of 4 | 75.00 % | 0.5 | 0.0938 |"
    assert twins.line({"model": "m", "runtime": "litert-int8"}) == f"| m | litert-int8 |{' — |' * 6}"


@pytest.mark.parametrize("name", ["FLOAT64", "NUDGED"])
def test_controls_are_the_folder_but_for_rounding_errors(twins, folder, name):
    inputs = token_batch((17, 2, 9, 30), 100, 0, 9)
    model = lit_compress.load(folder)
    seen: list[torch.Tensor] = []
    control = twins.control(folder, getattr(twins, name))
    quantizer = next(found for _, found in input_quantizers_of(control.forward))
    quantizer.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    got = control.logits(control.run(control.inputs(inputs)))
    with torch.no_grad():
        wanted = model(**{key: torch.from_numpy(value) for key, value in inputs.items()}).logits
        exact = model.bert.embeddings(torch.from_numpy(inputs["input_ids"]))
    moved = ((seen[0] - exact) / exact).abs().max()
    assert got.dtype == np.float32 and np.abs(got - wanted.numpy()).max() < 0.05
    # Not the folder itself: numbers are of twice the digits, or are the neighbours of what they were.
    assert seen[0].dtype == (torch.float64 if name == "FLOAT64" else torch.float32)
    assert 0 < moved < (1e-3 if name == "FLOAT64" else 3e-7)


def test_the_page_says_how_far_files_and_controls_are(twins):
    def record(name, points):
        return {
            **{
                "model": "m",
                "runtime": name,
                "bytes": 10**6,
                "points": points,
                "texts": 400,
                "other_label": 1,
            },
            **{
                "largest": 0.5,
                "mean": 0.1,
                "metric": "accuracy",
                "data": "test abc",
                "libraries": {"torch": "2"},
            },
        }

    blocks = twins.page([record("onnx-int8", -0.25), record(twins.NUDGED, 0.125)])
    assert blocks[-1] == (
        "Files differ by up to 0.25 points from the folder that they were made from; torch itself, with other "
        "rounding errors, by up to 0.12."
    )
    assert "accuracy on test abc" in blocks[2] and "torch 2" in blocks[2]
    assert blocks[3].count("\n") == 3
    # The rows of a model that is not given stay, and count in the sentence.
    earlier = "\n\n".join(blocks).replace("| m |", "| other |").replace("-0.25", "+0.75")
    again = twins.page([record("onnx-int8", -0.25), record(twins.NUDGED, 0.125)], earlier)
    others = [line for line in earlier.splitlines() if line.startswith("| other |")]
    assert len(others) == 2 and set(again[3].splitlines()) == {*blocks[3].splitlines(), *others}
    assert "up to 0.75 points" in again[-1]


def test_what_is_recorded_is_not_computed_again(twins, tmp_path):
    class Known:
        computed = 0

        def facts(self, name):
            return {"model": "m", "runtime": name, "weights": "aaaa"}

        def row(self, name):
            self.computed += 1
            return {**self.facts(name), "points": 0.5}

    known, records = Known(), tmp_path / "twins.jsonl"
    first = twins._row(known, "onnx-int8", records)
    assert twins._row(known, "onnx-int8", records) == first and known.computed == 1
    records.write_text(json.dumps({**first, "weights": "bbbb"}) + "\n")
    assert twins._row(known, "onnx-int8", records) == first and known.computed == 2


def test_refuses_a_folder_without_data(twins, folder):
    with pytest.raises(ValueError, match="Expected labelled texts but nothing names data; give a YAML file"):
        twins.texts_of(str(folder), None, ["validation"])
