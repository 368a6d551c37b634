"""TinyBERT's hidden states and embeddings, PKD and the cosine term against NumPy."""

import numpy as np
import pytest
import torch

from lit_compress.objectives import (
    PKD,
    CosineEmbedding,
    TinyBERTEmbedding,
    TinyBERTHidden,
    cosine_embedding,
    hidden_mse,
    patient_distance,
)
from lit_compress.outputs import Capture, Outputs
from tests.objectives.truth import architecture, average, numpy, random_mask

MASK = random_mask()
LENGTHS = MASK.sum(1).tolist()


def states(seed: int, width: int = 8, count: int = 5, length: int = 6) -> dict[int, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {index: torch.randn(3, length, width, generator=generator) for index in range(count)}


def rows(distance, student: torch.Tensor, teacher: torch.Tensor) -> list[list[float]]:
    """Apply a distance of two vectors to every real token."""
    s, t = numpy(student), numpy(teacher)
    return [[distance(s[i, j], t[i, j]) for j in range(length)] for i, length in enumerate(LENGTHS)]


def mse(a, b):
    return np.mean((a - b) ** 2)


def unit(vector):
    return vector / np.sqrt((vector**2).sum())


@pytest.mark.parametrize("reduction", ["example", "token"])
def test_hidden_mse_is_the_mean_over_real_tokens(reduction):
    s, t = states(0)[0], states(1)[0]
    expected = average(rows(mse, s, t), reduction)
    assert hidden_mse(s, t, MASK, reduction).item() == pytest.approx(expected, rel=1e-6)


def test_hidden_mse_padded_counts_every_position():
    s, t = states(0)[0], states(1)[0]
    assert hidden_mse(s, t, MASK, "padded").item() == pytest.approx(mse(numpy(s), numpy(t)), rel=1e-6)


def test_projection_is_applied_to_the_student():
    s, t = states(0, width=4)[0], states(1)[0]
    linear = torch.nn.Linear(4, 8)
    projected = numpy(s) @ numpy(linear.weight).T + numpy(linear.bias)
    expected = average(rows(mse, torch.from_numpy(projected), t), "example")
    assert hidden_mse(s, t, MASK, projection=linear).item() == pytest.approx(expected, rel=1e-5)


def bound(objective, student_width=8, teacher_width=8, layers=(2, 4)):
    objective.bind(architecture(layers[0], student_width, 2), architecture(layers[1], teacher_width, 2))
    return objective


def test_tinybert_hidden_sums_over_the_mapped_layers():
    s, t = states(0), states(1)
    objective = bound(TinyBERTHidden())
    assert objective.pairs == [(1, 2), (2, 4)]
    loss = objective(Outputs(hidden_states=s, mask=MASK), Outputs(hidden_states=t), {})
    # Equal widths: the projection starts as the identity.
    expected = sum(average(rows(mse, s[i], t[j]), "example") for i, j in ((1, 2), (2, 4)))
    assert loss.item() == pytest.approx(expected, rel=1e-6)


def test_tinybert_reference_preset_is_the_published_code():
    s, t = states(0, width=4), states(1)
    objective = bound(TinyBERTHidden(preset="reference"), student_width=4)
    assert objective.pairs == [(0, 0), (1, 2), (2, 4)] and len(objective.projections) == 1
    w, b = numpy(objective.projections[0].weight), numpy(objective.projections[0].bias)
    expected = sum(mse(numpy(s[i]) @ w.T + b, numpy(t[j])) for i, j in ((0, 0), (1, 2), (2, 4)))
    loss = objective(Outputs(hidden_states=s, mask=MASK), Outputs(hidden_states=t), {})
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_tinybert_paper_presets_average_over_all_tokens():
    s, t = states(0), states(1)
    student, teacher = Outputs(hidden_states=s, mask=MASK), Outputs(hidden_states=t)
    hidden, embedding = bound(TinyBERTHidden(preset="paper")), bound(TinyBERTEmbedding(preset="paper"))
    expected = sum(average(rows(mse, s[i], t[j]), "token") for i, j in ((1, 2), (2, 4)))
    assert hidden(student, teacher, {}).item() == pytest.approx(expected, rel=1e-6)
    assert embedding(student, teacher, {}).item() == pytest.approx(
        average(rows(mse, s[0], t[0]), "token"), rel=1e-6
    )


def test_separate_projections_each_see_their_own_layer():
    objective = bound(TinyBERTHidden(projection="separate"), student_width=4)
    assert len(objective.projections) == 2
    outputs = Outputs(hidden_states=states(0, width=4), mask=MASK), Outputs(hidden_states=states(1))
    before = objective(*outputs, {}).item()
    torch.nn.init.zeros_(objective.projections[1].weight)
    after = objective(*outputs, {}).item()
    zeros = torch.zeros(3, 6, 8)
    old = rows(mse, objective.projections[0](states(0, width=4)[2]), states(1)[4])
    difference = average(rows(mse, zeros, states(1)[4]), "example") - average(old, "example")
    # Both projections start alike, so the second layer's old distance can be read off the first one.
    assert after - before == pytest.approx(difference, rel=1e-4)


def test_projection_start_leaves_the_random_state_alone_and_is_kept_by_a_second_bind():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    first, second = bound(TinyBERTHidden(), student_width=4), bound(TinyBERTHidden(), student_width=4)
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(first.projections[0].weight, second.projections[0].weight)
    torch.nn.init.constant_(first.projections[0].weight, 0.5)
    assert (bound(first, student_width=4).projections[0].weight == 0.5).all()
    assert bound(first, student_width=2).projections[0].weight.shape == (8, 2)


def test_projections_are_trained():
    objective = bound(TinyBERTHidden(), student_width=4)
    student = Outputs(hidden_states=states(0, width=4), mask=MASK)
    objective(student, Outputs(hidden_states=states(1)), {}).backward()
    assert objective.projections[0].weight.grad.abs().sum() > 0


@pytest.mark.parametrize("preset", ["paper", "reference", None])
def test_pkd_presets(preset):
    s, t = states(0), states(1)
    objective = bound(PKD(preset=preset), layers=(3, 3))
    assert objective.pairs == [(1, 1), (2, 2)] and not objective.aligned_tokens
    loss = objective(Outputs(hidden_states=s, mask=MASK), Outputs(hidden_states=t), {})
    pairs = [(numpy(s[i])[:, 0], numpy(t[i])[:, 0]) for i in (1, 2)]
    if preset == "reference":  # one mse_loss over the stack (batch, layers, features), not normalised
        expected = np.mean([(a - b) ** 2 for a, b in pairs])
    else:
        squares = [[((unit(x) - unit(y)) ** 2).sum() for x, y in zip(a, b, strict=True)] for a, b in pairs]
        expected = np.sum(np.mean(squares, axis=1)) if preset == "paper" else np.mean(squares) / 8
    assert loss.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("reduction", ["example", "token"])
def test_pkd_over_all_tokens(reduction):
    s, t = states(0)[0], states(1)[0]
    expected = average(rows(lambda a, b: ((unit(a) - unit(b)) ** 2).sum(), s, t), reduction)
    loss = patient_distance(s, t, MASK, distance="sum", tokens="all", reduction=reduction)
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert PKD(tokens="all").aligned_tokens


def test_normalised_pkd_does_not_see_the_teachers_scale():
    s, t = states(0)[0], states(1)[0]
    assert patient_distance(s, 7 * t).item() == pytest.approx(patient_distance(s, t).item(), rel=1e-6)
    assert patient_distance(s, 7 * t, normalize=False) > 10 * patient_distance(s, t, normalize=False)


def test_pkd_on_cls_takes_other_lengths():
    s, t = states(0)[0], states(1, length=9)[0]
    expected = patient_distance(s[:, :1], t[:, :1]).item()
    assert patient_distance(s, t, MASK).item() == expected


@pytest.mark.parametrize("reduction", ["example", "token"])
def test_cosine_embedding(reduction):
    s, t = states(0)[0], states(1)[0]
    expected = average(rows(lambda a, b: 1 - unit(a) @ unit(b), s, t), reduction)
    assert cosine_embedding(s, t, MASK, reduction).item() == pytest.approx(expected, rel=1e-6)


def test_cosine_embedding_takes_the_last_states():
    objective = bound(CosineEmbedding())
    assert objective.student_capture == Capture(hidden_states=frozenset({2}))
    assert objective.teacher_capture == Capture(hidden_states=frozenset({4}))
    s, t = states(0), states(1)
    loss = objective(Outputs(hidden_states=s, mask=MASK), Outputs(hidden_states=t), {})
    assert loss.item() == pytest.approx(cosine_embedding(s[2], t[4], MASK).item(), rel=1e-6)


def test_an_explicit_map_without_projection_needs_no_bind():
    s, t = states(0), states(1)
    student, teacher = Outputs(hidden_states=s, mask=MASK), Outputs(hidden_states=t)
    hidden = TinyBERTHidden(layer_map=[[0, 3]], projection="none", embeddings=True)
    assert hidden.student_capture == Capture(hidden_states=frozenset({0, 1}))
    assert hidden.teacher_capture == Capture(hidden_states=frozenset({0, 4}))
    expected = sum(average(rows(mse, s[i], t[j]), "example") for i, j in ((0, 0), (1, 4)))
    assert hidden(student, teacher, {}).item() == pytest.approx(expected, rel=1e-6)
    pkd = PKD(layer_map=[[1, 3]], normalize=False)
    expected = mse(numpy(s[2])[:, 0], numpy(t[4])[:, 0])
    assert pkd(student, teacher, {}).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("objective", [TinyBERTHidden, TinyBERTEmbedding, PKD, CosineEmbedding])
def test_refuses_a_forward_before_bind(objective):
    outputs = Outputs(hidden_states=states(0), mask=MASK)
    with pytest.raises(ValueError, match=f"{objective.__name__} to know both models .* call bind"):
        objective()(outputs, outputs, {})


@pytest.mark.parametrize(
    "objective",
    [TinyBERTHidden(projection="none"), TinyBERTEmbedding(projection="none"), PKD(), CosineEmbedding()],
)
def test_refuses_unequal_widths_without_projection(objective):
    with pytest.raises(
        ValueError, match=r"equal hidden sizes .* got 4 in the student and 8 .*projection: shared"
    ):
        bound(objective, student_width=4)


def test_refuses_unequal_widths_in_the_functions():
    s, t = states(0, width=4)[0], states(1)[0]
    for function in (hidden_mse, patient_distance, cosine_embedding):
        with pytest.raises(ValueError, match="equal width but got 4 and 8; use"):
            function(s, t)


def test_refuses_other_tokens():
    s, t = states(0)[0], states(1, length=7)[0]
    for function in (hidden_mse, cosine_embedding):
        with pytest.raises(ValueError, match=r"\(3, 6\) from the student and \(3, 7\) from the teacher"):
            function(s, t)


def test_refuses_states_that_were_not_recorded():
    objective = bound(TinyBERTHidden())
    outputs = Outputs(hidden_states={0: states(0)[0]}, mask=MASK)
    with pytest.raises(
        ValueError, match=r"hidden states of the student of index 1 but got only \[0\]; call prepare"
    ):
        objective(outputs, outputs, {})


def test_refuses_unknown_options():
    with pytest.raises(ValueError, match="projection to be one of shared, separate, none but got 'linear'"):
        TinyBERTHidden(projection="linear")
    with pytest.raises(ValueError, match="reduction to be one of example, token, padded but got 'sum'"):
        TinyBERTHidden(reduction="sum")
    with pytest.raises(ValueError, match="reduction to be one of example, token but got 'padded'"):
        CosineEmbedding(reduction="padded")
    with pytest.raises(ValueError, match="tokens to be one of cls, all but got 'first'"):
        PKD(tokens="first")
    with pytest.raises(ValueError, match="distance to be one of mean, sum but got 'l1'"):
        PKD(distance="l1")
    with pytest.raises(
        ValueError, match="preset of TinyBERTEmbedding to be one of paper but got 'reference'"
    ):
        TinyBERTEmbedding(preset="reference")
    with pytest.raises(
        ValueError, match="normalize=False with preset='reference' of PKD but got normalize=True"
    ):
        PKD(preset="reference", normalize=True)
