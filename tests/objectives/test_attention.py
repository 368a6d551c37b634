"""TinyBERT's attention scores, MiniLM and MiniLMv2 against NumPy."""

import numpy as np
import pytest
import torch

from lit_compress.objectives import (
    MiniLM,
    MiniLMRelations,
    TinyBERTAttention,
    attention_mse,
    distribution_kl,
    relation_kl,
)
from lit_compress.outputs import Capture, Outputs
from tests.objectives.truth import architecture, average, kl, numpy, random_mask

MASK = random_mask()
LENGTHS = MASK.sum(1).tolist()


def random(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def scores(seed: int, heads: int = 2) -> torch.Tensor:
    return random(seed, 3, heads, 6, 6)


def kl_rows(student: np.ndarray, teacher: np.ndarray) -> list[list[float]]:
    """Mean over heads of the KL over real keys, for every real query."""
    heads = student.shape[1]
    return [
        [np.mean([kl(teacher[i, h, q, :n], student[i, h, q, :n]) for h in range(heads)]) for q in range(n)]
        for i, n in enumerate(LENGTHS)
    ]


def relation_scores(vectors: torch.Tensor, relation_heads: int) -> np.ndarray:
    """XXᵀ/√d_r after joining the heads of each token and cutting its vector anew."""
    x = numpy(vectors)
    batch, heads, length, dim = x.shape
    size = heads * dim // relation_heads
    result = np.zeros((batch, relation_heads, length, length))
    for i in range(batch):
        tokens = [np.concatenate([x[i, h, j] for h in range(heads)]) for j in range(length)]
        for r in range(relation_heads):
            parts = [token[r * size : (r + 1) * size] for token in tokens]
            result[i, r] = [[a @ b / np.sqrt(size) for b in parts] for a in parts]
    return result


@pytest.mark.parametrize("reduction", ["example", "token"])
def test_attention_mse_is_the_mean_over_real_pairs(reduction):
    s, t = scores(0), scores(1)
    squares = (numpy(s) - numpy(t)) ** 2
    pairs = [squares[i, :, :n, :n].ravel().tolist() for i, n in enumerate(LENGTHS)]
    assert attention_mse(s, t, MASK, reduction).item() == pytest.approx(average(pairs, reduction), rel=1e-6)


def test_attention_mse_padded_is_the_published_code():
    s, t = scores(0), scores(1)
    # The code adds −10000 on padded keys, sets scores ≤ −100 to 0, and takes the mean over everything.
    bias = np.where(MASK.numpy(), 0.0, -1e4)[:, None, None, :]
    zeroed = [np.where(numpy(x) + bias <= -1e2, 0.0, numpy(x) + bias) for x in (s, t)]
    expected = np.mean((zeroed[0] - zeroed[1]) ** 2)
    assert attention_mse(s, t, MASK, "padded").item() == pytest.approx(expected, rel=1e-6)
    student, teacher = Outputs(attention_scores={0: s}, mask=MASK), Outputs(attention_scores={1: t})
    objective = TinyBERTAttention(layer_map=[[0, 1]], preset="reference")
    assert objective(student, teacher, {}).item() == pytest.approx(expected, rel=1e-6)


def test_tinybert_attention_sums_over_the_mapped_blocks():
    objective = TinyBERTAttention()
    objective.bind(architecture(layers=2), architecture(layers=4))
    assert objective.student_capture == Capture(attention_scores=frozenset({0, 1}))
    assert objective.teacher_capture == Capture(attention_scores=frozenset({1, 3}))
    s, t = {0: scores(0), 1: scores(1)}, {1: scores(2), 3: scores(3)}
    expected = 0.0
    for i, j in ((0, 1), (1, 3)):
        squares = (numpy(s[i]) - numpy(t[j])) ** 2
        expected += np.mean([squares[row, :, :n, :n].mean() for row, n in enumerate(LENGTHS)])
    loss = objective(Outputs(attention_scores=s, mask=MASK), Outputs(attention_scores=t), {})
    assert loss.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("reduction", ["example", "token"])
def test_distribution_kl_leaves_padding_out(reduction):
    s, t = scores(0), scores(1)
    expected = average(kl_rows(numpy(s), numpy(t)), reduction)
    assert distribution_kl(s, t, MASK, reduction).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("relation_heads", [1, 2, 4, 8])
def test_relation_kl_with_other_widths_and_head_counts(relation_heads):
    s, t = random(0, 3, 2, 6, 4), random(1, 3, 4, 6, 6)
    expected = average(
        kl_rows(relation_scores(s, relation_heads), relation_scores(t, relation_heads)), "example"
    )
    loss = relation_kl(s, t, MASK, relation_heads=relation_heads)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_relations_do_not_depend_on_the_basis_inside_a_relation_head():
    s, t = random(0, 3, 2, 6, 8), random(1, 3, 2, 6, 8)
    rotation = torch.linalg.qr(random(2, 8, 8)).Q
    plain = relation_kl(s, t, MASK, relation_heads=2).item()
    assert relation_kl(s @ rotation, t, MASK, relation_heads=2).item() == pytest.approx(plain, rel=1e-5)
    assert relation_kl(s @ rotation, s, MASK, relation_heads=2).item() == pytest.approx(0.0, abs=1e-6)
    assert plain > 0.01


def test_minilm_relations_sums_queries_keys_and_values():
    objective = MiniLMRelations(relation_heads=4)
    objective.bind(architecture(2, 8, 2), architecture(4, 24, 4))
    assert objective.student_capture.to_dict() | {"hidden_states": []} == objective.student_capture.to_dict()
    assert objective.student_capture.queries == {1} and objective.teacher_capture.values == {3}
    names = ("queries", "keys", "values")
    s = {name: random(seed, 3, 2, 6, 4) for seed, name in enumerate(names)}
    t = {name: random(9 + seed, 3, 4, 6, 6) for seed, name in enumerate(names)}
    student = Outputs(**{name: {1: x} for name, x in s.items()}, mask=MASK)
    teacher = Outputs(**{name: {3: x} for name, x in t.items()})
    each = {n: average(kl_rows(relation_scores(s[n], 4), relation_scores(t[n], 4)), "example") for n in names}
    assert objective(student, teacher, {}).item() == pytest.approx(sum(each.values()), rel=1e-5)
    only = MiniLMRelations(relation_heads=4, relations=["values"], teacher_layer=3)
    only.bind(architecture(2, 8, 2), architecture(4, 24, 4))
    assert only.teacher_capture == Capture(values=frozenset({3}))
    assert only(student, teacher, {}).item() == pytest.approx(each["values"], rel=1e-5)


def test_relation_heads_default_to_the_teachers_heads():
    objective = MiniLMRelations()
    objective.bind(architecture(2, 8, 2), architecture(4, 24, 4))
    s, t = random(0, 3, 2, 6, 4), random(1, 3, 4, 6, 6)
    fields = ("queries", "keys", "values")
    student = Outputs(**{name: {1: s} for name in fields}, mask=MASK)
    teacher = Outputs(**{name: {3: t} for name in fields})
    expected = 3 * average(kl_rows(relation_scores(s, 4), relation_scores(t, 4)), "example")
    assert objective(student, teacher, {}).item() == pytest.approx(expected, rel=1e-5)


def test_minilm_adds_attention_and_value_relations():
    objective = MiniLM(teacher_layer=2)
    objective.bind(architecture(2, 8, 2), architecture(4, 12, 2))
    assert objective.teacher_capture == Capture(attention_scores=frozenset({2}), values=frozenset({2}))
    values = random(5, 3, 2, 6, 4), random(6, 3, 2, 6, 6)
    student = Outputs(attention_scores={1: scores(0)}, values={1: values[0]}, mask=MASK)
    teacher = Outputs(attention_scores={2: scores(1)}, values={2: values[1]})
    attention = average(kl_rows(numpy(scores(0)), numpy(scores(1))), "example")
    # The real heads: each value vector stands for itself.
    relations = [numpy(v) @ numpy(v).swapaxes(-1, -2) / np.sqrt(v.shape[-1]) for v in values]
    expected = attention + average(kl_rows(*relations), "example")
    assert objective(student, teacher, {}).item() == pytest.approx(expected, rel=1e-5)


def test_refuses_unequal_head_counts():
    for objective in (TinyBERTAttention(), MiniLM()):
        with pytest.raises(ValueError, match=r"teacher's 4 attention heads .* got 2; .*MiniLMRelations"):
            objective.bind(architecture(heads=2), architecture(heads=4))
    for function in (attention_mse, distribution_kl):
        with pytest.raises(ValueError, match="same number of heads but got 2 in the student and 4"):
            function(scores(0), scores(1, heads=4))


def test_refuses_relation_heads_that_do_not_divide_a_width():
    with pytest.raises(
        ValueError, match=r"widths 8 \(student\) and 24 \(teacher\) but got 3; .* \[1, 2, 4, 8\]"
    ):
        MiniLMRelations(relation_heads=3).bind(architecture(2, 8, 2), architecture(4, 24, 4))
    with pytest.raises(ValueError, match="divide the width 8 but got 3"):
        relation_kl(random(0, 3, 2, 6, 4), random(1, 3, 2, 6, 4), relation_heads=3)


def test_refuses_a_teacher_layer_outside_the_teacher():
    for objective in (MiniLM(teacher_layer=4), MiniLMRelations(teacher_layer=-1)):
        with pytest.raises(ValueError, match=r"teacher_layer in 0\.\.3 .* got (4|-1); leave it out"):
            objective.bind(architecture(2), architecture(4))


@pytest.mark.parametrize("relations", [[], ["queries", "query"], ["keys", "keys"]])
def test_refuses_bad_relations(relations):
    with pytest.raises(ValueError, match="some of queries, keys, values, each once, but got"):
        MiniLMRelations(relations=relations)


@pytest.mark.parametrize("objective", [TinyBERTAttention, MiniLM, MiniLMRelations])
def test_refuses_a_forward_before_bind(objective):
    with pytest.raises(ValueError, match=f"{objective.__name__} to know both models .* call bind"):
        objective()(Outputs(), Outputs(), {})


def test_refuses_scores_of_other_lengths():
    with pytest.raises(ValueError, match=r"same tokens but got \(batch, length\) \(3, 6\).*\(3, 5\)"):
        attention_mse(scores(0), scores(1)[:, :, :5, :5])
