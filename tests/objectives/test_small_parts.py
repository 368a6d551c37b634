"""Reductions, presets, schedules, precision, and the examples in the docstrings."""

import doctest
import importlib
import pkgutil

import pytest
import torch

from lit_compress import objectives
from lit_compress.objectives import Cosine, Linear, Progress, Switch
from lit_compress.objectives.precision import in_float32
from lit_compress.objectives.preset import resolve_options
from lit_compress.objectives.reduction import masked_mean
from lit_compress.schedules import resolve

MODULES = sorted(module.name for module in pkgutil.iter_modules(objectives.__path__))
WITH_EXAMPLES = {
    *("cosine_embedding", "hard_labels", "hidden", "layer_map", "layer_match", "logit_mse", "pkd"),
    *("preset", "reduction", "relations", "soft_targets", "tinybert_attention"),
}


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples(name):
    torch.manual_seed(0)
    results = doctest.testmod(importlib.import_module(f"lit_compress.objectives.{name}"))
    assert results.failed == 0
    assert (results.attempted > 0) == (name in WITH_EXAMPLES)


def test_masked_mean_of_rows_and_of_tokens():
    values = torch.tensor([[1.0, 3.0, 9.0], [8.0, 9.0, 9.0]])
    mask = torch.tensor([[True, True, False], [True, False, False]])
    assert masked_mean(values, mask, "example").item() == (2 + 8) / 2
    assert masked_mean(values, mask, "token").item() == (1 + 3 + 8) / 3
    assert masked_mean(values, None, "example").item() == masked_mean(values, None, "token").item() == 6.5


@pytest.mark.parametrize("reduction", ["example", "token"])
def test_masked_mean_keeps_what_is_masked_out(reduction):
    values = torch.tensor([[1.0, float("nan")], [4.0, float("inf")]], requires_grad=True)
    loss = masked_mean(values, torch.tensor([[True, False], [True, False]]), reduction)
    loss.backward()
    assert loss.item() == 2.5
    assert values.grad.tolist() == [[0.5, 0.0], [0.5, 0.0]]


def test_a_row_without_tokens_counts_as_zero():
    mask = torch.tensor([[True, True], [False, False]])
    assert masked_mean(torch.full((2, 2), 6.0), mask, "example").item() == 3.0


def test_refuses_an_unknown_reduction():
    with pytest.raises(ValueError, match="one of example, token but got 'mean'"):
        masked_mean(torch.ones(1, 1), None, "mean")


def test_preset_and_the_same_option_agree():
    presets = {"paper": {"a": 1}}
    assert resolve_options("X", "paper", presets, {"a": 0, "b": 2}, {"a": 1, "b": None}) == {"a": 1, "b": 2}
    assert resolve_options("X", None, presets, {"a": 0, "b": 2}, {"a": False, "b": 5}) == {"a": False, "b": 5}


def test_refuses_a_contradiction_even_by_false():
    with pytest.raises(ValueError, match=r"Expected a=True with preset='p' of X but got a=False; drop one"):
        resolve_options("X", "p", {"p": {"a": True}}, {"a": True}, {"a": False})


def test_schedules_at_their_ends_and_between():
    def at(schedule, step):
        return schedule.value(Progress(step=step, total_steps=100, epoch=step / 25))

    line = Linear(start=1.0, end=3.0, begin=0.2, finish=0.6)
    assert [at(line, step) for step in (0, 20, 40, 60, 100)] == pytest.approx([1.0, 1.0, 2.0, 3.0, 3.0])
    wave = Cosine(start=1.0, end=0.0)
    assert [at(wave, step) for step in (0, 50, 100)] == pytest.approx([1.0, 0.5, 0.0])
    assert at(wave, 25) == pytest.approx((1 + 2**-0.5) / 2)
    switch = Switch(epoch=2, before=1.0, after=0.0)
    assert [at(switch, step) for step in (0, 49, 50, 99)] == [1.0, 1.0, 0.0, 0.0]


def test_a_schedule_without_progress_is_at_its_start():
    assert resolve(Linear(start=2.0, end=5.0), None) == 2.0
    assert resolve(3, None) == 3.0


def test_refuses_schedules_that_go_nowhere():
    with pytest.raises(ValueError, match=r"begin < finish .* got begin=0.5, finish=0.5"):
        Linear(start=0.0, end=1.0, begin=0.5, finish=0.5)
    with pytest.raises(ValueError, match="epoch >= 1 but got 0"):
        Switch(epoch=0, before=1.0, after=0.0)


def test_in_float32_raises_half_precision_and_keeps_double():
    seen = []

    @in_float32
    def record(tensor, other, flag):
        seen.append((tensor.dtype, other.dtype, flag.dtype))
        return tensor @ tensor

    half, single = torch.ones(2, 2, dtype=torch.bfloat16), torch.ones(2, 2)
    with torch.autocast("cpu", torch.bfloat16):
        assert record(half, single, flag=torch.ones(2, dtype=torch.bool)).dtype == torch.float32
    assert record(half.double(), half.half(), flag=torch.ones(2)).dtype == torch.float64
    assert seen[0] == (torch.float32, torch.float32, torch.bool)
    assert seen[1] == (torch.float64, torch.float32, torch.float32)


def test_in_float32_makes_inference_tensors_usable():
    with torch.inference_mode():
        teacher = torch.ones(3)
    student = torch.zeros(3, requires_grad=True)
    in_float32(torch.nn.functional.mse_loss)(student, teacher).backward()
    assert student.grad.tolist() == pytest.approx([-2 / 3] * 3)
