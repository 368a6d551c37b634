import math

import pytest
import torch

from lit_compress.objectives import HardLabels, hard_labels
from lit_compress.outputs import Capture, Outputs


def test_integer_labels_give_cross_entropy():
    logits = torch.tensor([[0.0, math.log(3.0)], [0.0, 0.0]])
    # The true classes have probability 3/4 and 1/2.
    expected = -(math.log(0.75) + math.log(0.5)) / 2
    assert hard_labels(logits, torch.tensor([1, 0])).item() == pytest.approx(expected, rel=1e-6)


def test_float_labels_give_mean_squared_error():
    labels = torch.tensor([1.0, 5.0, 2.5])
    for shape in ((3, 1), (3,)):
        logits = torch.tensor([2.0, 3.0, 2.5]).reshape(shape)
        assert hard_labels(logits, labels).item() == pytest.approx(5 / 3, rel=1e-6)


def test_needs_no_teacher():
    objective = HardLabels(weight=0.5)
    assert not objective.needs_teacher and objective.teacher_capture == Capture()
    loss = objective(Outputs(logits=torch.zeros(2, 4)), Outputs(), {"labels": torch.tensor([3, 0])})
    assert loss.item() == pytest.approx(math.log(4), rel=1e-6)


def test_refuses_a_batch_without_labels():
    with pytest.raises(
        ValueError, match=r"'labels' in the batch for HardLabels but got the keys \['input_ids'\]"
    ):
        HardLabels()(Outputs(logits=torch.zeros(2, 4)), Outputs(), {"input_ids": torch.zeros(2, 3)})


def test_refuses_labels_that_do_not_belong_to_the_head():
    with pytest.raises(ValueError, match=r"one logit per row for float labels .* num_labels=1"):
        hard_labels(torch.zeros(2, 3), torch.tensor([0.5, 1.0]))
    with pytest.raises(ValueError, match=r"at least 2 logits per row for integer labels but got 1"):
        hard_labels(torch.zeros(2, 1), torch.tensor([0, 1]))


def test_refuses_a_negative_weight():
    with pytest.raises(ValueError, match=r"weight >= 0 but got -1.0 for HardLabels"):
        HardLabels(weight=-1.0)
