"""The live teacher: frozen, hidden, exact."""

import copy

import pytest
import torch
from jsonargparse import ArgumentParser
from torch import nn

from lit_compress.models.teacher import LiveTeacher, Teacher, runtime_dtype
from lit_compress.outputs import Capture
from tests.tiny import tiny_batch, tiny_bert, tiny_images, tiny_model

ALL = Capture(
    hidden_states=frozenset({0, 2, 4}),
    attention_scores=frozenset({1}),
    queries=frozenset({3}),
    keys=frozenset({3}),
    values=frozenset({3}),
)
CPU = torch.device("cpu")


class Owner(nn.Module):
    def __init__(self, teacher):
        super().__init__()
        self.student = tiny_bert(layers=1)
        self.teacher = teacher


def test_answers_are_those_of_the_stock_model_in_eval_mode():
    model = tiny_bert(dropout=0.5)
    batch = tiny_batch()
    answer = LiveTeacher(copy.deepcopy(model), ALL).outputs(batch)
    inputs = {k: batch[k] for k in ("input_ids", "attention_mask", "token_type_ids")}
    with torch.no_grad():
        stock = model.eval()(**inputs, output_hidden_states=True)
    assert torch.equal(answer.logits, stock.logits)
    assert {
        i: torch.equal(h, stock.hidden_states[i]) for i, h in answer.hidden_states.items()
    } == dict.fromkeys((0, 2, 4), True)
    assert torch.equal(answer.mask, batch["attention_mask"].bool())


def test_the_owner_never_sees_it():
    """Golden check 6: eval after .train(), no keys in the state dict, no gradients."""
    teacher = LiveTeacher(tiny_bert(dropout=0.5), Capture())
    owner = Owner(teacher)
    before = teacher.outputs(tiny_batch()).logits
    owner.train()
    teacher.model.bert.encoder.train()  # somebody who walks over the modules of the teacher itself
    assert torch.equal(teacher.outputs(tiny_batch()).logits, before)
    assert not any(module.training for module in teacher.model.modules())
    assert all(name.startswith("student.") for name in owner.state_dict())
    assert len(list(owner.parameters())) == len(list(owner.student.parameters()))
    nn.functional.mse_loss(owner.student(tiny_batch()["input_ids"]).logits, before).backward()
    assert all(parameter.grad is None for parameter in teacher.model.parameters())


def test_autograd_accepts_the_answers():
    teacher = LiveTeacher(tiny_bert(), ALL)
    answer = teacher.outputs(tiny_batch())
    for target in [answer.logits, answer.hidden_states[2], answer.attention_scores[1], answer.values[3]]:
        student = torch.randn_like(target, requires_grad=True)
        (student * target).sum().backward()  # saves the target: inference tensors would be refused
        assert torch.equal(student.grad, target)


def test_a_step_may_ask_for_less():
    teacher = LiveTeacher(tiny_bert(), ALL)
    answer = teacher.outputs(tiny_batch(), Capture(hidden_states=frozenset({4})))
    assert list(answer.hidden_states) == [4] and not answer.attention_scores


def test_a_second_tokenizer_has_its_own_inputs():
    teacher = LiveTeacher(tiny_bert(), Capture())
    student, own = tiny_batch(seed=0), tiny_batch(lengths=(9, 4, 6, 2), seed=1)
    batch = {
        **student,
        "teacher_input_ids": own["input_ids"],
        "teacher_attention_mask": own["attention_mask"],
    }
    answer = teacher.outputs(batch)
    assert torch.equal(answer.logits, teacher.outputs(own).logits)
    assert answer.mask.shape == (4, 9)


def test_it_answers_images():
    teacher = LiveTeacher(tiny_model("vit"), Capture(hidden_states=frozenset({4})))
    assert teacher.outputs(tiny_images()).hidden_states[4].shape == (4, 17, 32)


