"""Layer-wise distillation that finds its layers itself: the matching by hand, and the loss against a reference."""

import pytest
import torch

from lit_compress.models.architecture import Architecture
from lit_compress.objectives import LayerMatch, match_layers
from lit_compress.outputs import Outputs


def architecture(layers, hidden=4):
    return Architecture("bert", layers, hidden, 2, hidden // 2, 100, 2)


def reference_match(distances, alive):
    """The loop of the published code (``trainer.py``, version 4), with lists for tensors."""
    student_layers = len(alive)
    last, alignment = student_layers, []
    for row in distances[::-1]:
        indexes = sorted(range(student_layers), key=lambda index: row[index])
        align = [index for index in indexes if index < last and alive[index]]
        last = align[0] if align else last
        alignment.append(last)
    return alignment[::-1]


@pytest.mark.parametrize(
    ("rows", "alive", "expected"),
    [
        # The nearest ones are in order: no constraint is felt.
        ([[0, 5, 5], [5, 0, 5], [5, 5, 0]], None, [0, 1, 2]),
        # Both want block 1: the later teacher block has the first choice, the earlier one must go below.
        ([[9, 0, 1], [9, 0, 1]], None, [0, 1]),
        # The nearest ones cross: order wins over distance.
        ([[5, 5, 0], [0, 5, 5]], None, [0, 0]),
        ([[5, 5, 0], [5, 0, 5]], None, [0, 1]),
        # A closed block is passed over, however near it is.
        ([[0, 1, 5], [5, 0, 1]], [True, False, True], [0, 2]),
        # One block is left: it learns from all.
        ([[1, 2, 3], [3, 2, 1], [2, 1, 3]], [False, True, False], [1, 1, 1]),
        # Fewer blocks than teacher layers: the lowest one is shared.
        ([[3, 1], [3, 1], [3, 1]], None, [0, 0, 1]),
    ],
)
def test_matching_by_hand(rows, alive, expected):
    assert match_layers(torch.tensor(rows, dtype=torch.float64), alive) == expected


def test_matching_equals_the_published_loop():
    draw = torch.Generator().manual_seed(0)
    orders = 0
    for _ in range(200):
        distances = torch.rand(4, 6, generator=draw)
        alive = (torch.rand(6, generator=draw) < 0.6).tolist()
        if any(alive):
            chosen = match_layers(distances, alive)
            assert chosen == reference_match(distances.tolist(), alive)
            assert all(alive[block] for block in chosen) and chosen == sorted(chosen)
            orders += chosen != distances.masked_fill(~torch.tensor(alive), 9).argmin(1).tolist()
    assert orders > 50  # the constraint was felt


def states(layers, seed, hidden=4):
    draw = torch.Generator().manual_seed(seed)
    made = {i: torch.randn(2, 5, hidden, generator=draw, dtype=torch.float64) for i in range(layers + 1)}
    return Outputs(hidden_states=made, mask=torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]]).bool())


def mean_squares(first, second):
    rows = [(first[0] - second[0]).square().mean(), (first[1, :2] - second[1, :2]).square().mean()]
    return sum(rows) / 2


def test_a_student_made_of_the_teachers_layers_finds_them():
    teacher = states(6, seed=1)
    # Student blocks 0 and 3 are noise, 1 and 2 are what the teacher's blocks 1 and 5 give.
    student = states(4, seed=2)
    student.hidden_states[2], student.hidden_states[3] = teacher.hidden_states[2], teacher.hidden_states[6]
    objective = LayerMatch(teacher_layers=[1, 5])
    objective.bind(architecture(4), architecture(6))
    assert objective.double()(student, teacher, {}).item() == 0.0
    objective.set_alive([True, True, False, True])
    # The last one has to choose again, and with it what is below is still free.
    last = min(mean_squares(student.hidden_states[i], teacher.hidden_states[6]) for i in (1, 2, 4))
    found = objective(student, teacher, {}).item()
    assert found >= last.item() / 2 - 1e-12 and found > 0.1


def test_the_loss_by_hand_with_a_closed_layer():
    student, teacher = states(3, seed=3), states(4, seed=4)
    objective = LayerMatch()
    objective.bind(architecture(3), architecture(4))
    objective.double()
    assert objective.blocks == [1, 3]
    with torch.no_grad():
        objective.projection.weight.copy_(
            torch.randn(4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
        )
        objective.projection.bias.fill_(0.5)
    objective.set_alive([True, False, True])
    weight = objective.projection.weight.detach()
    projected = {i: student.hidden_states[i] @ weight.T + 0.5 for i in (1, 2, 3)}
    table = [[mean_squares(projected[s], teacher.hidden_states[t]).item() for s in (1, 2, 3)] for t in (2, 4)]
    chosen = reference_match(table, [True, False, True])
    expected = sum(table[row][block] for row, block in enumerate(chosen)) / 2
    assert objective(student, teacher, {}).item() == pytest.approx(expected, abs=1e-12)


def test_the_gradient_reaches_the_matched_layers_and_the_map_only():
    student, teacher = states(3, seed=3), states(4, seed=4)
    for tensor in student.hidden_states.values():
        tensor.requires_grad_()
    objective = LayerMatch(teacher_layers=[3])
    objective.bind(architecture(3), architecture(4))
    objective.double()
    objective.set_alive([False, True, False])
    objective(student, teacher, {}).backward()
    assert [student.hidden_states[i].grad is not None for i in range(4)] == [False, False, True, False]
    assert objective.projection.weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("layers", "expected"),
    [(12, [2, 5, 8, 11]), (6, [1, 3, 5]), (24, [5, 11, 17, 23]), (4, [1, 3]), (3, [0, 2]), (1, [0])],
)
def test_teacher_layers_are_spread(layers, expected):
    objective = LayerMatch()
    objective.bind(architecture(2), architecture(layers))
    assert objective.blocks == expected
    assert objective.teacher_capture.hidden_states == {block + 1 for block in expected}
    assert objective.student_capture.hidden_states == {1, 2}


def test_the_map_starts_as_the_identity_and_stays_when_bound_again():
    objective = LayerMatch()
    objective.bind(architecture(2), architecture(4))
    assert torch.equal(objective.projection.weight, torch.eye(4))
    kept = objective.projection
    objective.bind(architecture(2), architecture(4))
    assert objective.projection is kept
    objective.bind(architecture(2), architecture(4, hidden=8))
    assert objective.projection.weight.shape == (8, 4)


def test_refuses_a_student_without_layers():
    with pytest.raises(ValueError, match="at least one layer of the student"):
        match_layers(torch.zeros(2, 3), [False] * 3)


def test_refuses_alive_of_another_depth():
    with pytest.raises(ValueError, match="3 student blocks but got 2"):
        match_layers(torch.zeros(2, 3), [True] * 2)


@pytest.mark.parametrize("layers", [[], [3, 1], [1, 1]])
def test_refuses_layers_that_are_no_order(layers):
    with pytest.raises(ValueError, match="ascending 0-based blocks"):
        LayerMatch(teacher_layers=layers)


def test_refuses_a_layer_that_the_teacher_has_not():
    with pytest.raises(ValueError, match=r"teacher_layers in 0\.\.3 .* got \[4\]"):
        LayerMatch(teacher_layers=[1, 4]).bind(architecture(2), architecture(4))


def test_refuses_padded_reduction():
    with pytest.raises(ValueError, match="reduction to be one of example, token"):
        LayerMatch(reduction="padded")


def test_refuses_a_forward_before_bind():
    with pytest.raises(ValueError, match="bind"):
        LayerMatch()(states(2, 0), states(4, 1), {})
