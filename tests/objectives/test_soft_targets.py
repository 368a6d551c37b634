import math

import numpy as np
import pytest
import torch

from lit_compress.objectives import Linear, LogitMSE, Progress, SoftTargets, logit_mse, soft_targets
from lit_compress.outputs import Outputs
from tests.objectives.truth import architecture, log_softmax, numpy

STUDENT = torch.tensor([[1.0, 0.0, -1.0], [0.5, 0.5, 2.0]])
TEACHER = torch.tensor([[2.0, -1.0, 0.0], [0.0, 1.0, 1.0]])
#: KL at T=2, summed over both rows and all three classes, worked out once with NumPy.
KL_SUM_AT_2 = 0.12867410


def terms(temperature: float) -> tuple[float, float]:
    """Sum over rows and classes of the KL and of the soft cross-entropy, from exp and log alone."""
    kl = cross_entropy = 0.0
    for z_s, z_t in zip(STUDENT.tolist(), TEACHER.tolist(), strict=True):
        e_s, e_t = ([math.exp(z / temperature) for z in row] for row in (z_s, z_t))
        for a, b in zip(e_t, e_s, strict=True):
            p, q = a / sum(e_t), b / sum(e_s)
            kl += p * math.log(p / q)
            cross_entropy -= p * math.log(q)
    return kl, cross_entropy


def test_the_hand_value_is_the_definition():
    assert terms(2.0)[0] == pytest.approx(KL_SUM_AT_2, abs=1e-6)


@pytest.mark.parametrize(
    ("preset", "temperature", "expected"),
    [
        ("paper", 2.0, terms(2.0)[1] / 2 * 4),
        ("reference", 2.0, KL_SUM_AT_2 / 2 * 4),
        ("pkd", 2.0, KL_SUM_AT_2 / (2 * 3) * 4),
        ("tinybert", None, terms(1.0)[1] / (2 * 3)),
        (None, None, KL_SUM_AT_2 / 2 * 4),
        (None, 5.0, terms(5.0)[0] / 2 * 25),
    ],
)
def test_presets_give_the_hand_values(preset, temperature, expected):
    objective = SoftTargets(preset=preset, temperature=temperature)
    loss = objective(Outputs(logits=STUDENT), Outputs(logits=TEACHER), {})
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_batchmean_is_the_number_of_classes_times_mean():
    ratio = soft_targets(STUDENT, TEACHER) / soft_targets(STUDENT, TEACHER, reduction="mean")
    assert ratio.item() == pytest.approx(3.0, rel=1e-6)


def test_t_squared_can_be_left_out():
    loss = soft_targets(STUDENT, TEACHER, temperature=2.0, t_squared=False)
    assert loss.item() == pytest.approx(KL_SUM_AT_2 / 2, rel=1e-5)


def test_both_kinds_have_the_closed_form_gradient():
    # d/dz_S of T² · KL / rows is T (p_S − p_T) / rows.
    expected = 2.0 * (np.exp(log_softmax(numpy(STUDENT) / 2)) - np.exp(log_softmax(numpy(TEACHER) / 2))) / 2
    for kind in ("kl", "cross_entropy"):
        student = STUDENT.clone().requires_grad_()
        soft_targets(student, TEACHER, temperature=2.0, kind=kind).backward()
        np.testing.assert_allclose(student.grad.numpy(), expected, atol=1e-6)


def test_stays_finite_where_a_probability_underflows():
    far = torch.tensor([[200.0, -200.0]], requires_grad=True)
    loss = soft_targets(far, torch.tensor([[-200.0, 200.0]]), temperature=1.0)
    loss.backward()
    assert loss.item() == pytest.approx(400.0) and far.grad.isfinite().all()


def test_temperature_follows_its_schedule():
    objective = SoftTargets(temperature=Linear(start=4.0, end=1.0), t_squared=False)
    outputs = Outputs(logits=STUDENT), Outputs(logits=TEACHER)
    assert objective(*outputs, {}).item() == pytest.approx(terms(4.0)[0] / 2, rel=1e-5)
    objective.advance(Progress(step=50, total_steps=100, epoch=0.5))
    assert objective(*outputs, {}).item() == pytest.approx(terms(2.5)[0] / 2, rel=1e-5)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, 4.5 / 6),
        ({"reduction": "batchmean"}, 4.5 / 2),
        ({"preset": "paper"}, 4.5 / 2),
        ({"preset": "reference"}, 4.5 / 6),
    ],
)
def test_logit_mse_by_hand(options, expected):
    # Squared differences: 1 + 1 + 1 in the first row, 0.25 + 0.25 + 1 in the second.
    loss = LogitMSE(**options)(Outputs(logits=STUDENT), Outputs(logits=TEACHER), {})
    assert loss.item() == pytest.approx(expected, rel=1e-6)


def test_refuses_one_logit():
    with pytest.raises(ValueError, match=r"use LogitMSE for regression"):
        SoftTargets().bind(architecture(labels=1), architecture(labels=1))


def test_refuses_other_labels_than_the_teacher():
    for objective in (SoftTargets(), LogitMSE()):
        with pytest.raises(ValueError, match=r"teacher's 3 .* got 2; fine-tune the teacher on the same task"):
            objective.bind(architecture(labels=2), architecture(labels=3))
    for function in (soft_targets, logit_mse):
        with pytest.raises(ValueError, match=r"same shape but got \(2, 2\) from the student"):
            function(STUDENT[:, :2], TEACHER)


def test_refuses_a_preset_with_a_contradicting_option():
    with pytest.raises(
        ValueError, match=r"reduction='mean' with preset='pkd' .* got reduction='batchmean'; drop"
    ):
        SoftTargets(preset="pkd", reduction="batchmean")
    with pytest.raises(ValueError, match=r"temperature=1.0 with preset='tinybert'"):
        SoftTargets(preset="tinybert", temperature=2.0)
    assert SoftTargets(preset="pkd", reduction="mean").reduction == "mean"


def test_refuses_unknown_options():
    with pytest.raises(ValueError, match=r"paper, reference, pkd, tinybert but got 'hinton'"):
        SoftTargets(preset="hinton")
    with pytest.raises(ValueError, match=r"kind to be one of kl, cross_entropy but got 'js'"):
        SoftTargets(kind="js")
    with pytest.raises(ValueError, match=r"reduction to be one of batchmean, mean but got 'sum'"):
        SoftTargets(reduction="sum")
    with pytest.raises(ValueError, match=r"reduction to be one of batchmean, mean but got 'sum'"):
        LogitMSE(reduction="sum")


def test_refuses_a_temperature_that_is_or_becomes_zero():
    with pytest.raises(ValueError, match=r"temperature > 0 but got 0"):
        SoftTargets(temperature=0.0)
    objective = SoftTargets(temperature=Linear(start=2.0, end=0.0))
    objective.advance(Progress(step=10, total_steps=10, epoch=1.0))
    with pytest.raises(ValueError, match=r"temperature > 0 but got 0"):
        objective(Outputs(logits=STUDENT), Outputs(logits=TEACHER), {})


def test_refuses_a_model_without_logits():
    with pytest.raises(ValueError, match=r"logits from the teacher but got none"):
        SoftTargets()(Outputs(logits=STUDENT), Outputs(), {})
