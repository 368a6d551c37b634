import numpy as np
import pytest
import torch
from scipy import stats
from sklearn import metrics as truth

from lit_compress.modules import Classification, Regression


def _batches(rng, classes):
    logits = torch.tensor(rng.normal(size=(40, classes)), dtype=torch.float32)
    labels = torch.tensor(rng.integers(0, classes, 40))
    return logits, labels


@pytest.mark.parametrize("classes", [2, 5])
def test_classification_metrics_equal_scikit_learn(classes):
    logits, labels = _batches(np.random.default_rng(0), classes)
    metrics = Classification().metrics(classes)
    for part in range(0, 40, 7):  # uneven batches
        metrics.update(logits[part : part + 7], labels[part : part + 7])
    got = metrics.compute()
    prediction, label = logits.argmax(-1).numpy(), labels.numpy()
    average = "binary" if classes == 2 else "macro"
    assert got["accuracy"].item() == pytest.approx(truth.accuracy_score(label, prediction), abs=1e-6)
    assert got["f1"].item() == pytest.approx(truth.f1_score(label, prediction, average=average), abs=1e-6)
    assert got["mcc"].item() == pytest.approx(truth.matthews_corrcoef(label, prediction), abs=1e-6)


def test_regression_metrics_equal_scipy():
    rng = np.random.default_rng(1)
    scores = torch.tensor(rng.normal(size=(50, 1)), dtype=torch.float32)
    labels = torch.tensor(rng.normal(size=50), dtype=torch.float32)
    metrics = Regression().metrics(1)
    metrics.update(scores[:20], labels[:20])
    metrics.update(scores[20:], labels[20:])
    got, x, y = metrics.compute(), scores[:, 0].numpy(), labels.numpy()
    assert got["pearson"].item() == pytest.approx(stats.pearsonr(x, y)[0], abs=1e-5)
    assert got["spearman"].item() == pytest.approx(stats.spearmanr(x, y)[0], abs=1e-5)
    assert got["mse"].item() == pytest.approx(((x - y) ** 2).mean(), abs=1e-5)


def test_refuses_unknown_monitor():
    with pytest.raises(ValueError, match="one of accuracy, f1, mcc but got 'acc'"):
        Classification(monitor="acc")


def test_refuses_one_class():
    with pytest.raises(ValueError, match="at least 2 classes.*Regression"):
        Classification().metrics(1)


def test_refuses_regression_with_classes():
    with pytest.raises(ValueError, match="num_labels=1.*Classification"):
        Regression().metrics(3)