def test_copies_of_the_owner_share_one_teacher():
    owner = Owner(LiveTeacher(tiny_bert(), Capture()))
    assert copy.deepcopy(owner).teacher is owner.teacher


def test_precision(tmp_path):
    tiny_bert().save_pretrained(tmp_path)
    spec = Teacher(str(tmp_path), precision="bf16")
    model = spec.load()
    assert model.dtype == torch.float32  # what students copy
    exact = LiveTeacher(spec.load(), ALL).outputs(tiny_batch())
    live = spec.live(model, ALL)
    answer = live.outputs(tiny_batch())
    assert live.model.dtype == torch.bfloat16 and answer.logits.dtype == torch.float32
    assert torch.equal(answer.logits, answer.logits.bfloat16().float())
    torch.testing.assert_close(answer.hidden_states[4], exact.hidden_states[4], atol=0.15, rtol=0.05)
    assert live.to("cpu").model.dtype == torch.bfloat16


def test_the_autocast_of_the_student_does_not_reach_it():
    teacher = LiveTeacher(tiny_bert(), ALL, "fp32")
    outside = teacher.outputs(tiny_batch())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = teacher.outputs(tiny_batch())
    assert torch.equal(inside.logits, outside.logits)
    assert torch.equal(inside.hidden_states[4], outside.hidden_states[4])


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"avx512_bf16": True}, torch.bfloat16),
        ({"amx_bf16": True, "avx512_bf16": False}, torch.bfloat16),
        ({"bf16": True, "architecture": "aarch64"}, torch.bfloat16),
        ({"avx512_f": True, "avx512_bf16": False}, torch.float32),
        ({}, torch.float32),
    ],
)
def test_auto_is_bf16_where_the_cpu_computes_it(monkeypatch, capabilities, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert runtime_dtype("auto", CPU) == expected
    assert runtime_dtype("fp32", CPU) == torch.float32
    assert runtime_dtype("bf16", CPU) == torch.bfloat16


def test_loading_leaves_the_global_random_state_alone(tmp_path):
    tiny_bert().save_pretrained(tmp_path)
    before = torch.get_rng_state()
    model = Teacher(str(tmp_path)).load()
    assert torch.equal(before, torch.get_rng_state())
    assert not model.training and not any(p.requires_grad for p in model.parameters())


def test_half_precision_files_become_float32(tmp_path):
    tiny_bert().half().save_pretrained(tmp_path)
    assert {p.dtype for p in Teacher(str(tmp_path)).load().parameters()} == {torch.float32}


def test_refuses_a_teacher_that_was_never_fine_tuned(tmp_path):
    tiny_bert().bert.save_pretrained(tmp_path)
    with pytest.raises(
        ValueError, match=r"fine-tuned classifier .* as the teacher but got BertModel.*FineTuning"
    ):
        Teacher(str(tmp_path)).load()


def test_refuses_an_unknown_precision_or_cache_type():
    with pytest.raises(ValueError, match=r"teacher\.precision to be one of auto, fp32, bf16 but got 'fp16'"):
        Teacher("a/b", precision="fp16")
    with pytest.raises(
        ValueError, match=r"teacher\.cache_dtype to be one of float32, float16 but got 'int8'"
    ):
        Teacher("a/b", cache_dtype="int8")


def test_refuses_a_cached_teacher_without_a_folder():
    with pytest.raises(ValueError, match=r"folder in teacher\.cache but got None"):
        Teacher("a/b").cached(tiny_bert(), None, Capture())


def test_it_survives_yaml():
    parser = ArgumentParser()
    parser.add_class_arguments(Teacher, "teacher")
    parsed = parser.parse_object({"teacher": {"model": "a/b", "cache": "c", "precision": "bf16"}})
    assert parser.parse_string(parser.dump(parsed)) == parsed
    assert vars(parser.instantiate_classes(parsed).teacher) == vars(Teacher("a/b", "c", "bf16"))
