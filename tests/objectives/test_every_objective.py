"""What holds for all objectives: padding, precision, sums over parts of a batch, gradients, YAML."""

import copy
import inspect
from functools import cache

import pytest
import torch

from lit_compress import objectives
from lit_compress.capture import model_inputs, prepare_capture, run_model
from lit_compress.models.architecture import describe
from lit_compress.objectives import (
    PKD,
    CosineEmbedding,
    HardLabels,
    LayerMatch,
    LogitMSE,
    MiniLM,
    MiniLMRelations,
    SoftTargets,
    TinyBERTAttention,
    TinyBERTEmbedding,
    TinyBERTHidden,
)
from lit_compress.outputs import Outputs
from tests.tiny import TEXT_FAMILIES, tiny_batch, tiny_images, tiny_model

BUILDERS = {
    "hard": HardLabels,
    "soft": SoftTargets,
    "soft_tinybert": lambda: SoftTargets(preset="tinybert"),
    "logits": LogitMSE,
    "cosine": CosineEmbedding,
    "pkd": PKD,
    "pkd_all": lambda: PKD(tokens="all", preset="paper"),
    "embedding": TinyBERTEmbedding,
    "hidden": TinyBERTHidden,
    "hidden_separate": lambda: TinyBERTHidden(projection="separate", embeddings=True),
    "attention": TinyBERTAttention,
    "relations": MiniLMRelations,
    "minilm": MiniLM,
    "layer_match": LayerMatch,
}
TOKEN_LEVEL = {
    "cosine_token": lambda: CosineEmbedding(reduction="token"),
    "pkd_token": lambda: PKD(tokens="all", reduction="token"),
    "embedding_token": lambda: TinyBERTEmbedding(preset="paper"),
    "hidden_token": lambda: TinyBERTHidden(preset="paper"),
    "attention_token": lambda: TinyBERTAttention(preset="paper"),
    "relations_token": lambda: MiniLMRelations(reduction="token"),
    "minilm_token": lambda: MiniLM(reduction="token"),
    "layer_match_token": lambda: LayerMatch(reduction="token"),
}
PADDED = {
    "hidden_padded": lambda: TinyBERTHidden(preset="reference"),
    "attention_padded": lambda: TinyBERTAttention(preset="reference"),
}
EVERY = BUILDERS | TOKEN_LEVEL | PADDED
LOGITS_ONLY = {"hard", "soft", "soft_tinybert", "logits"}


@cache
def built(family):
    return tiny_model(family, layers=2, seed=1), tiny_model(family, layers=4, seed=2)


def models(family):
    """A student and a teacher that the caller may change."""
    return copy.deepcopy(built(family))


def outputs_of(objective, batch, family="bert", dtype=torch.float32):
    """Student and teacher outputs for one objective, with the captures it asks for."""
    student, teacher = models(family)
    student.to(dtype).eval()
    teacher.to(dtype).eval()
    objective.bind(describe(student), describe(teacher))
    objective.to(dtype)
    prepare_capture(student, objective.student_capture)
    prepare_capture(teacher, objective.teacher_capture)
    with torch.inference_mode():
        taught = run_model(teacher, model_inputs(teacher, batch), objective.teacher_capture)
    return run_model(student, model_inputs(student, batch), objective.student_capture), taught


def loss_of(objective, batch, **options):
    student, teacher = outputs_of(objective, batch, **options)
    return objective(student, teacher, batch)


def rows(outputs: Outputs, part: slice) -> Outputs:
    """The same outputs for some of the rows."""

    def cut(value):
        if isinstance(value, dict):
            return {key: tensor[part] for key, tensor in value.items()}
        return None if value is None else value[part]

    return Outputs(**{name: cut(value) for name, value in vars(outputs).items()})


def floats(outputs: Outputs, dtype: torch.dtype) -> Outputs:
    def cast(value):
        if isinstance(value, dict):
            return {key: tensor.to(dtype) for key, tensor in value.items()}
        return value.to(dtype) if value is not None and value.is_floating_point() else value

    return Outputs(**{name: cast(value) for name, value in vars(outputs).items()})


def poison(outputs: Outputs) -> Outputs:
    """Put garbage wherever a padded token takes part."""
    mask = outputs.mask
    result = Outputs(logits=outputs.logits, mask=mask)
    result.hidden_states = {k: v.masked_fill(~mask[..., None], 1e4) for k, v in outputs.hidden_states.items()}
    pairs = mask[:, None, :, None] & mask[:, None, None, :]
    result.attention_scores = {k: v.masked_fill(~pairs, 1e4) for k, v in outputs.attention_scores.items()}
    for name in ("queries", "keys", "values"):
        vectors = getattr(outputs, name)
        setattr(result, name, {k: v.masked_fill(~mask[:, None, :, None], 1e4) for k, v in vectors.items()})
    return result


@pytest.mark.parametrize("name", BUILDERS | TOKEN_LEVEL)
def test_padding_does_not_change_the_loss(name):
    build = EVERY[name]
    short = loss_of(build(), tiny_batch(), dtype=torch.float64)
    long = loss_of(build(), tiny_batch(extra_padding=9), dtype=torch.float64)
    assert abs(short.item() - long.item()) < 1e-10
    assert short > 1e-3


