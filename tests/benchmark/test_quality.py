import numpy as np
import pytest
import torch

from lit_compress.benchmark.quality import Texts, evaluate
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


def predictor(seed=0, labels=3, regression=False):
    """Return what a tiny model in this process predicts."""
    model = tiny_bert(layers=2, labels=labels, seed=seed, regression=regression).eval()

    @torch.no_grad()
    def predict(batch):
        assert {array.dtype for array in batch.values()} == {np.dtype("int64")}
        return model(**{name: torch.from_numpy(array) for name, array in batch.items()}).logits.numpy()

    return predict


def logits_of(predict, batch, prefix=""):
    names = ("input_ids", "attention_mask", "token_type_ids")
    return predict({name: batch[prefix + name].numpy() for name in names})


def texts(data, task=None):
    return Texts(data, "validation", task or Classification())


def test_accuracy_is_the_share_of_correct_rows():
    data, predict = Data(), predictor()
    predicted = [logits_of(predict, batch).argmax(1) for batch in data.batches]
    # Seven of the eight rows are labelled with what the model says.
    data.batches[0]["labels"] = torch.tensor(predicted[0])
    data.batches[1]["labels"] = torch.tensor(predicted[1]) + torch.tensor([0, 1, 0, 0])
    data.batches[1]["labels"] %= 3
    quality = evaluate(predict, texts(data))
    assert quality["value"] == pytest.approx(7 / 8)
    assert quality["n"] == 8 and quality["metric"] == "accuracy" and quality["split"] == "validation"
    assert quality["higher_is_better"] is True


def test_regression_reports_its_correlation():
    data = Data(labels=1, regression=True)
    predict = predictor(labels=1, regression=True)
    scores = np.concatenate([logits_of(predict, batch)[:, 0] for batch in data.batches])
    targets = np.concatenate([b["labels"].numpy() for b in data.batches])
    quality = evaluate(predict, texts(data, Regression("pearson")))
    assert quality["value"] == pytest.approx(np.corrcoef(scores, targets)[0, 1], abs=1e-5)


def test_a_correlation_with_scores_that_are_all_alike_is_no_quality():
    data = Data(labels=1, regression=True)

    def constant(batch):
        return np.ones((len(batch["input_ids"]), 1), dtype=np.float32)

    with pytest.raises(ValueError, match="the pearson of 8 validation rows to be a number but it is nan"):
        evaluate(constant, texts(data, Regression("pearson")))


def test_teacher_reads_its_own_tokens():
    data, predict = Data(teacher_seed=5), predictor()
    for batch in data.batches:
        batch["labels"] = torch.tensor(logits_of(predict, batch, "teacher_").argmax(1))
    assert evaluate(predict, texts(data), side="teacher")["value"] == 1
    assert evaluate(predict, texts(data), side="student")["value"] < 1


def test_one_process_of_many_evaluates_alone(monkeypatch):
    # A metric that asked the other processes would wait for them, or fail here where there are none.
    monkeypatch.setattr("torchmetrics.metric.jit_distributed_available", lambda: True)
    assert evaluate(predictor(), texts(Data()))["n"] == 8


def test_refuses_a_model_of_another_task():
    with pytest.raises(
        ValueError, match="Expected a model with 2 outputs, as the data has labels, but it has 3"
    ):
        evaluate(predictor(), texts(Data(labels=2)))
