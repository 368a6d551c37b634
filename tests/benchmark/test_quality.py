import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification

from lit_compress.benchmark.quality import evaluate
from lit_compress.modules.tasks import Classification, Regression
from tests.tiny import tiny_batch, tiny_bert


class Data:
    """Two batches of labelled rows; the teacher may see other tokens."""

    def __init__(self, labels=3, regression=False, teacher_seed=None):
        self.num_labels = labels
        self.batches = [
            tiny_batch((9, 7, 6, 3), labels=labels, seed=seed, regression=regression) for seed in (1, 2)
        ]
        if teacher_seed is not None:
            for batch in self.batches:
                other = tiny_batch((4, 8, 2, 5), seed=teacher_seed)
                for name in ("input_ids", "attention_mask", "token_type_ids"):
                    batch[f"teacher_{name}"] = other[name]

    def sequential_dataloader(self, split, batch_size):
        assert split == "validation" and batch_size > 0
        return self.batches


@pytest.fixture
def folder(tmp_path):
    tiny_bert(layers=2, dropout=0.5).save_pretrained(tmp_path / "model")
    return str(tmp_path / "model")


def reference_logits(folder, batch, prefix=""):
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    names = ("input_ids", "attention_mask", "token_type_ids")
    with torch.no_grad():
        return model(**{name: batch[prefix + name] for name in names}).logits.numpy()


def test_accuracy_is_the_share_of_correct_rows_of_the_saved_weights(folder):
    data = Data()
    predicted = [reference_logits(folder, batch).argmax(1) for batch in data.batches]
    # Seven of the eight rows are labelled with what the model says.
    data.batches[0]["labels"] = torch.tensor(predicted[0])
    data.batches[1]["labels"] = torch.tensor(predicted[1]) + torch.tensor([0, 1, 0, 0])
    data.batches[1]["labels"] %= 3
    quality = evaluate(folder, data, "validation", Classification())
    assert quality["value"] == pytest.approx(7 / 8)
    assert quality["n"] == 8 and quality["metric"] == "accuracy" and quality["split"] == "validation"
    assert quality["higher_is_better"] is True


def test_regression_reports_its_correlation(tmp_path):
    tiny_bert(layers=2, regression=True).save_pretrained(tmp_path / "model")
    data = Data(labels=1, regression=True)
    scores = np.concatenate([reference_logits(str(tmp_path / "model"), b)[:, 0] for b in data.batches])
    targets = np.concatenate([b["labels"].numpy() for b in data.batches])
    quality = evaluate(str(tmp_path / "model"), data, "validation", Regression("pearson"))
    assert quality["value"] == pytest.approx(np.corrcoef(scores, targets)[0, 1], abs=1e-5)


def test_teacher_reads_its_own_tokens(folder):
    data = Data(teacher_seed=5)
    for batch in data.batches:
        batch["labels"] = torch.tensor(reference_logits(folder, batch, "teacher_").argmax(1))
    assert evaluate(folder, data, "validation", Classification(), side="teacher")["value"] == 1
    assert evaluate(folder, data, "validation", Classification(), side="student")["value"] < 1


def test_half_precision_weights_are_evaluated_in_float32(tmp_path):
    tiny_bert(layers=2).half().save_pretrained(tmp_path / "half")
    assert 0 <= evaluate(str(tmp_path / "half"), Data(), "validation", Classification())["value"] <= 1


def test_one_process_of_many_evaluates_alone(folder, monkeypatch):
    # A metric that asked the other processes would wait for them, or fail here where there are none.
    monkeypatch.setattr("torchmetrics.metric.jit_distributed_available", lambda: True)
    assert evaluate(folder, Data(), "validation", Classification())["n"] == 8


def test_refuses_a_model_of_another_task(folder):
    with pytest.raises(
        ValueError, match=r"Expected a model with 2 outputs, as the data has labels, but .* has 3"
    ):
        evaluate(folder, Data(labels=2), "validation", Classification())