@pytest.mark.parametrize("name", BUILDERS | TOKEN_LEVEL)
def test_padding_does_not_change_the_loss_in_float32(name):
    short, long = (loss_of(EVERY[name](), tiny_batch(extra_padding=k)).item() for k in (0, 9))
    assert abs(short - long) < 1e-6 * max(1.0, short)


@pytest.mark.parametrize("name", sorted((BUILDERS | TOKEN_LEVEL).keys() - LOGITS_ONLY))
def test_padded_positions_get_no_weight_and_no_gradient(name):
    objective, batch = EVERY[name](), tiny_batch()
    student, teacher = outputs_of(objective, batch)
    expected = objective(student, teacher, batch).item()
    dirty = poison(student)
    leaves = [
        t
        for field in ("hidden_states", "attention_scores", "queries", "keys", "values")
        for t in getattr(dirty, field).values()
    ]
    for leaf in leaves:
        leaf.retain_grad()
    loss = objective(dirty, poison(teacher), batch)
    assert loss.item() == pytest.approx(expected, abs=1e-6)
    loss.backward()
    for leaf in leaves:
        padded = ~batch["attention_mask"].bool()
        grad = leaf.grad if leaf.dim() == 3 else leaf.grad.transpose(1, 2)
        assert (grad[padded] == 0).all()


@pytest.mark.parametrize("name", PADDED)
def test_the_published_code_depends_on_the_padding(name):
    # Not a wish, a fact that the preset states: it is why 'padded' is never a default.
    short, long = (loss_of(PADDED[name](), tiny_batch(extra_padding=k)).item() for k in (0, 9))
    assert abs(short - long) > 1e-3


@pytest.mark.parametrize("name", EVERY)
def test_float32_under_bf16_autocast(name):
    objective, batch = EVERY[name](), tiny_batch()
    student, teacher = outputs_of(objective, batch)
    outside = objective(student, teacher, batch)
    with torch.autocast("cpu", torch.bfloat16):
        inside = objective(student, teacher, batch)
    assert inside.dtype == torch.float32 and inside.item() == outside.item()


@pytest.mark.parametrize("name", EVERY)
def test_bf16_tensors_are_raised_before_the_arithmetic(name):
    objective, batch = EVERY[name](), tiny_batch()
    half = [floats(outputs, torch.bfloat16) for outputs in outputs_of(objective, batch)]
    exact = objective(*[floats(outputs, torch.float64) for outputs in half], batch)
    # bf16-true training casts the projections too.
    with torch.autocast("cpu", torch.bfloat16):
        loss = objective.to(torch.bfloat16)(*half, batch)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(exact.item(), rel=1e-5)


@pytest.mark.parametrize("name", BUILDERS)
def test_the_mean_over_examples_splits_exactly(name):
    objective, batch = BUILDERS[name](), tiny_batch()
    student, teacher = outputs_of(objective, batch, dtype=torch.float64)
    whole = objective(student, teacher, batch)
    halves = [
        objective(rows(student, part), rows(teacher, part), {"labels": batch["labels"][part]})
        for part in (slice(0, 2), slice(2, 4))
    ]
    assert whole.item() == pytest.approx(sum(half.item() for half in halves) / 2, abs=1e-12)


@pytest.mark.parametrize("name", sorted(EVERY.keys() - {"hard", "soft_tinybert"}))
def test_a_copy_of_the_teacher_has_no_loss(name):
    objective, batch = EVERY[name](), tiny_batch()
    model = models("bert")[1].eval()
    objective.bind(describe(model), describe(model))
    capture = objective.teacher_capture | objective.student_capture
    prepare_capture(model, capture)
    # Layers meet themselves: the maps of two equal depths are the identity.
    outputs = run_model(model, model_inputs(model, batch), capture)
    assert abs(objective(outputs, outputs, batch).item()) < 1e-6


@pytest.mark.parametrize("name", EVERY)
def test_the_student_learns_and_the_teacher_does_not(name):
    objective, batch = EVERY[name](), tiny_batch()
    student, teacher = models("bert")
    teacher.eval()
    objective.bind(describe(student), describe(teacher))
    prepare_capture(student, objective.student_capture)
    prepare_capture(teacher, objective.teacher_capture)
    with torch.no_grad():
        taught = run_model(teacher, model_inputs(teacher, batch), objective.teacher_capture)
    optimizer = torch.optim.SGD([*student.parameters(), *objective.parameters()], lr=1e-3)
    losses = []
    for _ in range(3):
        loss = objective(
            run_model(student, model_inputs(student, batch), objective.student_capture), taught, batch
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > losses[1] > losses[2]
    assert all(parameter.grad is None for parameter in teacher.parameters())


@pytest.mark.parametrize("family", [*TEXT_FAMILIES[1:], "vit", "deit"])
@pytest.mark.parametrize("name", ["pkd_all", "hidden", "attention", "relations"])
def test_other_families(name, family):
    batch = tiny_batch() if family in TEXT_FAMILIES else tiny_images()
    loss = loss_of(BUILDERS[name](), batch, family=family)
    assert loss.isfinite() and loss > 1e-3


@pytest.mark.parametrize("name", [name for name in objectives.__all__ if name[0].isupper()])
def test_constructors_are_made_for_yaml(name):
    cls = getattr(objectives, name)
    for parameter in inspect.signature(cls).parameters.values():
        default = parameter.default
        assert default is inspect.Parameter.empty or isinstance(default, int | float | str | type(None))
        assert f"{parameter.name}: " in inspect.getdoc(cls).partition("Args:")[2]
